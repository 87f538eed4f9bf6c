/* SPDX-License-Identifier: MIT */
/* Pacing of whole workers, with a clock that goes from event to event as a thread's does:
   wake-ups, groups, rates, spread, lateness. */
#include "pace.h"

#include "check.h"
#include "world.h"

#define PACKET 1040 /* payload: 10 of them 30 times a second are 2.5 Mb/s */
#define FRAME_NS 33333333ull
#define MAX_LEFT 40000

static struct world world;

static struct {
    uint64_t at_ns, depart_ns; /* depart_ns: until when the kernel is to hold it */
    uint32_t leg, sz;
} left[MAX_LEFT];
static uint32_t left_cnt, turns, kicks_most;
static uint64_t index_next;

static void set_rate(uint32_t leg, uint64_t rate_bps)
{
    struct vc_command rate = { .type = VC_CMD_LEG_RATE,
                               .u.leg_rate = { .leg = leg, .rate_bps = rate_bps } };

    CHECK_EQ(world_command(&world, 0, rate), VC_STATUS_OK);
}

/* Leg 0 sends a video and a sound; routes 1.. carry the video to legs 1..legs. */
static void open_call(uint32_t legs, uint64_t rate_bps)
{
    world_init(&world, 1);
    world.setup.video_slots = 1024;
    world_start(&world);
    for (uint32_t leg = 0; leg <= legs; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xa0, 0);
    world_source(&world, 1, 0, 0xb0, 1);
    for (uint32_t leg = 1; leg <= legs; leg++) {
        set_rate(leg, rate_bps);
        world_route(&world, leg, leg, 1, 0x100 + leg, 1);
    }
    index_next = 1;
    left_cnt = turns = kicks_most = 0;
}

static uint32_t leg_at(const struct vc_tuple *tuple)
{
    for (uint32_t leg = 0; leg < WORLD_LEGS; leg++)
        if (!memcmp(&world.parties[leg].tuple, tuple, sizeof *tuple))
            return leg;
    CHECK(!"a known party");
    return 0;
}

/* A duty cycle now; notes what left. */
static void step(void)
{
    const struct vc_io_mem_packet *packet;

    world_step(&world);
    while ((packet = vc_io_mem_take(world.io[0]))) {
        if (vc_rtp_is_rtcp(packet->data))
            continue;
        VC_ASSERT(left_cnt < MAX_LEFT);
        left[left_cnt].at_ns = world.now_ns;
        left[left_cnt].depart_ns = packet->depart_ns;
        left[left_cnt].sz = packet->sz;
        left[left_cnt++].leg = leg_at(&packet->tuple);
    }
}

/* As a thread runs it: a turn at each due time, until `end_ns`. */
static void run_until(uint64_t end_ns)
{
    for (;;) {
        uint64_t due_ns = vc_worker_next_due_ns(world.workers[0], world.now_ns);

        VC_ASSERT(turns < 10000000);
        if (due_ns > end_ns)
            break;
        if (due_ns > world.now_ns)
            turns++;
        world.now_ns = due_ns;
        step();
    }
    world.now_ns = end_ns;
}

static void send_frame(uint32_t packets, int key)
{
    for (uint32_t i = 0; i < packets; i++, index_next++) {
        struct world_rtp rtp = { .index = index_next, .ssrc = 0xb0, .payload_sz = PACKET,
                                 .timestamp = (uint32_t)(index_next / 10 * 3000), .pt = 96,
                                 .key = (uint8_t)(key && !i) };

        world_send(&world, 0, &rtp);
    }
    turns++; /* the packets wake it */
    step();
}

/* So many seconds of 30 frames of 10 packets. */
static void run_stream(uint32_t seconds)
{
    for (uint32_t frame = 0; frame < 30 * seconds; frame++) {
        uint64_t next_ns = world.now_ns + FRAME_NS;

        send_frame(10, frame == 0);
        run_until(next_ns);
    }
}

/* 2.5 Mb/s to ten legs: the ten copies of a packet leave together. */
static void test_wakeups(uint64_t rate_bps)
{
    open_call(10, rate_bps);
    run_stream(3);
    CHECK_EQ(left_cnt, 10 * 900);
    CHECK(turns <= 3 * 600);
    CHECK_EQ(world_counters(&world, 0)->queued, 0);
    world_fini(&world);
}

/* Ten legs of ten rates: 3,000 departures a second that the slack brings together. */
static void test_wakeups_of_many_rates(uint64_t rate_bps, uint64_t step_bps, uint32_t most)
{
    open_call(10, 0);
    for (uint32_t leg = 1; leg <= 10; leg++)
        set_rate(leg, rate_bps + leg * step_bps);
    run_stream(3);
    CHECK_EQ(left_cnt, 10 * 900);
    CHECK(turns <= 3 * most);
    printf("ten rates from %.1f Mb/s, %.1f apart: %u wake-ups a second\n", (double)rate_bps / 1e6,
           (double)step_bps / 1e6, turns / 3);
    world_fini(&world);
}

/* The copies of a leg keep its rate: each in the slot of its exact due time, or a little later. */
static void test_even(uint64_t rate_bps)
{
    uint64_t last_ns[WORLD_LEGS] = { 0 }, exact_ns[WORLD_LEGS] = { 0 };

    open_call(5, rate_bps);
    send_frame(60, 1);
    run_until(world.now_ns + 300 * WORLD_MS);
    CHECK_EQ(left_cnt, 300);
    for (uint32_t i = 0; i < left_cnt; i++) {
        uint32_t leg = left[i].leg;
        uint64_t gap_ns = left[i].sz * 8000000000ull / rate_bps;

        if (last_ns[leg]) {
            CHECK(left[i].at_ns >= exact_ns[leg]); /* never early */
            CHECK(left[i].at_ns - exact_ns[leg] < VC_SLOT_NS + gap_ns / 2);
        } else {
            exact_ns[leg] = left[i].at_ns;
        }
        exact_ns[leg] += gap_ns;
        last_ns[leg] = left[i].at_ns;
    }
    world_fini(&world);
}

/* At 4 Gb/s a packet takes 2 us: several leave in each slot, and the rate is kept. */
static void test_fast_leg(void)
{
    uint64_t from_ns, span_ns;

    open_call(1, 4000000000ull);
    from_ns = world.now_ns;
    send_frame(600, 1);
    run_until(from_ns + 20 * WORLD_MS);
    CHECK_EQ(left_cnt, 600);
    span_ns = left[599].at_ns - left[0].at_ns;
    CHECK(span_ns >= 599ull * 1056 * 2 - VC_SLOT_NS && span_ns <= 600ull * 1080 * 2 + VC_SLOT_NS);
    CHECK(turns < 60);
    world_fini(&world);
}

/* A worker that was away keeps its legs' pace: what was missed leaves at once, up to 2 ms. */
static void test_catch_up(void)
{
    uint32_t before;

    open_call(1, 80000000); /* about 0.1 ms a packet */
    send_frame(200, 1);
    run_until(world.now_ns + WORLD_MS);
    before = left_cnt;
    world.now_ns += 10 * WORLD_MS;
    for (int i = 0; i < 30; i++)
        step();
    CHECK(left_cnt - before >= 15 && left_cnt - before <= 22);
    world_fini(&world);
}

/* A leg that rested has no credit: its next frame is as even as the first. */
static void test_no_credit_from_rest(void)
{
    open_call(1, 8000000);
    send_frame(1, 1);
    run_until(world.now_ns + 100 * WORLD_MS);
    left_cnt = 0;
    send_frame(5, 0);
    CHECK_EQ(left_cnt, 1);
    run_until(world.now_ns + WORLD_MS);
    CHECK(left_cnt <= 2);
    world_fini(&world);
}

static uint32_t within(uint64_t ns)
{
    left_cnt = 0;
    step();
    run_until(world.now_ns + ns);
    return left_cnt;
}

/* A new rate holds from now, for what was sent as well. */
static void test_rates(void)
{
    struct vc_command set;
    uint32_t got;

    open_call(1, 1000000); /* 8.5 ms a packet */
    send_frame(400, 1);
    got = within(40 * WORLD_MS);
    CHECK(got >= 4 && got <= 5);
    set_rate(1, 100000000); /* 85 us */
    got = within(10 * WORLD_MS);
    CHECK(got >= 110 && got <= 120);
    CHECK(left[0].at_ns - world.now_ns + 10 * WORLD_MS < WORLD_MS / 5);
    set_rate(1, 1000000);
    got = within(40 * WORLD_MS);
    CHECK(got >= 4 && got <= 6);
    for (int i = 0; i < 50; i++) /* changes as such send nothing */
        set_rate(1, 1000000 + (uint64_t)i);
    got = within(8 * WORLD_MS);
    CHECK(got <= 1);
    set = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM); /* by leg_set too */
    set.u.leg_set.rate_bps = 200000000;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    got = within(4 * WORLD_MS);
    CHECK(got >= 85 && got <= 96);
    set_rate(1, 0); /* not paced: all of it now */
    got = within(1);
    CHECK(got > 100);
    CHECK_EQ(world_counters(&world, 0)->queued, 0);
    world_fini(&world);
}

/* Sound goes at once, also on a leg that owes. */
static void test_sound(void)
{
    struct world_rtp rtp = { .index = 1, .ssrc = 0xa0, .payload_sz = 160, .pt = 111 };

    open_call(1, 1000000);
    world_route(&world, 2, 1, 0, 0x202, 0);
    send_frame(30, 1);
    left_cnt = 0;
    for (; rtp.index < 40; rtp.index++) {
        uint32_t before = left_cnt;

        run_until(world.now_ns + WORLD_MS / 7);
        before = left_cnt;
        world_send(&world, 0, &rtp);
        step();
        CHECK(left_cnt == before + 1 && left[before].sz < 300);
    }
    world_fini(&world);
}

/* More legs than a group: they begin slot after slot, sixteen in each. */
static void test_spread(void)
{
    enum { LEGS = 40 };
    static struct vc_leg legs[LEGS];
    struct vc_worker w = { .now_ns = 1000 * VC_SLOT_NS };

    CHECK(!vc_wheel_init(&w.departures, LEGS));
    vc_wheel_advance(&w.departures, w.now_ns);
    for (uint32_t id = 0; id < LEGS; id++) {
        legs[id] = (struct vc_leg){ .id = id, .rate_bps = 1000000 };
        vc_pace_wake(&w, &legs[id], VC_QUEUE_VIDEO, 1);
        CHECK_EQ(legs[id].due_ns, w.now_ns + id / VC_WHEEL_GROUP * VC_SLOT_NS);
        vc_pace_wake(&w, &legs[id], VC_QUEUE_AUDIO, 0); /* sound of any leg: now */
        CHECK_EQ(w.departures.entries[id].due_ns, w.now_ns);
    }
    CHECK_EQ(w.woken, LEGS);
    for (uint32_t id = 0; id < LEGS; id++) { /* what rests and is not paced has no place in it */
        vc_wheel_cancel(&w.departures, id);
        legs[id].rate_bps = legs[id].due_ns = 0;
        vc_pace_wake(&w, &legs[id], VC_QUEUE_VIDEO, 1);
        CHECK_EQ(w.departures.entries[id].due_ns, w.now_ns);
    }
    vc_wheel_fini(&w.departures);
}

/* Lateness is the clock after the kick less the time in the wheel. */
static void test_lateness(void)
{
    const struct vc_counters *c;

    open_call(1, 8000000);
    c = world_counters(&world, 0);
    send_frame(3, 1);
    CHECK_EQ(c->departures, 1);
    CHECK_EQ(c->lateness_ns, 0);
    CHECK_EQ(c->lateness[0], 1);
    world.now_ns = vc_worker_next_due_ns(world.workers[0], world.now_ns) + 700000;
    step();
    CHECK_EQ(c->departures, 2);
    CHECK_EQ(c->lateness_ns, 700000);
    CHECK_EQ(c->lateness[vc_lateness_bucket(700000)], 1);
    vc_io_mem_refuse(world.io[0], 1); /* what was committed departed: a refusal is another count */
    run_until(world.now_ns + 5 * WORLD_MS);
    CHECK_EQ(c->departures, 3);
    world_fini(&world);
}

/* Sixteen copies a kick at most. */
static void test_kicks(void)
{
    uint64_t kicks;

    open_call(10, 0);
    send_frame(1, 1);
    kicks = world.io[0]->counts.tx_kicks;
    send_frame(16, 0); /* 160 copies */
    CHECK_EQ(left_cnt, 170);
    CHECK_EQ(world.io[0]->counts.tx_kicks - kicks, 10);
    world_fini(&world);
}

/* Where the kernel holds packets: they are handed over early with their times, as even as ever, and
   fewer wake-ups do it; sound has no time, so it overtakes. */
static void test_ahead(void)
{
    uint64_t last_ns[WORLD_LEGS] = { 0 };
    struct world_rtp rtp = { .index = 1, .ssrc = 0xa0, .payload_sz = 160, .pt = 111 };
    struct vc_worker *other;
    const char *why;

    open_call(10, 20000000);
    world.io[0]->ahead_ns = 2 * WORLD_MS;
    other = vc_worker_new(world.node, 0, world.io[0], NULL, &why); /* taken when it is made */
    CHECK_EQ(other->departures.ahead_ns, 2 * WORLD_MS);
    vc_worker_delete(other);
    world.workers[0]->departures.ahead_ns = 2 * WORLD_MS;
    run_stream(3);
    CHECK_EQ(left_cnt, 10 * 900);
    CHECK(turns <= 3 * 200);
    CHECK_EQ(world_counters(&world, 0)->lateness[0], 9000);
    for (uint32_t i = 0; i < left_cnt; i++) {
        uint64_t depart_ns = left[i].depart_ns ? left[i].depart_ns : left[i].at_ns;
        uint64_t *last = &last_ns[left[i].leg];

        CHECK(depart_ns >= left[i].at_ns && depart_ns <= left[i].at_ns + 2 * WORLD_MS);
        CHECK(depart_ns >= *last + 425000 - VC_SLOT_NS || !*last);
        *last = depart_ns;
    }
    world_route(&world, 20, 1, 0, 0x202, 0);
    send_frame(10, 0);
    left_cnt = 0;
    world_send(&world, 0, &rtp);
    step();
    CHECK(left_cnt == 1 && !left[0].depart_ns);
    world_fini(&world);
}

int main(void)
{
    test_ahead();
    test_wakeups(5000000);
    test_wakeups(20000000);
    test_wakeups_of_many_rates(2000000, 2000000, 1000);
    test_wakeups_of_many_rates(4000000, 1234567, 900);
    test_wakeups_of_many_rates(17600000, 440000, 600);
    test_even(5000000);
    test_even(20000000);
    test_even(47000000);
    test_fast_leg();
    test_catch_up();
    test_no_credit_from_rest();
    test_rates();
    test_sound();
    test_spread();
    test_lateness();
    test_kicks();
    return check_report();
}
