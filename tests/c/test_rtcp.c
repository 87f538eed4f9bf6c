/* SPDX-License-Identifier: MIT */
/* rtcp.h: what is written is read again; every kind from bytes; lengths that lie; limits. */
#include "base.h"
#include "rtcp.h"

#include "check.h"

static const struct vc_rtcp_sr sr_full = { 0x0123456789abcdefull, 0x11223344, 0x55667788,
                                           0x99aabbcc };

static struct vc_rtcp_block block_of(uint32_t i)
{
    return (struct vc_rtcp_block){
        .ssrc = 0x1000 + i,
        .fraction_lost = (uint8_t)(i * 37),
        .cumulative_lost = i % 3 == 0 ? -(int32_t)i - 1 : (int32_t)i * 1000,
        .highest_seq = 0xffff0000u + i,
        .jitter = i * 3,
        .lsr = 0xdeadbeef,
        .dlsr = i,
    };
}

static int same_block(const struct vc_rtcp_block *a, const struct vc_rtcp_block *b)
{
    return a->ssrc == b->ssrc && a->fraction_lost == b->fraction_lost && a->jitter == b->jitter &&
           a->cumulative_lost == b->cumulative_lost && a->highest_seq == b->highest_seq &&
           a->lsr == b->lsr && a->dlsr == b->dlsr;
}

/* Every prefix of a good packet that does not end between its packets is refused. */
static void check_cuts(const uint8_t *pkt, uint32_t sz)
{
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
    uint32_t end = 0;

    for (uint32_t cut = 0; cut < sz; cut++) {
        uint8_t *p = exact(pkt, cut);
        int got = vc_rtcp_parse(p, cut, items, VC_RTCP_ITEMS_MAX);

        CHECK(cut == end && cut ? got >= 0 : got == -1);
        if (cut == end)
            end += 4u * ((uint32_t)pkt[cut + 2] << 8 | pkt[cut + 3]) + 4;
        free(p);
    }
}

static void test_reports(void)
{
    for (uint32_t n = 0; n <= VC_RTCP_BLOCKS_MAX; n++)
        for (int sender = 0; sender < 2; sender++) {
            struct vc_rtcp_block blocks[VC_RTCP_BLOCKS_MAX];
            struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
            uint8_t buf[VC_RTCP_MAX];
            struct vc_rtcp_writer w = { buf, 0, sizeof buf };

            for (uint32_t i = 0; i < n; i++)
                blocks[i] = block_of(i);
            CHECK_EQ(sender ? vc_rtcp_write_sr(&w, 77, &sr_full, blocks, n) :
                              vc_rtcp_write_rr(&w, 77, blocks, n),
                     0);
            CHECK_EQ(w.sz, 8 + 24 * n + (sender ? 20 : 0));
            CHECK_EQ(vc_rtcp_parse(buf, w.sz, items, VC_RTCP_ITEMS_MAX), n + (uint32_t)sender);
            if (sender) {
                CHECK(items[0].kind == VC_RTCP_SR && items[0].ssrc == 77);
                CHECK(items[0].u.sr.ntp == sr_full.ntp &&
                      items[0].u.sr.packets == sr_full.packets &&
                      items[0].u.sr.rtp_timestamp == sr_full.rtp_timestamp &&
                      items[0].u.sr.octets == sr_full.octets);
            }
            for (uint32_t i = 0; i < n; i++) {
                const struct vc_rtcp_item *item = &items[i + (uint32_t)sender];

                CHECK(item->kind == VC_RTCP_REPORT && item->ssrc == 77 &&
                      item->media_ssrc == 0x1000 + i);
                CHECK(same_block(&item->u.block, &blocks[i]));
            }
            if (n < 4)
                check_cuts(buf, w.sz);
            buf[0]++; /* one block more than there is */
            if (n < VC_RTCP_BLOCKS_MAX)
                CHECK_EQ(vc_rtcp_parse(buf, w.sz, items, VC_RTCP_ITEMS_MAX), -1);
        }
}

static void test_lost_is_24_bits(void)
{
    static const int32_t values[] = { 0, 1, -1, 0x7fffff, -0x800000 };

    for (uint32_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct vc_rtcp_block b = { .cumulative_lost = values[i], .fraction_lost = 255 };
        struct vc_rtcp_item item;
        uint8_t buf[64];
        struct vc_rtcp_writer w = { buf, 0, sizeof buf };

        CHECK_EQ(vc_rtcp_write_rr(&w, 1, &b, 1), 0);
        CHECK_EQ(vc_rtcp_parse(buf, w.sz, &item, 1), 1);
        CHECK_EQ(item.u.block.cumulative_lost, values[i]);
        CHECK_EQ(item.u.block.fraction_lost, 255);
    }
}

static void test_compound(void)
{
    struct vc_rtcp_block b = block_of(5);
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
    uint8_t buf[VC_RTCP_MAX];
    struct vc_rtcp_writer w = { buf, 0, sizeof buf };

    CHECK_EQ(vc_rtcp_write_sr(&w, 1, &sr_full, &b, 1), 0);
    CHECK_EQ(vc_rtcp_write_sdes(&w, 1, (const uint8_t *)"name@host", 9), 0);
    CHECK_EQ(vc_rtcp_write_pli(&w, 1, 2), 0);
    CHECK_EQ(vc_rtcp_write_bye(&w, 3), 0);
    CHECK_EQ(w.sz, 52 + 20 + 12 + 8);
    CHECK_EQ(vc_rtcp_parse(buf, w.sz, items, VC_RTCP_ITEMS_MAX), 4);
    CHECK(items[2].kind == VC_RTCP_PLI && items[2].ssrc == 1 && items[2].media_ssrc == 2);
    CHECK(items[3].kind == VC_RTCP_BYE && items[3].ssrc == 3);
    check_cuts(buf, w.sz);
    /* a caller with less room gets the first ones */
    CHECK_EQ(vc_rtcp_parse(buf, w.sz, items, 2), 2);
    CHECK(items[0].kind == VC_RTCP_SR && items[1].kind == VC_RTCP_REPORT);
}

static void test_sdes(void)
{
    uint8_t name[256];

    memset(name, 'n', sizeof name);
    for (uint32_t n = 0; n <= 255; n++) {
        uint8_t buf[300];
        struct vc_rtcp_writer w = { buf, 0, sizeof buf };
        struct vc_rtcp_item item;

        memset(buf, 0xee, sizeof buf);
        CHECK_EQ(vc_rtcp_write_sdes(&w, 0x01020304, name, n), 0);
        CHECK(w.sz % 4 == 0 && w.sz >= 11 + n && w.sz <= 14 + n);
        CHECK(!memcmp(buf, "\x81\xca", 2) && !memcmp(buf + 4, "\x01\x02\x03\x04\x01", 5) &&
              buf[9] == n);
        CHECK(!memcmp(buf + 10, name, n));
        for (uint32_t i = 10 + n; i < w.sz; i++)
            CHECK_EQ(buf[i], 0);
        CHECK_EQ(vc_rtcp_parse(buf, w.sz, &item, 1), 0);
    }
    CHECK_EQ(vc_rtcp_write_sdes(&(struct vc_rtcp_writer){ name, 0, 256 }, 1, name, 256), -1);
}

static void test_no_room(void)
{
    struct vc_rtcp_block b = block_of(1);

    for (uint32_t room = 0; room < 60; room++) {
        uint8_t *buf = malloc(room);
        struct vc_rtcp_writer w = { buf, 0, room };

        CHECK_EQ(vc_rtcp_write_sr(&w, 1, &sr_full, &b, 1), room < 52 ? -1 : 0);
        CHECK_EQ(w.sz, room < 52 ? 0 : 52);
        w.sz = 0;
        CHECK_EQ(vc_rtcp_write_rr(&w, 1, &b, 1), room < 32 ? -1 : 0);
        w.sz = 0;
        CHECK_EQ(vc_rtcp_write_sdes(&w, 1, (const uint8_t *)"abc", 3), room < 16 ? -1 : 0);
        w.sz = 0;
        CHECK_EQ(vc_rtcp_write_pli(&w, 1, 2), room < 12 ? -1 : 0);
        w.sz = 0;
        CHECK_EQ(vc_rtcp_write_bye(&w, 1), room < 8 ? -1 : 0);
        free(buf);
    }
    CHECK_EQ(
        vc_rtcp_write_rr(&(struct vc_rtcp_writer){ NULL, 0, 0 }, 1, &b, VC_RTCP_BLOCKS_MAX + 1),
        -1);
    CHECK_EQ(vc_rtcp_write_sr(&(struct vc_rtcp_writer){ NULL, 0, 0 }, 1, &sr_full, &b,
                              VC_RTCP_BLOCKS_MAX + 1),
             -1);
}

struct packet_case {
    const char *what;
    uint32_t sz;
    const char *bytes;
    int result; /* items, or -1 */
};

static void test_bytes(void)
{
    static const struct packet_case cases[] = {
        { "PLI", 12, "\x81\xce\0\2\0\0\0\1\0\0\0\2", 1 },
        { "PLI cut, length right", 8, "\x81\xce\0\1\0\0\0\1", -1 },
        { "FIR, two entries", 28,
          "\x84\xce\0\6\0\0\0\1\0\0\0\0\0\0\0\5\x09\0\0\0\0\0\0\6\x0a\0\0\0", 2 },
        { "FIR without entries", 12, "\x84\xce\0\2\0\0\0\1\0\0\0\0", -1 },
        { "FIR, half an entry", 16, "\x84\xce\0\3\0\0\0\1\0\0\0\0\0\0\0\5", -1 },
        { "NACK, two", 20, "\x81\xcd\0\4\0\0\0\1\0\0\0\2\x12\x34\x80\x01\x56\x78\0\0", 2 },
        { "NACK without FCI", 12, "\x81\xcd\0\2\0\0\0\1\0\0\0\2", -1 },
        { "transport feedback of another kind", 12, "\x8f\xcd\0\2\0\0\0\1\0\0\0\2", 1 },
        { "the same, cut", 8, "\x8f\xcd\0\1\0\0\0\1", -1 },
        { "payload feedback of another kind", 12, "\x83\xce\0\2\0\0\0\1\0\0\0\2", 1 },
        { "the same, cut", 8, "\x83\xce\0\1\0\0\0\1", -1 },
        { "REMB", 24, "\x8f\xce\0\5\0\0\0\1\0\0\0\0REMB\1\x0b\xff\xff\0\0\0\2", 1 },
        { "REMB counts more SSRCs than it has", 24,
          "\x8f\xce\0\5\0\0\0\1\0\0\0\0REMB\2\x0b\xff\xff\0\0\0\2", -1 },
        { "REMB cut", 16, "\x8f\xce\0\3\0\0\0\1\0\0\0\0REMB", -1 },
        { "other application feedback", 16, "\x8f\xce\0\3\0\0\0\1\0\0\0\0ABCD", 1 },
        { "BYE, two", 12, "\x82\xcb\0\2\0\0\0\1\0\0\0\2", 2 },
        { "BYE of nobody", 4, "\x80\xcb\0\0", 0 },
        { "BYE with a reason", 12,
          "\x81\xcb\0\2\0\0\0\1\x03"
          "bye",
          1 },
        { "BYE counts more than it has", 8, "\x82\xcb\0\1\0\0\0\1", -1 },
        { "RR of nothing", 8, "\x80\xc9\0\1\0\0\0\1", 0 },
        { "RR without an SSRC", 4, "\x80\xc9\0\0", -1 },
        { "application packet", 12, "\x80\xcc\0\2\0\0\0\1NAME", 0 },
        { "unknown type", 8, "\x9f\xdf\0\1zzzz", 0 },
        { "version 1", 8, "\x40\xc9\0\1\0\0\0\1", -1 },
        { "good, then version 3", 16, "\x80\xc9\0\1\0\0\0\1\xc0\xc9\0\1\0\0\0\1", -1 },
        { "good, then 2 bytes", 10, "\x80\xc9\0\1\0\0\0\1\x80\xc9", -1 },
        { "length past the end", 8, "\x80\xc9\0\2\0\0\0\1", -1 },
        { "longest length", 8, "\x80\xc9\xff\xff\0\0\0\1", -1 },
        { "padded RR", 12, "\xa0\xc9\0\2\0\0\0\1\0\0\0\4", 0 },
        { "padding eats the SSRC", 12, "\xa0\xc9\0\2\0\0\0\1\0\0\0\x08", -1 },
        { "padding of 0", 12, "\xa0\xc9\0\2\0\0\0\1\0\0\0\0", -1 },
        { "padding of 3", 12, "\xa0\xc9\0\2\0\0\0\1\0\0\0\3", -1 },
        { "padding longer than the packet", 12, "\xa0\xc9\0\2\0\0\0\1\0\0\0\x0c", -1 },
        { "padding bit, no body", 4, "\xa0\xcb\0\0", -1 },
        { "nothing", 0, "", -1 },
    };

    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
        uint8_t *p = exact(cases[i].bytes, cases[i].sz);
        int got = vc_rtcp_parse(p, cases[i].sz, items, VC_RTCP_ITEMS_MAX);

        if (got != cases[i].result)
            fprintf(stderr, "%s:\n", cases[i].what);
        CHECK_EQ(got, cases[i].result);
        free(p);
    }
}

static void test_values(void)
{
    struct vc_rtcp_item i[2];

    CHECK_EQ(
        vc_rtcp_parse(
            (const uint8_t *)"\x84\xce\0\6\0\0\0\1\0\0\0\0\0\0\0\5\x09\0\0\0\0\0\0\6\x0a\0\0\0", 28,
            i, 2),
        2);
    CHECK(i[0].kind == VC_RTCP_FIR && i[0].ssrc == 1 && i[0].media_ssrc == 5 &&
          i[0].u.fir_seq == 9);
    CHECK(i[1].kind == VC_RTCP_FIR && i[1].media_ssrc == 6 && i[1].u.fir_seq == 10);
    CHECK_EQ(
        vc_rtcp_parse((const uint8_t *)"\x81\xcd\0\4\0\0\0\1\0\0\0\2\x12\x34\x80\x01\x56\x78\0\0",
                      20, i, 2),
        2);
    CHECK(i[0].kind == VC_RTCP_NACK && i[0].media_ssrc == 2 && i[0].u.nack.pid == 0x1234 &&
          i[0].u.nack.blp == 0x8001);
    CHECK(i[1].u.nack.pid == 0x5678 && i[1].u.nack.blp == 0);
    CHECK_EQ(
        vc_rtcp_parse((const uint8_t *)"\x8f\xce\0\5\0\0\0\1\0\0\0\0REMB\1\x0b\xff\xff\0\0\0\2", 24,
                      i, 2),
        1);
    CHECK(i[0].kind == VC_RTCP_REMB && i[0].u.remb.bitrate_bps == 0x3ffffull << 2);
    CHECK(i[0].u.remb.ssrc_cnt == 1 && vc_load_be32(i[0].u.remb.ssrcs) == 2);
    /* an exponent that leaves 64 bits: as much as can be said */
    CHECK_EQ(
        vc_rtcp_parse((const uint8_t *)"\x8f\xce\0\4\0\0\0\1\0\0\0\0REMB\0\xff\xff\xff", 20, i, 2),
        1);
    CHECK(i[0].u.remb.bitrate_bps == UINT64_MAX);
    CHECK_EQ(vc_rtcp_parse((const uint8_t *)"\x8f\xce\0\4\0\0\0\1\0\0\0\0REMB\0\xfc\0\0", 20, i, 2),
             1);
    CHECK(i[0].u.remb.bitrate_bps == 0);
}

/* More items than the limit: the first ones count, a lie behind them still does. */
static void test_limit(void)
{
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX + 8];
    uint8_t buf[VC_RTCP_MAX];
    struct vc_rtcp_writer w = { buf, 0, sizeof buf };

    while (w.sz + 12 <= 90 * 12)
        CHECK_EQ(vc_rtcp_write_pli(&w, 1, w.sz), 0);
    memset(items, 0xee, sizeof items);
    CHECK_EQ(vc_rtcp_parse(buf, w.sz, items, VC_RTCP_ITEMS_MAX + 8), VC_RTCP_ITEMS_MAX);
    CHECK_EQ(items[VC_RTCP_ITEMS_MAX - 1].media_ssrc, 12 * (VC_RTCP_ITEMS_MAX - 1));
    CHECK_EQ((uint8_t)items[VC_RTCP_ITEMS_MAX].ssrc, 0xee);
    CHECK_EQ(vc_rtcp_parse(buf, w.sz - 1, items, VC_RTCP_ITEMS_MAX), -1);
    CHECK_EQ(vc_rtcp_parse(buf, w.sz, items, 0), 0);
}

static void test_ntp(void)
{
    CHECK_EQ(vc_ntp_middle(0x1122334455667788ull), 0x33445566);
    CHECK_EQ(vc_ns_to_ntp_short(0), 0);
    CHECK_EQ(vc_ns_to_ntp_short(1000000000), 65536);
    CHECK_EQ(vc_ns_to_ntp_short(500000000), 32768);
    CHECK_EQ(vc_ns_to_ntp_short(3600000000000ull), 3600 * 65536);
}

int main(void)
{
    test_reports();
    test_lost_is_24_bits();
    test_compound();
    test_sdes();
    test_no_room();
    test_bytes();
    test_values();
    test_limit();
    test_ntp();
    return check_report();
}
