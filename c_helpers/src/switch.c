/* SPDX-License-Identifier: MIT */
#include "switch.h"

#include "node.h"
#include "timeline.h"

/* A key frame may seem so much older than what has left: it is the same picture, encoded again, and
   the reports are not exact (Chromium's are wrong by 2 ms each).  Below any sender's period. */
#define SLACK_MS 10u
#define LATE_MS 500u /* a key frame that comes just now may be so much older */
#define LATE_SHARE 16u
#define LATE_KEPT (1u << 23) /* ticks; after 2^31 of them a comparison would turn round */
#define FRAME_TAIL 32u /* packets: the end of a frame is among the last so many */
#define TRUST_S 5u  /* reports that move a stream farther from its arrivals are not believed */

static const struct vc_source *source_of(const struct vc_worker *w, const struct vc_route *route,
                                         uint32_t which)
{
    return &w->node->sources[route->feeds[which].source];
}

static int is_later(uint32_t timestamp, uint32_t than)
{
    return (int32_t)(timestamp - than) > 0;
}

/* ---- both sources of one sender ---------------------------------------------------------- */

static int are_siblings(const struct vc_worker *w, const struct vc_route *route)
{
    const struct vc_source *from = source_of(w, route, 0), *to = source_of(w, route, 1);

    return from->leg == to->leg && from->clock_hz == to->clock_hz;
}

/* With which offset the current source leaves, or would if it had begun.  -1: not known. */
static int current_offset(const struct vc_route *route, uint32_t *offset)
{
    if (!route->numbering.started || (route->switched && !route->aligned))
        return -1;
    *offset = route->switched ? route->aligned_offset : route->ts_offset;
    return 0;
}

/* The offset of feed 1, by the reports.  0, or -1. */
static int align(const struct vc_worker *w, struct vc_route *route)
{
    struct vc_sender_report from, to;
    uint32_t offset;

    if (!are_siblings(w, route) || current_offset(route, &offset) ||
        vc_source_report_read(source_of(w, route, 0), &from) ||
        vc_source_report_read(source_of(w, route, 1), &to))
        return -1;
    route->next_offset = vc_timeline_offset(&from, offset, &to, source_of(w, route, 1)->clock_hz);
    route->next_aligned = 1;
    return 0;
}

static int is_overdue(const struct vc_worker *w, const struct vc_route *route)
{
    return w->now_ns - route->switch_ns >= VC_ALIGN_WAIT_NS;
}

/* Nobody waits where there is nothing to be seen meanwhile. */
static int must_wait(const struct vc_worker *w, struct vc_route *route)
{
    uint32_t offset;

    return route->gate_open && !is_overdue(w, route) && are_siblings(w, route) &&
           !current_offset(route, &offset) && align(w, route);
}

/* The latest out timestamp of what has left, and of what is still to leave before feed 1. */
static uint32_t newest_timestamp(const struct vc_worker *w, const struct vc_route *route)
{
    const struct vc_feed *feed = &route->feeds[0];
    uint64_t end = w->watches[feed->source].announced;
    uint32_t newest = route->last_out_ts, offset, timestamp;
    struct vc_slot_head head;

    if (feed->cursor < end && !current_offset(route, &offset) &&
        !vc_history_read(&source_of(w, route, 0)->history, end - 1, &head)) {
        timestamp = route->switched ? head.rtp.timestamp + offset :
                                      vc_switch_timestamp(route, head.rtp.timestamp);
        if (is_later(timestamp, newest))
            newest = timestamp;
    }
    return newest;
}

int vc_switch_fits(struct vc_worker *w, struct vc_route *route, uint32_t timestamp, int stored)
{
    uint32_t slack = source_of(w, route, 1)->clock_hz / 1000u * (stored ? SLACK_MS : LATE_MS);

    if (align(w, route) || is_overdue(w, route))
        return 1;
    return is_later(timestamp + route->next_offset + slack, newest_timestamp(w, route));
}

/* ---- the way of a change ----------------------------------------------------------------- */

static void start(struct vc_worker *w, struct vc_route *route)
{
    route->waits = 0;
    if (vc_route_fast_start(w, route, 1))
        vc_route_next_found(w, route);
    else
        vc_route_ask(w, route, 1);
}

void vc_switch_begin(struct vc_worker *w, struct vc_route *route)
{
    route->switch_ns = w->now_ns;
    route->next_aligned = 0;
    route->waits = (uint8_t)must_wait(w, route);
    if (!route->waits)
        start(w, route);
}

void vc_switch_resume(struct vc_worker *w, struct vc_route *route)
{
    if (route->paused || !w->node->legs[route->leg].sendable || must_wait(w, route))
        return;
    start(w, route);
}

uint64_t vc_switch_find(struct vc_worker *w, struct vc_route *route, uint64_t key, uint64_t to)
{
    const struct vc_source *source = source_of(w, route, 1);
    struct vc_slot_head head;

    if (route->waits)
        return to;
    while (key < to && (vc_history_read(&source->history, key, &head) ||
                        !vc_switch_fits(w, route, head.rtp.timestamp, 0)))
        key = vc_route_find_key(source, key + 1, to);
    return key;
}

/* ---- where the old source ends ----------------------------------------------------------- */

/* The timestamp of feed 0's frame that was the newest when the key frame was found.  0, or -1. */
static int find_frame(const struct vc_worker *w, const struct vc_route *route, uint32_t *timestamp)
{
    uint64_t at = route->found_at;
    struct vc_slot_head head;
    int known = 0;

    while (at > 0 && route->found_at - at < FRAME_TAIL) {
        if (vc_history_read(&source_of(w, route, 0)->history, --at, &head))
            break;
        if (!known || is_later(head.rtp.timestamp, *timestamp))
            *timestamp = head.rtp.timestamp;
        known = 1;
    }
    return known ? 0 : -1;
}

/* Where that frame ends: behind its marker, or before the next one if that was lost. */
static uint64_t frame_end(const struct vc_worker *w, const struct vc_route *route)
{
    uint64_t end = w->watches[route->feeds[0].source].announced;
    uint64_t at = route->found_at > FRAME_TAIL ? route->found_at - FRAME_TAIL : 0;
    struct vc_slot_head head;
    uint32_t timestamp = 0;

    if (!route->gate_open || find_frame(w, route, &timestamp))
        return route->found_at;
    for (; at < end; at++) {
        if (vc_history_read(&source_of(w, route, 0)->history, at, &head))
            continue;
        if (is_later(head.rtp.timestamp, timestamp))
            return at;
        if (head.rtp.timestamp == timestamp && head.rtp.marker)
            return at < route->found_at ? route->found_at : at + 1;
    }
    return w->now_ns - route->found_ns < VC_CUT_WAIT_NS ? UINT64_MAX : end;
}

void vc_switch_cut(struct vc_worker *w, struct vc_route *route)
{
    if (route->switch_at != UINT64_MAX)
        return;
    route->switch_at = frame_end(w, route);
    if (route->switch_at != UINT64_MAX)
        vc_route_enqueue(w, route);
}

/* ---- the change -------------------------------------------------------------------------- */

void vc_switch_taken(struct vc_worker *w, struct vc_route *route)
{
    if (!route->next_aligned)
        (void)align(w, route);
    route->aligned = route->next_aligned;
    route->aligned_offset = route->next_offset;
    route->next_aligned = route->waits = 0;
}

void vc_switch_clock(struct vc_route *route, const struct vc_slot_head *head, uint32_t clock_hz)
{
    uint64_t passed_ns = head->arrival_ns > route->last_arrival_ns ?
                             head->arrival_ns - route->last_arrival_ns : 0;
    uint32_t timestamp = vc_timeline_after(route->last_out_ts, passed_ns, clock_hz);
    uint32_t aligned = head->rtp.timestamp + route->aligned_offset;
    uint32_t trust = TRUST_S * clock_hz;

    route->aligned = route->switched && route->aligned &&
                     aligned - timestamp + trust <= 2 * trust;
    route->late = route->aligned && !is_later(aligned, route->last_out_ts);
    if (route->late) {
        route->late_from = head->rtp.timestamp;
        route->late_as = route->last_out_ts + 1;
    }
    if (!route->aligned && !is_later(timestamp, route->last_out_ts))
        timestamp = route->last_out_ts + 1;
    route->ts_offset = route->aligned ? route->aligned_offset : timestamp - head->rtp.timestamp;
    route->aligned = 0;
}

uint32_t vc_switch_timestamp(const struct vc_route *route, uint32_t timestamp)
{
    uint32_t aligned = timestamp + route->ts_offset, late = route->late_as;

    if (!route->late)
        return aligned;
    if (is_later(timestamp, route->late_from))
        late += (timestamp - route->late_from) / LATE_SHARE;
    return is_later(late, aligned) ? late : aligned;
}

void vc_switch_left(struct vc_route *route, uint32_t timestamp)
{
    if (!route->late || !is_later(timestamp, route->late_from + LATE_KEPT))
        return;
    route->late = 0;
    vc_route_header(route, route->resend.rx_ext); /* what left before would come out otherwise */
}
