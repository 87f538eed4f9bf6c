/* SPDX-License-Identifier: MIT */
/* When a worker rests: with a clock and a timer that are made up. */
#include "idle.h"

#include "check.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

struct run { /* a thread: it sleeps too long by `late`, a duty cycle takes 1 us */
    struct vc_idle idle;
    uint64_t now_ns, worked_ns, spun_ns, blocked_ns, longest_ns, sleeps, early;
    uint64_t late_ns;
    uint64_t seed;
};

/* One turn; due_ns: the next departure. */
static enum vc_rest_kind turn(struct run *run, uint32_t work, uint64_t due_ns)
{
    uint64_t blocked_ns = 0, from_ns = run->now_ns;
    struct vc_rest rest;

    run->now_ns += US;
    rest = vc_idle_rest(&run->idle, run->now_ns, work, due_ns);
    if (rest.kind == VC_REST_SLEEP) {
        uint64_t late_ns = run->late_ns ? check_random(&run->seed) % (2 * run->late_ns) : 0;

        CHECK(!work);
        blocked_ns = rest.until_ns - run->now_ns + late_ns;
        vc_idle_woke(&run->idle, rest.until_ns, run->now_ns + blocked_ns);
        run->sleeps++;
        run->early += run->now_ns + blocked_ns <= due_ns;
    } else if (rest.kind == VC_REST_YIELD) {
        blocked_ns = VC_YIELD_NS;
    }
    if (blocked_ns > run->longest_ns)
        run->longest_ns = blocked_ns;
    run->now_ns += blocked_ns;
    run->blocked_ns += blocked_ns;
    if (work)
        run->worked_ns += run->now_ns - from_ns - blocked_ns;
    else
        run->spun_ns += run->now_ns - from_ns - blocked_ns;
    vc_idle_spent(&run->idle, work ? US : 0, work ? 0 : US, blocked_ns);
    return rest.kind;
}

static struct run begin(int busy_poll, int real_time)
{
    struct run run = { .now_ns = 1000 * MS, .late_ns = 30 * US, .seed = 7 };

    vc_idle_init(&run.idle, 50 * US, busy_poll, real_time, run.now_ns);
    return run;
}

/* A departure each `every`: half of the idle time is blocked at least, and most wake-ups are
   before the departure. */
static void test_half_blocked(uint64_t every_ns)
{
    struct run run = begin(0, 0);
    uint64_t due_ns = run.now_ns;

    for (int i = 0; i < 20000; i++) {
        uint32_t work = run.now_ns >= due_ns;

        while (run.now_ns >= due_ns)
            due_ns += every_ns;
        turn(&run, work, due_ns);
    }
    CHECK(run.sleeps > 0);
    CHECK(run.blocked_ns + 10 * US >= run.spun_ns);
    CHECK(run.longest_ns <= VC_SLEEP_MAX_NS + 2 * run.late_ns);
    if (every_ns >= MS)
        CHECK(run.early * 10 >= run.sleeps * 8);
}

static void test_work_does_not_block(void)
{
    struct run run = begin(0, 0);

    for (int i = 0; i < 100000; i++)
        CHECK_EQ(turn(&run, 1, 0), VC_REST_NONE);
    CHECK_EQ(run.blocked_ns, 0);
    CHECK_EQ(turn(&run, 0, run.now_ns), VC_REST_SPIN); /* due now */
}

static void test_busy_poll(void)
{
    struct run run = begin(1, 0);

    for (int i = 0; i < 10000; i++)
        CHECK_EQ(turn(&run, 0, UINT64_MAX), VC_REST_SPIN);
}

/* Real time: 6 % of each second, in pieces below a millisecond. */
static void test_yields(int busy_poll, uint32_t work)
{
    struct run run = begin(busy_poll, 1);
    uint64_t from_ns = run.now_ns;

    for (int second = 0; second < 5; second++) {
        uint64_t blocked_ns = run.blocked_ns;

        while (run.now_ns - from_ns < 1000 * MS)
            turn(&run, work, UINT64_MAX);
        from_ns = run.now_ns;
        CHECK(run.blocked_ns - blocked_ns >= 59 * MS);
        CHECK(run.blocked_ns - blocked_ns <= 61 * MS);
    }
    CHECK(run.longest_ns < MS);
}

static void test_sleep_counts_as_yield(void)
{
    struct run run = begin(0, 1);

    for (int i = 0; i < 2000; i++) {
        enum vc_rest_kind kind = turn(&run, i % 100 == 0, run.now_ns + MS);

        CHECK(kind != VC_REST_YIELD);
    }
    CHECK(run.sleeps > 100);
}

/* Bursts of four packets, `apart` from each other, each millisecond; returns how often it slept. */
static uint64_t bursts(struct run *run, uint64_t apart_ns)
{
    uint64_t from_ns = run->now_ns;

    run->sleeps = run->spun_ns = 0;
    for (uint64_t at_ns = from_ns; run->now_ns < from_ns + 1000 * MS;) {
        for (int i = 0; i < 4; i++) {
            while (run->now_ns < at_ns + (uint64_t)i * apart_ns)
                turn(run, 0, at_ns + (uint64_t)i * apart_ns); /* a packet wakes as a time does */
            turn(run, 1, 0);
        }
        at_ns += MS;
    }
    return run->sleeps;
}

/* It spins after work where that paid off, and not where it did not. */
static void test_hope(void)
{
    struct run run = begin(0, 0);

    run.late_ns = 0;
    run.idle.margin_ns = 0;
    CHECK(bursts(&run, 200 * US) > 3500);
    CHECK(run.idle.luck <= 1);
    CHECK(bursts(&run, 40 * US) < 1500); /* one sleep a burst, not four */
    CHECK(run.idle.luck > 1);
    CHECK(bursts(&run, 200 * US) > 3500);
}

static void test_margin(void)
{
    struct run run = begin(0, 0);

    run.late_ns = 80 * US;
    for (int i = 0; i < 3000; i++)
        turn(&run, 0, run.now_ns + 3 * MS);
    /* nine tenths of 0 to 160 */
    CHECK(run.idle.margin_ns > 110 * US && run.idle.margin_ns < 170 * US);
    run.late_ns = 0;
    for (int i = 0; i < 3000; i++)
        turn(&run, 0, run.now_ns + 3 * MS);
    CHECK_EQ(run.idle.margin_ns, VC_MARGIN_MIN_NS);
    run.late_ns = 190 * US; /* of 0 to 380: those above 200 do not count */
    for (int i = 0; i < 6000; i++)
        turn(&run, 0, run.now_ns + 3 * MS);
    CHECK(run.idle.margin_ns > 150 * US && run.idle.margin_ns <= VC_MARGIN_MAX_NS);
    run.late_ns = 0;
    for (int i = 0; i < 3000; i++)
        turn(&run, 0, run.now_ns + 3 * MS);
    run.late_ns = 50 * MS; /* a busy neighbour: no reason to spin more */
    for (int i = 0; i < 3000; i++)
        turn(&run, 0, run.now_ns + 3 * MS);
    CHECK(run.idle.margin_ns < 80 * US);
}

int main(void)
{
    test_half_blocked(100 * US);
    test_half_blocked(150 * US);
    test_half_blocked(MS);
    test_half_blocked(300 * MS);
    test_work_does_not_block();
    test_busy_poll();
    test_yields(1, 0);
    test_yields(1, 1);
    test_yields(0, 1);
    test_sleep_counts_as_yield();
    test_hope();
    test_margin();
    return check_report();
}
