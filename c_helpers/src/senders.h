/* SPDX-License-Identifier: MIT */
/* Replay windows of SRTCP: one for each SSRC that reports to a leg (RFC 3711 section 3.2.3).  A
   browser reports from an SSRC for each of its m-lines, and from those of what it sends.

   The law when places run out: who was silent for longest gives up its place, and from then on an
   SSRC without a place must come with an index above all that were ever given up (`rtcp_floor`).
   So what left with the place cannot be played again, under whatever place; the price is that a
   newcomer whose indices are still below the floor is refused as a replay.  No floor before the
   first place is given up.

   Only for authentic packets: nobody without the keys costs a place.  The stores are ordered for
   death between any two of them: the floor rises before the place is given up.  Any content of the
   structs is safe to read.  One writer, no clock, no allocation. */
#ifndef VC_SENDERS_H
#define VC_SENDERS_H

#include "srtp_index.h"

/* The place of the SSRC; NULL: it has none. */
static inline struct vc_rtcp_sender *vc_senders_find(struct vc_leg_index *leg, uint32_t ssrc)
{
    for (uint32_t i = 0; i < VC_LEG_SENDERS; i++)
        if ((leg->senders[i].rx.flags & VC_INDEX_STARTED) && leg->senders[i].ssrc == ssrc)
            return &leg->senders[i];
    return NULL;
}

/* A place that is free, or was used longest ago and is given up. */
static inline struct vc_rtcp_sender *vc_senders_vacate(struct vc_leg_index *leg)
{
    struct vc_rtcp_sender *oldest = &leg->senders[0];

    for (uint32_t i = 0; i < VC_LEG_SENDERS; i++) {
        struct vc_rtcp_sender *sender = &leg->senders[i];

        if (!(sender->rx.flags & VC_INDEX_STARTED))
            return sender;
        if (leg->rtcp_uses - sender->used > leg->rtcp_uses - oldest->used)
            oldest = sender;
    }
    if (oldest->rx.highest >= leg->rtcp_floor)
        leg->rtcp_floor = oldest->rx.highest + 1;
    VC_INDEX_FENCE();
    oldest->rx.flags = 0;
    VC_INDEX_FENCE();
    return oldest;
}

/* Records the index of an authentic compound.  False: it was here before, or may have been. */
static inline bool vc_senders_accept(struct vc_leg_index *leg, uint32_t ssrc, uint32_t index)
{
    struct vc_rtcp_sender *sender = vc_senders_find(leg, ssrc);

    if (!sender) {
        if (index < leg->rtcp_floor)
            return false;
        sender = vc_senders_vacate(leg);
        if (index < leg->rtcp_floor) /* it has just risen */
            return false;
        sender->ssrc = ssrc;
        if (leg->rtcp_floor) { /* all below it were here */
            for (uint32_t i = 0; i < VC_RTCP_WINDOW / 64; i++)
                sender->rx.window[i] = UINT64_MAX;
            sender->rx.highest = leg->rtcp_floor - 1;
            VC_INDEX_FENCE();
            sender->rx.flags = VC_INDEX_STARTED;
        }
    }
    sender->used = ++leg->rtcp_uses;
    return vc_rtcp_index_accept(&sender->rx, index);
}

#endif
