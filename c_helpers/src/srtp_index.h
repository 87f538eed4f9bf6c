/* SPDX-License-Identifier: MIT */
/* Receive indices of SRTP and SRTCP: which roll-over counter a packet belongs to, and whether it
   was here before.  Pure arithmetic on structs of vcfwd/abi.h that lie in memory which outlives
   the process.

   For each packet: guess (RTP only), check, open, and only when that says authentic: accept.
   Two copies of a packet can both pass check before either is opened (a burst), so the answer of
   accept counts, not that of check.

   The window is a ring of bits, index modulo its size.  The stores of accept are ordered for
   death between any two of them: what was accepted is never forgotten; at worst some indices
   that were skipped look as if they had been here.  Any content of the structs is safe to read.

   One writer, no clock, no allocation.  An all-zero struct is a stream not begun. */
#ifndef VC_SRTP_INDEX_H
#define VC_SRTP_INDEX_H

#include "vcfwd/abi.h"

#include <stdbool.h>
#include <stdint.h>

#define VC_INDEX_STARTED 1u
#define VC_RX_WINDOW (sizeof(((struct vc_rx_index *)0)->window) * 8)     /* 1024 packets */
#define VC_RTCP_WINDOW (sizeof(((struct vc_rtcp_index *)0)->window) * 8) /* 128 packets */

/* Orders two stores as a dying process sees them (x86 keeps program order between cores). */
#define VC_INDEX_FENCE() __atomic_signal_fence(__ATOMIC_SEQ_CST)

static inline bool vc_window_has(const uint64_t *window, uint64_t window_sz, uint64_t index)
{
    return window[index % window_sz / 64] >> (index % 64) & 1;
}

static inline void vc_window_put(uint64_t *window, uint64_t window_sz, uint64_t index)
{
    window[index % window_sz / 64] |= 1ull << (index % 64);
}

/* Forgets the indices after `highest` and below `index`, which is the new highest and stays. */
static inline void vc_window_skip(uint64_t *window, uint64_t window_sz, uint64_t highest,
                                  uint64_t index)
{
    uint64_t skipped = index - highest - 1;

    if (skipped >= window_sz)
        skipped = window_sz - 1;
    for (uint64_t i = 1; i <= skipped; i++)
        window[(index - i) % window_sz / 64] &= ~(1ull << ((index - i) % 64));
}

/* The common half of both checks: neither too old nor here before. */
static inline bool vc_window_fresh(const uint64_t *window, uint64_t window_sz, uint64_t highest,
                                   uint64_t index)
{
    if (index > highest)
        return true;
    return highest - index < window_sz && !vc_window_has(window, window_sz, index);
}

/* vc_rx_index_guess: the 48-bit index (ROC||SEQ) nearest to the highest one, RFC 3711 section
   3.3.1.  A stream begins with ROC 0, and there is none below it.  Past 2^48 the master key is
   spent: the value is then out of the engine's range, which refuses it. */
static inline uint64_t vc_rx_index_guess(const struct vc_rx_index *rx, uint16_t seq)
{
    uint64_t roc = rx->highest >> 16;
    uint16_t last = (uint16_t)rx->highest;

    if (!(rx->flags & VC_INDEX_STARTED))
        return seq;
    if (last < 0x8000) {
        if (seq > last && seq - last > 0x8000 && roc > 0)
            roc--;
    } else if (last - 0x8000 > seq) {
        roc++;
    }
    return roc << 16 | seq;
}

/* vc_rx_index_check: true when a packet with this index may be opened. */
static inline bool vc_rx_index_check(const struct vc_rx_index *rx, uint64_t index)
{
    if (!(rx->flags & VC_INDEX_STARTED))
        return true;
    return vc_window_fresh(rx->window, VC_RX_WINDOW, rx->highest, index);
}

/* vc_rx_index_accept records an authentic packet.  False: it was here before, drop it. */
static inline bool vc_rx_index_accept(struct vc_rx_index *rx, uint64_t index)
{
    uint64_t highest = rx->highest;

    if (!vc_rx_index_check(rx, index))
        return false;
    if (!(rx->flags & VC_INDEX_STARTED)) {
        for (uint32_t i = 0; i < VC_RX_WINDOW / 64; i++)
            rx->window[i] = 0;
        highest = index;
        rx->highest = index;
    }
    vc_window_put(rx->window, VC_RX_WINDOW, index);
    VC_INDEX_FENCE();
    if (index > highest) {
        rx->highest = index;
        VC_INDEX_FENCE();
        vc_window_skip(rx->window, VC_RX_WINDOW, highest, index);
    }
    VC_INDEX_FENCE();
    rx->flags |= VC_INDEX_STARTED;
    return true;
}

/* vc_rtcp_index_check: the index is the packet's own (31 bits, from vc_crypto_open_rtcp or the
   packet's last word); true when it may count. */
static inline bool vc_rtcp_index_check(const struct vc_rtcp_index *rx, uint32_t index)
{
    if (!(rx->flags & VC_INDEX_STARTED))
        return true;
    return vc_window_fresh(rx->window, VC_RTCP_WINDOW, rx->highest, index);
}

/* vc_rtcp_index_accept records an authentic SRTCP packet.  False: it was here before, drop it. */
static inline bool vc_rtcp_index_accept(struct vc_rtcp_index *rx, uint32_t index)
{
    uint32_t highest = rx->highest;

    if (!vc_rtcp_index_check(rx, index))
        return false;
    if (!(rx->flags & VC_INDEX_STARTED)) {
        for (uint32_t i = 0; i < VC_RTCP_WINDOW / 64; i++)
            rx->window[i] = 0;
        highest = index;
        rx->highest = index;
    }
    vc_window_put(rx->window, VC_RTCP_WINDOW, index);
    VC_INDEX_FENCE();
    if (index > highest) {
        rx->highest = index;
        VC_INDEX_FENCE();
        vc_window_skip(rx->window, VC_RTCP_WINDOW, highest, index);
    }
    VC_INDEX_FENCE();
    rx->flags |= VC_INDEX_STARTED;
    return true;
}

#endif
