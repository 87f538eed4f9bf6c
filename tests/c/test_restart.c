/* SPDX-License-Identifier: MIT */
/* A new process on the same index store: no (key, SSRC, index) leaves twice, receivers go on,
   replays stay refused.  And on a living leg: unchanged keys change nothing. */
#include "world.h"

#include "check.h"

static struct world world;

static void set_table(void)
{
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xa0, 0);
    world_source(&world, 1, 0, 0xb0, 1);
    world_route(&world, 1, 1, 0, 0x101, 0);
    world_route(&world, 2, 1, 1, 0x102, 1);
}

static void send(uint64_t index, uint32_t ssrc, int key)
{
    struct world_rtp rtp = { .index = index, .ssrc = ssrc, .timestamp = (uint32_t)index * 960,
                             .payload_sz = 100, .pt = ssrc == 0xb0 ? 96 : 111, .key = (uint8_t)key };

    world_send(&world, 0, &rtp);
    world_step(&world);
}

static void test_restart(void)
{
    uint8_t replay[1700];
    struct world_rtp rtp = { .index = 65539, .ssrc = 0xa0, .payload_sz = 100, .pt = 111 };
    uint32_t sz;

    world_init(&world, 1);
    world_start(&world);
    set_table();
    for (uint64_t i = 65530; i < 65540; i++) {
        send(i, 0xa0, 0);
        send(i, 0xb0, i == 65530);
    }
    world_pass(&world, 2000 * WORLD_MS); /* reports leave as well */
    world_take(&world);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 109);

    world_restart(&world);
    set_table();
    sz = world_seal(&world, 0, &rtp, replay);
    world_put(&world, 0, 0, replay, sz);
    world_step(&world);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_REPLAYED], 1); /* seen in the earlier life */
    for (uint64_t i = 65545; i < 65550; i++) { /* 65540..65544 were lost while nobody was there */
        send(i, 0xa0, 0);
        send(i, 0xb0, 0);
    }
    send(65541, 0xa0, 0); /* a late one fills its own number */
    world_pass(&world, 2000 * WORLD_MS);
    CHECK_EQ(world_twice(&world), 0);
    CHECK_EQ(world_count(&world, 1, 0x101), 16);
    CHECK_EQ(world_count(&world, 1, 0x102), 15); /* the gate is open: it decodes on */
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 111);
    CHECK_EQ(world_last(&world, 1, 0x102)->index, 119);
    CHECK_EQ(world_last(&world, 1, 0x102)->timestamp, 65549 * 960 + 12345);
    world_fini(&world);
}

/* What may have left is not sent again, though it comes again: a packet that was accepted in the
   earlier life only by its replay window's loss. */
static void test_index_used(void)
{
    world_init(&world, 1);
    world_start(&world);
    set_table();
    for (uint64_t i = 1; i < 11; i++)
        if (i != 8)
            send(i, 0xa0, 0);
    world_restart(&world);
    set_table();
    send(8, 0xa0, 0); /* its number lies below the highest that left */
    send(11, 0xa0, 0);
    CHECK_EQ(world_twice(&world), 0);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_INDEX_USED], 1);
    CHECK_EQ(world_counters(&world, 0)->transmitted, 1);
    world_fini(&world);
}

/* The source's state is gone or another one feeds the route: resume above, by a margin. */
static void test_other_source(void)
{
    struct vc_command route;

    world_init(&world, 1);
    world_start(&world);
    set_table();
    for (uint64_t i = 1; i < 11; i++)
        send(i, 0xa0, 0);
    world_restart(&world);
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 3, 0, 0xaa, 0);
    route = world_route_command(&world, 1, 1, 3, 0x101, 0);
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_OK);
    send(1, 0xaa, 0);
    CHECK_EQ(world_twice(&world), 0);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 109 + 64);
    world_fini(&world);
}

static void test_unchanged_keys(void)
{
    struct vc_command again;
    struct vc_leg_index before;

    world_init(&world, 1);
    world_start(&world);
    set_table();
    for (uint64_t i = 1; i < 11; i++)
        send(i, 0xa0, 0);
    world_pass(&world, 2000 * WORLD_MS);
    before = world.node->leg_store[0];
    CHECK(before.rtcp_tx > 0);
    again = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    again.u.leg_set.digest = 99;
    CHECK_EQ(world_command(&world, 0, again), VC_STATUS_OK);
    again = world_leg_command(&world, 0, VC_SRTP_AEAD_AES_128_GCM);
    memset(again.u.leg_set.rx_key, 0, 16); /* not looked at: the id names the keys */
    CHECK_EQ(world_command(&world, 0, again), VC_STATUS_OK);
    CHECK(!memcmp(&before, &world.node->leg_store[0], sizeof before));
    send(11, 0xa0, 0);
    send(11, 0xa0, 0);
    CHECK_EQ(world_twice(&world), 0);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 110);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_REPLAYED], 1);
    world_fini(&world);
}

/* Other keys on a living leg: indices of that leg begin anew, the other legs see no gap. */
static void test_new_keys(void)
{
    world_init(&world, 1);
    world_start(&world);
    set_table();
    for (uint64_t i = 65530; i < 65540; i++)
        send(i, 0xa0, 0);
    world_take(&world);
    world.parties[0].key_id = 5000;
    world_leg(&world, 0, 0, VC_SRTP_AES_CM_128_HMAC_SHA1_80);
    send(3, 0xa0, 0);
    send(4, 0xa0, 0);
    CHECK_EQ(world_twice(&world), 0);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 111);
    world.parties[1].key_id = 5001;
    world.parties[1].stream_cnt = 0;
    world_forget(&world);
    world_leg(&world, 1, 0, VC_SRTP_AES_CM_128_HMAC_SHA1_80);
    send(5, 0xa0, 0);
    world_take(&world);
    CHECK_EQ(world.bad_cnt, 0);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 100);
    world_fini(&world);
}

/* After a restart the address may come last: the numbers go on when it is there. */
static void test_restart_without_address(void)
{
    struct vc_command hidden;

    world_init(&world, 1);
    world_start(&world);
    set_table();
    for (uint64_t i = 1; i < 6; i++) {
        send(i, 0xa0, 0);
        send(i, 0xb0, i == 1);
    }
    world_restart(&world);
    world_leg(&world, 0, 0, VC_SRTP_AEAD_AES_128_GCM);
    hidden = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    hidden.u.leg_set.nominated = VC_NONE;
    CHECK_EQ(world_command(&world, 0, hidden), VC_STATUS_OK);
    world_source(&world, 0, 0, 0xa0, 0);
    world_source(&world, 1, 0, 0xb0, 1);
    send(6, 0xa0, 0);
    send(6, 0xb0, 0);
    world_route(&world, 1, 1, 0, 0x101, 0);
    world_route(&world, 2, 1, 1, 0x102, 1);
    send(7, 0xa0, 0);
    send(7, 0xb0, 0);
    hidden.u.leg_set.nominated = 0;
    CHECK_EQ(world_command(&world, 0, hidden), VC_STATUS_OK);
    send(8, 0xa0, 0);
    send(8, 0xb0, 1);
    CHECK_EQ(world_twice(&world), 0);
    CHECK_EQ(world_last(&world, 1, 0x101)->timestamp, 8 * 960 + 12345);
    CHECK_EQ(world_last(&world, 1, 0x102)->timestamp, 8 * 960 + 12345);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 105);
    world_fini(&world);
}

int main(void)
{
    test_restart_without_address();
    test_restart();
    test_index_used();
    test_other_source();
    test_unchanged_keys();
    test_new_keys();
    return check_report();
}
