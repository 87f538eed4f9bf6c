/* SPDX-License-Identifier: MIT */
/* RTCP through the core: sender reports mapped through the rewrite, receiver reports, report
   blocks about routes, requests for key frames, BYE; what is refused. */
#include "world.h"

#include "check.h"
#include "rtcp.h"
#include "senders.h"

static struct world world;

static void open_call(uint32_t workers)
{
    world_init(&world, workers);
    world_start(&world);
    for (uint32_t leg = 0; leg < 3; leg++)
        world_leg(&world, leg, leg % workers, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xa0, 0);
    world_source(&world, 1, 0, 0xb0, 1);
    world_route(&world, 1, 1, 0, 0x101, 0);
    world_route(&world, 2, 2, 1, 0x102, 1);
}

static void send_rtp(uint64_t index, uint32_t ssrc)
{
    struct world_rtp rtp = { .index = index, .ssrc = ssrc, .timestamp = (uint32_t)index * 960,
                             .payload_sz = 100, .pt = 111, .key = ssrc == 0xb0 };

    world_send(&world, 0, &rtp);
    world_step(&world);
    world_step(&world);
}

/* The last item of a kind that a party was sent, from a sender or about a medium. */
static int last_item(uint32_t leg, enum vc_rtcp_kind kind, struct vc_rtcp_item *found)
{
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
    int any = 0;

    world_take(&world);
    for (uint32_t i = 0; i < world.got_cnt; i++) {
        const struct world_got *got = &world.got[i];
        int n = got->rtcp && got->leg == leg ?
                    vc_rtcp_parse(got->data, got->sz, items, VC_RTCP_ITEMS_MAX) : 0;

        for (int k = 0; k < n; k++) {
            if (items[k].kind != kind)
                continue;
            *found = items[k];
            any++;
        }
    }
    return any;
}

static void send_sr(uint32_t ssrc, uint64_t ntp, uint32_t timestamp)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_sr sr = { ntp, timestamp, 5, 500 };

    CHECK(!vc_rtcp_write_sr(&writer, ssrc, &sr, NULL, 0));
    CHECK(!vc_rtcp_write_sdes(&writer, ssrc, (const uint8_t *)"far", 3));
    world_send_rtcp(&world, 0, data, writer.sz);
    world_step(&world);
    world_step(&world);
}

static void test_sender_reports(uint32_t workers)
{
    struct vc_rtcp_item item = { 0 };

    open_call(workers);
    send_sr(0xa0, 0x1111222233334444, 50000);
    CHECK_EQ(last_item(1, VC_RTCP_SR, &item), 0); /* nothing has left yet */
    send_rtp(10, 0xa0);
    CHECK_EQ(last_item(1, VC_RTCP_SR, &item), 1); /* with the first packet */
    CHECK_EQ(item.ssrc, 0x101);
    CHECK(item.u.sr.ntp == 0x1111222233334444);
    CHECK_EQ(item.u.sr.rtp_timestamp, 50000 + 12345);
    CHECK_EQ(item.u.sr.packets, 1);
    CHECK_EQ(item.u.sr.octets, 100);
    for (uint64_t i = 11; i < 20; i++)
        send_rtp(i, 0xa0);
    world_pass(&world, 100 * WORLD_MS);
    send_sr(0xa0, 0x1111222333334444, 98000);
    CHECK_EQ(last_item(1, VC_RTCP_SR, &item), 2);
    CHECK_EQ(item.u.sr.rtp_timestamp, 98000 + 12345);
    CHECK_EQ(item.u.sr.packets, 10);
    CHECK_EQ(last_item(2, VC_RTCP_SR, &item), 0); /* reads another source */
    CHECK_EQ(world_counters(&world, 0)->consumed, 2);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

static void test_receiver_reports(void)
{
    struct vc_rtcp_item item = { 0 };

    open_call(1);
    for (uint64_t i = 65530; i < 65550; i++)
        if (i % 4)
            send_rtp(i, 0xa0);
    send_sr(0xa0, 0x1111222233334444, 50000);
    world_pass(&world, 2000 * WORLD_MS);
    world_step(&world);
    CHECK_EQ(last_item(0, VC_RTCP_REPORT, &item), 1);
    CHECK_EQ(item.ssrc, 0x7000);
    CHECK_EQ(item.u.block.ssrc, 0xa0);
    CHECK_EQ(item.u.block.highest_seq, 65549);
    CHECK_EQ(item.u.block.cumulative_lost, 5);
    CHECK_EQ(item.u.block.fraction_lost, 5 * 256 / 20);
    CHECK_EQ(item.u.block.lsr, 0x22223333);
    CHECK_EQ(item.u.block.dlsr, 2 * 65536);
    world_pass(&world, 1000 * WORLD_MS);
    CHECK_EQ(last_item(0, VC_RTCP_REPORT, &item), 2);
    CHECK_EQ(item.u.block.fraction_lost, 0);
    CHECK_EQ(item.u.block.cumulative_lost, 5);
    CHECK_EQ(world.workers[0]->source_stats[0].lost, 5);
    world_fini(&world);
}

static void send_block(uint32_t leg, const struct vc_rtcp_block *block)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };

    CHECK(!vc_rtcp_write_rr(&writer, 1, block, 1));
    world_send_rtcp(&world, leg, data, writer.sz);
    world_step(&world);
}

static void test_blocks(void)
{
    struct vc_rtcp_block block = { .ssrc = 0x101, .fraction_lost = 77, .cumulative_lost = 9,
                                   .highest_seq = 100, .jitter = 44, .lsr = 0x22223333,
                                   .dlsr = 6554 /* 100 ms */ };
    uint32_t events;

    open_call(1);
    send_sr(0xa0, 0x1111222233334444, 50000);
    send_rtp(10, 0xa0);
    world_pass(&world, 150 * WORLD_MS);
    send_block(1, &block);
    CHECK_EQ(world.workers[0]->route_stats[1].fraction_lost, 77);
    CHECK(world.workers[0]->route_stats[1].rtt_us > 49900 &&
          world.workers[0]->route_stats[1].rtt_us < 50100);
    world_command(&world, 0, (struct vc_command){ 0 });
    events = world.event_cnt;
    CHECK(events && world.events[(events - 1) % 64].type == VC_EVT_FEEDBACK);
    CHECK_EQ(world.events[(events - 1) % 64].u.feedback.route, 1);
    CHECK_EQ(world.events[(events - 1) % 64].u.feedback.cumulative_lost, 9);
    block.fraction_lost = 25;
    for (int i = 0; i < 9; i++) { /* one event a second at most */
        world_pass(&world, 100 * WORLD_MS);
        send_block(1, &block);
    }
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.event_cnt, events);
    block.fraction_lost = 26; /* a tenth: at once, and each 200 ms */
    for (int i = 0; i < 3; i++) {
        world_pass(&world, 100 * WORLD_MS);
        send_block(1, &block);
    }
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.event_cnt, events + 2);
    block.ssrc = 0x999; /* about nobody */
    send_block(1, &block);
    CHECK_EQ(world_counters(&world, 0)->consumed, 15);
    CHECK_EQ(world_counters(&world, 0)->rtcp_unknown, 1);
    CHECK_EQ(world_counters(&world, 0)->rtcp_absurd, 0);
    world_fini(&world);
}

static void test_requests_and_bye(uint32_t workers)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_item item = { 0 };
    uint32_t before;

    open_call(workers);
    send_rtp(1, 0xb0);
    world_pass(&world, 1000 * WORLD_MS);
    before = (uint32_t)last_item(0, VC_RTCP_PLI, &item);
    CHECK(!vc_rtcp_write_rr(&writer, 2, NULL, 0));
    CHECK(!vc_rtcp_write_pli(&writer, 2, 0x102));
    world_send_rtcp(&world, 2, data, writer.sz);
    world_step(&world);
    world_step(&world);
    CHECK_EQ(last_item(0, VC_RTCP_PLI, &item), before + 1);
    CHECK_EQ(item.media_ssrc, 0xb0);
    CHECK_EQ(world.workers[2 % workers]->route_stats[2].plis, 1);
    writer.sz = 0;
    CHECK(!vc_rtcp_write_rr(&writer, 0xb0, NULL, 0));
    CHECK(!vc_rtcp_write_bye(&writer, 0xb0));
    world_send_rtcp(&world, 0, data, writer.sz);
    world_step(&world);
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.events[(world.event_cnt - 1) % 64].type, VC_EVT_BYE);
    CHECK_EQ(world.events[(world.event_cnt - 1) % 64].u.bound.source, 1);
    world_fini(&world);
}

/* A request of the other kind (RFC 5104 section 4.3.1) is as good, and merged with the first. */
static void test_fir(void)
{
    uint8_t fir[28] = { 0x84, 206, 0, 6, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0,
                        0, 0, 9, 9, 1 };
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_item item = { 0 };
    uint32_t before;
    uint64_t merged;

    open_call(1);
    send_rtp(1, 0xb0);
    world_pass(&world, 1000 * WORLD_MS);
    before = (uint32_t)last_item(0, VC_RTCP_PLI, &item);
    merged = world_counters(&world, 0)->keyframe_merged;
    world_send_rtcp(&world, 2, fir, sizeof fir);
    world_step(&world);
    CHECK_EQ(last_item(0, VC_RTCP_PLI, &item), before + 1);
    CHECK_EQ(item.media_ssrc, 0xb0);
    CHECK_EQ(world_counters(&world, 0)->rtcp_unknown, 1); /* its second entry is of nobody */
    CHECK(!vc_rtcp_write_pli(&writer, 2, 0x102));
    for (uint8_t i = 0; i < 10; i++) { /* all in one throttled period: one more, when it ends */
        fir[16] = i;
        world_send_rtcp(&world, 2, i % 2 ? fir : data, i % 2 ? sizeof fir : writer.sz);
        world_pass(&world, 10 * WORLD_MS);
    }
    CHECK_EQ(last_item(0, VC_RTCP_PLI, &item), before + 1);
    CHECK_EQ(world_counters(&world, 0)->keyframe_merged, merged + 9);
    world_pass(&world, 1000 * WORLD_MS);
    CHECK_EQ(last_item(0, VC_RTCP_PLI, &item), before + 2);
    CHECK_EQ(world.workers[0]->route_stats[2].plis, 11);
    world_fini(&world);
}

/* Feedback that no answer agreed on, of whatever content: counted, told to nobody, and what comes
   behind it in the compound counts. */
static void test_not_asked_for(void)
{
    uint8_t data[VC_RTCP_MAX];
    const struct vc_counters *c;
    uint32_t random = 7, sent = 0, events, plis;

    open_call(1);
    c = world_counters(&world, 0);
    send_rtp(1, 0xb0);
    world_pass(&world, 1000 * WORLD_MS);
    world_command(&world, 0, (struct vc_command){ 0 });
    events = world.event_cnt;
    plis = world.workers[0]->route_stats[2].plis;
    for (uint32_t words = 2; words < 60; words++) {
        struct vc_rtcp_writer writer = { data, 4 * (words + 1), sizeof data };

        for (uint32_t i = 4; i < writer.sz; i++) {
            random = random * 1664525u + 1013904223u;
            data[i] = (uint8_t)(random >> 24);
        }
        data[0] = words % 2 ? 0x8f : 0x83;  /* transport-wide (15), others (3) */
        data[1] = words % 3 ? 205 : 206;
        if (data[0] == 0x8f && data[1] == 206 && words > 2)
            memcpy(data + 12, "ABCD", 4); /* of an application, and no REMB */
        vc_store_be16(data + 2, (uint16_t)words);
        vc_store_be32(data + 4, 2);
        CHECK(!vc_rtcp_write_pli(&writer, 2, 0x102));
        world_send_rtcp(&world, 2, data, writer.sz);
        world_step(&world);
        CHECK_EQ(c->rtcp_unknown, ++sent);
        CHECK_EQ(world.workers[0]->route_stats[2].plis, plis + sent);
    }
    CHECK_EQ(c->consumed, sent);
    CHECK_EQ(c->rtcp_absurd, 0);
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.event_cnt, events);
    world_fini(&world);
}

/* What cannot be true is counted and changes nothing. */
static void test_lies(void)
{
    struct vc_rtcp_block block = { .ssrc = 0x101, .fraction_lost = 200, .highest_seq = 101 };
    const struct vc_route_stats *stats;
    const struct vc_counters *c;
    uint32_t events;

    open_call(1);
    c = world_counters(&world, 0);
    stats = &world.workers[0]->route_stats[1];
    send_sr(0xa0, 0x1111222233334444, 50000);
    send_rtp(10, 0xa0); /* leaves as 100 */
    world_command(&world, 0, (struct vc_command){ 0 });
    events = world.event_cnt;
    send_block(1, &block); /* has what was never sent */
    CHECK_EQ(c->rtcp_absurd, 1);
    CHECK_EQ(stats->fraction_lost, 0);
    block.highest_seq = 100;
    block.lsr = 0x22223333;
    block.dlsr = 65536; /* waited longer than it is since */
    send_block(1, &block);
    CHECK_EQ(c->rtcp_absurd, 2);
    CHECK_EQ(stats->fraction_lost, 200);
    CHECK_EQ(stats->rtt_us, 0);
    block.dlsr = 0;
    world_pass(&world, 11000 * WORLD_MS);
    send_block(1, &block); /* a round trip of 11 s */
    CHECK_EQ(c->rtcp_absurd, 3);
    CHECK_EQ(stats->rtt_us, 0);
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.event_cnt, events + 2);
    world_fini(&world);
}

static void send_bye(uint32_t ssrc)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };

    CHECK(!vc_rtcp_write_bye(&writer, ssrc));
    world_send_rtcp(&world, 0, data, writer.sz);
    world_step(&world);
    world_command(&world, 0, (struct vc_command){ 0 });
}

/* A sender that floods with reports and goodbyes: neither its receivers nor the supervisor get more
   than their due. */
static void test_flood(void)
{
    struct vc_rtcp_item item = { 0 };
    uint32_t events;

    open_call(1);
    send_rtp(10, 0xa0);
    world_command(&world, 0, (struct vc_command){ 0 });
    for (int i = 0; i < 50; i++)
        send_sr(0xa0, 0x1111222233334444 + (uint64_t)i, 50000);
    CHECK_EQ(last_item(1, VC_RTCP_SR, &item), 1);
    world_pass(&world, 100 * WORLD_MS);
    send_sr(0xa0, 0x1111222233337777, 50000);
    CHECK_EQ(last_item(1, VC_RTCP_SR, &item), 2);
    send_sr(0xdead, 1, 1);
    CHECK_EQ(world_counters(&world, 0)->rtcp_unknown, 1);
    events = world.event_cnt;
    for (int i = 0; i < 50; i++)
        send_bye(0xa0);
    CHECK_EQ(world.event_cnt, events + 1);
    send_bye(0xdead);
    CHECK_EQ(world.event_cnt, events + 1);
    CHECK_EQ(world_counters(&world, 0)->rtcp_unknown, 2);
    send_rtp(11, 0xa0); /* it sends again after all */
    send_bye(0xa0);
    CHECK_EQ(world.event_cnt, events + 2);
    world_fini(&world);
}

static void send_remb(uint8_t mantissa) /* times 2^16 bits a second */
{
    uint8_t data[24] = { 0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 'R', 'E', 'M', 'B', 1,
                         16 << 2, 0, mantissa, 0, 0, 1, 1 };

    world_send_rtcp(&world, 1, data, sizeof data);
    world_step(&world);
    world_command(&world, 0, (struct vc_command){ 0 });
}

static void test_estimates(void)
{
    uint32_t events;

    open_call(1);
    world_command(&world, 0, (struct vc_command){ 0 });
    events = world.event_cnt;
    send_remb(100);
    CHECK_EQ(world.event_cnt, events + 1);
    CHECK_EQ(world.events[events % 64].type, VC_EVT_ESTIMATE);
    CHECK_EQ(world.events[events % 64].u.estimate.leg, 1);
    CHECK_EQ(world.events[events % 64].u.estimate.bitrate_bps, 100 << 16);
    world_pass(&world, 100 * WORLD_MS);
    send_remb(120); /* rises, or falls a little: in its time */
    send_remb(90);
    CHECK_EQ(world.event_cnt, events + 1);
    send_remb(80); /* falls: at once */
    send_remb(40); /* but not each packet */
    CHECK_EQ(world.event_cnt, events + 2);
    CHECK_EQ(world.events[(events + 1) % 64].u.estimate.bitrate_bps, 80 << 16);
    world_pass(&world, 500 * WORLD_MS);
    send_remb(120);
    CHECK_EQ(world.event_cnt, events + 3);
    world_fini(&world);
}

/* As goog-remb has it: one estimate for all streams of a receiver, each named. */
static void test_estimate_of_several(void)
{
    uint8_t data[32] = { 0x8f, 206, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 'R', 'E', 'M', 'B', 3,
                         16 << 2, 0, 9, 0, 0, 9, 9, 0, 0, 8, 8, 0, 0, 1, 1 };
    uint32_t events;

    open_call(1);
    world_command(&world, 0, (struct vc_command){ 0 });
    events = world.event_cnt;
    world_send_rtcp(&world, 1, data, sizeof data);
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.event_cnt, events + 1);
    CHECK_EQ(world.events[events % 64].u.estimate.bitrate_bps, 9 << 16);
    CHECK_EQ(world_counters(&world, 0)->rtcp_unknown, 0);
    world_pass(&world, 1000 * WORLD_MS);
    data[31] = 3; /* none of them is the leg's */
    world_send_rtcp(&world, 1, data, sizeof data);
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.event_cnt, events + 1);
    CHECK_EQ(world_counters(&world, 0)->rtcp_unknown, 1);
    data[31] = 1;
    data[17] = 63 << 2 | 3; /* more than there is */
    world_send_rtcp(&world, 1, data, sizeof data);
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.event_cnt, events + 2);
    CHECK_EQ(world.events[(events + 1) % 64].u.estimate.bitrate_bps, 10000000000ull);
    CHECK_EQ(world_counters(&world, 0)->rtcp_absurd, 1);
    world_fini(&world);
}

static void test_refused(void)
{
    uint8_t data[64] = { 0x80, 201, 0, 1, 0, 0, 0, 9 }, sealed[128];
    const struct vc_counters *c;
    struct vc_crypto_item item = { .src = data, .src_sz = 8, .dst = sealed, .index = 5 };

    open_call(1);
    c = world_counters(&world, 0);
    item.key = &world.parties[1].up;
    CHECK_EQ(vc_crypto_seal_rtcp(world.crypto, &item, 1), 1);
    world_put(&world, 0, 1, sealed, item.dst_sz);
    world_put(&world, 0, 1, sealed, item.dst_sz);
    world_step(&world);
    CHECK_EQ(c->consumed, 1);
    CHECK_EQ(c->drops[VC_DROP_RTCP_REPLAYED], 1);
    for (uint32_t cut = 2; cut < item.dst_sz; cut++) {
        world_put(&world, 0, 1, sealed, cut);
        world_step(&world);
    }
    CHECK_EQ(c->drops[VC_DROP_RTCP_TRUNCATED], item.dst_sz - 2);
    sealed[item.dst_sz - 6] ^= 1;
    world_put(&world, 0, 1, sealed, item.dst_sz);
    world_step(&world);
    CHECK_EQ(c->drops[VC_DROP_RTCP_AUTH_FAILED], 1);
    data[2] = 0xff; /* a length that lies, well sealed */
    item.index = 6;
    CHECK_EQ(vc_crypto_seal_rtcp(world.crypto, &item, 1), 1);
    world_put(&world, 0, 1, sealed, item.dst_sz);
    world_step(&world);
    CHECK_EQ(c->drops[VC_DROP_RTCP_TRUNCATED], item.dst_sz - 1);
    /* Each sending SSRC counts its own indices (RFC 3711 section 3.2.3). */
    world.parties[0].rtcp_index = 5;
    send_sr(0xa0, 1, 1);
    world.parties[0].rtcp_index = 5;
    send_sr(0xb0, 1, 1);
    CHECK_EQ(c->consumed, 3);
    world_fini(&world);
}

static void send_rr(uint32_t ssrc, uint32_t index)
{
    uint8_t data[64];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };

    CHECK(!vc_rtcp_write_rr(&writer, ssrc, NULL, 0));
    world.parties[1].rtcp_index = index;
    world_send_rtcp(&world, 1, data, writer.sz);
    world_step(&world);
}

/* A receiver reports from an SSRC for each kind of media, each with indices of its own. */
static void test_senders(void)
{
    const struct vc_counters *c;
    uint64_t before;

    open_call(1);
    c = world_counters(&world, 0);
    before = c->consumed;
    for (uint32_t index = 1; index < 4; index++)
        for (uint32_t sender = 1; sender <= VC_LEG_SENDERS; sender++)
            send_rr(sender, index);
    CHECK_EQ(c->consumed, before + 3 * VC_LEG_SENDERS);
    CHECK_EQ(c->drops[VC_DROP_RTCP_REPLAYED], 0);
    for (uint32_t sender = 1; sender <= VC_LEG_SENDERS; sender++)
        send_rr(sender, 2);
    CHECK_EQ(c->drops[VC_DROP_RTCP_REPLAYED], VC_LEG_SENDERS);
    world_fini(&world);
}

/* More SSRCs than places: who was silent for longest makes room, and nothing of it counts again. */
static void test_senders_reused(void)
{
    static struct vc_leg_index leg;
    static uint8_t seen[200][256];
    uint32_t random = 5, accepted = 0;

    for (uint32_t sender = 0; sender < VC_LEG_SENDERS; sender++)
        CHECK(vc_senders_accept(&leg, sender, 10 + sender));
    CHECK(vc_senders_accept(&leg, 0, 11));   /* 1 is the one that was silent for longest */
    CHECK(!vc_senders_accept(&leg, 100, 11)); /* an index that 1 had: who knows */
    CHECK(vc_senders_accept(&leg, 100, 12));
    CHECK(!vc_senders_accept(&leg, 100, 12));
    CHECK(!vc_senders_accept(&leg, 100, 11));
    CHECK(!vc_senders_accept(&leg, 1, 11)); /* played again by who knew it */
    CHECK(vc_senders_accept(&leg, 1, 500)); /* 2 made room: from 13 on */
    CHECK(!vc_senders_accept(&leg, 1, 11));
    CHECK(!vc_senders_accept(&leg, 1, 500));
    CHECK(vc_senders_accept(&leg, 1, 499));
    CHECK(vc_senders_accept(&leg, 0, 12));
    CHECK(vc_senders_accept(&leg, 63, 3)); /* those that stayed are not held to the floor */
    /* No order of senders and indices lets one through twice. */
    memset(&leg, 0, sizeof leg);
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t sender, index;

        random = random * 1664525u + 1013904223u;
        sender = (random >> 8) % 200;
        index = (random >> 20) % (1 + i / 800) % 256;
        if (vc_senders_accept(&leg, sender, index)) {
            CHECK(!seen[sender][index]);
            seen[sender][index] = 1;
            accepted++;
        }
    }
    CHECK(accepted > 256);
}

int main(void)
{
    test_sender_reports(1);
    test_sender_reports(2);
    test_receiver_reports();
    test_blocks();
    test_requests_and_bye(1);
    test_requests_and_bye(2);
    test_fir();
    test_not_asked_for();
    test_estimates();
    test_estimate_of_several();
    test_lies();
    test_flood();
    test_refused();
    test_senders();
    test_senders_reused();
    return check_report();
}
