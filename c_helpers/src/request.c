/* SPDX-License-Identifier: MIT */
#include "request.h"

#include "compound.h"

/* When the next request may leave.  Sources under one mid come from one encoder, which minds one
   request in VC_KEYFRAME_THROTTLE_NS, whichever of them it names. */
static uint64_t request_due(const struct vc_worker *w, const struct vc_source *source)
{
    uint64_t due_ns = w->now_ns;

    for (uint32_t at = w->node->legs[source->leg].sources; at != VC_NONE;
         at = w->node->sources[at].next) {
        const struct vc_source *other = &w->node->sources[at];

        if (other->queue == source->queue && !memcmp(other->mid, source->mid, VC_LABEL_SZ) &&
            other->keyframe_ns && other->keyframe_ns + VC_KEYFRAME_THROTTLE_NS > due_ns)
            due_ns = other->keyframe_ns + VC_KEYFRAME_THROTTLE_NS;
    }
    return due_ns;
}

static uint32_t send_pli(struct vc_worker *w, struct vc_source *source)
{
    struct vc_leg *leg = &w->node->legs[source->leg];
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    uint64_t due_ns;

    if (!vc_source_live(source) || !source->keyframe_wanted || !source->bound || !leg->sendable)
        return 0; /* asked again when it sends something */
    due_ns = request_due(w, source);
    if (due_ns > w->now_ns) {
        vc_pacer_schedule(&w->requests, source->id, due_ns);
        return 0;
    }
    source->keyframe_wanted = 0;
    source->keyframe_ns = w->now_ns;
    vc_compound_begin(&writer, leg);
    vc_rtcp_write_pli(&writer, leg->rtcp_ssrc, source->ssrc);
    vc_compound_send(w, leg, data, writer.sz);
    w->c.keyframe_requests++;
    source->stats->plis++;
    return 1;
}

void vc_request_keyframe(struct vc_worker *w, uint32_t id)
{
    struct vc_source *source = &w->node->sources[id];

    if (!vc_source_live(source))
        return;
    if (source->owner != w->id) {
        vc_mesh_send(w, source->owner, VC_MESH_KEYFRAME, id, 0);
        return;
    }
    if (source->keyframe_wanted && w->requests.place[id] != VC_NONE)
        w->c.keyframe_merged++;
    source->keyframe_wanted = 1;
    vc_pacer_hasten(&w->requests, id, request_due(w, source));
}

uint32_t vc_request_timers(struct vc_worker *w)
{
    uint32_t cnt = 0, id;

    while ((id = vc_pacer_pop_due(&w->requests, w->now_ns)) != VC_NONE)
        cnt += send_pli(w, &w->node->sources[id]);
    return cnt;
}
