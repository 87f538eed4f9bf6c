/* SPDX-License-Identifier: MIT */
/* The socket backend of io.h: one bound UDP socket for each local address (IPv4, or IPv6, also
   dual-stack), read by recvmmsg in turn and written by sendmmsg, the datagrams of a flush
   grouped by socket, in order.

   Sockets are borrowed and must be non-blocking or not, as they come: every call says
   MSG_DONTWAIT.  DSCP goes along with each datagram.  When a socket's buffer is full (EAGAIN,
   ENOBUFS) the call is made once more, then the rest of that socket's datagrams count as
   tx_errors; any other error costs the one datagram that it is about.

   setup.flags bit 0 (VC_IO_UDP_GSO): datagrams of one flush that have the same destination, DSCP
   and size leave as one UDP_SEGMENT send; where the kernel refuses that, it is switched off and
   they go one by one.

   setup.flags bit 2 (VC_IO_UDP_TXTIME): every socket has SO_TXTIME and each datagram its departure
   time, so that the kernel holds it (the fq queueing discipline must be there: others ignore the
   time, and the datagram leaves early).  ahead_ns is then VC_IO_UDP_AHEAD_NS; where the kernel
   refuses, 0.

   A datagram longer than 2048 bytes, or from another address family, counts as malformed.
   Memory: 64 receive and 256 transmit buffers.  tx_reserve refuses when 256 wait for a flush. */
#ifndef VC_IO_UDP_H
#define VC_IO_UDP_H

#include "io.h"

#define VC_IO_UDP_GSO 1u
#define VC_IO_UDP_TXTIME 4u
#define VC_IO_UDP_AHEAD_NS UINT64_C(2000000)

/* vc_io_udp_new: fds[i] belongs to setup->locals[i]; -1: none.  NULL and a sentence in *why on
   failure. */
struct vc_io *vc_io_udp_new(const struct vc_ctl_setup *setup, uint32_t worker, const int *fds,
                            uint32_t fd_cnt, const char **why);

#endif
