/* SPDX-License-Identifier: MIT */
/* The clock of an outgoing stream when its source changes: out timestamp = in timestamp + offset.

   Two sources of one sender are aligned by that sender's own reports, each of which says what its
   RTP clock showed at a time of the sender's NTP clock (RFC 3550 section 6.4.1); never by arrival.
   Of two senders nothing is known but when their packets came.

   Pure. */
#ifndef VC_TIMELINE_H
#define VC_TIMELINE_H

#include <stdint.h>

#include "source.h"

/* A duration of the NTP clock (32.32, signed) in ticks of an RTP clock, rounded. */
uint32_t vc_timeline_ticks(int64_t ntp, uint32_t clock_hz);

/* The offset with which `to` goes on where `from` was, which left with `from_offset`. */
uint32_t vc_timeline_offset(const struct vc_sender_report *from, uint32_t from_offset,
                            const struct vc_sender_report *to, uint32_t clock_hz);

/* The timestamp that follows `last` after so many ns. */
uint32_t vc_timeline_after(uint32_t last, uint64_t passed_ns, uint32_t clock_hz);

#endif
