/* SPDX-License-Identifier: MIT */
/* The mesh: from each worker to each other one a ring of 16-byte messages, and a ring that hands
   over datagrams which landed on the wrong worker's queue, still encrypted.

   A lost message never matters for long: a full ring sets `overflow`, and the consumer then
   looks at the positions of all sources it watches.  Rings are single producer, single consumer;
   the producer wakes a sleeping consumer once at the end of its cycle.  What the consumer makes of
   what comes is inbox.h's.

   A link that was away and comes back brings at once what its far end kept, more datagrams than a
   ring holds, before the holder is awake.  So a worker takes in no more than its rings have room
   for (vc_mesh_room): the rest waits in the receive ring or the socket's buffer, for all flows of
   that queue.  VC_HANDOFF_WAIT_NS at most, and that once in VC_HANDOFF_EVERY_NS: a holder that
   hangs, or has more than it can bear, does not hold up others' media; what finds its ring full
   then is dropped and counted (VC_DROP_HANDOFF_FULL). */
#ifndef VC_MESH_H
#define VC_MESH_H

#include <stdint.h>

#include "io.h"
#include "ring.h"

#define VC_MESH_CAP 4096u
#define VC_HANDOFF_CAP 128u
#define VC_HANDOFF_SZ 2000u             /* bytes of a datagram */
#define VC_HANDOFF_WAIT_NS 25000000ull  /* as late as a busy machine's scheduler lets a holder be */
#define VC_HANDOFF_EVERY_NS 250000000ull

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
    uint8_t data[VC_HANDOFF_SZ];
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
_Static_assert(VC_HANDOFF_CAP >= 2 * VC_IO_BURST, "a ring that is half empty takes a burst");

struct vc_mesh_pair *vc_mesh_pair(const struct vc_worker *w, uint32_t from, uint32_t to);
struct vc_ring vc_mesh_messages(struct vc_mesh_pair *pair);
struct vc_ring vc_mesh_handoffs(struct vc_mesh_pair *pair);

void vc_mesh_send(struct vc_worker *w, uint32_t to, enum vc_mesh_type type, uint32_t source,
                  uint64_t position);
/* 0, or -1 when the ring is full or the datagram longer than VC_HANDOFF_SZ. */
int vc_mesh_hand_over(struct vc_worker *w, uint32_t to, const struct vc_io_rx *pkt, int from_xsk);
/* How many of up to n datagrams (n <= VC_IO_BURST) may be taken in now, whomever they are for. */
uint32_t vc_mesh_room(struct vc_worker *w, uint32_t n);
/* Wakes the workers that something was sent to and that sleep. */
void vc_mesh_wake(struct vc_worker *w);
/* 1 when something waits for this worker. */
int vc_mesh_pending(const struct vc_worker *w);

#endif
