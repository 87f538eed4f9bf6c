/* SPDX-License-Identifier: MIT */
/* When a leg may send: its rate as an account in exact times, its departures in the wheel.

   leg->due_ns is when what was sent so far is paid for.  Audio never waits for it; all else
   does.  A leg that had nothing to send begins at once, with no credit from its rest; one that was
   served late (a busy worker, a slot's width) keeps what it missed, up to VC_CATCH_UP_NS, and so
   departs several times in one slot when its rate is high.  A rate of 0 is not paced.

   Many legs that begin in one duty cycle (the copies of a frame) begin in groups of
   VC_WHEEL_GROUP, one slot after the other, over at most VC_SPREAD_SLOTS: a group costs one
   wake-up and one kick, and legs of the same rate stay together.  Legs of other rates meet in
   the wheel by its slack, at most half of the time between two of their packets. */
#ifndef VC_PACE_H
#define VC_PACE_H

#include "node.h"

#define VC_CATCH_UP_NS 2000000ull
#define VC_SPREAD_SLOTS 128u

/* A route with new work was linked into the leg's list of this class; idle: no unpaced class had
   work before. */
void vc_pace_wake(struct vc_worker *w, struct vc_leg *leg, int queue, int idle);
/* The leg sends so many bytes. */
void vc_pace_pay(struct vc_worker *w, struct vc_leg *leg, uint32_t bytes);
/* Puts the leg into the wheel for what waits on it now, if anything does. */
void vc_pace_next(struct vc_worker *w, struct vc_leg *leg);
/* A new rate is in force at once; what was sent at the old one is paid for at the new. */
void vc_pace_rate(struct vc_worker *w, struct vc_leg *leg, uint64_t rate_bps);
/* The highest class with work, or -1. */
int vc_pace_queue(const struct vc_leg *leg);
/* Must the class wait for the leg's account? */
int vc_pace_waits(const struct vc_worker *w, const struct vc_leg *leg, int queue);
/* Tallies departures by how much later than due_ns the clock was after their kick. */
void vc_pace_late(struct vc_worker *w, uint64_t due_ns, uint64_t left_ns);

#endif
