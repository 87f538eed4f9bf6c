/* SPDX-License-Identifier: MIT */
#include "leg.h"

#include "node.h"

struct vc_source *vc_leg_source(const struct vc_worker *w, const struct vc_leg *leg, uint32_t ssrc)
{
    for (uint32_t at = leg->sources; at != VC_NONE; at = w->node->sources[at].next)
        if (w->node->sources[at].bound && w->node->sources[at].ssrc == ssrc)
            return &w->node->sources[at];
    return NULL;
}

/* Nothing can leave any more: what waits is dropped, gates close. */
static void shed_all(struct vc_worker *w, struct vc_leg *leg)
{
    for (uint32_t at = leg->routes; at != VC_NONE; at = w->node->routes[at].next) {
        struct vc_route *route = &w->node->routes[at];

        if (route->feeds[1].source != VC_NONE)
            vc_route_switch(w, route);
        vc_route_shed(w, route, vc_route_limit(w, route), VC_COPY_DROP_NO_PATH);
        vc_route_dequeue(w, route);
        vc_route_close_gate(w, route);
    }
    vc_resend_drop(w, leg, VC_NONE, VC_COPY_DROP_NO_PATH);
    vc_wheel_cancel(&w->departures, leg->id);
}

void vc_leg_refresh(struct vc_worker *w, struct vc_leg *leg)
{
    int sendable = leg->suite != VC_SRTP_NONE && leg->nominated != VC_NONE &&
                   vc_worker_io(w, vc_leg_backend(w, leg)) != NULL;

    if (sendable == leg->sendable)
        return;
    leg->sendable = (uint8_t)sendable;
    if (!sendable)
        shed_all(w, leg);
    for (uint32_t at = leg->routes; sendable && at != VC_NONE; at = w->node->routes[at].next)
        vc_route_reopen(w, &w->node->routes[at]);
    for (uint32_t at = leg->sources; sendable && at != VC_NONE; at = w->node->sources[at].next)
        if (w->node->sources[at].keyframe_wanted)
            vc_pacer_hasten(&w->requests, at, w->now_ns);
}
