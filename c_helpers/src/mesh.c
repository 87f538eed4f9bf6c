/* SPDX-License-Identifier: MIT */
#include "mesh.h"

#include <unistd.h>

#include "forward.h"
#include "report.h"

static struct vc_mesh_pair *pair_of(const struct vc_worker *w, uint32_t from, uint32_t to)
{
    return &w->node->mesh[from * w->node->config.setup.worker_cnt + to];
}

static struct vc_ring message_ring(struct vc_mesh_pair *pair)
{
    struct vc_ring ring;

    vc_ring_init(&ring, &pair->head, &pair->tail, pair->messages, sizeof *pair->messages,
                 VC_MESH_CAP);
    return ring;
}

static struct vc_ring handoff_ring(struct vc_mesh_pair *pair)
{
    struct vc_ring ring;

    vc_ring_init(&ring, &pair->handoff_head, &pair->handoff_tail, pair->handoffs,
                 sizeof *pair->handoffs, VC_HANDOFF_CAP);
    return ring;
}

void vc_mesh_send(struct vc_worker *w, uint32_t to, enum vc_mesh_type type, uint32_t source,
                  uint64_t position)
{
    struct vc_mesh_pair *pair = pair_of(w, w->id, to);
    struct vc_ring ring = message_ring(pair);
    struct vc_mesh_message message = { type, source, position };

    if (vc_ring_push(&ring, &message)) {
        w->c.mesh_full++;
        __atomic_store_n(&pair->overflow, 1, __ATOMIC_RELEASE);
    }
    w->wake |= 1u << to;
}

int vc_mesh_hand_over(struct vc_worker *w, uint32_t to, const struct vc_io_rx *pkt, int from_xsk)
{
    struct vc_ring ring = handoff_ring(pair_of(w, w->id, to));
    struct vc_handoff *handoff = vc_ring_reserve(&ring);

    if (!handoff || pkt->sz > sizeof handoff->data)
        return -1;
    handoff->tuple = pkt->tuple;
    handoff->sz = pkt->sz;
    handoff->from_xsk = (uint8_t)from_xsk;
    memcpy(handoff->data, pkt->data, pkt->sz);
    vc_ring_publish(&ring);
    w->wake |= 1u << to;
    return 0;
}

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
            vc_report_request(w, message->source);
        break;
    }
}

static uint32_t drain_handoffs(struct vc_worker *w, struct vc_mesh_pair *pair)
{
    struct vc_ring ring = handoff_ring(pair);
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

uint32_t vc_mesh_drain(struct vc_worker *w)
{
    uint32_t cnt = 0;

    for (uint32_t from = 0; from < w->node->config.setup.worker_cnt; from++) {
        struct vc_mesh_pair *pair = pair_of(w, from, w->id);
        struct vc_ring ring = message_ring(pair);
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

void vc_mesh_wake(struct vc_worker *w)
{
    const uint64_t one = 1;

    if (!w->wake)
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* pairs with the one in vc_worker_sleep_begin */
    while (w->wake) {
        uint32_t to = (uint32_t)__builtin_ctz(w->wake);
        const struct vc_shm_header *shm = w->node->config.shm[to];
        int bell = w->node->config.wake_bell[to];

        w->wake &= w->wake - 1;
        if (bell >= 0 && __atomic_load_n(&shm->sleeping, __ATOMIC_RELAXED) &&
            write(bell, &one, sizeof one) < 0)
            continue; /* the counter is at its end, so it rings already */
    }
}

int vc_mesh_pending(const struct vc_worker *w)
{
    for (uint32_t from = 0; from < w->node->config.setup.worker_cnt; from++) {
        struct vc_mesh_pair *pair = pair_of(w, from, w->id);
        struct vc_ring messages = message_ring(pair), handoffs = handoff_ring(pair);

        if (from != w->id && (vc_ring_used(&messages) || vc_ring_used(&handoffs) ||
                              __atomic_load_n(&pair->overflow, __ATOMIC_ACQUIRE)))
            return 1;
    }
    return 0;
}
