/* SPDX-License-Identifier: MIT */
/* The AF_XDP backend of io.h: one memory of frames for the worker, one socket for each interface
   that the worker serves (vc_serves; queue = worker - worker_first), sharing that memory, each
   with its own fill and completion ring.  Ports are numbered as the interfaces of the set-up; what is
   reserved on one that the worker does not serve is refused.

   Copy or zero-copy is asked for explicitly.  Sockets that share a memory share the mode, so
   zero-copy is used when every interface that the worker serves allows it; where the kernel refuses, copy
   mode is taken, and vc_io_xsk_zerocopy tells.  Sockets are registered in the XSKMAP (at
   xsk_base + queue) last.

   An interface that goes down: packets to it count as tx_errors at once (copy mode: those that
   were waiting in the ring as well; zero-copy: those leave when it is back), and sending goes on
   by itself within 50 ms of its return.  One that disappears is looked for by name and bound
   again, at most once a second; the supervisor must have attached the steering program to it.

   Memory: frames x 2 KiB, taken from the node where the caller runs (huge pages when there are
   any there), plus four rings of up to 4096 entries
   a port. A packet that arrives while the fill ring is empty, or the receive ring full, is lost
   in the kernel and counted in xsk_fill_empty, xsk_rx_ring_full and xsk_rx_dropped. */
#ifndef VC_IO_XSK_H
#define VC_IO_XSK_H

#include "io.h"

/* vc_io_xsk_new opens the worker's ports.  NULL and a sentence in *why (valid until the thread's
   next call) on failure.  xsks_map_fd: borrowed, kept for binding again; -1: registered nowhere. */
struct vc_io *vc_io_xsk_new(const struct vc_ctl_setup *setup, uint32_t worker, int xsks_map_fd,
                            const char **why);

/* vc_io_xsk_zerocopy tells what the kernel gave for this interface of the set-up: 1 zero-copy, 0
   copy. */
int vc_io_xsk_zerocopy(const struct vc_io *io, uint32_t interface);

/* vc_io_xsk_elsewhere: of the pages of its frames, those that are not on the NUMA node where the
   calling thread runs. */
uint32_t vc_io_xsk_elsewhere(const struct vc_io *io);

#endif
