/* SPDX-License-Identifier: MIT */
/* The timing wheel: never early, in order of slots, around the horizon, groups, and random use
   against a heap as the model. */
#include "wheel.h"

#include "check.h"
#include "pacer.h"

#define SLOT VC_SLOT_NS
#define HORIZON (VC_WHEEL_SLOTS * SLOT)
#define NOW (1000 * SLOT)
#define IDS 300

static struct vc_wheel wheel;

static void begin(uint64_t now_ns)
{
    CHECK(!vc_wheel_init(&wheel, IDS));
    vc_wheel_advance(&wheel, now_ns);
}

/* Takes out what is ready; the ids as a number in base 10, first highest. */
static uint64_t take(uint64_t now_ns)
{
    uint64_t ids = 0, due_ns;
    uint32_t id;

    vc_wheel_advance(&wheel, now_ns);
    while ((id = vc_wheel_pop(&wheel, &due_ns)) != VC_NONE) {
        CHECK(due_ns <= now_ns);
        ids = ids * 10 + id;
    }
    return ids;
}

static void test_shape(void)
{
    CHECK(SLOT >= 20000 && SLOT <= 50000);
    CHECK(HORIZON >= 250000000);
}

static void test_order(void)
{
    begin(NOW);
    CHECK(vc_wheel_next_due(&wheel) == UINT64_MAX);
    vc_wheel_schedule(&wheel, 1, NOW + 3 * SLOT, 0);
    vc_wheel_schedule(&wheel, 2, NOW + SLOT, 0);
    vc_wheel_schedule(&wheel, 3, NOW + 3 * SLOT - 1, 0); /* of one slot: as they were scheduled */
    vc_wheel_schedule(&wheel, 4, NOW + SLOT + 1, 0);
    vc_wheel_schedule(&wheel, 5, NOW, 0);
    vc_wheel_schedule(&wheel, 6, NOW - 5, 0);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW);
    CHECK_EQ(take(NOW), 56);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + SLOT);
    CHECK_EQ(take(NOW + SLOT - 1), 0);
    CHECK_EQ(take(NOW + SLOT), 2);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + 2 * SLOT);
    CHECK_EQ(take(NOW + 5 * SLOT), 413);
    CHECK(vc_wheel_next_due(&wheel) == UINT64_MAX);
    CHECK_EQ(wheel.cnt, 0);
    vc_wheel_fini(&wheel);
}

static void test_changes(void)
{
    begin(NOW);
    vc_wheel_schedule(&wheel, 1, NOW + 9 * SLOT, 0);
    vc_wheel_schedule(&wheel, 2, NOW + 9 * SLOT, 0);
    vc_wheel_schedule(&wheel, 3, NOW + 9 * SLOT, 0);
    vc_wheel_schedule(&wheel, 1, NOW + 2 * SLOT, 0);
    vc_wheel_hasten(&wheel, 2, NOW + 10 * SLOT); /* no */
    vc_wheel_hasten(&wheel, 4, NOW + 4 * SLOT);
    CHECK_EQ(take(NOW + 4 * SLOT), 14);
    vc_wheel_hasten(&wheel, 3, NOW + 5 * SLOT);
    vc_wheel_cancel(&wheel, 2);
    vc_wheel_cancel(&wheel, 2);
    CHECK(!vc_wheel_scheduled(&wheel, 2));
    CHECK(vc_wheel_scheduled(&wheel, 3));
    CHECK_EQ(take(NOW + 20 * SLOT), 3);
    vc_wheel_schedule(&wheel, 7, 0, 0);
    vc_wheel_schedule(&wheel, 8, 0, 0);
    vc_wheel_schedule(&wheel, 7, NOW + 30 * SLOT, 0); /* out of the ready list again */
    CHECK_EQ(take(NOW + 21 * SLOT), 8);
    CHECK_EQ(take(NOW + 19 * SLOT), 0); /* the clock does not go back */
    CHECK_EQ(take(NOW + 30 * SLOT), 7);
    vc_wheel_fini(&wheel);
}

static void test_horizon(void)
{
    begin(NOW);
    vc_wheel_schedule(&wheel, 1, NOW + HORIZON - SLOT, 0); /* the last slot */
    vc_wheel_schedule(&wheel, 2, NOW + HORIZON, 0);        /* beyond it */
    vc_wheel_schedule(&wheel, 3, NOW + 5 * HORIZON / 2, 0);
    vc_wheel_schedule(&wheel, 4, UINT64_MAX - SLOT, 0);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + HORIZON - SLOT);
    CHECK_EQ(take(NOW + HORIZON - SLOT), 1);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + HORIZON);
    CHECK_EQ(take(NOW + HORIZON), 2);
    CHECK_EQ(take(NOW + 5 * HORIZON / 2 - SLOT), 0); /* more than a turn in one step */
    CHECK_EQ(take(NOW + 5 * HORIZON / 2), 3);
    CHECK_EQ(take(NOW + 1000 * HORIZON), 0);
    CHECK_EQ(wheel.cnt, 1);
    for (uint32_t i = 0; i < 3 * VC_WHEEL_SLOTS; i++) { /* through the array's end, slot by slot */
        uint64_t now_ns = NOW + (2000 * (uint64_t)VC_WHEEL_SLOTS + i) * SLOT;

        vc_wheel_advance(&wheel, now_ns);
        vc_wheel_schedule(&wheel, 5, now_ns + SLOT / 2, 0);
        CHECK_EQ(vc_wheel_next_due(&wheel), now_ns + SLOT);
        CHECK_EQ(take(now_ns + SLOT), 5);
    }
    vc_wheel_fini(&wheel);
}

static uint64_t slot_of(uint64_t due_ns, uint64_t now_ns)
{
    return due_ns <= now_ns ? now_ns : (due_ns + SLOT - 1) / SLOT * SLOT;
}

/* With slack ids come out with others that are near, a group at a time; never early, never later
   than their slack. */
static void test_groups(void)
{
    uint64_t due_ns;

    begin(NOW);
    for (uint32_t id = 0; id < 2 * VC_WHEEL_GROUP; id++) /* eight in each of four slots */
        vc_wheel_schedule(&wheel, id, NOW + 7 * SLOT - id * (SLOT / 8), 4);
    for (int turn = 0; turn < 2; turn++) {
        uint64_t at_ns = vc_wheel_next_due(&wheel);

        CHECK_EQ(at_ns, NOW + (turn ? 7 : 5) * SLOT);
        vc_wheel_advance(&wheel, at_ns - 1);
        CHECK_EQ(vc_wheel_pop(&wheel, &due_ns), VC_NONE);
        vc_wheel_advance(&wheel, at_ns);
        for (uint32_t n = 0; n < VC_WHEEL_GROUP; n++) {
            uint32_t id = vc_wheel_pop(&wheel, &due_ns);
            uint64_t wanted_ns = NOW + 7 * SLOT - id * (SLOT / 8);

            CHECK(due_ns == at_ns && due_ns >= wanted_ns && due_ns < wanted_ns + 5 * SLOT);
        }
        CHECK_EQ(vc_wheel_pop(&wheel, &due_ns), VC_NONE);
    }
    CHECK_EQ(wheel.cnt, 0);
    /* A slot that is full sends on; where all are full it takes its own: nothing waits for room. */
    for (uint32_t id = 0; id < 5 * VC_WHEEL_GROUP + 3; id++)
        vc_wheel_schedule(&wheel, id, NOW + 100 * SLOT, 4);
    CHECK_EQ(wheel.lists[(1000 + 100) % VC_WHEEL_SLOTS].cnt, VC_WHEEL_GROUP + 3);
    CHECK_EQ(wheel.lists[(1000 + 104) % VC_WHEEL_SLOTS].cnt, VC_WHEEL_GROUP);
    for (uint32_t slot = 100; slot <= 104; slot++) {
        CHECK_EQ(vc_wheel_next_due(&wheel), NOW + slot * SLOT);
        vc_wheel_advance(&wheel, NOW + slot * SLOT);
        for (uint32_t n = 0; n < VC_WHEEL_GROUP + (slot == 100 ? 3 : 0); n++)
            CHECK(vc_wheel_pop(&wheel, &due_ns) != VC_NONE);
    }
    CHECK_EQ(wheel.cnt, 0);
    vc_wheel_fini(&wheel);
}

/* Nothing waits longer than it may, nor for nobody; who has no slack takes the others along. */
static void test_slack(void)
{
    uint64_t due_ns;

    begin(NOW);
    vc_wheel_schedule(&wheel, 1, NOW + 10 * SLOT, 8); /* alone within its slack */
    vc_wheel_schedule(&wheel, 2, NOW + 30 * SLOT, 8);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + 10 * SLOT);
    vc_wheel_schedule(&wheel, 3, NOW + 14 * SLOT, 2);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + 14 * SLOT);
    vc_wheel_schedule(&wheel, 4, NOW + 17 * SLOT, 8); /* beyond what 3 may wait */
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + 14 * SLOT);
    vc_wheel_cancel(&wheel, 3);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + 17 * SLOT);
    vc_wheel_hasten(&wheel, 1, NOW + 10 * SLOT - 5); /* of the same slot: it goes on waiting */
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + 17 * SLOT);
    vc_wheel_schedule(&wheel, 5, NOW + 12 * SLOT, 0); /* as sound has */
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + 12 * SLOT);
    CHECK_EQ(take(NOW + 12 * SLOT), 15);
    CHECK_EQ(vc_wheel_next_due(&wheel), NOW + 17 * SLOT);
    vc_wheel_schedule(&wheel, 6, NOW + 11 * SLOT, 8); /* in the past: now */
    CHECK_EQ(take(NOW + 13 * SLOT), 6);
    /* What was missed comes out in its groups, each as due with the last of it. */
    vc_wheel_schedule(&wheel, 7, NOW + 20 * SLOT, 8);
    vc_wheel_advance(&wheel, NOW + 90 * SLOT);
    CHECK(vc_wheel_pop(&wheel, &due_ns) == 4 && due_ns == NOW + 20 * SLOT);
    CHECK(vc_wheel_pop(&wheel, &due_ns) == 7 && due_ns == NOW + 20 * SLOT);
    CHECK(vc_wheel_pop(&wheel, &due_ns) == 2 && due_ns == NOW + 30 * SLOT);
    CHECK_EQ(wheel.cnt, 0);
    /* Where the kernel holds packets each has its own time. */
    wheel.ahead_ns = 40 * SLOT;
    vc_wheel_schedule(&wheel, 1, NOW + 200 * SLOT, 8);
    vc_wheel_schedule(&wheel, 2, NOW + 204 * SLOT, 8);
    vc_wheel_advance(&wheel, NOW + 200 * SLOT);
    CHECK(vc_wheel_pop(&wheel, &due_ns) == 1 && due_ns == NOW + 200 * SLOT);
    CHECK(vc_wheel_pop(&wheel, &due_ns) == 2 && due_ns == NOW + 204 * SLOT);
    vc_wheel_fini(&wheel);
}

/* With any slack: what comes out is due, nothing stays that may not wait, and the next time that
   is told is in time for all. */
static void test_slack_model(uint64_t seed)
{
    static struct { uint64_t due_ns; uint32_t slack; int in; } ids[IDS];
    uint64_t now_ns = NOW, due_ns;

    begin(now_ns);
    memset(ids, 0, sizeof ids);
    for (int step = 0; step < 20000; step++) {
        uint32_t id = check_random(&seed) % IDS, what = check_random(&seed) % 8, got;

        if (what < 5) {
            ids[id].due_ns = now_ns + (((uint64_t)check_random(&seed) << 12) % (200 * SLOT));
            ids[id].slack = check_random(&seed) % (VC_WHEEL_SLACK_MAX + 1);
            ids[id].in = 1;
            vc_wheel_schedule(&wheel, id, ids[id].due_ns, ids[id].slack);
        } else if (what == 5) {
            ids[id].in = 0;
            vc_wheel_cancel(&wheel, id);
        } else {
            uint64_t next_ns = vc_wheel_next_due(&wheel);

            now_ns = what == 6 && next_ns != UINT64_MAX && next_ns > now_ns ?
                         next_ns : now_ns + check_random(&seed) % (20 * SLOT);
            vc_wheel_advance(&wheel, now_ns);
            while ((got = vc_wheel_pop(&wheel, &due_ns)) != VC_NONE) {
                CHECK(ids[got].in && ids[got].due_ns <= now_ns);
                CHECK(due_ns >= ids[got].due_ns && due_ns <= now_ns);
                ids[got].in = 0;
            }
        }
        due_ns = vc_wheel_next_due(&wheel);
        for (uint32_t i = 0; i < IDS; i++)
            if (ids[i].in) {
                uint64_t last_ns = slot_of(ids[i].due_ns, 0) + ids[i].slack * SLOT;

                CHECK(last_ns > now_ns - SLOT);
                CHECK(due_ns <= last_ns);
            }
    }
    vc_wheel_fini(&wheel);
}

/* Any use: at any time exactly that comes out which a heap of slot times gives. */
static void test_model(uint64_t seed)
{
    struct vc_pacer heap;
    uint64_t now_ns = NOW;
    uint8_t out[IDS];

    begin(now_ns);
    CHECK(!vc_pacer_init(&heap, IDS));
    for (int step = 0; step < 20000; step++) {
        uint32_t id = check_random(&seed) % IDS, what = check_random(&seed) % 8, got;
        uint64_t reach = check_random(&seed) % 4 ? 100 * SLOT : 3 * HORIZON, due_ns, before = 0;

        due_ns = now_ns - 2 * SLOT + (((uint64_t)check_random(&seed) << 16) % reach);
        if (what < 4) {
            vc_wheel_schedule(&wheel, id, due_ns, 0);
            vc_pacer_schedule(&heap, id, slot_of(due_ns, now_ns));
        } else if (what == 4) {
            vc_wheel_hasten(&wheel, id, due_ns);
            vc_pacer_hasten(&heap, id, slot_of(due_ns, now_ns));
        } else if (what == 5) {
            vc_wheel_cancel(&wheel, id);
            vc_pacer_cancel(&heap, id);
        } else {
            now_ns += (((uint64_t)check_random(&seed) << 8) % (what == 6 ? 20 * SLOT : HORIZON));
            vc_wheel_advance(&wheel, now_ns);
            memset(out, 0, sizeof out);
            while ((got = vc_pacer_pop_due(&heap, now_ns)) != VC_NONE)
                out[got] = 1;
            while ((got = vc_wheel_pop(&wheel, &due_ns)) != VC_NONE) {
                CHECK(out[got] == 1 && due_ns <= now_ns);
                if (due_ns % SLOT == 0 && due_ns > now_ns - SLOT)
                    CHECK(due_ns >= before);
                before = due_ns % SLOT == 0 ? due_ns : before;
                out[got] = 2;
            }
            for (uint32_t i = 0; i < IDS; i++)
                CHECK(out[i] != 1);
            CHECK_EQ(wheel.cnt, heap.cnt);
            due_ns = vc_pacer_next_due(&heap);
            if (due_ns < now_ns + HORIZON - SLOT)
                CHECK(vc_wheel_next_due(&wheel) <= due_ns);
        }
    }
    vc_pacer_fini(&heap);
    vc_wheel_fini(&wheel);
}

static void test_lateness_buckets(void)
{
    for (uint32_t bucket = 0; bucket + 1 < VC_LATENESS_COUNT; bucket++) {
        CHECK_EQ(vc_lateness_bucket(vc_lateness_bound(bucket) - 1), bucket);
        CHECK_EQ(vc_lateness_bucket(vc_lateness_bound(bucket)), bucket + 1);
    }
    CHECK_EQ(vc_lateness_bucket(0), 0);
    CHECK_EQ(vc_lateness_bucket(UINT64_MAX), VC_LATENESS_COUNT - 1);
    CHECK(vc_lateness_bound(VC_LATENESS_COUNT - 1) == UINT64_MAX);
}

int main(void)
{
    test_shape();
    test_order();
    test_changes();
    test_horizon();
    test_groups();
    test_slack();
    for (uint64_t seed = 1; seed <= 8; seed++) {
        test_model(seed);
        test_slack_model(seed);
    }
    test_lateness_buckets();
    return check_report();
}
