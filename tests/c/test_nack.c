/* SPDX-License-Identifier: MIT */
/* NACK upstream: what is missing is asked for once reordering is ruled out, again after the time
   of a repair, and given up; only of peers that agreed to it. */
#include "world.h"

#include "check.h"
#include "nack.h"
#include "rtcp.h"

static struct world world;

static void open_call(uint32_t flags)
{
    struct vc_command set;

    world_init(&world, 1);
    world_start(&world);
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    set = world_leg_command(&world, 0, VC_SRTP_AEAD_AES_128_GCM);
    set.u.leg_set.flags = flags;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    world_source(&world, 0, 0, 0xa0, 0);
    world_source(&world, 1, 0, 0xb0, 1);
    world_route(&world, 1, 1, 1, 0x101, 0);
}

static void send(uint64_t index, uint32_t ssrc)
{
    struct world_rtp rtp = { .index = index, .ssrc = ssrc, .timestamp = (uint32_t)index * 3000,
                             .payload_sz = 100, .pt = 96, .key = index == 100 };

    world_send(&world, 0, &rtp);
    world_step(&world);
}

/* What was asked for since the last call, as numbers; returns how many. */
static uint32_t asked(uint16_t *numbers, uint32_t max)
{
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
    uint32_t cnt = 0;

    world_take(&world);
    for (uint32_t i = 0; i < world.got_cnt; i++) {
        int n = world.got[i].rtcp && world.got[i].leg == 0 ?
                    vc_rtcp_parse(world.got[i].data, world.got[i].sz, items, VC_RTCP_ITEMS_MAX) : 0;

        for (int k = 0; k < n; k++) {
            if (items[k].kind != VC_RTCP_NACK)
                continue;
            CHECK_EQ(items[k].ssrc, 0x7000);
            CHECK_EQ(items[k].media_ssrc, 0xb0);
            for (uint32_t bit = 0; bit <= 16; bit++)
                if ((bit == 0 || items[k].u.nack.blp >> (bit - 1) & 1) && cnt < max)
                    numbers[cnt++] = (uint16_t)(items[k].u.nack.pid + bit);
        }
    }
    world_forget(&world);
    return cnt;
}

static void test_asks(void)
{
    uint16_t numbers[64];

    open_call(VC_LEG_NACK);
    send(65530, 0xb0);
    send(65533, 0xb0); /* 65531 and 65532 are missing */
    send(65532, 0xb0); /* that one was only late */
    CHECK_EQ(asked(numbers, 64), 0);
    send(65556, 0xb0);
    world_pass(&world, VC_NACK_REORDER_NS);
    CHECK_EQ(asked(numbers, 64), 23);
    CHECK_EQ(numbers[0], 65531);
    CHECK_EQ(numbers[1], 65534);
    CHECK_EQ(numbers[22], 65555 - 65536);
    CHECK_EQ(world_counters(&world, 0)->nacked, 23);
    world_pass(&world, 40 * WORLD_MS);
    CHECK_EQ(asked(numbers, 64), 0);
    for (uint64_t i = 65534; i < 65556; i++)
        send(i, 0xb0);
    CHECK_EQ(world_counters(&world, 0)->nack_repaired, 22);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 22); /* each took its own number */
    CHECK_EQ(world.bad_cnt, 0);
    world_forget(&world);
    world_pass(&world, 20 * WORLD_MS); /* a repair took 40 ms: half as long again is enough */
    CHECK_EQ(asked(numbers, 64), 1);
    CHECK_EQ(numbers[0], 65531);
    for (int i = 0; i < 100; i++) {
        world_pass(&world, 10 * WORLD_MS);
        CHECK(world.bad_cnt == 0);
    }
    CHECK_EQ(asked(numbers, 64), 2); /* four times in all */
    CHECK_EQ(world_counters(&world, 0)->nack_lost, 1);
    CHECK(vc_pacer_next_due(&world.workers[0]->nacks) == UINT64_MAX);
    world_fini(&world);
}

static void test_too_many(void)
{
    uint16_t numbers[8];

    open_call(VC_LEG_NACK);
    send(100, 0xb0);
    send(101 + VC_NACK_MAX, 0xb0); /* as many as fit */
    send(103 + VC_NACK_MAX, 0xb0); /* one more: the oldest gives way */
    CHECK_EQ(world_counters(&world, 0)->nack_lost, 1);
    send(3000, 0xb0);
    CHECK_EQ(world_counters(&world, 0)->nack_lost, 1 + 3000 - 104 - VC_NACK_MAX);
    world_pass(&world, VC_NACK_REORDER_NS);
    CHECK_EQ(asked(numbers, 1), 1);
    CHECK_EQ(numbers[0], 102);
    CHECK_EQ(world_counters(&world, 0)->nacked, VC_NACK_MAX);
    CHECK_EQ(world_counters(&world, 0)->keyframe_requests, 1);
    world_fini(&world);
}

static void test_off(void)
{
    struct vc_command set;
    uint16_t numbers[8];

    open_call(0);
    send(100, 0xb0);
    send(110, 0xb0);
    world_pass(&world, 10 * WORLD_MS);
    CHECK_EQ(asked(numbers, 8), 0);
    set = world_leg_command(&world, 0, VC_SRTP_AEAD_AES_128_GCM);
    set.u.leg_set.flags = VC_LEG_NACK;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    send(20, 0xa0);
    send(22, 0xa0); /* audio is not in the flags */
    send(112, 0xb0);
    set.u.leg_set.flags = 0; /* taken back before it was due */
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    world_pass(&world, 10 * WORLD_MS);
    CHECK_EQ(asked(numbers, 8), 0);
    set.u.leg_set.flags = VC_LEG_FLAGS + 1;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_BAD_VALUE);
    set.u.leg_set.flags = VC_LEG_NACK;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    send(114, 0xb0);
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_ROUTE_REMOVE,
                                                           .u.id.id = 1 }), VC_STATUS_OK);
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_SOURCE_REMOVE,
                                                           .u.id.id = 1 }), VC_STATUS_OK);
    world_pass(&world, 10 * WORLD_MS);
    CHECK_EQ(asked(numbers, 8), 0);
    world_fini(&world);
}

int main(void)
{
    test_asks();
    test_too_many();
    test_off();
    return check_report();
}
