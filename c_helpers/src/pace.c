/* SPDX-License-Identifier: MIT */
#include "pace.h"

#define BILLION 1000000000ull
#define DEBT_MAX_NS BILLION /* that a change of rate may leave */

int vc_pace_queue(const struct vc_leg *leg)
{
    for (int queue = 0; queue < VC_QUEUE_COUNT; queue++)
        if (vc_leg_has(leg, queue))
            return queue;
    return -1;
}

int vc_pace_waits(const struct vc_worker *w, const struct vc_leg *leg, int queue)
{
    return queue != VC_QUEUE_AUDIO && leg->rate_bps && leg->due_ns > w->departures.now_ns;
}

/* The start of a leg that had rested, among those that start with it. */
static uint64_t start(struct vc_worker *w)
{
    uint64_t group = w->woken++ / VC_WHEEL_GROUP % VC_SPREAD_SLOTS;

    return w->now_ns + group * VC_SLOT_NS;
}

void vc_pace_wake(struct vc_worker *w, struct vc_leg *leg, int queue, int idle)
{
    uint64_t due_ns = w->now_ns;

    if (queue != VC_QUEUE_AUDIO) {
        if (idle && leg->due_ns <= w->now_ns)
            leg->due_ns = leg->rate_bps ? start(w) : w->now_ns;
        if (leg->due_ns > due_ns)
            due_ns = leg->due_ns;
    }
    vc_wheel_hasten(&w->departures, leg->id, due_ns);
}

void vc_pace_pay(struct vc_worker *w, struct vc_leg *leg, uint32_t bytes)
{
    if (!leg->rate_bps)
        return;
    if (leg->due_ns + VC_CATCH_UP_NS < w->now_ns)
        leg->due_ns = w->now_ns - VC_CATCH_UP_NS;
    leg->gap_ns = bytes * 8ull * BILLION / leg->rate_bps;
    leg->due_ns += leg->gap_ns;
}

void vc_pace_next(struct vc_worker *w, struct vc_leg *leg)
{
    int queue = vc_pace_queue(leg);
    uint64_t slack = leg->gap_ns / 2 >> VC_SLOT_SHIFT;

    if (queue < 0)
        return;
    if (queue == VC_QUEUE_AUDIO || !leg->rate_bps)
        vc_wheel_schedule(&w->departures, leg->id, w->now_ns, 0);
    else
        vc_wheel_schedule(&w->departures, leg->id, leg->due_ns,
                          slack < VC_WHEEL_SLACK_MAX ? (uint32_t)slack : VC_WHEEL_SLACK_MAX);
}

void vc_pace_rate(struct vc_worker *w, struct vc_leg *leg, uint64_t rate_bps)
{
    if (rate_bps == leg->rate_bps)
        return;
    if (leg->due_ns > w->now_ns) {
        __uint128_t bits = (__uint128_t)(leg->due_ns - w->now_ns) * leg->rate_bps;
        __uint128_t debt_ns = rate_bps ? bits / rate_bps : 0;

        leg->due_ns = w->now_ns + (debt_ns < DEBT_MAX_NS ? (uint64_t)debt_ns : DEBT_MAX_NS);
    }
    leg->gap_ns = 0;
    leg->narrowed = rate_bps && (!leg->rate_bps || rate_bps < leg->rate_bps);
    leg->rate_bps = rate_bps;
    if (vc_wheel_scheduled(&w->departures, leg->id))
        vc_pace_next(w, leg);
}

void vc_pace_late(struct vc_worker *w, uint64_t due_ns, uint64_t left_ns)
{
    uint64_t late_ns = left_ns > due_ns ? left_ns - due_ns : 0;

    w->c.departures++;
    w->c.lateness_ns += late_ns;
    w->c.lateness[vc_lateness_bucket(late_ns)]++;
}
