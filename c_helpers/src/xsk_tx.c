/* SPDX-License-Identifier: MIT */
#include "xsk_io.h"

#include "net.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

_Static_assert(VC_FRAME_PAYLOAD >= VC_HEADER_MAX && VC_FRAME_PAYLOAD + VC_TX_ROOM <= VC_FRAME_SZ,
               "a transmit frame holds the headers and the payload");

enum {
    STUCK_MAX = 4, /* calls without progress before the rest waits for the next flush */
};

/* What tx_commit must know, in vc_io_tx.cookie. */
struct cookie {
    uint32_t frame;
    uint8_t header_sz, l3_off, dscp, pad;
};
_Static_assert(sizeof(struct cookie) == sizeof(uint64_t), "fits the cookie");

static struct vc_xsk_slot *slot_of(struct vc_xsk_io *xsk, uint32_t slot)
{
    VC_ASSERT(slot < xsk->slot_cnt);
    return &xsk->slots[slot];
}

/* Accounts the entries that the kernel has taken.  `dropped`: the call before this answered
   EBUSY, which means that the last packet it took is gone.  The kernel need not have moved its
   index past that one: then it is `ahead`. */
static void settle(struct vc_xsk_io *xsk, struct vc_xsk_slot *s, bool dropped)
{
    uint32_t taken = __atomic_load_n(s->port.tx.consumer, __ATOMIC_ACQUIRE);
    uint32_t moved = taken - s->seen;

    xsk->io.counts.tx_errors += dropped;
    if (moved <= s->ahead) {
        s->ahead += dropped - moved;
        s->seen = taken;
        return;
    }
    for (uint32_t i = s->seen + s->ahead; i != taken - dropped; i++) {
        xsk->io.counts.tx_sent++;
        xsk->io.counts.tx_bytes +=
            xsk->umem.payload_sz[vc_umem_number(&xsk->umem, vc_xsk_desc(&s->port.tx, i)->addr)];
    }
    s->ahead = 0;
    s->seen = taken;
}

static void reap(struct vc_xsk_io *xsk, uint32_t slot)
{
    struct vc_xsk_slot *s = slot_of(xsk, slot);
    struct vc_xsk_ring *ring = &s->port.completion;
    uint32_t n;

    if (s->port.fd < 0)
        return;
    n = vc_xsk_ready(ring); /* before settle: a frame is accounted before it is used again */
    settle(xsk, s, false);
    for (uint32_t i = 0; i < n; i++, ring->cached++) {
        uint32_t frame = vc_umem_number(&xsk->umem, *vc_xsk_addr(ring, ring->cached));

        if (frame != xsk->umem.total) /* some kernels give void entries back (void_pending) */
            vc_umem_give(&xsk->umem, frame, VC_FRAME_TX, slot);
    }
    if (n)
        vc_xsk_release(ring);
}

void vc_xsk_reap(struct vc_xsk_io *xsk)
{
    for (uint32_t i = 0; i < xsk->slot_cnt; i++)
        reap(xsk, i);
}

/* In copy mode the ring is read in our own system calls only, so entries can be made void in
   place: every kernel skips an address just outside the memory; 6.18 was seen to give it back as
   completed. */
static void void_pending(struct vc_xsk_io *xsk, uint32_t slot)
{
    struct vc_xsk_slot *s = slot_of(xsk, slot);

    for (uint32_t i = s->seen + s->ahead; i != s->port.tx.cached; i++) {
        struct xdp_desc *desc = vc_xsk_desc(&s->port.tx, i);

        vc_umem_give(&xsk->umem, vc_umem_number(&xsk->umem, desc->addr), VC_FRAME_TX, slot);
        *desc = (struct xdp_desc){ .addr = vc_umem_addr(&xsk->umem, xsk->umem.total),
                                    .options = UINT32_MAX };
        xsk->io.counts.tx_errors++;
        s->voided++;
    }
    s->ahead = s->port.tx.cached - s->seen;
}

void vc_xsk_fail(struct vc_xsk_io *xsk, uint32_t slot, int error)
{
    struct vc_xsk_slot *s = slot_of(xsk, slot);

    if (s->link == VC_LINK_GONE)
        return;
    vc_xsk_publish(&s->port.tx);
    s->published = true;
    reap(xsk, slot);
    s->link = error == ENETDOWN ? VC_LINK_DOWN : VC_LINK_GONE;
    s->retry_ns = 0;
    if (!s->port.zerocopy)
        void_pending(xsk, slot);
}

/* One call.  Returns whether another may help now. */
static bool kick_once(struct vc_xsk_io *xsk, uint32_t slot)
{
    struct vc_xsk_slot *s = slot_of(xsk, slot);
    int error = sendto(s->port.fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 ? errno : 0;

    xsk->io.counts.tx_kicks++;
    switch (error) {
    case 0:
    case EINTR:
        settle(xsk, s, false);
        break;
    case EBUSY:
        if (!s->port.zerocopy) {
            settle(xsk, s, true);
            break;
        }
        __attribute__((fallthrough));
    case EAGAIN:
    case ENOBUFS:
        xsk->io.counts.tx_again++;
        settle(xsk, s, false);
        break;
    default:
        vc_xsk_fail(xsk, slot, error);
        return false;
    }
    reap(xsk, slot);
    return true;
}

void vc_xsk_kick(struct vc_xsk_io *xsk, uint32_t slot)
{
    struct vc_xsk_slot *s = slot_of(xsk, slot);
    uint32_t left = vc_xsk_unread(&s->port.tx), stuck = 0;

    if (s->port.zerocopy) {
        if (left && vc_xsk_needs_wakeup(&s->port.tx))
            kick_once(xsk, slot);
        return;
    }
    while (left && stuck < STUCK_MAX) {
        uint32_t ahead = s->ahead, now;

        if (!kick_once(xsk, slot))
            return;
        now = vc_xsk_unread(&s->port.tx);
        stuck = now == left && s->ahead <= ahead ? stuck + 1 : 0;
        left = now;
    }
}

void vc_xsk_probe(struct vc_xsk_io *xsk, uint32_t slot)
{
    struct vc_xsk_slot *s = slot_of(xsk, slot);

    s->link = VC_LINK_UP;
    if (kick_once(xsk, slot) && s->link == VC_LINK_UP)
        vc_xsk_kick(xsk, slot);
}

/* ---- the interface ----------------------------------------------------------------------- */

static bool has_place(const struct vc_xsk_io *xsk, const struct vc_xsk_slot *s)
{
    return xsk->umem.free_cnt && xsk->umem.tx_cnt < xsk->umem.tx_max &&
           (s->link != VC_LINK_UP || vc_xsk_unread(&s->port.tx) + s->reserved < s->port.tx.size);
}

int vc_xsk_tx_reserve(struct vc_io *io, const struct vc_io_dst *dst, struct vc_io_tx *tx)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);
    struct cookie cookie = { .header_sz = (uint8_t)dst->header_sz,
                             .l3_off = (uint8_t)dst->l3_off,
                             .dscp = dst->dscp };
    struct vc_xsk_slot *s;

    if (dst->port >= xsk->slot_cnt || !dst->header_sz || dst->header_sz > VC_HEADER_MAX)
        return -1;
    s = &xsk->slots[dst->port];
    if (!vc_serves(&xsk->interfaces[dst->port], xsk->worker))
        return -1;
    if (!has_place(xsk, s)) {
        vc_xsk_reap(xsk);
        if (!has_place(xsk, s))
            return -1;
    }
    cookie.frame = vc_umem_take(&xsk->umem, VC_FRAME_RESERVED, dst->port);
    s->reserved++;
    tx->payload = vc_umem_frame(&xsk->umem, cookie.frame) + VC_FRAME_PAYLOAD;
    memcpy(tx->payload - dst->header_sz, dst->header, dst->header_sz);
    memcpy(&tx->cookie, &cookie, sizeof cookie);
    tx->port = dst->port;
    return 0;
}

void vc_xsk_tx_cancel(struct vc_io *io, const struct vc_io_tx *tx)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);
    struct cookie cookie;

    memcpy(&cookie, &tx->cookie, sizeof cookie);
    vc_umem_give(&xsk->umem, cookie.frame, VC_FRAME_RESERVED, tx->port);
    slot_of(xsk, tx->port)->reserved--;
}

void vc_xsk_tx_commit(struct vc_io *io, const struct vc_io_tx *tx, uint32_t payload_sz)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);
    struct vc_xsk_slot *s = slot_of(xsk, tx->port);
    struct vc_xsk_ring *ring = &s->port.tx;
    struct cookie cookie;

    VC_ASSERT(payload_sz <= VC_TX_ROOM);
    if (s->link != VC_LINK_UP || vc_xsk_unread(ring) >= ring->size) {
        vc_xsk_tx_cancel(io, tx);
        io->counts.tx_errors++;
        return;
    }
    memcpy(&cookie, &tx->cookie, sizeof cookie);
    vc_net_finish(tx->payload - cookie.header_sz, cookie.header_sz, cookie.l3_off, payload_sz,
                  cookie.dscp);
    vc_umem_move(&xsk->umem, cookie.frame, VC_FRAME_RESERVED, VC_FRAME_TX, tx->port);
    xsk->umem.payload_sz[cookie.frame] = (uint16_t)payload_sz;
    *vc_xsk_desc(ring, ring->cached++) = (struct xdp_desc){
        .addr = vc_umem_addr(&xsk->umem, cookie.frame) + VC_FRAME_PAYLOAD - cookie.header_sz,
        .len = cookie.header_sz + payload_sz,
    };
    s->reserved--;
    s->published = false;
}

uint64_t vc_xsk_tx_flush(struct vc_io *io)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);
    struct timespec now;

    vc_xsk_reap(xsk);
    for (uint32_t i = 0; i < xsk->slot_cnt; i++) {
        struct vc_xsk_slot *s = &xsk->slots[i];

        if (s->link != VC_LINK_UP)
            continue;
        if (!s->published)
            vc_xsk_publish(&s->port.tx);
        s->published = true;
        vc_xsk_kick(xsk, i);
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}
