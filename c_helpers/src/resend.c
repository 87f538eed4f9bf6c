/* SPDX-License-Identifier: MIT */
#include "resend.h"

#include "forward.h"
#include "pace.h"

#define SHARE 4u                     /* of the leg's rate */
#define UNPACED_BPS 20000000ull      /* what an unpaced leg counts as */
#define BUDGET_NS 500000000ull       /* so much time's share is saved up at most */
#define BUDGET_MIN 16384u
#define AGAIN_MAX_NS 500000000ull
#define WHEN_SHIFT 20
#define OSN_SZ 2u                    /* original sequence number, RFC 4588 section 4 */

_Static_assert((VC_RESEND_WINDOW & (VC_RESEND_WINDOW - 1)) == 0, "by the low bits of an index");

void vc_resend_sent(struct vc_resend *resend, uint64_t out, uint64_t position)
{
    if (out >= resend->top) {
        uint64_t from = resend->top;

        if (out - from > VC_RESEND_WINDOW)
            from = out - VC_RESEND_WINDOW;
        for (; from < out; from++) /* passed over: points at a packet of another number */
            resend->sent[from % VC_RESEND_WINDOW] = (uint16_t)position;
        resend->top = out + 1;
    } else if (resend->top - out > VC_RESEND_WINDOW) {
        return;
    }
    resend->sent[out % VC_RESEND_WINDOW] = (uint16_t)position;
}

/* RED leaves again as it left: to a receiver that takes none as its newest block alone; to one that
   takes it whole, but not by RTX, whose payload type stands for one other and never for RED's.  0;
   -1: it does not, or left before the receiver changed its mind. */
static int as_it_left(const struct vc_worker *w, const struct vc_route *route,
                      struct vc_departure *d)
{
    d->skip = 0;
    if (!(d->head.flags & VC_SLOT_RED))
        return 0;
    if (route->red_pt)
        return route->resend.rtx_ssrc ? -1 : 0;
    d->skip = vc_depart_newest(w, route, d);
    return d->skip && d->out >= route->resend.plain_from ? 0 : -1;
}

/* Finds the packet that left under this number.  0, or -1: it is not there any more. */
static int locate(const struct vc_worker *w, const struct vc_route *route, struct vc_departure *d)
{
    uint32_t id = route->feeds[0].source;
    uint64_t last = w->watches[id].announced - 1, found;
    uint16_t hint = route->resend.sent[d->out % VC_RESEND_WINDOW];

    if (!route->numbering.started || route->switched || d->out > route->numbering.highest_out ||
        d->out >= route->resend.top || route->resend.top - d->out > VC_RESEND_WINDOW)
        return -1;
    d->history = &w->node->sources[id].history;
    d->position = last - (uint16_t)(last - hint);
    if (vc_history_read(d->history, d->position, &d->head) || d->head.stream != route->stream ||
        d->head.index > route->numbering.highest_in ||
        vc_numbering_find(&route->numbering, d->head.index, &found) != VC_NUMBER_OK)
        return -1;
    return found == d->out ? as_it_left(w, route, d) : -1;
}

/* 1: the packet would leave as the bytes that it left as. */
static int reproducible(const struct vc_leg *leg, const struct vc_route *route, uint64_t out)
{
    return out >= route->resend.plain_from && !leg->tx_ext[VC_EXT_ABS_SEND_TIME] &&
           !leg->tx_ext[VC_EXT_TRANSPORT_CC];
}

/* 1: the way has become narrow and the route waits for a key frame of another source: nothing of
   the old picture is worth a place before it. */
static int is_left(const struct vc_leg *leg, const struct vc_route *route)
{
    return leg->narrowed && route->feeds[1].source != VC_NONE;
}

/* ---- asking ------------------------------------------------------------------------------ */

static int is_recent(const struct vc_worker *w, const struct vc_route *route, uint16_t out)
{
    uint64_t again_ns = route->stats->rtt_us * 1000ull;
    uint32_t cnt = route->resend.recent_cnt;

    if (!again_ns)
        again_ns = VC_RESEND_AGAIN_NS;
    else if (again_ns > AGAIN_MAX_NS)
        again_ns = AGAIN_MAX_NS;
    for (uint32_t i = 0; i < VC_RESEND_RECENT && i < cnt; i++)
        if (route->resend.recent[i].out == out &&
            (uint16_t)((w->now_ns >> WHEN_SHIFT) - route->resend.recent[i].when) <=
                again_ns >> WHEN_SHIFT)
            return 1;
    return 0;
}

/* 0, or -1: the route has spent its share. */
static int spend(const struct vc_worker *w, const struct vc_leg *leg, struct vc_resend *resend,
                 uint32_t sz)
{
    uint64_t rate = (leg->rate_bps ? leg->rate_bps : UNPACED_BPS) / 8 / SHARE;
    uint64_t passed = w->now_ns - resend->budget_ns, most, budget;

    if (rate > 1000000000u)
        rate = 1000000000u;
    most = rate * BUDGET_NS / 1000000000u;
    if (most < BUDGET_MIN)
        most = BUDGET_MIN;
    if (passed > 10000000000ull)
        passed = 10000000000ull;
    budget = resend->budget + passed * rate / 1000000000u;
    if (budget > most)
        budget = most;
    if (budget < sz)
        return -1; /* reckoned anew from the last time on: nothing is rounded away */
    resend->budget = (uint32_t)budget - sz;
    resend->budget_ns = w->now_ns;
    return 0;
}

static void enqueue(struct vc_worker *w, struct vc_leg *leg, const struct vc_route *route,
                    uint64_t out)
{
    struct vc_resend_queue *queue = &leg->resends;
    int idle = 1;

    for (int i = VC_QUEUE_AUDIO + 1; i < VC_QUEUE_COUNT; i++)
        idle &= !vc_leg_has(leg, i);
    queue->entries[(queue->first + queue->cnt++) % VC_RESEND_QUEUE] =
        (struct vc_resend_entry){ out, route->id, 0 };
    w->c.copies++;
    w->c.queued++;
    vc_pace_wake(w, leg, VC_QUEUE_RESEND, idle);
}

static void ask_one(struct vc_worker *w, struct vc_leg *leg, struct vc_route *route,
                    uint16_t number)
{
    struct vc_resend *resend = &route->resend;
    struct vc_departure d;
    uint32_t at = resend->recent_cnt % VC_RESEND_RECENT;

    d.out = route->numbering.highest_out - (uint16_t)(route->numbering.highest_out - number);
    if (!leg->sendable || route->paused || is_left(leg, route) || locate(w, route, &d)) {
        w->c.resend_gone++;
    } else if (!resend->rtx_ssrc && !reproducible(leg, route, d.out)) {
        w->c.resend_changed++;
    } else if (is_recent(w, route, number)) {
        w->c.resend_recent++;
    } else if (leg->resends.cnt == VC_RESEND_QUEUE) {
        w->c.resend_full++;
    } else if (spend(w, leg, resend, d.head.sz - d.skip)) {
        w->c.resend_budget++;
    } else {
        resend->recent[at].out = number;
        resend->recent[at].when = (uint16_t)(w->now_ns >> WHEN_SHIFT);
        resend->recent_cnt++;
        enqueue(w, leg, route, d.out);
    }
}

void vc_resend_ask(struct vc_worker *w, struct vc_leg *leg, struct vc_route *route,
                   const struct vc_rtcp_nack *nack)
{
    for (uint32_t bit = 0; bit <= 16; bit++) {
        if (bit && !(nack->blp >> (bit - 1) & 1))
            continue;
        w->c.nack_rx++;
        if (route)
            ask_one(w, leg, route, (uint16_t)(nack->pid + bit));
        else
            w->c.resend_unknown++;
    }
}

/* ---- leaving ----------------------------------------------------------------------------- */

/* The header, then for RTX the payload behind the number that it had, so that it is sealed in
   place.  0, or -1: the slot was reused, or the packet does not fit. */
static int build(const struct vc_worker *w, struct vc_leg *leg, struct vc_route *route,
                 struct vc_departure *d, struct vc_crypto_item *item)
{
    /* the extension ids of then: another worker may be changing those of now */
    struct vc_rtp_identity as = vc_depart_identity(w, leg, route, d, &route->resend.rx_ext);
    uint32_t payload_sz = d->head.sz - d->head.rtp.header_sz - d->skip, hdr_sz;

    if (d->how == VC_DEPARTURE_RTX) {
        as.ssrc = route->resend.rtx_ssrc;
        as.pt = route->resend.rtx_pt;
        as.seq = (uint16_t)route->resend.rtx_next;
    }
    vc_history_copy(d->history, d->position, 0, d->in_header, d->head.rtp.header_sz);
    if (!vc_history_intact(d->history, d->position))
        return -1;
    d->ids_sz = 0;
    if (vc_depart_rewrites(leg, route->rewrite.codec, route->resend.rx_ext) &&
        vc_depart_ids(leg, route, d, &route->resend.rx_ext))
        return -1;
    hdr_sz = vc_rtp_write(d->header, d->in_header, &d->head.rtp, &as);
    if (hdr_sz + OSN_SZ + payload_sz + leg->tag_sz > VC_TX_ROOM)
        return -1;
    *item = (struct vc_crypto_item){
        .key = &leg->tx,
        .src = vc_history_slot(d->history, d->position)->data + d->head.rtp.header_sz + d->skip,
        .dst = d->tx.payload,
        .src_sz = payload_sz,
        .hdr_sz = hdr_sz,
        .index = d->out,
        .hdr = d->header,
    };
    if (d->how != VC_DEPARTURE_RTX && !d->ids_sz)
        return 0;
    vc_depart_place(d, item, d->how == VC_DEPARTURE_RTX ? OSN_SZ : 0);
    if (!vc_history_intact(d->history, d->position))
        return -1;
    if (d->how != VC_DEPARTURE_RTX)
        return 0;
    vc_store_be16(d->tx.payload + hdr_sz, (uint16_t)d->out);
    item->index = d->rtx = route->resend.rtx_next++;
    return 0;
}

int vc_resend_take(struct vc_worker *w, struct vc_leg *leg, struct vc_departure *d)
{
    struct vc_resend_queue *queue = &leg->resends;

    while (queue->cnt) {
        const struct vc_resend_entry *entry = &queue->entries[queue->first];
        struct vc_route *route = &w->node->routes[entry->route];
        struct vc_crypto_item *item = &w->seal.items[w->seal.cnt];

        queue->first = (queue->first + 1) % VC_RESEND_QUEUE;
        queue->cnt--;
        w->c.queued--;
        d->out = entry->out;
        d->route = route;
        d->committed = 0;
        d->how = route->resend.rtx_ssrc ? VC_DEPARTURE_RTX : VC_DEPARTURE_PLAIN;
        d->waited_ns = w->now_ns;
        if (is_left(leg, route) || locate(w, route, d) ||
            (d->how == VC_DEPARTURE_PLAIN && !reproducible(leg, route, d->out)) ||
            build(w, leg, route, d, item)) {
            vc_copy_drop(w, route, VC_COPY_DROP_STALE, 1);
            continue;
        }
        vc_pace_pay(w, leg, item->src_sz + (item->hdr ? item->hdr_sz : 0) + leg->tag_sz);
        w->seal.cnt++;
        return 1;
    }
    return 0;
}

void vc_resend_leaves(struct vc_worker *w, struct vc_route *route, const struct vc_departure *d)
{
    struct vc_tx_index *store = route->store;

    if (d->how == VC_DEPARTURE_PLAIN) {
        w->c.resent_plain++;
        return;
    }
    w->c.resent_rtx++;
    __atomic_store_n(&store->rtx_highest, d->rtx, __ATOMIC_RELEASE);
    store->rtx_ssrc = route->resend.rtx_ssrc;
    __atomic_store_n(&store->rtx_started, 1, __ATOMIC_RELEASE);
}

void vc_resend_drop(struct vc_worker *w, struct vc_leg *leg, uint32_t route,
                    enum vc_copy_drop reason)
{
    struct vc_resend_queue *queue = &leg->resends;
    uint32_t n = queue->cnt;

    for (; n > 0; n--) {
        struct vc_resend_entry entry = queue->entries[queue->first];

        queue->first = (queue->first + 1) % VC_RESEND_QUEUE;
        queue->cnt--;
        if (route == VC_NONE || entry.route == route) {
            w->c.queued--;
            vc_copy_drop(w, &w->node->routes[entry.route], reason, 1);
        } else {
            queue->entries[(queue->first + queue->cnt++) % VC_RESEND_QUEUE] = entry;
        }
    }
}
