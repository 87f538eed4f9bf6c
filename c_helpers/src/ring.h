/* SPDX-License-Identifier: MIT */
/* A single-producer single-consumer ring of fixed-size records, header-only.

   vc_ring is a view: it points at head, tail and records, which lie in process memory (the mesh between workers)
   or in a worker segment (commands, events).  head: next record to write, stored by the producer; tail: next to
   read, stored by the consumer; free-running u64.  Capacity is a power of two.  A full ring refuses. */
#ifndef VC_RING_H
#define VC_RING_H

#include <stdint.h>
#include <string.h>

struct vc_ring {
    uint64_t *head, *tail;
    uint8_t *records;
    uint32_t record_sz, mask; /* bytes; capacity - 1 */
};

static inline void vc_ring_init(struct vc_ring *ring, uint64_t *head, uint64_t *tail, void *records,
                                uint32_t record_sz, uint32_t capacity)
{
    *ring = (struct vc_ring){ head, tail, records, record_sz, capacity - 1 };
}

/* vc_ring_reserve returns the place of the next record or NULL when full; vc_ring_publish makes it visible. */
static inline void *vc_ring_reserve(const struct vc_ring *ring)
{
    uint64_t head = __atomic_load_n(ring->head, __ATOMIC_RELAXED);
    uint64_t tail = __atomic_load_n(ring->tail, __ATOMIC_ACQUIRE);

    return head - tail > ring->mask ? NULL : ring->records + (size_t)(head & ring->mask) * ring->record_sz;
}

static inline void vc_ring_publish(const struct vc_ring *ring)
{
    __atomic_store_n(ring->head, *ring->head + 1, __ATOMIC_RELEASE);
}

static inline int vc_ring_push(const struct vc_ring *ring, const void *record)
{
    void *place = vc_ring_reserve(ring);

    if (!place)
        return -1;
    memcpy(place, record, ring->record_sz);
    vc_ring_publish(ring);
    return 0;
}

/* vc_ring_front returns the oldest record or NULL; vc_ring_pop gives its place back. */
static inline void *vc_ring_front(const struct vc_ring *ring)
{
    uint64_t tail = __atomic_load_n(ring->tail, __ATOMIC_RELAXED);

    return __atomic_load_n(ring->head, __ATOMIC_ACQUIRE) == tail ?
               NULL : ring->records + (size_t)(tail & ring->mask) * ring->record_sz;
}

static inline void vc_ring_pop(const struct vc_ring *ring)
{
    __atomic_store_n(ring->tail, *ring->tail + 1, __ATOMIC_RELEASE);
}

static inline uint64_t vc_ring_used(const struct vc_ring *ring)
{
    return __atomic_load_n(ring->head, __ATOMIC_ACQUIRE) - __atomic_load_n(ring->tail, __ATOMIC_ACQUIRE);
}

#endif
