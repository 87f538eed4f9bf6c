/* SPDX-License-Identifier: MIT */
/* The frames of one worker's AF_XDP sockets, each with one owner at any time.

   A frame is free, or belongs to one port: with the kernel for receiving (fill or receive ring),
   held by the core between rx and rx_done, reserved by the core for transmitting, or with the
   kernel for transmitting (transmit or completion ring).  Every transition checks the owner that
   it leaves, so that a frame which comes back twice ends the process instead of two packets
   sharing it.

   Receiving has its own quota for each port; transmitting gets the rest, so that neither starves
   the other. Used by the worker's thread only.  Never grows: frames x 2048 bytes, or 4096 for
   zero-copy, 1 + 2 + 4 bytes of bookkeeping each. */
#ifndef VC_UMEM_H
#define VC_UMEM_H

#include "base.h"

#include <stdbool.h>

#define VC_FRAME_SZ 2048u /* the least */
/* log2 of a frame's bytes.  Zero-copy drivers cut what they receive into whole kilobytes, less
   the kernel's 256 bytes of headroom (igb, igc, ixgbe): of 2048 that leaves 1024, and a datagram of
   a full frame comes in two pieces. */
#define VC_FRAME_SHIFT 11u
#define VC_FRAME_SHIFT_ZEROCOPY 12u
#define VC_FRAME_PAYLOAD \
    128u /* bytes before the payload of a transmit frame: the headers end here */

enum vc_frame_state { /* high bits of vc_umem.owner; the low 4 bits are the port */
                      VC_FRAME_FREE = 0x00,
                      VC_FRAME_RX = 0x10,       /* fill or receive ring */
                      VC_FRAME_HELD = 0x20,     /* shown to the core */
                      VC_FRAME_RESERVED = 0x30, /* being written */
                      VC_FRAME_TX = 0x40,       /* transmit or completion ring */
};

struct vc_umem {
    uint8_t *area;
    uint8_t *owner;       /* [total] enum vc_frame_state | port */
    uint16_t *payload_sz; /* [total] of frames in a transmit ring */
    uint32_t *free;       /* [total] a stack of frame numbers */
    uint32_t total, free_cnt;
    uint32_t shift; /* VC_FRAME_SHIFT... */
    uint32_t rx_cnt, tx_cnt; /* frames in the two receiving states, in the two transmitting ones */
    uint32_t tx_max;         /* quota */
};

static inline bool vc_umem_is_rx(uint8_t owner)
{
    uint8_t state = owner & 0xf0;

    return state == VC_FRAME_RX || state == VC_FRAME_HELD;
}

/* vc_umem_take takes a free frame; the caller has seen that free_cnt is not 0. */
static inline uint32_t vc_umem_take(struct vc_umem *umem, enum vc_frame_state state, uint32_t port)
{
    uint32_t frame;

    VC_ASSERT(umem->free_cnt);
    frame = umem->free[--umem->free_cnt];
    VC_ASSERT(umem->owner[frame] == VC_FRAME_FREE);
    umem->owner[frame] = (uint8_t)(state | port);
    if (vc_umem_is_rx(umem->owner[frame]))
        umem->rx_cnt++;
    else
        umem->tx_cnt++;
    return frame;
}

/* vc_umem_move changes the state within receiving or within transmitting. */
static inline void vc_umem_move(struct vc_umem *umem, uint32_t frame, enum vc_frame_state from,
                                enum vc_frame_state to, uint32_t port)
{
    VC_ASSERT(frame < umem->total && umem->owner[frame] == (from | port));
    umem->owner[frame] = (uint8_t)(to | port);
}

static inline void vc_umem_give(struct vc_umem *umem, uint32_t frame, enum vc_frame_state from,
                                uint32_t port)
{
    VC_ASSERT(frame < umem->total && umem->owner[frame] == (from | port));
    umem->owner[frame] = VC_FRAME_FREE;
    umem->free[umem->free_cnt++] = frame;
    if (vc_umem_is_rx((uint8_t)from))
        umem->rx_cnt--;
    else
        umem->tx_cnt--;
}

/* A frame's place in the area, as descriptors name it, and the way back. */
static inline uint64_t vc_umem_addr(const struct vc_umem *umem, uint32_t frame)
{
    return (uint64_t)frame << umem->shift;
}

static inline uint32_t vc_umem_number(const struct vc_umem *umem, uint64_t addr)
{
    return (uint32_t)(addr >> umem->shift);
}

static inline uint8_t *vc_umem_frame(const struct vc_umem *umem, uint32_t frame)
{
    return umem->area + vc_umem_addr(umem, frame);
}

#endif
