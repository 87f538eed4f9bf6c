/* SPDX-License-Identifier: MIT */
/* Gates, fast start, key-frame requests, changes of source, pauses, queues. */
#include "world.h"

#include "check.h"
#include "rtcp.h"

static struct world world;

static void open_call(uint32_t workers)
{
    world_init(&world, workers);
    world_start(&world);
    for (uint32_t leg = 0; leg < 4; leg++)
        world_leg(&world, leg, leg % workers, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xa0, 0);
    world_source(&world, 1, 0, 0xb0, 1);
}

static void send_video(uint64_t index, uint32_t ssrc, int key)
{
    struct world_rtp rtp = { .index = index, .ssrc = ssrc, .timestamp = (uint32_t)index * 3000,
                             .payload_sz = 1000, .pt = 96, .key = (uint8_t)key };

    world_send(&world, ssrc == 0xc0 ? 3 : 0, &rtp);
    world_step(&world);
    world_step(&world);
}

static void send_audio(uint64_t index)
{
    struct world_rtp rtp = { .index = index, .ssrc = 0xa0, .timestamp = (uint32_t)index * 960,
                             .payload_sz = 100, .pt = 111 };

    world_send(&world, 0, &rtp);
    world_step(&world);
    world_step(&world);
}

/* Requests for this SSRC that the party was sent. */
static uint32_t plis(uint32_t leg, uint32_t ssrc)
{
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
    uint32_t cnt = 0;

    world_take(&world);
    for (uint32_t i = 0; i < world.got_cnt; i++) {
        const struct world_got *got = &world.got[i];
        int n = got->rtcp && got->leg == leg ?
                    vc_rtcp_parse(got->data, got->sz, items, VC_RTCP_ITEMS_MAX) : 0;

        CHECK(n >= 0);
        for (int k = 0; k < n; k++)
            cnt += items[k].kind == VC_RTCP_PLI && items[k].media_ssrc == ssrc;
    }
    return cnt;
}

static void test_gate(uint32_t workers)
{
    open_call(workers);
    send_video(1, 0xb0, 0); /* somebody must know where the requests go */
    world_route(&world, 1, 1, 1, 0x101, 1);
    world_step(&world);
    CHECK_EQ(plis(0, 0xb0), 1);
    for (uint64_t i = 2; i < 10; i++)
        send_video(i, 0xb0, 0);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 0);
    CHECK_EQ(world_counters(&world, 1 % workers)->copy_drops[VC_COPY_DROP_GATE], 8);
    send_video(10, 0xb0, 1);
    send_video(11, 0xb0, 0);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 2);
    CHECK_EQ(world.workers[1 % workers]->route_stats[1].gate_open, 1);
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ 0 }), VC_STATUS_OK);
    CHECK_EQ(world.event_cnt, 1); /* of all that happened the supervisor hears one thing */
    CHECK_EQ(world.events[0].type, VC_EVT_ACTIVE);
    CHECK_EQ(world.events[0].u.object.object, 1);
    world_fini(&world);
}

static void test_throttle(void)
{
    open_call(1);
    send_video(1, 0xb0, 0);
    for (uint32_t i = 0; i < 5; i++) /* five routes at once: one request */
        world_route(&world, 1 + i, 1 + i % 3, 1, 0x101 + i, 1);
    world_step(&world);
    CHECK_EQ(plis(0, 0xb0), 1);
    CHECK_EQ(world_counters(&world, 0)->keyframe_merged, 3); /* the second waits, the rest join it */
    world_pass(&world, 349 * WORLD_MS);
    CHECK_EQ(plis(0, 0xb0), 1);
    CHECK_EQ(vc_worker_next_due_ns(world.workers[0], world.now_ns), world.now_ns + WORLD_MS);
    world_pass(&world, WORLD_MS);
    CHECK_EQ(plis(0, 0xb0), 2);
    world_pass(&world, 500 * WORLD_MS);
    CHECK_EQ(plis(0, 0xb0), 2);
    world_pass(&world, 700 * WORLD_MS);
    send_video(2, 0xb0, 0); /* still no key frame: the gates ask again */
    world_step(&world);
    CHECK_EQ(plis(0, 0xb0), 3);
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_KEYFRAME_REQUEST,
                                                           .u.id.id = 1 }), VC_STATUS_OK);
    send_video(3, 0xb0, 1); /* what still waited is answered by it */
    world_pass(&world, 400 * WORLD_MS);
    CHECK_EQ(plis(0, 0xb0), 3);
    world_fini(&world);
}

static void test_fast_start(uint32_t workers)
{
    open_call(workers);
    send_video(20, 0xb0, 1);
    for (uint64_t i = 21; i < 30; i++)
        send_video(i, 0xb0, 0);
    world_pass(&world, 400 * WORLD_MS);
    world_route(&world, 1, 1, 1, 0x101, 1);
    world_step(&world);
    CHECK_EQ(plis(0, 0xb0), 0);
    CHECK_EQ(world_count(&world, 1, 0x101), 10);
    CHECK_EQ(world.got_cnt ? world.got[0].index : 0, 100);
    send_video(30, 0xb0, 0);
    send_video(32, 0xb0, 0); /* 31 is lost: the history is no longer whole */
    world_route(&world, 2, 2, 1, 0x102, 1);
    world_step(&world);
    world_step(&world);
    CHECK_EQ(plis(0, 0xb0), 1);
    CHECK_EQ(world_count(&world, 2, 0x102), 0);
    world_pass(&world, 200 * WORLD_MS);
    send_video(31, 0xb0, 0); /* whole again, but too old */
    world_route(&world, 3, 3, 1, 0x103, 1);
    world_step(&world);
    CHECK_EQ(world_count(&world, 3, 0x103), 0);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 13);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* To a source of another leg; the rest is in test_switch.c. */
static void test_switch(void)
{
    struct vc_command change;
    const struct world_got *got;

    open_call(1);
    world_source(&world, 2, 3, 0xc0, 1);
    world_route(&world, 1, 1, 1, 0x101, 1);
    send_video(500, 0xb0, 1);
    send_video(501, 0xb0, 0);
    change = world_route_command(&world, 1, 1, 2, 0x101, 1);
    CHECK_EQ(world_command(&world, 0, change), VC_STATUS_OK);
    send_video(502, 0xb0, 0); /* the old one goes on */
    send_video(9000, 0xc0, 0);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 3);
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_SOURCE_REMOVE,
                                                           .u.id.id = 1 }), VC_STATUS_IN_USE);
    world_pass(&world, 100 * WORLD_MS);
    send_video(9001, 0xc0, 1);
    send_video(503, 0xb0, 0);
    send_video(9002, 0xc0, 0);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 5);
    got = world_last(&world, 1, 0x101);
    CHECK_EQ(got ? got->index : 0, 104); /* no hole */
    /* 100 ms after packet 502 came 9001; the timestamps of a source then go on as they do */
    CHECK_EQ(got ? got->timestamp : 0, 502 * 3000 + 12345 + 9000 + 3000);
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_SOURCE_REMOVE,
                                                           .u.id.id = 1 }), VC_STATUS_OK);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_GATE], 1);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

static void test_pause(void)
{
    struct vc_command filter = { .type = VC_CMD_ROUTE_FILTER,
                                 .u.route_filter = { .route = 1, .paused = 1 } };

    open_call(1);
    world_route(&world, 1, 1, 1, 0x101, 1);
    send_video(1, 0xb0, 1);
    CHECK_EQ(world_command(&world, 0, filter), VC_STATUS_OK);
    send_video(2, 0xb0, 0);
    send_video(3, 0xb0, 1);
    filter.u.route_filter.paused = 0;
    world_pass(&world, 600 * WORLD_MS);
    CHECK_EQ(world_command(&world, 0, filter), VC_STATUS_OK);
    send_video(4, 0xb0, 0);
    send_video(5, 0xb0, 1);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 2);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 101); /* drops on purpose leave no hole */
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_FILTER], 2);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_GATE], 1);
    world_fini(&world);
}

static void test_no_path(void)
{
    struct vc_command command;

    open_call(1);
    world_route(&world, 1, 1, 0, 0x101, 0);
    send_audio(1);
    command = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    command.u.leg_set.nominated = VC_NONE;
    CHECK_EQ(world_command(&world, 0, command), VC_STATUS_OK);
    for (uint64_t i = 2; i < 7; i++)
        send_audio(i);
    command.u.leg_set.nominated = 0;
    CHECK_EQ(world_command(&world, 0, command), VC_STATUS_OK);
    send_audio(7);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 2);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 101);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_NO_PATH], 5);
    world_fini(&world);
}

/* The way is lost for a moment, while copies wait: they are dropped without a hole, and what was
   sent before does not go out again from history. */
static void test_short_no_path(void)
{
    struct vc_command rate = { .type = VC_CMD_LEG_RATE,
                               .u.leg_rate = { .leg = 1, .rate_bps = 800000 } };
    struct vc_command command;
    uint64_t sent;

    open_call(1);
    world_route(&world, 1, 1, 1, 0x101, 1);
    CHECK_EQ(world_command(&world, 0, rate), VC_STATUS_OK);
    for (uint64_t i = 1; i < 10; i++)
        send_video(i, 0xb0, i == 1);
    sent = world_counters(&world, 0)->transmitted;
    CHECK(sent > 0 && sent < 5);
    command = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    command.u.leg_set.nominated = VC_NONE;
    CHECK_EQ(world_command(&world, 0, command), VC_STATUS_OK);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_NO_PATH], 9 - sent);
    command.u.leg_set.nominated = 0;
    CHECK_EQ(world_command(&world, 0, command), VC_STATUS_OK);
    send_video(10, 0xb0, 1);
    world_pass(&world, 100 * WORLD_MS); /* what left before is paid for */
    world_take(&world);
    CHECK_EQ(world.bad_cnt, 0);
    CHECK_EQ(world_count(&world, 1, 0x101), sent + 1);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 100 + sent);
    world_fini(&world);
}

/* Pacing: at 8 Mb/s a packet of 1,000 bytes takes about a millisecond; sound does not wait. */
static void test_pacing(void)
{
    struct vc_command rate = { .type = VC_CMD_LEG_RATE,
                               .u.leg_rate = { .leg = 1, .rate_bps = 8000000 } };
    uint32_t got;

    open_call(1);
    world_route(&world, 1, 1, 1, 0x101, 1);
    world_route(&world, 2, 1, 0, 0x102, 0);
    CHECK_EQ(world_command(&world, 0, rate), VC_STATUS_OK);
    send_video(1, 0xb0, 1);
    for (uint64_t i = 2; i < 100; i++)
        send_video(i, 0xb0, 0);
    world_take(&world);
    got = world_count(&world, 1, 0x101);
    CHECK(got >= 1 && got <= 4);
    CHECK_EQ(world_counters(&world, 0)->queued, 99 - got);
    send_audio(1);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x102), 1);
    for (int i = 0; i < 50; i++)
        world_pass(&world, WORLD_MS);
    world_take(&world);
    CHECK(world_count(&world, 1, 0x101) >= got + 45 && world_count(&world, 1, 0x101) <= got + 52);
    world_pass(&world, 600 * WORLD_MS); /* the rest is too old now: to the end, and the gate closes */
    world_step(&world);
    CHECK(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_QUEUE_LIMIT] > 40);
    CHECK_EQ(world_counters(&world, 0)->queued, 0);
    CHECK_EQ(world.workers[0]->route_stats[1].gate_open, 0);
    CHECK_EQ(plis(0, 0xb0), 2); /* the first was the fresh route's */
    got = world_count(&world, 1, 0x101);
    send_video(101, 0xb0, 1); /* 100 never came; 101 follows without a hole all the same */
    world_pass(&world, 10 * WORLD_MS);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), got + 1);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 100 + got);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* Too old a queue goes on at its newest key frame, if it holds one that is young enough. */
static void test_shed_to_key(void)
{
    struct vc_command rate = { .type = VC_CMD_LEG_RATE,
                               .u.leg_rate = { .leg = 1, .rate_bps = 16000 } };

    open_call(1);
    world_route(&world, 1, 1, 1, 0x101, 1);
    CHECK_EQ(world_command(&world, 0, rate), VC_STATUS_OK);
    for (uint64_t i = 1; i < 6; i++) /* each takes half a second */
        send_video(i, 0xb0, i == 1);
    world_pass(&world, 300 * WORLD_MS);
    send_video(6, 0xb0, 1);
    send_video(7, 0xb0, 0);
    world_pass(&world, 250 * WORLD_MS);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 2);
    CHECK_EQ(world_last(&world, 1, 0x101)->timestamp, 6 * 3000 + 12345);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 101);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_QUEUE_LIMIT], 4);
    CHECK_EQ(world.workers[0]->route_stats[1].gate_open, 1);
    world_fini(&world);
}

/* The address comes after the route: what is in the history serves it at once. */
static void test_reachable_late(void)
{
    struct vc_command command;

    open_call(1);
    command = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    command.u.leg_set.nominated = VC_NONE;
    CHECK_EQ(world_command(&world, 0, command), VC_STATUS_OK);
    world_route(&world, 1, 1, 1, 0x101, 1);
    CHECK_EQ(plis(0, 0xb0), 0); /* nobody is there to see it */
    for (uint64_t i = 1; i < 5; i++)
        send_video(i, 0xb0, i == 1);
    CHECK_EQ(world_counters(&world, 0)->queued, 0);
    command.u.leg_set.nominated = 0;
    CHECK_EQ(world_command(&world, 0, command), VC_STATUS_OK);
    world_step(&world);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 4);
    world_fini(&world);
}

/* More packets of one source in a burst than its history has slots. */
static void test_burst_beyond_history(void)
{
    world_init(&world, 1);
    world.setup.audio_slots = 8;
    world_start(&world);
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xa0, 0);
    world_route(&world, 1, 1, 0, 0x101, 0);
    send_audio(0);
    world_pass(&world, 2000 * WORLD_MS);
    for (uint64_t i = 1; i < 21; i++) {
        struct world_rtp rtp = { .index = i, .ssrc = 0xa0, .timestamp = (uint32_t)i,
                                 .payload_sz = 100, .pt = 111 };

        world_send(&world, 0, &rtp);
    }
    world_step(&world);
    world_take(&world);
    CHECK_EQ(world_counters(&world, 0)->routed, 9);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_HISTORY_FULL], 12);
    CHECK_EQ(world_count(&world, 1, 0x101), 9);
    CHECK_EQ(world_last(&world, 1, 0x101)->timestamp, 8 + 12345);
    world_fini(&world);
}

/* A transmit ring that is full: copies wait, and are dropped when they have waited too long. */
static void test_full_and_refused(void)
{
    open_call(1);
    world_route(&world, 1, 1, 0, 0x101, 0);
    vc_io_mem_refuse(world.io[0], 3);
    for (uint64_t i = 0; i < 5; i++)
        send_audio(i);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_TX_ERROR], 3);
    CHECK_EQ(world_counters(&world, 0)->transmitted, 2);
    world_take(&world);
    while (!vc_io_mem_put(world.io[0], &world.parties[9].tuple, "x", 1))
        ; /* nothing: only the outgoing ring matters */
    world_step(&world);
    for (uint64_t i = 5; world_counters(&world, 0)->queued < 20; i++) { /* nobody takes */
        send_audio(i);
        world_pass(&world, 20 * WORLD_MS);
    }
    world_pass(&world, 380 * WORLD_MS);
    world_pass(&world, 380 * WORLD_MS);
    CHECK(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_TX_FULL] > 0);
    world_take(&world);
    world_pass(&world, WORLD_MS);
    world_take(&world);
    CHECK_EQ(world.bad_cnt, 0);
    CHECK_EQ(world_counters(&world, 0)->queued, 0);
    world_fini(&world);
}

/* Faster than the history allows: counted, and what is younger than the limit stays. */
static void test_history_full(void)
{
    open_call(1);
    world_route(&world, 1, 1, 0, 0x101, 0);
    for (uint64_t i = 0; i < 100; i++)
        send_audio(i);
    CHECK_EQ(world_counters(&world, 0)->routed, 64);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_HISTORY_FULL], 36);
    world_pass(&world, 900 * WORLD_MS);
    send_audio(100);
    CHECK_EQ(world_counters(&world, 0)->routed, 65);
    world_fini(&world);
}

/* Drops that need a moment of their own: late before the start, removed while queued, no keys. */
static void test_other_drops(void)
{
    struct vc_command rate = { .type = VC_CMD_LEG_RATE,
                               .u.leg_rate = { .leg = 1, .rate_bps = 80000 } };
    struct vc_command remove = { .type = VC_CMD_ROUTE_REMOVE, .u.id.id = 1 };
    struct world_rtp rtp = { .index = 1, .ssrc = 1, .payload_sz = 10, .pt = 1 };
    uint64_t queued;

    open_call(1);
    world_route(&world, 1, 1, 1, 0x101, 1);
    CHECK_EQ(world_command(&world, 0, rate), VC_STATUS_OK);
    send_video(10, 0xb0, 1);
    send_video(8, 0xb0, 0);
    world_pass(&world, 150 * WORLD_MS);
    world_step(&world);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_NUMBERING], 1);
    for (uint64_t i = 11; i < 20; i++)
        send_video(i, 0xb0, 0);
    queued = world_counters(&world, 0)->queued;
    CHECK(queued >= 7);
    CHECK_EQ(world_command(&world, 0, remove), VC_STATUS_OK);
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_REMOVED], queued);
    CHECK_EQ(world_counters(&world, 0)->queued, 0);
    world_leg(&world, 5, 0, VC_SRTP_NONE);
    world_put(&world, 0, 5, "\x80\x01\x00\x01", 4);
    world_step(&world);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_LEG_NO_KEYS], 1);
    world_leg(&world, 5, 0, VC_SRTP_AEAD_AES_128_GCM); /* keys for the same id: now it has them */
    world_send(&world, 5, &rtp);
    world_step(&world);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_UNKNOWN_SSRC], 1);
    world_fini(&world);
}

int main(void)
{
    test_other_drops();
    test_gate(1);
    test_gate(2);
    test_throttle();
    test_fast_start(1);
    test_fast_start(2);
    test_switch();
    test_pause();
    test_no_path();
    test_short_no_path();
    test_pacing();
    test_shed_to_key();
    test_reachable_late();
    test_burst_beyond_history();
    test_full_and_refused();
    test_history_full();
    return check_report();
}
