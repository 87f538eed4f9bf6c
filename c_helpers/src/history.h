/* SPDX-License-Identifier: MIT */
/* A history: the recent packets of one source, in clear, in the order of their arrival.

   It is a ring of slots.  A slot is named by its position, a free-running u64; slot p lies at
   p & mask.  Each slot is a seqlock whose generation tells the position as well: 2p+1 while
   packet p is being written (or was written and did not verify), 2p+2 when it is valid.  So a
   reader knows at once whether it sees packet p, not yet p, or something younger.

   One writer (the worker that owns the source); any worker reads.  A reader copies the head,
   uses the data, and asks vc_history_intact at the end: only then was what it used whole.
   A slot younger than min_age_ns is never reused, so that a reader seldom meets a writer.

   The pool of each size class is taken at start and shared by the node's workers. */
#ifndef VC_HISTORY_H
#define VC_HISTORY_H

#include <stdint.h>

#include "base.h"
#include "rtp.h"

#define VC_SLOT_VIDEO_SZ 1536u /* packet bytes; an Ethernet frame's worth */
#define VC_SLOT_AUDIO_SZ 704u  /* Opus at 256 kb/s and 20 ms with header, extensions and tag */

#define VC_SLOT_KEY 1u      /* a decoder can start here */
#define VC_SLOT_EMPTY 2u    /* nothing but padding: not for routes */
#define VC_SLOT_RED 8u      /* redundant audio (RFC 2198): for routes whose receiver takes it */
#define VC_SLOT_REPAIRED 4u /* came by RTX: says nothing about the way here */
#define VC_SLOT_FOREIGN 16u /* neither the source's payload type nor RED's: not for routes */

struct vc_slot_head { /* 56 bytes, copied as words */
    uint64_t index;   /* in index, 48 bits */
    uint64_t arrival_ns;
    struct vc_rtp rtp;
    uint32_t sz;     /* packet bytes */
    uint32_t stream; /* of the source: changes when its index space starts anew */
    uint32_t flags;  /* VC_SLOT_* */
};

struct vc_slot {
    uint64_t gen;
    struct vc_slot_head head;
    uint8_t data[];
};

struct vc_history {
    uint8_t *slots;
    uint32_t mask;   /* slots - 1 */
    uint32_t stride; /* bytes from slot to slot */
    uint32_t data_sz;
    uint32_t pool_index;
};

/* The histories of one size class.  take and give may be called by any worker. */
struct vc_history_pool {
    uint8_t *memory;
    uint8_t *taken; /* one flag a history, atomic */
    uint32_t cnt, slots, stride, data_sz;
};

_Static_assert(sizeof(struct vc_slot_head) == 56, "vc_slot_head");
_Static_assert(sizeof(struct vc_slot) == 64, "a slot's head is one cache line");
_Static_assert((sizeof(struct vc_slot) + VC_SLOT_VIDEO_SZ) * 512u <= 1000000u,
               "an HD stream's history fits 1 MB with the rest of its source");

static inline uint64_t vc_history_bytes(const struct vc_history_pool *pool)
{
    return (uint64_t)pool->slots * pool->stride;
}

/* vc_history_take gives one of the taker's share of the pool (`share` of `shares`), or of the
   shares after it: its pages are then first touched on the taker's NUMA node, or come from there.
   0, or -1 when every history of the pool is taken. */
int vc_history_take(struct vc_history_pool *pool, uint32_t share, uint32_t shares,
                    struct vc_history *history);
void vc_history_give(struct vc_history_pool *pool, struct vc_history *history);

static inline struct vc_slot *vc_history_slot(const struct vc_history *history, uint64_t position)
{
    return (struct vc_slot *)(history->slots +
                              (size_t)(position & history->mask) * history->stride);
}

/* Writer: 1 when the slot of this position may be reused now. */
static inline int vc_history_reusable(const struct vc_history *history, uint64_t position,
                                      uint64_t now_ns, uint64_t min_age_ns)
{
    const struct vc_slot *slot = vc_history_slot(history, position);

    if (slot->gen == 0 || slot->gen & 1)
        return 1;
    return now_ns >= slot->head.arrival_ns && now_ns - slot->head.arrival_ns >= min_age_ns;
}

/* Writer: makes the slot invalid and returns it, to be filled. */
struct vc_slot *vc_history_begin(const struct vc_history *history, uint64_t position);
/* Writer: the data of this position are whole. */
void vc_history_commit(const struct vc_history *history, uint64_t position,
                       const struct vc_slot_head *head);

/* Reader: copies the head of this position.  0, or -1 when the slot does not hold it. */
int vc_history_read(const struct vc_history *history, uint64_t position,
                    struct vc_slot_head *head);
/* Reader: copies n bytes of the packet. */
void vc_history_copy(const struct vc_history *history, uint64_t position, uint32_t from,
                     uint8_t *dst, uint32_t n);
/* Reader: 1 when nothing was written over this position since vc_history_read. */
int vc_history_intact(const struct vc_history *history, uint64_t position);

#endif
