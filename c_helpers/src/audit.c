/* SPDX-License-Identifier: MIT */
/* The sums that must hold, for tests: see vc_worker_audit in node.h. */
#include "node.h"

static const char *audit_leg(const struct vc_worker *w, const struct vc_leg *leg,
                             uint64_t *waiting)
{
    uint32_t linked = 0, queued = 0, routes = 0;

    for (int queue = 0; queue < VC_QUEUE_COUNT; queue++) {
        for (uint32_t at = leg->queues[queue].head; at != VC_NONE;
             at = w->node->routes[at].waiting) {
            if (!w->node->routes[at].queued || w->node->routes[at].leg != leg->id)
                return "a leg's queue holds a route that is not queued on it";
            linked++;
        }
    }
    for (uint32_t at = leg->routes; at != VC_NONE; at = w->node->routes[at].next) {
        const struct vc_route *route = &w->node->routes[at];

        routes++;
        queued += route->queued;
        for (int which = 0; which < 2; which++) {
            const struct vc_feed *feed = &route->feeds[which];

            if (feed->source == VC_NONE)
                continue;
            if (!vc_source_live(&w->node->sources[feed->source]))
                return "a route reads a source that is gone";
            *waiting += w->watches[feed->source].announced - feed->cursor;
        }
        if (!route->queued && route->feeds[0].cursor != vc_route_limit(w, route))
            return "a route has work and is not queued";
    }
    if (linked != queued)
        return "a queued route is not in its leg's queue";
    linked += leg->resends.cnt;
    *waiting += leg->resends.cnt;
    if (linked && !leg->sendable)
        return "a leg that cannot be sent to has work";
    if (routes != leg->route_cnt)
        return "a leg's count of routes is wrong";
    return linked && !vc_wheel_scheduled(&w->departures, leg->id) ? "a leg with work is not scheduled" :
                                                               NULL;
}

const char *vc_worker_audit(const struct vc_worker *w)
{
    uint64_t rx = w->c.routed + w->c.consumed, copies = w->c.transmitted + w->c.queued;
    uint64_t waiting = 0;

    for (int i = 0; i < VC_DROP_COUNT; i++)
        rx += w->c.drops[i];
    for (int i = 0; i < VC_COPY_DROP_COUNT; i++)
        copies += w->c.copy_drops[i];
    if (rx != w->c.rx)
        return "rx = routed + consumed + sum(drops) does not hold";
    if (copies != w->c.copies)
        return "copies = transmitted + sum(copy drops) + queued does not hold";
    for (uint32_t id = 0; id < w->node->config.setup.legs_max; id++) {
        const char *fault = w->peers[id].owner == w->id ?
                                audit_leg(w, &w->node->legs[id], &waiting) : NULL;

        if (fault)
            return fault;
    }
    return waiting == w->c.queued ? NULL : "the gauge of queued copies is not what the cursors say";
}
