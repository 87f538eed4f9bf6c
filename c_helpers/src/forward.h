/* SPDX-License-Identifier: MIT */
/* The hot loop: burst in, burst out.

   vc_receive takes what one backend has: flow -> leg -> source, opens the packets as one
   burst from the receive frames into history slots and announces them to the routes.
   vc_depart lets legs that are due send: rewrites headers, takes SRTP indices, seals up to
   VC_DEPARTURES_KICK copies as one burst from the history into transmit frames, flushes. */
#ifndef VC_FORWARD_H
#define VC_FORWARD_H

#include "node.h"
#include "switch.h"

uint32_t vc_receive(struct vc_worker *w, int which);
/* One datagram that this worker takes charge of (counted in rx).  vc_receive_flush must follow. */
void vc_receive_one(struct vc_worker *w, const struct vc_io_rx *pkt, int from_xsk, int handed);
void vc_receive_flush(struct vc_worker *w);

/* The slot after the last holds this clear packet: head with index, arrival, rtp and size.  wire_sz:
   as it came.  vc_receive_announce must follow. */
void vc_receive_accept(struct vc_worker *w, struct vc_leg *leg, struct vc_source *source,
                       struct vc_slot_head *head, uint32_t wire_sz);
void vc_receive_announce(struct vc_worker *w, struct vc_source *source);

uint32_t vc_depart(struct vc_worker *w);
/* How a packet of this route leaves, as its first copy did, but for what is stamped at departure: it
   takes the leg's next transport-wide number where its peer wants one.  rx_ext: the source's, as one
   word. */
static inline struct vc_rtp_identity
vc_depart_identity(const struct vc_worker *w, struct vc_leg *leg, const struct vc_route *route,
                   const struct vc_departure *d, const uint64_t *rx_ext)
{
    uint64_t leaves_ns = d->due_ns > w->now_ns ? d->due_ns : w->now_ns;

    return (struct vc_rtp_identity){
        .ssrc = route->out_ssrc,
        .timestamp = vc_switch_timestamp(route, d->head.rtp.timestamp),
        .seq = (uint16_t)d->out,
        .pt = d->head.flags & VC_SLOT_RED && route->red_pt ? route->red_pt : route->pt,
        .rx_ext = (const uint8_t *)rx_ext,
        .tx_ext = leg->tx_ext,
        .mid = route->mid[0] ? route->mid : NULL,
        .send_time = vc_rtp_send_time(leaves_ns),
        .transport_number = leg->tx_ext[VC_EXT_TRANSPORT_CC] ? leg->transport_next++ : 0,
    };
}
/* 1: payloads of this codec hold ids of frames. */
static inline int vc_depart_has_ids(uint32_t codec)
{
    return codec == VC_CODEC_VP8 || codec == VC_CODEC_VP9;
}
/* 1: packets that leave the route on this leg may have ids of frames. */
static inline int vc_depart_rewrites(const struct vc_leg *leg, uint32_t codec, uint64_t rx_ext)
{
    return vc_depart_has_ids(codec) ||
           (leg->tx_ext[VC_EXT_DEPENDENCY] && rx_ext >> (8 * VC_EXT_DEPENDENCY) & 0xff);
}
/* Rewrites them in d->in_header and, from d->ids on, in the payload that vc_depart_place makes.  0; -1:
   the slot was reused; 1: of a stretch so long ago that nobody knows how. */
int vc_depart_ids(const struct vc_leg *leg, struct vc_route *route, struct vc_departure *d,
                  const uint64_t *rx_ext);
/* Where the newest block of RED lies in the payload; 0: there is none of the source's payload type,
   or it is of a codec whose ids of frames lie in its first bytes, which nobody sends as RED.  A slot
   gives one place or 0, whenever it is asked. */
uint16_t vc_depart_newest(const struct vc_worker *w, const struct vc_route *route,
                          const struct vc_departure *d);
/* Puts header and payload into the frame, `gap` bytes between them, to be sealed in place. */
void vc_depart_place(struct vc_departure *d, struct vc_crypto_item *item, uint32_t gap);
/* Makes the system calls for what is committed and settles the counters. */
void vc_flush(struct vc_worker *w);

#endif
