/* SPDX-License-Identifier: MIT */
/* One AF_XDP socket on one interface queue, on the uapi: opening, its four rings, closing.

   A port belongs to one worker and is touched by its thread only.  Rings are single producer,
   single consumer; the kernel is the other side.  The cached index is ours; the other side's is
   loaded with acquire, ours stored with release.  System calls: open (about 15, then a bind that
   may be tried again), close (waits for the kernel to let go, some milliseconds); everything
   else here is memory.

   Needs CAP_NET_RAW for the socket, CAP_IPC_LOCK or a memlock limit for the frames,
   CAP_NET_ADMIN for a send buffer above net.core.wmem_max, and whatever bpf_map_update_elem on
   the given map needs. */
#ifndef VC_XSK_PORT_H
#define VC_XSK_PORT_H

#include "umem.h"

#include <linux/if_xdp.h>
#include <stdbool.h>
#include <stdint.h>

struct vc_xsk_ring {
    uint32_t *producer, *consumer, *flags; /* shared with the kernel */
    void *entries;
    uint32_t cached; /* ours: producer of fill and tx, consumer of rx and completion */
    uint32_t size;
    void *map;
    size_t map_sz;
};

struct vc_xsk_config {
    struct vc_umem *umem;
    uint32_t ifindex, queue;
    uint32_t ring_sz; /* entries of each of the four rings */
    bool zerocopy, busy_poll;
    int share_fd;          /* another bound socket on this memory, or -1: registers it */
    uint32_t bind_wait_ms; /* how long a busy queue is waited for */
};

struct vc_xsk_port {
    int fd;        /* -1: closed */
    bool zerocopy; /* what the kernel gave */
    struct vc_xsk_ring rx, tx, fill, completion;
};

/* vc_xsk_open returns 0, or -errno with *why set to what failed; then nothing is left open. */
int vc_xsk_open(struct vc_xsk_port *port, const struct vc_xsk_config *config, const char **why);

/* vc_xsk_register makes the program's redirects reach the socket; called when its fill ring has
   frames.  0 or -errno. */
int vc_xsk_register(const struct vc_xsk_port *port, int map_fd, uint32_t map_key);

/* vc_xsk_close lets the rings go before the descriptor: a socket whose rings are still mapped
   lives on in the XSKMAP and swallows packets. */
void vc_xsk_close(struct vc_xsk_port *port);

/* Consumers (rx, completion): how many entries wait; vc_xsk_release gives the read ones back. */
static inline uint32_t vc_xsk_ready(const struct vc_xsk_ring *ring)
{
    return __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE) - ring->cached;
}

static inline void vc_xsk_release(struct vc_xsk_ring *ring)
{
    __atomic_store_n(ring->consumer, ring->cached, __ATOMIC_RELEASE);
}

/* Producers (fill, tx): how many entries the kernel has not taken, counting those not yet
   published. */
static inline uint32_t vc_xsk_unread(const struct vc_xsk_ring *ring)
{
    return ring->cached - __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
}

static inline void vc_xsk_publish(struct vc_xsk_ring *ring)
{
    __atomic_store_n(ring->producer, ring->cached, __ATOMIC_RELEASE);
}

static inline uint64_t *vc_xsk_addr(const struct vc_xsk_ring *ring, uint32_t idx)
{
    return (uint64_t *)ring->entries + (idx & (ring->size - 1));
}

static inline struct xdp_desc *vc_xsk_desc(const struct vc_xsk_ring *ring, uint32_t idx)
{
    return (struct xdp_desc *)ring->entries + (idx & (ring->size - 1));
}

static inline bool vc_xsk_needs_wakeup(const struct vc_xsk_ring *ring)
{
    return __atomic_load_n(ring->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP;
}

#endif
