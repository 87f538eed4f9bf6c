/* SPDX-License-Identifier: MIT */
/* The inside of io_xsk: shared by io_xsk.c (set-up, receive, housekeeping), xsk_slots.c (the life
   of its ports) and xsk_tx.c (transmit). */
#ifndef VC_XSK_IO_H
#define VC_XSK_IO_H

#include "io_xsk.h"
#include "xsk_port.h"

enum vc_link {
    VC_LINK_UP,
    VC_LINK_DOWN, /* the interface is there, but down: tried again every 50 ms */
    VC_LINK_GONE, /* the socket is not bound any more: bound again at most once a second */
};

struct vc_xsk_slot { /* one port as the backend sees it */
    struct vc_xsk_port port;
    enum vc_link link;
    uint64_t retry_ns;
    uint32_t reserved; /* reservations that are open */
    uint32_t seen;     /* transmit ring: entries up to here have been accounted */
    uint32_t ahead;  /* entries after `seen` that were accounted before the ring moved past them */
    uint64_t voided; /* entries we made invalid ourselves (link down) */
    bool published;  /* nothing committed since the last flush */
    struct xdp_statistics base, last; /* of the port's earlier sockets; of this one, as last read */
};

struct vc_xsk_io {
    struct vc_io io;
    struct vc_umem umem;
    struct vc_xsk_slot slots[VC_INTERFACES_MAX];
    uint32_t slot_cnt; /* one for each interface of the set-up */
    uint32_t port_cnt; /* of them: those that this worker serves; the others stay closed */
    uint32_t rx_first; /* port that rx begins with */
    uint32_t rx_quota; /* frames of a port's fill and receive rings */
    uint32_t ring_sz;
    uint32_t held_cnt;
    uint32_t held[VC_IO_BURST]; /* frames shown to the core */
    bool busy_poll, zerocopy, pinned;
    int map_fd;
    uint32_t worker;
    uint64_t polled_ns, statistics_ns;
    struct vc_ctl_interface interfaces[VC_INTERFACES_MAX];
    size_t area_sz;
};

static inline struct vc_xsk_io *vc_xsk_io_of(struct vc_io *io)
{
    return (struct vc_xsk_io *)io;
}

/* vc_xsk_serves: a port of another worker's interface is never opened. */
static inline bool vc_xsk_serves(const struct vc_xsk_io *xsk, uint32_t slot)
{
    return vc_serves(&xsk->interfaces[slot], xsk->worker);
}

/* vc_xsk_open_slots opens and registers all ports that the worker serves, all in zero-copy mode or
   none.  0, or -errno with what failed and at which slot; then they are to be closed. */
int vc_xsk_open_slots(struct vc_xsk_io *xsk, const char **why, uint32_t *failed);
void vc_xsk_close_slots(struct vc_xsk_io *xsk);

/* vc_xsk_statistics adds up what the kernel counts, of earlier sockets too; a port whose interface
   was removed fails. */
void vc_xsk_statistics(struct vc_xsk_io *xsk);

/* vc_xsk_revive has a port send what waits, or tries it again when its time has come. */
void vc_xsk_revive(struct vc_xsk_io *xsk, uint32_t slot, uint64_t now_ns);

int vc_xsk_tx_reserve(struct vc_io *io, const struct vc_io_dst *dst, struct vc_io_tx *tx);
void vc_xsk_tx_commit(struct vc_io *io, const struct vc_io_tx *tx, uint32_t payload_sz);
void vc_xsk_tx_cancel(struct vc_io *io, const struct vc_io_tx *tx);
uint64_t vc_xsk_tx_flush(struct vc_io *io);

/* vc_xsk_reap takes completed frames back and accounts what has left. */
void vc_xsk_reap(struct vc_xsk_io *xsk);

/* vc_xsk_kick has the kernel send what is published on a port. */
void vc_xsk_kick(struct vc_xsk_io *xsk, uint32_t slot);

/* vc_xsk_probe tries a port that was down. */
void vc_xsk_probe(struct vc_xsk_io *xsk, uint32_t slot);

/* vc_xsk_fail takes the port out of service after a call failed with `error`; what waited counts
   as tx_errors. */
void vc_xsk_fail(struct vc_xsk_io *xsk, uint32_t slot, int error);

#endif
