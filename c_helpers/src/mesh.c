/* SPDX-License-Identifier: MIT */
#include "mesh.h"

#include <unistd.h>

#include "node.h"

struct vc_mesh_pair *vc_mesh_pair(const struct vc_worker *w, uint32_t from, uint32_t to)
{
    return &w->node->mesh[from * w->node->config.setup.worker_cnt + to];
}

struct vc_ring vc_mesh_messages(struct vc_mesh_pair *pair)
{
    struct vc_ring ring;

    vc_ring_init(&ring, &pair->head, &pair->tail, pair->messages, sizeof *pair->messages,
                 VC_MESH_CAP);
    return ring;
}

struct vc_ring vc_mesh_handoffs(struct vc_mesh_pair *pair)
{
    struct vc_ring ring;

    vc_ring_init(&ring, &pair->handoff_head, &pair->handoff_tail, pair->handoffs,
                 sizeof *pair->handoffs, VC_HANDOFF_CAP);
    return ring;
}

void vc_mesh_send(struct vc_worker *w, uint32_t to, enum vc_mesh_type type, uint32_t source,
                  uint64_t position)
{
    struct vc_mesh_pair *pair = vc_mesh_pair(w, w->id, to);
    struct vc_ring ring = vc_mesh_messages(pair);
    struct vc_mesh_message message = { type, source, position };

    if (vc_ring_push(&ring, &message)) {
        w->c.mesh_full++;
        __atomic_store_n(&pair->overflow, 1, __ATOMIC_RELEASE);
    }
    w->wake |= 1u << to;
}

int vc_mesh_hand_over(struct vc_worker *w, uint32_t to, const struct vc_io_rx *pkt, int from_xsk)
{
    struct vc_ring ring = vc_mesh_handoffs(vc_mesh_pair(w, w->id, to));
    struct vc_handoff *handoff = vc_ring_reserve(&ring);

    if (!handoff || pkt->sz > sizeof handoff->data)
        return -1;
    handoff->tuple = pkt->tuple;
    handoff->sz = pkt->sz;
    handoff->from_xsk = (uint8_t)from_xsk;
    memcpy(handoff->data, pkt->data, pkt->sz);
    vc_ring_publish(&ring);
    w->wake |= 1u << to;
    if (vc_ring_used(&ring) > VC_HANDOFF_CAP - VC_IO_BURST)
        w->crowded |= 1u << to;
    return 0;
}

uint32_t vc_mesh_room(struct vc_worker *w, uint32_t n)
{
    uint64_t passed_ns = w->now_ns - w->crowded_ns;
    uint32_t room = n;

    for (uint32_t rest = w->crowded; rest; rest &= rest - 1) {
        uint32_t to = (uint32_t)__builtin_ctz(rest);
        struct vc_ring ring = vc_mesh_handoffs(vc_mesh_pair(w, w->id, to));
        uint32_t left = VC_HANDOFF_CAP - (uint32_t)vc_ring_used(&ring);

        if (left >= VC_IO_BURST)
            w->crowded &= ~(1u << to);
        if (left < room)
            room = left;
    }
    if (room == n || (passed_ns >= VC_HANDOFF_WAIT_NS && passed_ns < VC_HANDOFF_EVERY_NS))
        return n;
    if (passed_ns >= VC_HANDOFF_EVERY_NS)
        w->crowded_ns = w->now_ns;
    return room;
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
        struct vc_mesh_pair *pair = vc_mesh_pair(w, from, w->id);
        struct vc_ring messages = vc_mesh_messages(pair), handoffs = vc_mesh_handoffs(pair);

        if (from != w->id && (vc_ring_used(&messages) || vc_ring_used(&handoffs) ||
                              __atomic_load_n(&pair->overflow, __ATOMIC_ACQUIRE)))
            return 1;
    }
    return 0;
}
