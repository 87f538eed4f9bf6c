/* SPDX-License-Identifier: MIT */
/* The mesh: from each worker to each other one a ring of 16-byte messages, and a ring that hands
   over datagrams which landed on the wrong worker's queue, still encrypted.

   A lost message never matters for long: a full ring sets `overflow`, and the consumer then
   looks at the positions of all sources it watches.  Rings are single producer, single consumer;
   the producer wakes a sleeping consumer once at the end of its cycle. */
#ifndef VC_MESH_H
#define VC_MESH_H

#include <stdint.h>

#include "io.h"
#include "ring.h"

#define VC_MESH_CAP 4096u
#define VC_HANDOFF_CAP 64u

struct vc_node;
struct vc_worker;

enum vc_mesh_type {
    VC_MESH_PACKETS,  /* source, position: what the source's history holds up to */
    VC_MESH_REPORT,   /* source: a sender report came */
    VC_MESH_KEYFRAME, /* source: a route needs a key frame (to the owner) */
};

struct vc_mesh_message {
    uint32_t type, source;
    uint64_t position;
};

struct vc_handoff { /* 2 KB */
    struct vc_tuple tuple;
    uint32_t sz;
    uint8_t from_xsk, pad[7];
    uint8_t data[2000];
};

struct vc_mesh_pair { /* one direction between two workers */
    _Alignas(64) uint64_t head;
    _Alignas(64) uint64_t tail;
    _Alignas(64) uint64_t handoff_head;
    _Alignas(64) uint64_t handoff_tail;
    _Alignas(64) uint32_t overflow;
    struct vc_mesh_message *messages;
    struct vc_handoff *handoffs;
};

_Static_assert(sizeof(struct vc_mesh_message) == 16, "vc_mesh_message");
_Static_assert(sizeof(struct vc_handoff) == 2048, "vc_handoff");

void vc_mesh_send(struct vc_worker *w, uint32_t to, enum vc_mesh_type type, uint32_t source,
                  uint64_t position);
/* 0, or -1 when the ring is full or the datagram longer than its slot. */
int vc_mesh_hand_over(struct vc_worker *w, uint32_t to, const struct vc_io_rx *pkt, int from_xsk);
/* Acts on what the others sent; returns how much it was. */
uint32_t vc_mesh_drain(struct vc_worker *w);
/* Wakes the workers that something was sent to and that sleep. */
void vc_mesh_wake(struct vc_worker *w);
/* 1 when something waits for this worker. */
int vc_mesh_pending(const struct vc_worker *w);

#endif
