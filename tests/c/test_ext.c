/* SPDX-License-Identifier: MIT */
/* Header extensions across a node: each receiver gets those that it has an id for, under its ids,
   in the form that they need; send time and transport-wide number are the departure's own, in one
   space of numbers over media and RTX; what one hop alone says stays there.  Audio levels; RED. */
#include "world.h"

#include "check.h"
#include "rtcp.h"

static struct world world;

enum { /* ids of the sender, leg 0 */
    RX_MID = 1, RX_RID, RX_RRID, RX_LEVEL, RX_TIME, RX_NUMBER, RX_DEPENDENCY, RX_DELAY
};

struct wire {
    uint64_t index;
    uint32_t ssrc, payload_sz, padding;
    uint8_t pt, key;
    const uint8_t *payload; /* NULL: zeros */
    const char *elements; /* raw */
    uint32_t elements_sz;
    uint16_t profile;
};

static void send(struct wire wire)
{
    uint8_t clear[1400] = { 0x90, wire.pt }, sealed[1500];
    struct vc_crypto_item item = { .key = &world.parties[0].up, .src = clear, .dst = sealed,
                                   .index = wire.index };
    uint32_t sz = 16;

    vc_store_be16(clear + 2, (uint16_t)wire.index);
    vc_store_be32(clear + 4, (uint32_t)wire.index * 3000);
    vc_store_be32(clear + 8, wire.ssrc);
    vc_store_be16(clear + 12, wire.profile ? wire.profile : 0xbede);
    if (wire.elements_sz)
        memcpy(clear + sz, wire.elements, wire.elements_sz);
    sz += (wire.elements_sz + 3) & ~3u;
    vc_store_be16(clear + 14, (uint16_t)((sz - 16) / 4));
    item.hdr_sz = sz;
    if (wire.payload_sz)
        clear[sz] = wire.key ? 0x67 : 0x41;
    if (wire.payload)
        memcpy(clear + sz, wire.payload, wire.payload_sz);
    sz += wire.payload_sz + wire.padding;
    if (wire.padding) {
        clear[0] |= 0x20;
        clear[sz - 1] = (uint8_t)wire.padding;
    }
    item.src_sz = sz;
    CHECK_EQ(vc_crypto_seal_rtp(world.crypto, &item, 1), 1);
    world_put(&world, 0, 0, sealed, item.dst_sz);
    world_step(&world);
}

static void set_leg(uint32_t leg, const uint8_t rx[VC_EXT_COUNT], const uint8_t tx[VC_EXT_COUNT],
                    uint64_t rate_bps)
{
    struct vc_command set;

    world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    set = world_leg_command(&world, leg, VC_SRTP_AEAD_AES_128_GCM);
    memset(set.u.leg_set.rx_ext, 0, VC_EXT_COUNT);
    memset(set.u.leg_set.tx_ext, 0, VC_EXT_COUNT);
    if (rx)
        memcpy(set.u.leg_set.rx_ext, rx, VC_EXT_COUNT);
    if (tx)
        memcpy(set.u.leg_set.tx_ext, tx, VC_EXT_COUNT);
    set.u.leg_set.rate_bps = rate_bps;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
}

static const uint8_t rx_ids[VC_EXT_COUNT] = {
    RX_MID, RX_RID, RX_RRID, RX_LEVEL, RX_TIME, RX_NUMBER, RX_DEPENDENCY, RX_DELAY
};
/* leg 1: everything, renumbered; leg 2: a playout delay alone, an id that has no one-byte form */
static const uint8_t tx_all[VC_EXT_COUNT] = { 11, 12, 13, 1, 2, 3, 4, 5 };
static const uint8_t tx_wide[VC_EXT_COUNT] = { [VC_EXT_PLAYOUT_DELAY] = 77 };

/* Audio is source 0 (SSRC 0xa0), video source 1 (0xb0); routes 1 and 2 to leg 1, 3 to 2, 4 to 3. */
static void open_call(uint64_t rate_bps, uint32_t rtx_ssrc)
{
    struct vc_command route;

    world_init(&world, 1);
    world_start(&world);
    set_leg(0, rx_ids, NULL, 0);
    set_leg(1, NULL, tx_all, rate_bps);
    set_leg(2, NULL, tx_wide, 0);
    set_leg(3, NULL, NULL, 0);
    world_source(&world, 0, 0, 0xa0, 0);
    world_source(&world, 1, 0, 0xb0, 1);
    world_route(&world, 1, 1, 0, 0x101, 0);
    route = world_route_command(&world, 2, 1, 1, 0x102, 1);
    route.u.route_set.rtx_ssrc = rtx_ssrc;
    route.u.route_set.rtx_pt = rtx_ssrc ? 102 : 0;
    route.u.route_set.mid[0] = 'v';
    route.u.route_set.mid[1] = 0;
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_OK);
    world_route(&world, 3, 2, 1, 0x103, 1);
    world_route(&world, 4, 3, 1, 0x104, 1);
}

static const uint8_t *element(const struct world_got *got, uint8_t id, uint32_t *sz)
{
    struct vc_rtp rtp;

    CHECK_EQ(vc_rtp_parse(got->data, got->sz, &rtp), VC_RTP_OK);
    return vc_rtp_ext(got->data, &rtp, id, sz);
}

static void expect_element(const struct world_got *got, uint8_t id, const char *want, uint32_t sz)
{
    uint32_t got_sz = 0;
    const uint8_t *data = element(got, id, &got_sz);

    CHECK(data && got_sz == sz && !memcmp(data, want, sz));
}

static int number_of(const struct world_got *got)
{
    uint32_t sz;
    const uint8_t *data = element(got, tx_all[VC_EXT_TRANSPORT_CC], &sz);

    return data && sz == 2 ? vc_load_be16(data) : -1;
}

static int64_t time_of(const struct world_got *got)
{
    uint32_t sz;
    const uint8_t *data = element(got, tx_all[VC_EXT_ABS_SEND_TIME], &sz);

    return data && sz == 3 ? data[0] << 16 | vc_load_be16(data + 1) : -1;
}

#define ONE_OF_EACH "\x10m\x20r\x30q\x40\x85\x52\x01\x02\x03\x61\xee\xff\x73wxyz\x82\x0a\x0b\x0c"

static void test_each_leg_its_own(void)
{
    const struct world_got *got;
    struct vc_rtp rtp;
    uint32_t sz;

    open_call(0, 0);
    send((struct wire){ .index = 1, .ssrc = 0xb0, .payload_sz = 100, .pt = 96, .key = 1,
                        .elements = ONE_OF_EACH, .elements_sz = sizeof ONE_OF_EACH - 1 });
    world_take(&world);
    got = world_last(&world, 1, 0x102);
    CHECK_EQ(vc_rtp_parse(got->data, got->sz, &rtp), VC_RTP_OK);
    CHECK_EQ(rtp.ext_profile, 0xbede);
    expect_element(got, 11, "v", 1); /* ours, not the sender's */
    expect_element(got, 1, "\x85", 1);
    expect_element(got, 4, "wxyz", 4);
    expect_element(got, 5, "\x0a\x0b\x0c", 3);
    CHECK(!element(got, 12, &sz) && !element(got, 13, &sz)); /* rid, repaired-rid: never */
    CHECK_EQ(number_of(got), 0);
    CHECK_EQ(time_of(got), vc_rtp_send_time(world.now_ns));
    got = world_last(&world, 2, 0x103);
    CHECK_EQ(vc_rtp_parse(got->data, got->sz, &rtp), VC_RTP_OK);
    CHECK_EQ(rtp.ext_profile, 0x1000);
    CHECK_EQ(rtp.ext_sz, 8); /* nothing else */
    expect_element(got, 77, "\x0a\x0b\x0c", 3);
    got = world_last(&world, 3, 0x104);
    CHECK_EQ(got->header_sz, 12);

    /* two-byte form in, with a descriptor that has no one-byte form; then a short one: one-byte */
    send((struct wire){ .index = 2, .ssrc = 0xb0, .payload_sz = 100, .pt = 96, .profile = 0x1000,
                        .elements = "\x07\x11" "0123456789abcdefg\x08\x03\x0d\x0e\x0f",
                        .elements_sz = 24 });
    world_take(&world);
    got = world_last(&world, 1, 0x102);
    CHECK_EQ(vc_rtp_parse(got->data, got->sz, &rtp), VC_RTP_OK);
    CHECK_EQ(rtp.ext_profile, 0x1000);
    expect_element(got, 4, "0123456789abcdefg", 17);
    expect_element(got, 5, "\x0d\x0e\x0f", 3);
    CHECK_EQ(number_of(got), 1);
    send((struct wire){ .index = 3, .ssrc = 0xb0, .payload_sz = 100, .pt = 96, .profile = 0x1000,
                        .elements = "\x07\x02zz", .elements_sz = 4 });
    world_take(&world);
    got = world_last(&world, 1, 0x102);
    CHECK_EQ(vc_rtp_parse(got->data, got->sz, &rtp), VC_RTP_OK);
    CHECK_EQ(rtp.ext_profile, 0xbede);
    expect_element(got, 4, "zz", 2);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

static void nack(uint32_t ssrc, uint16_t pid)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };

    CHECK(!vc_rtcp_write_nack(&writer, 1, ssrc, &(struct vc_rtcp_nack){ pid, 0 }, 1));
    world_send_rtcp(&world, 1, data, writer.sz);
    for (int i = 0; i < 4; i++)
        world_step(&world);
}

/* In the order of leaving: numbers go up by one whatever it is, times tell the departure, not the
   arrival. */
static void test_at_departure(void)
{
    int64_t last = -1;
    uint32_t seen = 0, later = 0;

    open_call(1000000, 0x201);
    for (uint64_t i = 1; i <= 10; i++)
        send((struct wire){ .index = i, .ssrc = 0xb0, .payload_sz = 1000, .pt = 96,
                            .key = i == 1 });
    for (int i = 0; i < 150; i++) {
        if (i % 20 == 0)
            send((struct wire){ .index = 1 + (uint64_t)i / 20, .ssrc = 0xa0, .payload_sz = 80,
                                .pt = 111 });
        if (i == 50)
            nack(0x102, 100);
        world_take(&world);
        for (; seen < world.got_cnt; seen++) {
            const struct world_got *got = &world.got[seen];
            int64_t now = vc_rtp_send_time(world.now_ns);

            if (got->leg != 1 || got->rtcp)
                continue;
            CHECK_EQ(number_of(got), last + 1);
            last = number_of(got);
            CHECK_EQ(time_of(got), now);
            later += got->ssrc == 0x102 && i > 0;
        }
        world_pass(&world, WORLD_MS);
    }
    CHECK_EQ(world_count(&world, 1, 0x101), 8);
    CHECK_EQ(world_count(&world, 1, 0x102), 10);
    CHECK_EQ(world_count(&world, 1, 0x201), 1);
    CHECK_EQ(last, 18);
    CHECK(later >= 8); /* they did wait */
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* The stamps of a packet cannot be made again: without an RTX stream there is no resend. */
static void test_no_resend_as_it_was(void)
{
    open_call(0, 0);
    for (uint64_t i = 1; i <= 10; i++)
        send((struct wire){ .index = i, .ssrc = 0xb0, .payload_sz = 100, .pt = 96, .key = i == 1 });
    nack(0x102, 104);
    CHECK_EQ(world_counters(&world, 0)->resend_changed, 1);
    CHECK_EQ(world_counters(&world, 0)->resent_plain, 0);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x102), 10);
    world_fini(&world);
}

static void say(uint64_t index, uint8_t level)
{
    const char element[] = { RX_LEVEL << 4, (char)level };

    send((struct wire){ .index = index, .ssrc = 0xa0, .payload_sz = 80, .pt = 111,
                        .elements = element, .elements_sz = 2 });
}

static void test_levels(void)
{
    const struct vc_source_stats *stats;
    uint64_t began, n = 1;

    open_call(0, 0);
    stats = &world.workers[0]->source_stats[0];
    CHECK_EQ(stats->level, VC_LEVEL_SILENT);
    began = world.now_ns;
    for (int i = 0; i < 5; i++) { /* 20, 21, .. 24; the V bit says nothing */
        say(n++, (uint8_t)((20 + i) | (i % 2 ? 0x80 : 0)));
        world_pass(&world, 20 * WORLD_MS);
    }
    CHECK_EQ(stats->level_ns, 0); /* the window is not over before something follows it */
    say(n++, 90);
    CHECK_EQ(stats->level, 22);
    CHECK_EQ(stats->level_ns, began + VC_LEVEL_WINDOW_NS);
    for (int i = 0; i < 4; i++) {
        world_pass(&world, 20 * WORLD_MS);
        say(n++, 90);
    }
    CHECK_EQ(stats->level, 22);
    world_pass(&world, 400 * WORLD_MS); /* it was silent, and sent nothing */
    send((struct wire){ .index = n++, .ssrc = 0xa0, .payload_sz = 80, .pt = 111 });
    CHECK_EQ(stats->level, 22); /* a packet that does not tell ends nothing */
    say(n++, 127);
    CHECK_EQ(stats->level, 90);
    CHECK_EQ(stats->level_ns, began + 2 * VC_LEVEL_WINDOW_NS);
    CHECK_EQ(world.workers[0]->source_stats[1].level, VC_LEVEL_SILENT);
    CHECK_EQ(world.workers[0]->source_stats[1].level_ns, 0);
    world_fini(&world);
}

static void test_red(void)
{
    struct vc_command set;
    const struct world_got *got;

    open_call(0, 0);
    set = world_source_command(0, 0, 0xa0, 0);
    set.u.source_set.red_pt = set.u.source_set.pt;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_BAD_VALUE);
    set.u.source_set.red_pt = 63;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    set = world_route_command(&world, 5, 2, 0, 0x105, 0);
    set.u.route_set.red_pt = 128;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_BAD_VALUE);
    set.u.route_set.red_pt = 45;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    for (uint64_t i = 1; i <= 9; i++)
        send((struct wire){ .index = i, .ssrc = 0xa0, .payload_sz = 80, .pt = i % 3 ? 111 : 63 });
    world_take(&world);
    /* takes none, and there is nothing else in what these 3 carry: no gap either */
    CHECK_EQ(world_count(&world, 1, 0x101), 6);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 105);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_FILTER], 3);
    CHECK_EQ(world_count(&world, 2, 0x105), 9);
    got = world_last(&world, 2, 0x105);
    CHECK_EQ(got->index, 108);
    CHECK_EQ(got->pt, 45);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

static void ask_again(uint32_t leg, uint32_t ssrc, uint16_t number)
{
    uint8_t compound[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { compound, 0, sizeof compound };

    CHECK(!vc_rtcp_write_nack(&writer, 1, ssrc, &(struct vc_rtcp_nack){ number, 0 }, 1));
    world_send_rtcp(&world, leg, compound, writer.sz);
}

/* A receiver that takes no RED gets the newest block of it, under the payload type that it knows and
   the number that it would have had; one that takes it gets it whole. */
static void test_red_taken_apart(void)
{
    enum { OLD = 33, NEW = 44, SZ = 4 + 1 + OLD + NEW };
    static const uint8_t red[SZ] = { 0x80 | 111, 960 >> 6, (960 & 63) << 2, OLD, 111 };
    struct vc_command set;
    const struct world_got *got;
    uint64_t octets = 0;

    open_call(0, 0);
    set = world_source_command(0, 0, 0xa0, 0);
    set.u.source_set.red_pt = 63;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    set = world_route_command(&world, 5, 2, 0, 0x105, 0);
    set.u.route_set.red_pt = 45;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    for (uint8_t i = 1; i <= 12; i++) {
        uint8_t payload[SZ];
        int plain = i % 3 == 0;

        memcpy(payload, red, SZ);
        memset(payload + 5, i - 1, OLD);
        memset(payload + 5 + OLD, i, NEW);
        send((struct wire){ .index = i, .ssrc = 0xa0, .pt = plain ? 111 : 63,
                            .payload = plain ? payload + 5 + OLD : payload,
                            .payload_sz = plain ? NEW : SZ });
        world_take(&world);
        got = world_last(&world, 1, 0x101);
        CHECK(got && got->sz - got->header_sz == NEW && got->data[got->header_sz] == i &&
              got->data[got->sz - 1] == i);
        CHECK_EQ(got->pt, 101);
        CHECK_EQ(got->index, 100 + i - 1);
        octets += NEW;
        got = world_last(&world, 2, 0x105);
        CHECK(got && got->pt == (plain ? 101 : 45));
        CHECK_EQ(got->sz - got->header_sz, plain ? NEW : SZ);
        CHECK(plain || !memcmp(got->data + got->header_sz, payload, SZ));
    }
    CHECK_EQ(world_count(&world, 1, 0x101), 12);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_FILTER], 0);
    CHECK_EQ(world.workers[0]->node->routes[1].store->octets, octets);

    /* what left as plain sound is not sent again as RED under the same number */
    set.u.route_set.red_pt = 0;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    send((struct wire){ .index = 13, .ssrc = 0xa0, .pt = 63, .payload = red, .payload_sz = SZ });
    world_take(&world);
    CHECK_EQ(world_last(&world, 2, 0x105)->pt, 101);
    CHECK_EQ(world_last(&world, 2, 0x105)->index, 112);
    set.u.route_set.red_pt = 45;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    ask_again(2, 0x105, 112);
    world_pass(&world, 50 * WORLD_MS);
    world_take(&world);
    CHECK_EQ(world_count(&world, 2, 0x105), 13);
    CHECK_EQ(world_counters(&world, 0)->resend_changed, 1);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* Comfort noise, tones, a codec that was not agreed on: never under the route's payload type, and no
   gap; a sender that comes back to the agreed one is heard again. */
static void test_other_payload_types(void)
{
    open_call(0, 0);
    for (uint64_t i = 1; i <= 12; i++)
        send((struct wire){ .index = i, .ssrc = 0xa0, .payload_sz = 80,
                            .pt = i == 3 ? 13 : i == 4 ? 110 : i > 6 && i < 11 ? 9 : 111 });
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 6);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 105);
    CHECK_EQ(world_last(&world, 1, 0x101)->pt, 101);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_PAYLOAD_TYPE], 6);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_FILTER], 0);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

int main(void)
{
    test_each_leg_its_own();
    test_at_departure();
    test_no_resend_as_it_was();
    test_levels();
    test_red();
    test_red_taken_apart();
    test_other_payload_types();
    return check_report();
}
