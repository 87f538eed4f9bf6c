/* SPDX-License-Identifier: MIT */
#include "route.h"

#include "node.h"
#include "pace.h"
#include "request.h"
#include "switch.h"

static struct vc_route *feed_route(const struct vc_worker *w, uint32_t feed)
{
    return &w->node->routes[feed / 2];
}

static struct vc_feed *feed_of(const struct vc_worker *w, uint32_t feed)
{
    return &feed_route(w, feed)->feeds[feed & 1];
}

static void link_feed(struct vc_worker *w, uint32_t id)
{
    struct vc_feed *feed = feed_of(w, id);
    struct vc_watch *watch = &w->watches[feed->source];

    feed->prev = VC_NONE;
    feed->next = watch->first;
    if (watch->first != VC_NONE)
        feed_of(w, watch->first)->prev = id;
    watch->first = id;
    watch->cnt++;
}

static void unlink_feed(struct vc_worker *w, uint32_t id)
{
    struct vc_feed *feed = feed_of(w, id);
    struct vc_watch *watch = &w->watches[feed->source];

    if (feed->prev != VC_NONE)
        feed_of(w, feed->prev)->next = feed->next;
    else
        watch->first = feed->next;
    if (feed->next != VC_NONE)
        feed_of(w, feed->next)->prev = feed->prev;
    watch->cnt--;
}

static int is_gated(const struct vc_route *route)
{
    return (route->flags & VC_ROUTE_GATED) != 0;
}

static void set_gate(struct vc_route *route, int open)
{
    route->gate_open = (uint8_t)open;
    route->stats->gate_open = (uint32_t)open;
}

void vc_route_ask(struct vc_worker *w, struct vc_route *route, uint32_t which)
{
    route->asked_ns[which] = w->now_ns;
    vc_request_keyframe(w, route->feeds[which].source);
}

/* ---- the leg's queues -------------------------------------------------------------------- */

void vc_route_requeue(struct vc_worker *w, struct vc_route *route)
{
    struct vc_route_list *list = &w->node->legs[route->leg].queues[route->queue];

    route->queued = 1;
    route->waiting = VC_NONE;
    if (list->tail != VC_NONE)
        w->node->routes[list->tail].waiting = route->id;
    else
        list->head = route->id;
    list->tail = route->id;
}

void vc_route_enqueue(struct vc_worker *w, struct vc_route *route)
{
    struct vc_leg *leg = &w->node->legs[route->leg];
    int idle = 1;

    if (route->queued)
        return;
    for (int queue = VC_QUEUE_AUDIO + 1; queue < VC_QUEUE_COUNT; queue++)
        idle &= !vc_leg_has(leg, queue);
    vc_route_requeue(w, route);
    vc_pace_wake(w, leg, route->queue, idle);
}

void vc_route_dequeue(struct vc_worker *w, struct vc_route *route)
{
    struct vc_route_list *list = &w->node->legs[route->leg].queues[route->queue];
    uint32_t before = VC_NONE, at = list->head;

    if (!route->queued)
        return;
    while (at != route->id) {
        before = at;
        at = w->node->routes[at].waiting;
    }
    if (before != VC_NONE)
        w->node->routes[before].waiting = route->waiting;
    else
        list->head = route->waiting;
    if (list->tail == route->id)
        list->tail = before;
    route->queued = 0;
}

uint64_t vc_route_limit(const struct vc_worker *w, const struct vc_route *route)
{
    return route->switch_at != UINT64_MAX ? route->switch_at :
                                            w->watches[route->feeds[0].source].announced;
}

void vc_route_shed(struct vc_worker *w, struct vc_route *route, uint64_t to,
                   enum vc_copy_drop reason)
{
    uint64_t n = to - route->feeds[0].cursor;

    route->feeds[0].cursor = to;
    w->c.queued -= n;
    vc_copy_drop(w, route, reason, n);
}

/* ---- attaching to a source --------------------------------------------------------------- */

int vc_route_attach(struct vc_worker *w, struct vc_route *route, uint32_t which, uint32_t id)
{
    struct vc_source *source = &w->node->sources[id];
    struct vc_watch *watch = &w->watches[id];

    if (vc_source_hold(source))
        return -1;
    if (!watch->cnt) {
        __atomic_fetch_or(&source->watchers, 1u << w->id, __ATOMIC_SEQ_CST);
        watch->announced = __atomic_load_n(&source->position, __ATOMIC_ACQUIRE);
    }
    route->feeds[which].source = id;
    route->feeds[which].cursor = watch->announced;
    link_feed(w, 2 * route->id + which);
    return 0;
}

void vc_route_detach(struct vc_worker *w, struct vc_route *route, uint32_t which,
                     enum vc_copy_drop reason)
{
    struct vc_feed *feed = &route->feeds[which];
    struct vc_source *source = &w->node->sources[feed->source];
    uint64_t n = w->watches[feed->source].announced - feed->cursor;

    w->c.queued -= n;
    vc_copy_drop(w, route, reason, n);
    unlink_feed(w, 2 * route->id + which);
    if (!w->watches[feed->source].cnt)
        __atomic_fetch_and(&source->watchers, ~(1u << w->id), __ATOMIC_SEQ_CST);
    vc_source_release(source);
    feed->source = VC_NONE;
}

/* Moves a feed's cursor back to `from`: these copies are due again, or for the first time. */
static void rewind_feed(struct vc_worker *w, struct vc_feed *feed, uint64_t from)
{
    uint64_t n = feed->cursor - from;

    feed->cursor = from;
    w->c.copies += n;
    w->c.queued += n;
}

/* Finds a recent key frame since which the history holds everything.  Never goes back over what
   the route has sent already: one in index is numbered once. */
int vc_route_fast_start(struct vc_worker *w, struct vc_route *route, uint32_t which)
{
    struct vc_feed *feed = &route->feeds[which];
    const struct vc_source *source = &w->node->sources[feed->source];
    uint64_t at = __atomic_load_n(&source->key_position, __ATOMIC_RELAXED);
    uint64_t key_ns = __atomic_load_n(&source->key_ns, __ATOMIC_RELAXED);
    uint64_t index = __atomic_load_n(&source->key_index, __ATOMIC_RELAXED);
    uint64_t highest = __atomic_load_n(&source->highest, __ATOMIC_RELAXED);
    uint64_t position = __atomic_load_n(&source->position, __ATOMIC_ACQUIRE);
    struct vc_slot_head head;

    if (!key_ns || w->now_ns - key_ns >= VC_FAST_START_NS || at >= feed->cursor)
        return 0;
    if (highest - index + 1 != position - at)
        return 0;
    if (vc_history_read(&source->history, at, &head) || !(head.flags & VC_SLOT_KEY))
        return 0;
    if (which == 0 && route->numbering.started &&
        (head.stream != route->stream || head.index <= route->numbering.highest_in))
        return 0;
    if (which == 1 && !vc_switch_fits(w, route, head.rtp.timestamp, 1))
        return 0;
    rewind_feed(w, feed, at);
    route->since_ns = w->now_ns;
    return 1;
}

static void begin_current(struct vc_worker *w, struct vc_route *route)
{
    if (!is_gated(route)) {
        set_gate(route, 1);
        return;
    }
    set_gate(route, 0);
    if (!w->node->legs[route->leg].sendable || route->paused)
        return;
    if (vc_route_fast_start(w, route, 0)) {
        set_gate(route, 1);
        vc_route_enqueue(w, route);
    } else {
        vc_route_ask(w, route, 0);
    }
}

/* What the earlier life may have left unsent is still in the history, if it came since. */
static void begin_restored(struct vc_worker *w, struct vc_route *route)
{
    struct vc_feed *feed = &route->feeds[0];
    const struct vc_source *source = &w->node->sources[feed->source];
    uint64_t from = feed->cursor;
    struct vc_slot_head head;

    while (from > 0 && feed->cursor - from <= source->history.mask &&
           !vc_history_read(&source->history, from - 1, &head) &&
           w->now_ns - head.arrival_ns < w->node->queue_limit_ns)
        from--;
    set_gate(route, 1);
    if (from < feed->cursor) {
        rewind_feed(w, feed, from);
        vc_route_enqueue(w, route);
    }
    if (is_gated(route))
        vc_route_ask(w, route, 0);
}

void vc_route_next_found(struct vc_worker *w, struct vc_route *route)
{
    route->found_ns = w->now_ns;
    route->found_at = w->watches[route->feeds[0].source].announced;
    vc_switch_cut(w, route);
}

void vc_route_begin(struct vc_worker *w, struct vc_route *route, int restored)
{
    if (restored && w->node->legs[route->leg].sendable)
        begin_restored(w, route);
    else
        begin_current(w, route);
}

static void cancel_next(struct vc_worker *w, struct vc_route *route)
{
    vc_route_detach(w, route, 1, VC_COPY_DROP_FILTER);
    route->switch_at = UINT64_MAX;
    route->found_ns = 0;
    route->waits = 0;
}

void vc_route_change(struct vc_worker *w, struct vc_route *route, uint32_t source)
{
    if (route->feeds[1].source == source)
        return;
    if (route->feeds[1].source != VC_NONE)
        cancel_next(w, route);
    if (route->feeds[0].source == source)
        return;
    route->next_aligned = 0;
    VC_ASSERT(!vc_route_attach(w, route, 1, source)); /* the caller holds it */
    if (!is_gated(route)) {
        vc_route_switch(w, route);
    } else if (!w->node->legs[route->leg].sendable || route->paused) {
        vc_route_switch(w, route); /* nobody sees the old one: no need to wait for a key frame */
        begin_current(w, route);
    } else {
        vc_switch_begin(w, route);
    }
}

void vc_route_header(struct vc_route *route, uint64_t rx_ext)
{
    route->resend.rx_ext = rx_ext;
    route->resend.plain_from = route->numbering.highest_out + 1;
}

void vc_route_take_types(struct vc_route *route)
{
    const struct vc_route_types *types = &route->next_types;

    if (route->pt != types->pt || route->red_pt != types->red_pt)
        vc_route_header(route, route->resend.rx_ext);
    route->pt = types->pt;
    route->red_pt = types->red_pt;
    route->resend.rtx_pt = types->rtx_pt;
}

void vc_route_switch(struct vc_worker *w, struct vc_route *route)
{
    uint32_t id = 2 * route->id;

    vc_switch_taken(w, route);
    vc_route_detach(w, route, 0, VC_COPY_DROP_FILTER);
    unlink_feed(w, id + 1);
    route->feeds[0] = route->feeds[1];
    route->feeds[1].source = VC_NONE;
    link_feed(w, id);
    route->switch_at = UINT64_MAX;
    route->found_ns = 0;
    route->switched = 1;
    vc_route_forget(route);
    vc_route_take_types(route);
    set_gate(route, 1);
}

void vc_route_close_gate(struct vc_worker *w, struct vc_route *route)
{
    vc_numbering_suspend(&route->numbering);
    if (!is_gated(route))
        return;
    set_gate(route, 0);
    if (!route->paused && w->node->legs[route->leg].sendable)
        vc_route_ask(w, route, 0);
}

void vc_route_reopen(struct vc_worker *w, struct vc_route *route)
{
    if (route->paused || !w->node->legs[route->leg].sendable || route->gate_open)
        return;
    begin_current(w, route);
}

/* ---- new packets ------------------------------------------------------------------------- */

uint64_t vc_route_find_key(const struct vc_source *source, uint64_t from, uint64_t to)
{
    struct vc_slot_head head;

    if (to - from > source->history.mask)
        from = to - source->history.mask;
    while (from < to && (vc_history_read(&source->history, from, &head) ||
                         !(head.flags & VC_SLOT_KEY)))
        from++;
    return from;
}

/* A feed that waits for a key frame: what comes before it is dropped.  1: it is there. */
static int pass_gate(struct vc_worker *w, struct vc_route *route, uint32_t which, uint64_t key,
                     uint64_t to)
{
    struct vc_feed *feed = &route->feeds[which];

    vc_copy_drop(w, route, VC_COPY_DROP_GATE, key - feed->cursor);
    feed->cursor = key;
    w->c.queued += to - key;
    if (key < to)
        return 1;
    if (which == 1 && route->waits)
        vc_switch_resume(w, route);
    else if (w->now_ns - route->asked_ns[which] >= VC_KEYFRAME_RETRY_NS)
        vc_route_ask(w, route, which);
    return 0;
}

static void announce_feed(struct vc_worker *w, struct vc_route *route, uint32_t which,
                          uint64_t key, uint64_t to)
{
    struct vc_feed *feed = &route->feeds[which];
    uint64_t n = to - feed->cursor;

    if (route->paused || !w->node->legs[route->leg].sendable) {
        vc_copy_drop(w, route, route->paused ? VC_COPY_DROP_FILTER : VC_COPY_DROP_NO_PATH, n);
        feed->cursor = to;
        vc_numbering_suspend(&route->numbering);
    } else if (which == 1) {
        if (pass_gate(w, route, 1, vc_switch_find(w, route, key, to), to))
            vc_route_next_found(w, route);
    } else if (!route->gate_open) {
        if (pass_gate(w, route, 0, key, to)) {
            set_gate(route, 1);
            vc_route_enqueue(w, route);
        }
    }
}

void vc_route_announce(struct vc_worker *w, uint32_t id, uint64_t to)
{
    const struct vc_source *source = &w->node->sources[id];
    struct vc_watch *watch = &w->watches[id];
    uint64_t from = watch->announced, key = UINT64_MAX;

    if (!watch->cnt || (int64_t)(to - from) <= 0)
        return;
    watch->announced = to;
    for (uint32_t at = watch->first; at != VC_NONE; at = feed_of(w, at)->next) {
        struct vc_route *route = feed_route(w, at);
        int open = (at & 1) ? route->found_ns != 0 : route->gate_open;

        w->c.copies += to - from;
        if (open && !route->paused && w->node->legs[route->leg].sendable) {
            w->c.queued += to - from;
            if (vc_unlikely(route->found_ns))
                vc_switch_cut(w, route);
            vc_route_enqueue(w, route);
            continue;
        }
        if (key == UINT64_MAX)
            key = vc_route_find_key(source, from, to);
        announce_feed(w, route, at & 1, key, to);
    }
}
