/* SPDX-License-Identifier: MIT */
#include "idle.h"

#define SLEEP_LEAST_NS 5000u /* a shorter sleep is not worth its calls */
#define MARGIN_STEP_NS 500u
#define TRY_EACH 16u /* spin after work all the same */
#define LUCK_GAIN 2u
#define LUCK_MAX 8u

void vc_idle_init(struct vc_idle *idle, uint64_t idle_spin_ns, int busy_poll, int real_time,
                  uint64_t now_ns)
{
    *idle = (struct vc_idle){ .idle_spin_ns = idle_spin_ns, .worked_ns = now_ns,
                              .margin_ns = VC_MARGIN_MIN_NS * 3, .busy_poll = busy_poll,
                              .real_time = real_time };
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
    return (struct vc_rest){ VC_REST_SLEEP, until_ns };
}

struct vc_rest vc_idle_rest(struct vc_idle *idle, uint64_t now_ns, uint32_t work,
                            uint64_t due_ns)
{
    const struct vc_rest spin = { VC_REST_SPIN, 0 };

    if (idle->real_time && idle->owed_ns >= (int64_t)VC_YIELD_NS)
        return (struct vc_rest){ VC_REST_YIELD, 0 };
    if (work) {
        worked(idle, now_ns);
        return (struct vc_rest){ VC_REST_NONE, 0 };
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

void vc_idle_spent(struct vc_idle *idle, uint64_t worked_ns, uint64_t spun_ns,
                   uint64_t blocked_ns)
{
    idle->purse_ns += (int64_t)blocked_ns - (int64_t)spun_ns;
    if (idle->purse_ns > VC_PURSE_MAX_NS)
        idle->purse_ns = VC_PURSE_MAX_NS;
    if (!idle->real_time)
        return;
    idle->owed_ns += (int64_t)((worked_ns + spun_ns) * VC_YIELD_PER_MILLE /
                               (1000 - VC_YIELD_PER_MILLE)) - (int64_t)blocked_ns;
    if (idle->owed_ns < 0)
        idle->owed_ns = 0;
}
