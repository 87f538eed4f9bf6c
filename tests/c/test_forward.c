/* SPDX-License-Identifier: MIT */
/* The main job: one packet in, two sealed packets out, both laws, what is never let through. */
#include "world.h"

#include "check.h"

static const uint32_t suites[] = { VC_SRTP_AEAD_AES_128_GCM, VC_SRTP_AES_CM_128_HMAC_SHA1_80 };

static struct world_rtp packet(uint64_t index, uint32_t ssrc, int video, int key)
{
    return (struct world_rtp){
        .index = index,
        .ssrc = ssrc,
        .timestamp = (uint32_t)index * (video ? 3000 : 960),
        .payload_sz = video ? 900 : 120,
        .pt = video ? 96 : 111,
        .key = (uint8_t)key,
    };
}

static void open_call(struct world *world, uint32_t workers, uint32_t suite)
{
    world_init(world, workers);
    world_start(world);
    for (uint32_t leg = 0; leg < 3; leg++)
        world_leg(world, leg, leg % workers, suite);
    world_source(world, 0, 0, 0xa0, 0);
    world_source(world, 1, 0, 0xb0, 1);
}

static void test_fan_out(uint32_t workers, uint32_t suite)
{
    static struct world world;
    const struct world_got *got;

    open_call(&world, workers, suite);
    for (uint32_t leg = 1; leg < 3; leg++)
        world_route(&world, leg, leg, 0, 0x100 + leg, 0);
    for (uint32_t i = 0; i < 50; i++) {
        struct world_rtp rtp = packet(60000 + i, 0xa0, 0, 0);

        memcpy(rtp.mid, "mic0", 4);
        world_send(&world, 0, &rtp);
        world_step(&world);
        world_pass(&world, WORLD_MS);
    }
    world_take(&world);
    CHECK_EQ(world.bad_cnt, 0);
    for (uint32_t leg = 1; leg < 3; leg++) {
        CHECK_EQ(world_count(&world, leg, 0x100 + leg), 50);
        got = world_last(&world, leg, 0x100 + leg);
        if (!got)
            continue;
        CHECK_EQ(got->index, 149);
        CHECK_EQ(got->timestamp, (uint32_t)(60049 * 960 + 12345));
        CHECK_EQ(got->pt, 101);
        CHECK_EQ(got->dscp, 46);
        CHECK_EQ(got->header_sz, 12 + 4 + 4); /* the MID of the route alone */
        CHECK(!memcmp(got->data + 17, "out", 3));
        CHECK_EQ(got->sz - got->header_sz, 120);
        CHECK_EQ(got->data[got->header_sz + 5], (uint8_t)(60049 * 7 + 5));
    }
    CHECK_EQ(world_counters(&world, 0)->routed, 50);
    CHECK_EQ(world_counters(&world, 0)->copies + (workers > 1 ? world_counters(&world, 1)->copies : 0),
             100);
    world_fini(&world);
}

/* Everything that a stranger or a broken network can send: counted, and nothing else happens. */
static void test_refused(uint32_t suite)
{
    static struct world world;
    uint8_t sealed[1700], before[4096], stats[64], other[1700];
    uint64_t drops[VC_DROP_COUNT] = { 0 };
    struct world_rtp rtp = packet(7, 0xa0, 0, 0);
    const struct vc_history *history;
    uint32_t sz;

    open_call(&world, 1, suite);
    world_route(&world, 1, 1, 0, 0x101, 0);
    sz = world_seal(&world, 0, &rtp, sealed);
    world_put(&world, 0, 0, sealed, sz);
    world_step(&world);
    history = &world.node->sources[0].history;
    memcpy(before, vc_history_slot(history, 0), history->stride);
    memcpy(stats, &world.workers[0]->source_stats[0], sizeof stats);

    world_put(&world, 0, 0, sealed, sz); /* the same again */
    drops[VC_DROP_REPLAYED]++;
    rtp.index = 8;
    sz = world_seal(&world, 0, &rtp, other);
    for (uint32_t bit = 0; bit < 8 * sz; bit += 97) { /* one bit wrong, anywhere behind SSRC */
        memcpy(sealed, other, sz);
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (bit / 8 < 12)
            continue;
        world_put(&world, 0, 0, sealed, sz);
        drops[VC_DROP_AUTH_FAILED]++;
        world_step(&world);
    }
    for (uint32_t cut = 0; cut < sz; cut++) {
        world_put(&world, 0, 0, other, cut);
        world_step(&world);
        if (cut == 0)
            drops[VC_DROP_BAD_CLASS]++;
        else if (cut < 12 + vc_srtp_tag_sz((enum vc_srtp_suite)suite))
            drops[VC_DROP_RTP_TRUNCATED]++;
        else
            drops[VC_DROP_AUTH_FAILED]++;
    }
    sealed[0] = 0xc0 | 0x20; /* QUIC's */
    world_put(&world, 0, 0, sealed, sz);
    drops[VC_DROP_BAD_CLASS]++;
    rtp.ssrc = 0xdead;
    world_send(&world, 0, &rtp);
    drops[VC_DROP_UNKNOWN_SSRC]++;
    rtp = packet(9, 0xa0, 0, 0);
    rtp.payload_sz = VC_SLOT_AUDIO_SZ;
    world_send(&world, 0, &rtp);
    drops[VC_DROP_TOO_LONG]++;
    world.parties[9].tuple = world.parties[0].tuple;
    world.parties[9].tuple.remote_port_be++;
    world_put(&world, 0, 9, other, sz);
    drops[VC_DROP_UNKNOWN_FLOW]++;
    world_step(&world);
    for (int i = 0; i < VC_DROP_COUNT; i++)
        CHECK_EQ(world_counters(&world, 0)->drops[i], drops[i]);
    CHECK(!memcmp(before, vc_history_slot(history, 0), history->stride));
    CHECK(!memcmp(stats, &world.workers[0]->source_stats[0], sizeof stats));
    world_put(&world, 0, 0, other, sz); /* and the true one still gets in */
    world_step(&world);
    CHECK_EQ(world_counters(&world, 0)->routed, 2);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 2);
    world_fini(&world);
}

/* A burst with forged packets and a duplicate between good ones: the good ones close ranks. */
static void test_burst_with_forged(void)
{
    static struct world world;
    uint8_t sealed[1700];

    open_call(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    world_route(&world, 1, 1, 0, 0x101, 0);
    for (uint32_t i = 0; i < 20; i++) {
        struct world_rtp rtp = packet(100 + i - (i == 7), 0xa0, 0, 0);
        uint32_t sz = world_seal(&world, 0, &rtp, sealed);

        if (i % 5 == 3)
            sealed[sz - 1] ^= 1;
        world_put(&world, 0, 0, sealed, sz);
    }
    world_step(&world);
    world_take(&world);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_AUTH_FAILED], 4);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_REPLAYED], 1);
    CHECK_EQ(world_counters(&world, 0)->routed, 15);
    CHECK_EQ(world_count(&world, 1, 0x101), 15);
    CHECK_EQ(world.bad_cnt, 0);
    for (uint32_t i = 0; i < world.got_cnt; i++)
        CHECK_EQ(world.got[i].data[world.got[i].header_sz + 5],
                 (uint8_t)(world.got[i].index * 7 + 5));
    world_fini(&world);
}

void test_forward_libsrtp(uint32_t suite, unsigned *good, unsigned *bad);

void test_forward_sweep(unsigned *good, unsigned *bad);

int main(void)
{
    unsigned good = 0, bad = 0;

    for (uint32_t i = 0; i < 2; i++) {
        test_fan_out(1, suites[i]);
        test_fan_out(2, suites[i]);
        test_refused(suites[i]);
        test_forward_libsrtp(suites[i], &good, &bad);
    }
    test_burst_with_forged();
    CHECK_EQ(bad, 0);
    CHECK_EQ(good, 2 * 2 * (500 + 1)); /* two suites, two receivers, packets and a report */
    good = 0;
    test_forward_sweep(&good, &bad);
    CHECK_EQ(bad, 0);
    CHECK(good > 8 * 5 * 2 * 200);
    return check_report();
}
