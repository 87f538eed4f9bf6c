/* SPDX-License-Identifier: MIT */
#include "nack.h"

#include "compound.h"
#include "request.h"

#define RETRY_MIN_NS 20000000ull
#define RETRY_MAX_NS 400000000ull

static int asks(const struct vc_leg *leg, const struct vc_source *source)
{
    return (leg->flags & (source->queue == VC_QUEUE_AUDIO ? VC_LEG_NACK_AUDIO : VC_LEG_NACK)) != 0;
}

static void forget(struct vc_nack *nack, uint32_t at, uint32_t n)
{
    nack->cnt -= n;
    memmove(&nack->entries[at], &nack->entries[at + n],
            (nack->cnt - at) * sizeof nack->entries[0]);
}

static void missed(struct vc_worker *w, struct vc_source *source, uint64_t from, uint64_t to)
{
    struct vc_nack *nack = &source->nack;
    uint64_t n = to - from;

    if (n > VC_NACK_MAX) {
        w->c.nack_lost += n;
        if (source->queue == VC_QUEUE_VIDEO)
            vc_request_keyframe(w, source->id);
        return;
    }
    if (nack->cnt + n > VC_NACK_MAX) {
        uint32_t oldest = nack->cnt + (uint32_t)n - VC_NACK_MAX;

        w->c.nack_lost += oldest;
        forget(nack, 0, oldest);
    }
    for (uint64_t index = from; index < to; index++)
        nack->entries[nack->cnt++] = (struct vc_nack_entry){
            .index = index, .born_ns = w->now_ns
        };
    vc_pacer_hasten(&w->nacks, source->id, w->now_ns + VC_NACK_REORDER_NS);
}

static uint64_t retry_ns(const struct vc_nack *nack)
{
    uint64_t ns = nack->repair_ns + nack->repair_ns / 4;

    if (!ns)
        return VC_NACK_RETRY_NS;
    return ns < RETRY_MIN_NS ? RETRY_MIN_NS : ns > RETRY_MAX_NS ? RETRY_MAX_NS : ns;
}

/* When it is asked for the next time, or given up. */
static uint64_t due_ns(const struct vc_nack *nack, const struct vc_nack_entry *entry)
{
    return entry->tries ? entry->sent_ns + retry_ns(nack) : entry->born_ns + VC_NACK_REORDER_NS;
}

static void found(struct vc_worker *w, struct vc_source *source, uint64_t index)
{
    struct vc_nack *nack = &source->nack;
    uint32_t at = 0;

    while (at < nack->cnt && nack->entries[at].index < index)
        at++;
    if (at == nack->cnt || nack->entries[at].index != index)
        return;
    if (nack->entries[at].tries) {
        w->c.nack_repaired++;
        if (nack->entries[at].tries == 1) { /* of several nobody knows which was answered */
            uint64_t took = w->now_ns - nack->entries[at].sent_ns;

            if (took < RETRY_MAX_NS)
                nack->repair_ns = nack->repair_ns ?
                                      nack->repair_ns + took / 8 - nack->repair_ns / 8 : took + 1;
        }
    }
    forget(nack, at, 1);
    if (nack->cnt)
        vc_pacer_hasten(&w->nacks, source->id, due_ns(nack, &nack->entries[0]));
}

void vc_nack_arrived(struct vc_worker *w, const struct vc_leg *leg, struct vc_source *source,
                     uint64_t index)
{
    if (!source->received)
        return;
    if (index < source->highest)
        found(w, source, index);
    else if (vc_unlikely(index > source->highest + 1) && asks(leg, source))
        missed(w, source, source->highest + 1, index);
}

/* Adds a number to the list, ascending: to the last item's bits where they reach. */
static uint32_t add(struct vc_rtcp_nack *nacks, uint32_t n, uint16_t number)
{
    uint16_t after = n ? (uint16_t)(number - nacks[n - 1].pid) : 0;

    if (n && after >= 1 && after <= 16) {
        nacks[n - 1].blp |= (uint16_t)(1u << (after - 1));
        return n;
    }
    nacks[n] = (struct vc_rtcp_nack){ number, 0 };
    return n + 1;
}

/* Takes what is due into the list and moves its time on; gives up what was asked for often or
   long enough.  Returns the length of the list. */
static uint32_t collect(struct vc_worker *w, struct vc_source *source, struct vc_rtcp_nack *nacks)
{
    struct vc_nack *nack = &source->nack;
    uint32_t kept = 0, n = 0;

    for (uint32_t at = 0; at < nack->cnt; at++) {
        struct vc_nack_entry entry = nack->entries[at];

        if (w->now_ns - entry.born_ns >= w->node->slot_age_ns ||
            (entry.tries == VC_NACK_TRIES && due_ns(nack, &entry) <= w->now_ns)) {
            w->c.nack_lost++;
            continue;
        }
        if (due_ns(nack, &entry) <= w->now_ns) {
            n = add(nacks, n, (uint16_t)entry.index);
            w->c.nacked++;
            entry.tries++;
            entry.sent_ns = w->now_ns;
        }
        nack->entries[kept++] = entry;
    }
    nack->cnt = kept;
    return n;
}

static uint32_t send_nack(struct vc_worker *w, struct vc_source *source)
{
    struct vc_leg *leg = &w->node->legs[source->leg];
    struct vc_rtcp_nack nacks[VC_NACK_MAX];
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    uint64_t next_ns = UINT64_MAX;
    uint32_t n;

    if (!asks(leg, source) || !leg->sendable) {
        source->nack.cnt = 0;
        return 0;
    }
    n = collect(w, source, nacks);
    for (uint32_t at = 0; at < source->nack.cnt; at++)
        if (due_ns(&source->nack, &source->nack.entries[at]) < next_ns)
            next_ns = due_ns(&source->nack, &source->nack.entries[at]);
    if (source->nack.cnt)
        vc_pacer_schedule(&w->nacks, source->id, next_ns);
    if (!n)
        return 0;
    vc_compound_begin(&writer, leg);
    vc_rtcp_write_nack(&writer, leg->rtcp_ssrc, source->ssrc, nacks, n);
    vc_compound_send(w, leg, data, writer.sz);
    return 1;
}

uint32_t vc_nack_timers(struct vc_worker *w)
{
    uint32_t cnt = 0, id;

    while ((id = vc_pacer_pop_due(&w->nacks, w->now_ns)) != VC_NONE)
        cnt += send_nack(w, &w->node->sources[id]);
    return cnt;
}
