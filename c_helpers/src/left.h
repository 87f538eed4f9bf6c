/* SPDX-License-Identifier: MIT */
/* What a leg remembers of the SSRCs that it has let go of: the highest index of each that was
   accepted, of media and of RTX streams alike.

   An index belongs to a key and an SSRC, not to a source (RFC 3711 section 3.2.3): a party that ends
   a stream and begins it anew goes on with its roll-over counter.  So whatever source an SSRC comes
   back to goes on above what was accepted of it before, and nothing of that can be played again;
   what was still on its way when the stream ended counts as if it had been here.

   The law when places run out: what was let go of longest ago is forgotten, and would begin at
   roll-over counter 0 with nothing played yet.

   The record outlives the process and ends with the keys.  The stores are ordered for death between
   any two of them.  Any content of the structs is safe to read.  One writer, the worker that owns
   the leg; no clock, no allocation. */
#ifndef VC_LEFT_H
#define VC_LEFT_H

#include <stddef.h>

#include "srtp_index.h"

/* The place of the SSRC; NULL: it has none. */
static inline const struct vc_left *vc_left_find(const struct vc_leg_index *leg, uint32_t ssrc)
{
    for (uint32_t i = 0; i < VC_LEG_LEFT; i++)
        if (leg->left[i].used && leg->left[i].ssrc == ssrc)
            return &leg->left[i];
    return NULL;
}

/* A place that is free, or was taken longest ago and is given up. */
static inline struct vc_left *vc_left_vacate(struct vc_leg_index *leg)
{
    struct vc_left *oldest = &leg->left[0];

    for (uint32_t i = 0; i < VC_LEG_LEFT; i++)
        if (leg->left[i].used < oldest->used)
            oldest = &leg->left[i];
    oldest->used = 0;
    VC_INDEX_FENCE();
    return oldest;
}

/* vc_left_put: the SSRC has no source any more.  It may have been let go of before. */
static inline void vc_left_put(struct vc_leg_index *leg, const struct vc_rx_index *rx)
{
    const struct vc_left *known = vc_left_find(leg, rx->ssrc);
    struct vc_left *place;

    if (!(rx->flags & VC_INDEX_STARTED) || (known && known->highest >= rx->highest))
        return;
    place = known ? &leg->left[known - leg->left] : vc_left_vacate(leg);
    place->ssrc = rx->ssrc;
    place->highest = rx->highest;
    VC_INDEX_FENCE();
    place->used = ++leg->left_uses;
}

/* vc_left_take: a stream that begins, or goes on from a record, goes on above what its SSRC had
   before. */
static inline void vc_left_take(const struct vc_leg_index *leg, struct vc_rx_index *rx)
{
    const struct vc_left *known = vc_left_find(leg, rx->ssrc);

    if (!known || ((rx->flags & VC_INDEX_STARTED) && rx->highest >= known->highest))
        return;
    for (uint32_t i = 0; i < VC_RX_WINDOW / 64; i++)
        rx->window[i] = UINT64_MAX;
    VC_INDEX_FENCE();
    rx->highest = known->highest;
    VC_INDEX_FENCE();
    rx->flags |= VC_INDEX_STARTED;
}

#endif
