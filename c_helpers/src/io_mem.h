/* SPDX-License-Identifier: MIT */
/* The I/O backend whose network is memory: tests, the simulator, fuzzing, benchmarks.

   vc_io_mem_put queues a datagram to be received; vc_io_mem_take hands out what left, in order.
   Both queues are rings of fixed size.  A full outgoing ring makes tx_reserve fail, and refuse
   counts down packets that the "kernel" refuses, so that both ways of losing can be shown.
   One thread. */
#ifndef VC_IO_MEM_H
#define VC_IO_MEM_H

#include "io.h"

#define VC_IO_MEM_SZ 2048u

struct vc_io_mem_packet {
    struct vc_tuple tuple; /* sent: where to; received: where from */
    uint32_t sz;
    uint32_t local;
    uint64_t depart_ns;
    uint8_t dscp;
    uint8_t data[VC_IO_MEM_SZ];
};

/* capacity: packets in each direction, a power of two.  NULL on lack of memory. */
struct vc_io *vc_io_mem_new(uint32_t capacity);
/* 0, or -1 when the incoming ring is full or the datagram too long. */
int vc_io_mem_put(struct vc_io *io, const struct vc_tuple *tuple, const void *data, uint32_t sz);
/* The oldest packet that left and was not taken yet, or NULL; valid until the next call. */
const struct vc_io_mem_packet *vc_io_mem_take(struct vc_io *io);
/* The next n packets flushed are refused (counted as tx_errors). */
void vc_io_mem_refuse(struct vc_io *io, uint32_t n);
/* The time that tx_flush returns. */
void vc_io_mem_clock(struct vc_io *io, uint64_t now_ns);

#endif
