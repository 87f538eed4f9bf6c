/* SPDX-License-Identifier: MIT */
#include "idle.h"

#define SLEEP_LEAST_NS 5000u /* a shorter sleep is not worth its calls */
#define MARGIN_STEP_NS 500u
#define TRY_EACH 16u /* spin after work all the same */
#define LUCK_GAIN 2u
#define LUCK_MAX 8u

void vc_idle_init(struct vc_idle *idle, uint64_t idle_spin_ns, int busy_poll,
                  enum vc_sched sched, uint64_t now_ns)
{
    *idle = (struct vc_idle){ .idle_spin_ns = idle_spin_ns, .worked_ns = now_ns,
                              .margin_ns = VC_MARGIN_MIN_NS * 3, .busy_poll = busy_poll,
                              .sched = sched };
}

/* Is it worth to spin a while after work?  Asked each turn of the while. */
static int hopeful(struct vc_idle *idle, uint64_t now_ns)
{
    if (now_ns - idle->worked_ns < idle->idle_spin_ns) {
        if (!idle->rested)
            idle->spinning = idle->luck > 0 || ++idle->rests % TRY_EACH == 0;
        idle->rested = 1;
        return idle->spinning;
    }
    if (idle->spinning && idle->luck)
        idle->luck--;
    idle->spinning = 0;
    return 0;
}

static void worked(struct vc_idle *idle, uint64_t now_ns)
{
    if (idle->spinning)
        idle->luck = idle->luck + LUCK_GAIN < LUCK_MAX ? idle->luck + LUCK_GAIN : LUCK_MAX;
    idle->spinning = idle->rested = 0;
    idle->worked_ns = now_ns;
}

static struct vc_rest sleep_to(uint64_t until_ns)
{
    return (struct vc_rest){ VC_REST_SLEEP, until_ns, 0 };
}

/* Does it yield in full, or the little that a kernel needs which throttles nobody? */
static int yields_in_full(const struct vc_idle *idle, uint64_t now_ns)
{
    return idle->sched == VC_SCHED_THROTTLED || now_ns < idle->yield_until_ns;
}

struct vc_rest vc_idle_rest(struct vc_idle *idle, uint64_t now_ns, uint32_t work,
                            uint64_t due_ns)
{
    const struct vc_rest spin = { VC_REST_SPIN, 0, 0 };
    uint64_t piece_ns = yields_in_full(idle, now_ns) ? VC_YIELD_NS : VC_YIELD_LITTLE_NS;

    if (idle->sched != VC_SCHED_USUAL && idle->owed_ns >= (int64_t)piece_ns)
        return (struct vc_rest){ VC_REST_YIELD, 0, piece_ns };
    if (work) {
        worked(idle, now_ns);
        return (struct vc_rest){ VC_REST_NONE, 0, 0 };
    }
    if (idle->busy_poll || due_ns <= now_ns)
        return spin;
    if (due_ns > now_ns + VC_SLEEP_MAX_NS)
        due_ns = now_ns + VC_SLEEP_MAX_NS;
    if (idle->purse_ns <= 0)
        return sleep_to(due_ns);
    if (hopeful(idle, now_ns) || due_ns - now_ns < idle->margin_ns + SLEEP_LEAST_NS)
        return spin;
    return sleep_to(due_ns - idle->margin_ns);
}

/* Nine steps up for a late one, one down for one in time: rests where one of ten is late.  What
   is later than any margin is another thread's doing, not the timer's, and says nothing. */
void vc_idle_woke(struct vc_idle *idle, uint64_t until_ns, uint64_t now_ns)
{
    if (now_ns > until_ns + VC_MARGIN_MAX_NS)
        return;
    if (now_ns > until_ns + idle->margin_ns)
        idle->margin_ns += 9 * MARGIN_STEP_NS;
    else
        idle->margin_ns -= MARGIN_STEP_NS;
    if (idle->margin_ns < VC_MARGIN_MIN_NS)
        idle->margin_ns = VC_MARGIN_MIN_NS;
    if (idle->margin_ns > VC_MARGIN_MAX_NS)
        idle->margin_ns = VC_MARGIN_MAX_NS;
}

/* Somebody else had the CPU for longer than work takes.  Once is a hypervisor, or first touches of
   memory; the kernel does it each second. */
static void stopped(struct vc_idle *idle, uint64_t now_ns)
{
    uint64_t since_ns = now_ns - idle->stopped_ns;
    int again = idle->hold_ns && now_ns < idle->yield_until_ns + 2 * idle->hold_ns;

    idle->stopped_ns = now_ns;
    if (since_ns > VC_STOPPED_AGAIN_NS)
        return;
    idle->hold_ns = again ? 2 * idle->hold_ns : VC_YIELD_HOLD_NS;
    if (idle->hold_ns > VC_YIELD_HOLD_MAX_NS)
        idle->hold_ns = VC_YIELD_HOLD_MAX_NS;
    idle->yield_until_ns = now_ns + idle->hold_ns;
}

void vc_idle_spent(struct vc_idle *idle, uint64_t now_ns, uint64_t worked_ns, uint64_t spun_ns,
                   uint64_t blocked_ns)
{
    uint64_t awake_ns = worked_ns + spun_ns, share;

    idle->purse_ns += (int64_t)blocked_ns - (int64_t)spun_ns;
    if (idle->purse_ns > VC_PURSE_MAX_NS)
        idle->purse_ns = VC_PURSE_MAX_NS;
    if (idle->sched == VC_SCHED_USUAL)
        return;
    if (idle->sched == VC_SCHED_SERVED && awake_ns >= VC_STOPPED_NS &&
        now_ns >= idle->yield_until_ns)
        stopped(idle, now_ns);
    share = yields_in_full(idle, now_ns) ? VC_YIELD_PER_MILLE : VC_YIELD_LITTLE_PER_MILLE;
    idle->owed_ns += (int64_t)(awake_ns * share / (1000 - share)) - (int64_t)blocked_ns;
    if (idle->owed_ns < -(int64_t)VC_YIELD_NS) /* a timer adds to a piece: the next one is later */
        idle->owed_ns = -(int64_t)VC_YIELD_NS;
}
