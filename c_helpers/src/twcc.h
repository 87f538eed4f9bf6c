/* SPDX-License-Identifier: MIT */
/* Transport-wide feedback towards a sender (draft-holmer-rmcat-transport-wide-cc-extensions-01):
   when each packet of a leg came, of media, RTX and padding alike, by the number that its sender
   wrote into the header extension.  Only authentic packets count.

   A message goes out VC_TWCC_INTERVAL_NS after the first packet that it speaks of, or as soon as
   the window is nearly full.  A packet that comes after a message called it lost is told of again, with all
   since: the window keeps what was reported.

   Belongs to the worker that owns the leg.  Limit: VC_TWCC_WINDOW numbers of a leg; a jump over
   more of them begins anew. */
#ifndef VC_TWCC_H
#define VC_TWCC_H

#include <stdint.h>

#include "rtp.h"

#define VC_TWCC_WINDOW 256u
#define VC_TWCC_INTERVAL_NS 50000000ull
#define VC_TWCC_TICK_NS 250000u /* of a delta; 256 of them are a unit of the reference time */
#define VC_TWCC_MAX 640u        /* bytes of a message: 20 + chunks + 2 for each packet */

struct vc_leg;
struct vc_worker;

struct vc_twcc { /* 1.1 KB */
    uint32_t ticks[VC_TWCC_WINDOW]; /* arrival, by number; wraps with the reference time */
    uint64_t got[VC_TWCC_WINDOW / 64];
    uint64_t next, top;  /* numbers, unwrapped: not reported yet, and the end */
    uint32_t media_ssrc; /* of the packet that came last */
    uint8_t started, message_cnt, pad[2];
};

/* Pure: number came at now_ns.  1: the window is nearly full. */
int vc_twcc_put(struct vc_twcc *twcc, uint16_t number, uint64_t now_ns);
/* Pure: writes the next message and moves on; returns its size, 0: there is nothing to tell. */
uint32_t vc_twcc_build(struct vc_twcc *twcc, uint32_t sender_ssrc, uint8_t data[VC_TWCC_MAX]);

/* An authentic packet with this clear header came. */
void vc_twcc_note(struct vc_worker *w, struct vc_leg *leg, uint32_t ssrc, const uint8_t *pkt,
                  const struct vc_rtp *rtp);
/* Messages that are due; returns how many it sent. */
uint32_t vc_twcc_timers(struct vc_worker *w);

#endif
