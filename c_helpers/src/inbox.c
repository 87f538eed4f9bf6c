/* SPDX-License-Identifier: MIT */
#include "inbox.h"

#include "forward.h"
#include "report.h"
#include "request.h"

/* A message of this pair was lost: looks at everything that it could have spoken of. */
static void catch_up(struct vc_worker *w, uint32_t from)
{
    for (uint32_t id = 0; id < w->node->config.setup.sources_max; id++) {
        const struct vc_source *source = &w->node->sources[id];

        if (w->watches[id].cnt && source->owner == from)
            vc_route_announce(w, id, __atomic_load_n(&source->position, __ATOMIC_ACQUIRE));
    }
}

static void on_message(struct vc_worker *w, const struct vc_mesh_message *message)
{
    switch ((enum vc_mesh_type)message->type) {
    case VC_MESH_PACKETS:
        vc_route_announce(w, message->source, message->position);
        break;
    case VC_MESH_REPORT:
        vc_report_pass(w, message->source);
        break;
    case VC_MESH_KEYFRAME:
        if (w->node->sources[message->source].owner == w->id)
            vc_request_keyframe(w, message->source);
        break;
    }
}

static uint32_t drain_handoffs(struct vc_worker *w, struct vc_mesh_pair *pair)
{
    struct vc_ring ring = vc_mesh_handoffs(pair);
    uint32_t cnt = 0;

    for (; cnt < VC_HANDOFF_CAP; cnt++) {
        struct vc_handoff *handoff = vc_ring_front(&ring);
        struct vc_io_rx pkt;

        if (!handoff)
            break;
        pkt = (struct vc_io_rx){ handoff->data, handoff->sz, handoff->tuple };
        vc_receive_one(w, &pkt, handoff->from_xsk, 1);
        vc_receive_flush(w); /* the slot is given back now */
        vc_ring_pop(&ring);
    }
    return cnt;
}

uint32_t vc_inbox_drain(struct vc_worker *w)
{
    uint32_t cnt = 0;

    for (uint32_t from = 0; from < w->node->config.setup.worker_cnt; from++) {
        struct vc_mesh_pair *pair = vc_mesh_pair(w, from, w->id);
        struct vc_ring ring = vc_mesh_messages(pair);
        struct vc_mesh_message *message;

        if (from == w->id)
            continue;
        for (uint32_t n = 0; n < VC_MESH_CAP && (message = vc_ring_front(&ring)); n++, cnt++) {
            on_message(w, message);
            vc_ring_pop(&ring);
        }
        if (__atomic_load_n(&pair->overflow, __ATOMIC_ACQUIRE)) {
            __atomic_store_n(&pair->overflow, 0, __ATOMIC_SEQ_CST);
            catch_up(w, from);
        }
        cnt += drain_handoffs(w, pair);
    }
    return cnt;
}
