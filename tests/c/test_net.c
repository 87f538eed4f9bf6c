/* SPDX-License-Identifier: MIT */
/* net.h: reading frames (cut at every length, each field wrong), completing headers (against a
   checksum written another way).  The kernel's opinion: test_net_kernel.c. */
#include "net.h"

#include "check.h"
#include "frames.h"

static void test_sum(void)
{
    static uint8_t data[1600];
    uint64_t seed = 3;

    for (uint32_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)check_random(&seed);
    for (uint32_t sz = 0; sz < 1550; sz++) {
        uint32_t off = sz % 9;
        uint8_t *p = exact(data + off, sz);

        if (vc_net_sum(p, sz, sz * 31) != plain_sum(p, sz, sz * 31))
            CHECK_EQ(sz, -1);
        free(p);
    }
    CHECK_EQ(vc_net_sum(data, 1000, 0), plain_sum(data, 1000, 0));
    CHECK_EQ(vc_net_sum(data + 500, 500, vc_net_sum(data, 500, 0)), plain_sum(data, 1000, 0));
    memset(data, 0xff, sizeof data); /* every addition carries */
    CHECK_EQ(vc_net_sum(data, 1600, 0), 0xffff);
    CHECK_EQ(vc_net_sum(data, 1599, 0xffff), plain_sum(data, 1599, 0xffff));
    memset(data, 0, sizeof data);
    CHECK_EQ(vc_net_sum(data, 1600, 0), 0);
}

static void test_round_trip(void)
{
    static uint8_t frame[2048];

    for (uint32_t v6 = 0; v6 < 2; v6++)
        for (uint32_t tags = 0; tags <= 2; tags++)
            for (uint32_t sz = 0; sz <= 1500; sz += sz < 70 ? 1 : 43) {
                struct vc_tuple tuple;
                uint32_t off = 0, got = 0, header_sz = make_header(frame, v6, tags);
                uint32_t l3_off = 14 + 4 * tags;

                for (uint32_t i = 0; i < sz; i++)
                    frame[header_sz + i] = (uint8_t)(i * 7 + sz);
                vc_net_finish(frame, header_sz, l3_off, sz, 46);
                CHECK_EQ(check_frame(frame + l3_off, sz, 46), 0);
                CHECK_EQ(vc_net_parse(frame, header_sz + sz, &off, &got, &tuple), 0);
                CHECK_EQ(off, header_sz);
                CHECK_EQ(got, sz);
                CHECK(!memcmp(&tuple, v6 ? &tuple6 : &tuple4, sizeof tuple));
                /* short frames are padded to 60 bytes on the wire */
                CHECK_EQ(vc_net_parse(frame, header_sz + sz + 18, &off, &got, &tuple), 0);
                CHECK_EQ(got, sz);
            }
}

static void test_truncated(void)
{
    static uint8_t frame[256];

    for (uint32_t v6 = 0; v6 < 2; v6++)
        for (uint32_t tags = 0; tags <= 2; tags++) {
            uint32_t header_sz = make_header(frame, v6, tags), off, sz, whole = header_sz + 33;

            vc_net_finish(frame, header_sz, 14 + 4 * tags, 33, 0);
            for (uint32_t cut = 0; cut < whole; cut++) {
                uint8_t *p = exact(frame, cut);
                struct vc_tuple tuple;

                CHECK_EQ(vc_net_parse(p, cut, &off, &sz, &tuple), -1);
                free(p);
            }
        }
}

/* One byte of a good frame changed; the result that is due. */
struct change {
    const char *what;
    uint32_t v6, off;
    uint8_t value;
    int result;
};

static void test_changes(void)
{
    static const struct change changes[] = {
        { "another ethertype", 0, 13, 0x06, -1 },
        { "v4 ethertype, v6 packet", 1, 12, 0x08, -1 },
        { "IPv4 options", 0, 14, 0x46, -1 },
        { "IPv4 header too small", 0, 14, 0x44, -1 },
        { "version 5", 0, 14, 0x55, -1 },
        { "IPv4 more fragments", 0, 20, 0x20, -1 },
        { "IPv4 fragment offset", 0, 21, 0x01, -1 },
        { "IPv4 don't fragment", 0, 20, 0x40, 0 },
        { "TCP", 0, 23, 6, -1 },
        { "IPv4 total above the frame", 0, 17, 62, -1 },
        { "IPv4 total below its header", 0, 17, 19, -1 },
        { "IPv4 total without UDP", 0, 17, 27, -1 },
        { "IPv4 total below the UDP length", 0, 17, 60, -1 },
        { "UDP length below 8", 0, 39, 7, -1 },
        { "UDP length 0", 0, 39, 0, -1 },
        { "UDP length above the packet", 0, 39, 42, -1 },
        { "UDP length below the packet", 0, 39, 40, 0 },
        { "UDP empty", 0, 39, 8, 0 },
        { "checksum is not looked at", 0, 40, 0x55, 0 },
        { "version 4 in v6", 1, 14, 0x45, -1 },
        { "hop-by-hop options", 1, 20, 0, -1 },
        { "fragment header", 1, 20, 44, -1 },
        { "destination options", 1, 20, 60, -1 },
        { "TCP over v6", 1, 20, 6, -1 },
        { "v6 payload above the frame", 1, 19, 42, -1 },
        { "v6 payload without UDP", 1, 19, 7, -1 },
        { "v6 jumbo", 1, 19, 0, -1 },
        { "v6 UDP length 0", 1, 59, 0, -1 },
        { "v6 flow label", 1, 17, 0x77, 0 },
    };

    for (uint32_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const struct change *c = &changes[i];
        uint8_t frame[128] = { 0 }, *p;
        uint32_t header_sz = make_header(frame, c->v6, 0), off, sz;
        struct vc_tuple tuple;
        int got;

        vc_net_finish(frame, header_sz, 14, 33, 0);
        frame[c->off] = c->value;
        p = exact(frame, header_sz + 33);
        got = vc_net_parse(p, header_sz + 33, &off, &sz, &tuple);
        if (got != c->result)
            fprintf(stderr, "%s:\n", c->what);
        CHECK_EQ(got, c->result);
        free(p);
    }
}

static void test_three_tags(void)
{
    uint8_t frame[128] = { 0 };
    uint32_t header_sz = make_header(frame, 0, 2), off, sz;
    struct vc_tuple tuple;

    memmove(frame + 16, frame + 12, header_sz - 12);
    CHECK_EQ(vc_net_parse(frame, header_sz + 4, &off, &sz, &tuple), -1);
}

/* The sum of the packet is 0 or 0xffff for just one content of a 16-bit field: try them all. */
static void test_zero_checksum(void)
{
    for (uint32_t v6 = 0; v6 < 2; v6++) {
        uint8_t frame[128];
        uint32_t header_sz = make_header(frame, v6, 0), zeros = 0, ones = 0;

        for (uint32_t word = 0; word < 0x10000; word++) {
            frame[header_sz] = (uint8_t)(word >> 8);
            frame[header_sz + 1] = (uint8_t)word;
            vc_net_finish(frame, header_sz, 14, 2, 0);
            zeros += !frame[header_sz - 2] && !frame[header_sz - 1];
            if (frame[header_sz - 2] == 0xff && frame[header_sz - 1] == 0xff) {
                ones++;
                CHECK_EQ(check_frame(frame + 14, 2, 0), 0);
            }
        }
        CHECK_EQ(zeros, 0);
        CHECK(ones >= 1);
    }
}

static void test_dscp(void)
{
    for (uint32_t v6 = 0; v6 < 2; v6++)
        for (uint32_t dscp = 0; dscp < 64; dscp++) {
            uint8_t frame[128], before[128];
            uint32_t header_sz = make_header(frame, v6, 1);

            memcpy(before, frame, sizeof frame);
            vc_net_finish(frame, header_sz, 18, 0, 63); /* nothing stays of an earlier one */
            vc_net_finish(frame, header_sz, 18, 0, (uint8_t)dscp);
            CHECK_EQ(check_frame(frame + 18, 0, dscp), 0);
            CHECK(!memcmp(frame, before, 18)); /* Ethernet and tag untouched */
            if (v6)
                CHECK(!memcmp(frame + 20, before + 20, 2) && (frame[19] & 15) == (before[19] & 15));
        }
}

int main(void)
{
    test_sum();
    test_round_trip();
    test_truncated();
    test_changes();
    test_three_tags();
    test_zero_checksum();
    test_dscp();
    return check_report();
}
