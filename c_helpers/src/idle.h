/* SPDX-License-Identifier: MIT */
/* When a worker rests: the policy, without a clock and without a system call.

   With work it goes on.  Without work it spins for idle_spin_ns, in case more comes, but only
   where that paid off lately (one time in 16 it tries again); then it sleeps until the next due
   time less a margin and spins the rest, because a timer comes later than asked.  The margin
   follows the timer: nine of ten wake-ups come within it (20 to 200 us; what is later than that
   is another thread's doing and does not count).

   Of the time without work at least half is blocked: each nanosecond spun is taken from a purse
   that nanoseconds asleep fill; with an empty purse it sleeps to the due time itself.  busy_poll
   never sleeps: for cores of its own.

   Under a real-time class a worker that never slept would be throttled, 50 ms at once each
   second.  So it yields 6 % of its time in pieces below a millisecond, work or not (busy_poll or
   not); time asleep counts.

   One thread. */
#ifndef VC_IDLE_H
#define VC_IDLE_H

#include <stdint.h>

#define VC_SLEEP_MAX_NS UINT64_C(100000000)
#define VC_MARGIN_MIN_NS UINT64_C(20000)
#define VC_MARGIN_MAX_NS UINT64_C(200000)
#define VC_PURSE_MAX_NS INT64_C(2000000) /* spinning that earlier sleep can pay for */
#define VC_YIELD_NS UINT64_C(300000)     /* one piece; a timer adds up to some 100 us */
#define VC_YIELD_PER_MILLE 60

enum vc_rest_kind { VC_REST_NONE, VC_REST_SPIN, VC_REST_SLEEP, VC_REST_YIELD };

struct vc_rest {
    enum vc_rest_kind kind;
    uint64_t until_ns; /* of VC_REST_SLEEP */
};

struct vc_idle {
    uint64_t idle_spin_ns, worked_ns, margin_ns;
    int64_t purse_ns; /* blocked less spun */
    int64_t owed_ns;  /* yielding that is due, real-time only */
    uint32_t luck, rests; /* luck: above 0, spinning paid off lately */
    int rested, spinning; /* since the last work */
    int busy_poll, real_time;
};

void vc_idle_init(struct vc_idle *idle, uint64_t idle_spin_ns, int busy_poll, int real_time,
                  uint64_t now_ns);
/* After a duty cycle: what now?  due_ns: when there is something to do by the clock. */
struct vc_rest vc_idle_rest(struct vc_idle *idle, uint64_t now_ns, uint32_t work,
                            uint64_t due_ns);
/* A sleep that should end at until_ns ended by the clock at now_ns. */
void vc_idle_woke(struct vc_idle *idle, uint64_t until_ns, uint64_t now_ns);
/* How the turn was spent. */
void vc_idle_spent(struct vc_idle *idle, uint64_t worked_ns, uint64_t spun_ns,
                   uint64_t blocked_ns);

#endif
