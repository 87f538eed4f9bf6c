/* SPDX-License-Identifier: MIT */
/* The one interface between the forwarding core and the ways a packet gets in and out.

   A vc_io is one backend instance of one worker, used by that worker's thread only:
     io_xsk.c  one AF_XDP socket for each port (interface, queue) of the worker, one UMEM
     io_udp.c  the worker's media sockets, one for each local address (recvmmsg, sendmmsg)
     io_mem.c  arrays in memory (tests, simulator, fuzzing, benchmarks)
   A worker has up to two: its socket backend always, its AF_XDP backend when it has ports.

   Receive: rx fills up to n vc_io_rx; the payloads stay valid until rx_done, which gives all of
   them back.  What is not a UDP datagram to us never comes out (counted as VC_DROP_MALFORMED in
   counts->malformed).  data may be written to by the core (decrypting in place is allowed).

   Transmit: tx_reserve gives a place for one UDP payload (with VC_TX_ROOM bytes), behind the
   destination's headers; then tx_commit with its size, or tx_cancel.  Reserve and commit go in
   order within a burst but several reservations may be open at once (up to VC_IO_BURST), and any of them
   may be cancelled.  Nothing leaves before tx_flush, which makes the system calls and returns
   CLOCK_MONOTONIC after them.  A committed packet that the kernel refused is counted in
   counts->tx_errors, so that  committed = counts->tx_sent + counts->tx_errors + still pending.

   No allocation after new, no logs.  Errors that need a rebind (ENETDOWN, ENXIO) are retried by
   the backend itself at most once a second; packets meanwhile count as tx_errors. */
#ifndef VC_IO_H
#define VC_IO_H

#include <stddef.h>
#include <stdint.h>

#include "vcfwd/abi.h"

#define VC_IO_BURST 64
#define VC_TX_ROOM 1600 /* bytes of UDP payload that a transmit frame can take */

struct vc_io_rx {
    uint8_t *data; /* UDP payload */
    uint32_t sz;
    struct vc_tuple tuple;
};

/* Where a copy goes.  For io_xsk: header (vc_cmd_leg_header) and its port.  For io_udp: tuple and local. */
struct vc_io_dst {
    const struct vc_tuple *tuple; /* nominated */
    const uint8_t *header;
    uint32_t port;                /* interface index, io_xsk */
    uint32_t local;               /* local address index, io_udp */
    uint16_t header_sz, l3_off;
    uint8_t dscp;
    uint64_t depart_ns;           /* not before then (CLOCK_MONOTONIC); 0: at once.  Only where ahead_ns is not 0 */
};

struct vc_io_tx {
    uint8_t *payload; /* VC_TX_ROOM bytes */
    uint64_t cookie;  /* the backend's */
    uint32_t port;
    uint32_t pad;
};

struct vc_io_counts { /* free-running; the core publishes them as counters */
    uint64_t malformed, rx_packets, tx_sent, tx_errors, tx_bytes, tx_kicks, tx_again;
    uint64_t xsk_rx_dropped, xsk_rx_ring_full, xsk_fill_empty, xsk_tx_invalid;
    uint64_t frames_total, frames_free, frames_rx, frames_tx; /* io_xsk gauges: free + rx + tx = total */
};

struct vc_io;

struct vc_io_ops {
    const char *name; /* "xsk", "udp", "mem" */
    uint32_t (*rx)(struct vc_io *io, struct vc_io_rx *pkts, uint32_t n, uint64_t now_ns);
    void (*rx_done)(struct vc_io *io);
    int (*tx_reserve)(struct vc_io *io, const struct vc_io_dst *dst, struct vc_io_tx *tx); /* 0, or -1: full */
    void (*tx_commit)(struct vc_io *io, const struct vc_io_tx *tx, uint32_t payload_sz);
    void (*tx_cancel)(struct vc_io *io, const struct vc_io_tx *tx);
    uint64_t (*tx_flush)(struct vc_io *io);
    void (*housekeeping)(struct vc_io *io, uint64_t now_ns); /* at most a few times a ms */
    /* Prepares to sleep: fills up to n descriptors to poll for POLLIN, returns how many; -1 when there is
       work already.  (io_xsk: sets need_wakeup bookkeeping, rechecks its rings.) */
    int (*sleep_fds)(struct vc_io *io, int *fds, uint32_t n);
    void (*delete)(struct vc_io *io);
};

struct vc_io { /* first member of each backend */
    const struct vc_io_ops *ops;
    uint64_t ahead_ns; /* so long before its time a copy may be committed: the kernel holds it */
    struct vc_io_counts counts;
};

#endif
