/* SPDX-License-Identifier: MIT */
#include "forward.h"
#include "pace.h"
#include "report.h"
#include "switch.h"

#define STARVED_RETRY_NS 50000ull

/* ---- what a route sends next ------------------------------------------------------------- */

/* What waits is too old or gone: a gated route goes on at the newest key frame, or waits for one;
   another drops the head alone. */
static void shed_head(struct vc_worker *w, struct vc_route *route, uint64_t gone_to,
                      enum vc_copy_drop reason)
{
    struct vc_feed *feed = &route->feeds[0];
    uint64_t limit = vc_route_limit(w, route);
    uint64_t key = __atomic_load_n(&w->node->sources[feed->source].key_position,
                                   __ATOMIC_RELAXED);

    if (!(route->flags & VC_ROUTE_GATED)) {
        vc_route_shed(w, route, gone_to, reason);
        return;
    }
    vc_numbering_suspend(&route->numbering);
    if (key >= gone_to && key < limit) {
        vc_route_shed(w, route, key, reason);
        return;
    }
    vc_route_shed(w, route, limit, reason);
    if (route->found_ns)
        route->switch_at = limit;
    else
        vc_route_close_gate(w, route);
}

/* The slot at the cursor was reused: so were all that were older than it. */
static void shed_stale(struct vc_worker *w, struct vc_route *route)
{
    struct vc_feed *feed = &route->feeds[0];
    const struct vc_source *source = &w->node->sources[feed->source];
    uint64_t limit = vc_route_limit(w, route);
    uint64_t position = __atomic_load_n(&source->position, __ATOMIC_ACQUIRE);
    uint64_t to = feed->cursor + 1;

    if (position > source->history.mask && position - source->history.mask > to)
        to = position - source->history.mask;
    vc_numbering_suspend(&route->numbering);
    shed_head(w, route, to < limit ? to : limit, VC_COPY_DROP_STALE);
}

/* A stream of numbers begins, or goes on with another source: the outgoing one has no gap. */
static void begin_numbers(struct vc_worker *w, struct vc_route *route,
                          const struct vc_slot_head *head)
{
    const struct vc_source *source = &w->node->sources[route->feeds[0].source];
    int started = route->numbering.started;
    int other = route->switched || route->follows || head->stream != route->stream;
    uint64_t out = started ? route->numbering.highest_out + 1 : route->first_out;

    if ((started || route->follows) && route->last_arrival_ns)
        vc_switch_clock(route, head, source->clock_hz);
    vc_numbering_start(&route->numbering, head->index, out);
    if (other)
        vc_rewrite_switch(&route->rewrite, out);
    else
        vc_rewrite_renumber(&route->rewrite, out);
    route->stream = head->stream;
    route->switched = route->follows = 0;
    route->report_due = 1;
}

/* Padding, what was not agreed on, and RED that has nothing for a receiver that takes none: leaves
   no gap either.  1: the head was shed. */
static int leave_out(struct vc_worker *w, struct vc_route *route, struct vc_departure *d)
{
    const struct vc_slot_head *head = &d->head;
    int never = (head->flags & (VC_SLOT_EMPTY | VC_SLOT_FOREIGN)) != 0;

    if (!never && !route->red_pt)
        d->skip = vc_depart_newest(w, route, d);
    if (!never && (route->red_pt || d->skip))
        return 0;
    if (!route->switched && head->stream == route->stream)
        vc_numbering_skip(&route->numbering, head->index);
    vc_route_shed(w, route, route->feeds[0].cursor + 1,
                  head->flags & VC_SLOT_EMPTY ? VC_COPY_DROP_PADDING :
                  never                       ? VC_COPY_DROP_PAYLOAD_TYPE :
                                                VC_COPY_DROP_FILTER);
    return 1;
}

/* Finds the next packet that the route can send and takes its number.  0: nothing waits. */
static int take_next(struct vc_worker *w, struct vc_route *route, struct vc_departure *d)
{
    struct vc_feed *feed = &route->feeds[0];

    for (;;) {
        const struct vc_source *source = &w->node->sources[feed->source];
        enum vc_number number;
        uint64_t since;
        uint8_t suspended;

        if (feed->cursor == vc_route_limit(w, route)) {
            if (route->switch_at == UINT64_MAX)
                return 0;
            vc_route_switch(w, route);
            continue;
        }
        d->position = feed->cursor;
        d->history = &source->history;
        if (vc_history_read(&source->history, feed->cursor, &d->head)) {
            shed_stale(w, route);
            continue;
        }
        d->skip = 0;
        if (vc_unlikely(d->head.flags & (VC_SLOT_EMPTY | VC_SLOT_FOREIGN | VC_SLOT_RED)) &&
            leave_out(w, route, d))
            continue;
        since = d->head.arrival_ns > route->since_ns ? d->head.arrival_ns : route->since_ns;
        d->waited_ns = since;
        if (w->now_ns > since && w->now_ns - since > w->node->queue_limit_ns) {
            if (!(route->flags & VC_ROUTE_GATED))
                vc_numbering_skip(&route->numbering, d->head.index);
            shed_head(w, route, feed->cursor + 1, VC_COPY_DROP_QUEUE_LIMIT);
            continue;
        }
        if (!route->numbering.started || route->switched || d->head.stream != route->stream)
            begin_numbers(w, route, &d->head);
        suspended = route->numbering.suspended;
        number = vc_numbering_take(&route->numbering, d->head.index, &d->out);
        if (vc_unlikely(suspended && !route->numbering.suspended))
            vc_rewrite_begin(&route->rewrite, d->out);
        if (number == VC_NUMBER_OK)
            return 1;
        vc_route_shed(w, route, feed->cursor + 1,
                      number == VC_NUMBER_USED ? VC_COPY_DROP_INDEX_USED :
                                                 VC_COPY_DROP_NUMBERING);
    }
}

/* ---- a burst of departures --------------------------------------------------------------- */

static void lose(struct vc_worker *w, const struct vc_departure *d, enum vc_copy_drop reason)
{
    d->io->ops->tx_cancel(d->io, &d->tx);
    vc_copy_drop(w, d->route, reason, 1);
}

/* Rewrites the header and makes the packet an item of the burst.  Its number is taken: should
   it not leave, a hole stays. */
static void add_departure(struct vc_worker *w, struct vc_leg *leg, struct vc_route *route,
                          struct vc_departure *d)
{
    const struct vc_source *source = &w->node->sources[route->feeds[0].source];
    uint64_t rx_ext = __atomic_load_n(&source->rx_ext, __ATOMIC_RELAXED);
    struct vc_rtp_identity as = vc_depart_identity(w, leg, route, d, &rx_ext);
    struct vc_crypto_item *item = &w->seal.items[w->seal.cnt];
    uint32_t payload_sz = d->head.sz - d->head.rtp.header_sz - d->skip;
    uint8_t codec = __atomic_load_n(&source->codec, __ATOMIC_RELAXED);
    int ids = 0;

    d->route = route;
    d->committed = 0;
    d->how = VC_DEPARTURE_FIRST;
    d->ids_sz = 0;
    d->out_ts = as.timestamp;
    route->feeds[0].cursor++;
    w->c.queued--;
    if (vc_unlikely(rx_ext != route->resend.rx_ext || codec != route->rewrite.codec)) {
        vc_route_header(route, rx_ext);
        route->rewrite.codec = codec;
    }
    vc_history_copy(d->history, d->position, 0, d->in_header, d->head.rtp.header_sz);
    *item = (struct vc_crypto_item){
        .key = &leg->tx,
        .src = vc_history_slot(d->history, d->position)->data + d->head.rtp.header_sz + d->skip,
        .dst = d->tx.payload,
        .src_sz = payload_sz,
        .index = d->out,
        .hdr = d->header,
    };
    if (vc_history_intact(d->history, d->position)) {
        if (vc_depart_rewrites(leg, codec, rx_ext))
            ids = vc_depart_ids(leg, route, d, &rx_ext);
        if (!ids)
            item->hdr_sz = vc_rtp_write(d->header, d->in_header, &d->head.rtp, &as);
    }
    if (!item->hdr_sz || item->hdr_sz + payload_sz + leg->tag_sz > VC_TX_ROOM) {
        lose(w, d, item->hdr_sz ? VC_COPY_DROP_TX_ERROR :
                   ids > 0      ? VC_COPY_DROP_NUMBERING :
                                  VC_COPY_DROP_STALE);
        return;
    }
    if (d->ids_sz)
        vc_depart_place(d, item, 0);
    vc_pace_pay(w, leg, item->hdr_sz + payload_sz + leg->tag_sz);
    if ((int32_t)(d->out_ts - route->last_out_ts) > 0 || !route->last_arrival_ns) {
        route->last_arrival_ns = d->head.arrival_ns;
        route->last_out_ts = d->out_ts;
        vc_switch_left(route, d->head.rtp.timestamp);
    }
    w->seal.cnt++;
}

/* What the next process must know if this one dies now; before the packet can leave.  One that dies
   while what depends on the source is written had none. */
static void store_index(const struct vc_leg *leg, struct vc_route *route, uint64_t out,
                        uint32_t in_ssrc, uint32_t octets)
{
    struct vc_tx_index *store = route->store;
    int changed = store->source != route->feeds[0].source || route->rewrite.changed;

    if (vc_unlikely(changed)) {
        __atomic_store_n(&store->source, VC_NONE, __ATOMIC_RELAXED);
        VC_INDEX_FENCE();
        store->id_offset = vc_rewrite_offset(&route->rewrite);
        store->last_ns = route->last_arrival_ns;
        store->last_ts = route->last_out_ts;
        store->in_ssrc = in_ssrc;
        route->rewrite.changed = 0;
    }
    if (!store->started || out > store->highest)
        __atomic_store_n(&store->highest, out, __ATOMIC_RELEASE);
    __atomic_store_n(&store->offset, vc_numbering_offset(&route->numbering), __ATOMIC_RELEASE);
    store->ids = route->rewrite.highest;
    store->ts_offset = route->ts_offset;
    if (vc_unlikely(changed) && !route->switched) /* else the source has not begun */
        __atomic_store_n(&store->source, route->feeds[0].source, __ATOMIC_RELEASE);
    store->key_id = leg->key_id;
    store->packets++;
    store->octets += octets;
    __atomic_store_n(&store->started, 1, __ATOMIC_RELEASE);
}

static void settle(struct vc_worker *w, uint32_t i)
{
    struct vc_departure *d = &w->seal.departures[i];
    const struct vc_crypto_item *item = &w->seal.items[i];
    struct vc_route *route = d->route;
    struct vc_leg *leg = &w->node->legs[route->leg];
    int which = d->io == w->io_xsk ? VC_IO_XSK : VC_IO_SOCKET;
    uint64_t waited = w->now_ns > d->waited_ns ? w->now_ns - d->waited_ns : 0;

    if (!item->ok ||
        (d->how != VC_DEPARTURE_RTX && !vc_history_intact(d->history, d->position))) {
        lose(w, d, item->ok ? VC_COPY_DROP_STALE : VC_COPY_DROP_TX_ERROR);
        return;
    }
    if (d->how == VC_DEPARTURE_FIRST) {
        store_index(leg, route, d->out, d->head.rtp.ssrc,
                    d->head.sz - d->head.rtp.header_sz - d->skip);
        vc_resend_sent(&route->resend, d->out, d->position);
    } else {
        vc_resend_leaves(w, route, d);
    }
    d->io->ops->tx_commit(d->io, &d->tx, item->dst_sz);
    d->committed = 1;
    w->copies_pending[which]++;
    w->c.tx_bytes += item->dst_sz;
    route->stats->packets++;
    route->stats->bytes += item->dst_sz;
    route->stats->out_ssrc = route->out_ssrc;
    leg->stats->tx_packets++;
    leg->stats->tx_bytes += item->dst_sz;
    if (d->how == VC_DEPARTURE_FIRST)
        leg->stats->queue_delay_ns += (int64_t)(waited - leg->stats->queue_delay_ns) / 16;
}

static void seal_burst(struct vc_worker *w)
{
    struct vc_seal_batch *batch = &w->seal;

    if (!batch->cnt)
        return;
    vc_crypto_seal_rtp(w->crypto, batch->items, batch->cnt);
    for (uint32_t i = 0; i < batch->cnt; i++)
        settle(w, i);
    for (uint32_t i = 0; i < batch->cnt; i++)
        if (batch->departures[i].route->report_due)
            vc_report_route(w, batch->departures[i].route);
    vc_flush(w);
    for (uint32_t i = 0; i < batch->cnt; i++)
        if (batch->departures[i].committed)
            vc_pace_late(w, batch->departures[i].due_ns, w->flushed_ns);
    batch->cnt = 0;
}

/* ---- legs that are due ------------------------------------------------------------------- */

static int reserve(struct vc_worker *w, const struct vc_leg *leg, int queue,
                   struct vc_departure *d)
{
    int which = vc_leg_backend(w, leg);
    struct vc_io_dst dst =
        vc_leg_dst(leg, queue == VC_QUEUE_AUDIO ? leg->dscp_audio : leg->dscp_video);

    dst.depart_ns = d->due_ns > w->now_ns ? d->due_ns : 0;
    d->io = vc_worker_io(w, which);
    return d->io->ops->tx_reserve(d->io, &dst, &d->tx);
}

/* Lets a due leg send the head of its highest queue.  -1: the backend has no frame left. */
static int depart_leg(struct vc_worker *w, struct vc_leg *leg, uint64_t due_ns)
{
    struct vc_departure *d = &w->seal.departures[w->seal.cnt];
    int queue = vc_pace_queue(leg);
    struct vc_route *route;

    if (queue < 0)
        return 0;
    VC_ASSERT(leg->sendable);
    if (vc_pace_waits(w, leg, queue)) {
        vc_pace_next(w, leg);
        return 0;
    }
    d->due_ns = due_ns;
    if (reserve(w, leg, queue, d))
        return -1;
    if (queue == VC_QUEUE_RESEND) {
        if (!vc_resend_take(w, leg, d))
            d->io->ops->tx_cancel(d->io, &d->tx);
        vc_pace_next(w, leg);
        return 0;
    }
    route = &w->node->routes[leg->queues[queue].head];
    vc_route_dequeue(w, route);
    if (take_next(w, route, d)) {
        add_departure(w, leg, route, d);
    } else {
        d->io->ops->tx_cancel(d->io, &d->tx);
    }
    if (route->feeds[0].cursor != vc_route_limit(w, route) || route->switch_at != UINT64_MAX)
        vc_route_requeue(w, route);
    vc_pace_next(w, leg);
    return 0;
}

/* No frame was left: what waits too long is dropped, the rest is tried again. */
static void shed_starved(struct vc_worker *w, struct vc_leg *leg)
{
    int queue = vc_pace_queue(leg);
    struct vc_route *route;
    struct vc_feed *feed;
    struct vc_slot_head head;

    if (queue == VC_QUEUE_RESEND) {
        vc_resend_drop(w, leg, VC_NONE, VC_COPY_DROP_TX_FULL); /* it will be asked for again */
        vc_wheel_schedule(&w->departures, leg->id, w->departures.now_ns + STARVED_RETRY_NS, 0);
        return;
    }
    route = &w->node->routes[leg->queues[queue].head];
    feed = &route->feeds[0];
    while (feed->cursor != vc_route_limit(w, route)) {
        const struct vc_source *source = &w->node->sources[feed->source];

        if (!vc_history_read(&source->history, feed->cursor, &head)) {
            if (w->now_ns - head.arrival_ns <= w->node->queue_limit_ns ||
                w->now_ns - route->since_ns <= w->node->queue_limit_ns)
                break;
            if (!(route->flags & VC_ROUTE_GATED))
                vc_numbering_skip(&route->numbering, head.index);
            shed_head(w, route, feed->cursor + 1, VC_COPY_DROP_TX_FULL);
        } else {
            shed_stale(w, route);
        }
    }
    vc_wheel_schedule(&w->departures, leg->id, w->departures.now_ns + STARVED_RETRY_NS, 0);
}

uint32_t vc_depart(struct vc_worker *w)
{
    uint32_t cnt = 0, id = 0;
    uint64_t due_ns;

    while (id != VC_NONE && cnt < VC_DEPARTURES_CYCLE) {
        while (w->seal.cnt < VC_DEPARTURES_KICK &&
               (id = vc_wheel_pop(&w->departures, &due_ns)) != VC_NONE) {
            struct vc_leg *leg = &w->node->legs[id];

            cnt++;
            if (!depart_leg(w, leg, due_ns))
                continue;
            if (w->seal.cnt) { /* a flush may give frames back */
                vc_wheel_schedule(&w->departures, id, due_ns, 0);
                break;
            }
            shed_starved(w, leg);
            return cnt;
        }
        seal_burst(w);
    }
    return cnt;
}
