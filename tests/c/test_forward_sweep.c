/* SPDX-License-Identifier: MIT */
/* The whole worker over every wrap point, with loss, reordering and duplicates: what comes out is
   what came in, shifted: the same packets by the same distances, each once. */
#include "world.h"

#include "check.h"

#define PACKETS 400

void test_forward_sweep(unsigned *good, unsigned *bad);

static void run(uint16_t in0, uint16_t out0, uint64_t seed, unsigned *good, unsigned *bad)
{
    static struct world world;
    static uint8_t sent[PACKETS], got[PACKETS];
    struct vc_command route;

    world_init(&world, 1);
    world.setup.audio_slots = 512;
    world_start(&world);
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xa0, 0);
    route = world_route_command(&world, 1, 1, 0, 0x101, 0);
    route.u.route_set.seq_start = out0;
    VC_ASSERT(world_command(&world, 0, route) == VC_STATUS_OK);
    memset(sent, 0, sizeof sent);
    memset(got, 0, sizeof got);
    for (uint32_t k = 0; k < PACKETS; k++) {
        /* neighbours within eight places change theirs; the first one comes first */
        uint32_t i = k < 8 || k >= PACKETS - 8 ? k : (k & ~7u) + ((k + check_random(&seed)) & 7);
        struct world_rtp rtp = { .index = in0 + (uint64_t)i, .ssrc = 0xa0, .timestamp = i,
                                 .payload_sz = 80, .pt = 111 };

        if (k && check_random(&seed) % 100 < 10)
            continue;
        for (uint32_t times = 0; times < 1 + (check_random(&seed) % 100 < 10); times++)
            world_send(&world, 0, &rtp);
        sent[i] = 1;
        if (check_random(&seed) % 3 == 0)
            world_pass(&world, 20 * WORLD_MS);
    }
    world_pass(&world, WORLD_MS);
    world_take(&world);
    *bad += world.bad_cnt;
    for (uint32_t n = 0; n < world.got_cnt; n++) {
        uint64_t i = world.got[n].index - out0;

        if (world.got[n].rtcp)
            continue;
        *good += i < PACKETS && world.got[n].timestamp == (uint32_t)i + 12345;
        *bad += i >= PACKETS || got[i]++ || world.got[n].timestamp != (uint32_t)i + 12345;
    }
    *bad += memcmp(sent, got, sizeof sent) != 0;
    *bad += world_counters(&world, 0)->copies != world_counters(&world, 0)->transmitted;
    world_fini(&world);
}

void test_forward_sweep(unsigned *good, unsigned *bad)
{
    static const uint16_t ins[] = { 0, 1, 127, 128, 32767, 32768, 65534, 65535 };
    static const uint16_t outs[] = { 0, 1, 127, 128, 32767 };

    for (uint32_t i = 0; i < 8; i++)
        for (uint32_t o = 0; o < 5; o++)
            for (uint64_t seed = 1; seed <= 2; seed++)
                run(ins[i], outs[o], seed * 100 + i * 8 + o, good, bad);
}
