/* SPDX-License-Identifier: MIT */
/* Repair downstream: what a receiver's NACK asks for is sent again from the history.

   A route remembers where its last VC_RESEND_WINDOW packets lie in their source's history.  That
   is a hint only: a packet is what was asked for when its slot is whole and the route's numbering
   gives its in index the number asked for, which names one packet for ever.

   With an RTX stream (RFC 4588) the packet leaves on it under the stream's next index.  Without
   one it leaves as the same bytes under the same index, or not at all: the numbers, timestamps
   and extensions of its header must come out as they did (`plain_from`), and none be stamped at
   departure.  So a (key, SSRC, index) never has two contents.  RED that left as its newest block
   alone leaves again as that, by either way.

   What waits lies in the leg's queue of class VC_QUEUE_RESEND, and is paced.  Limits: a packet is
   sent again once in a round trip (VC_RESEND_AGAIN_NS when that is not known), a route takes a
   quarter of its leg's rate, VC_RESEND_QUEUE wait on a leg.
   When a leg's rate was lowered and the route waits for a key frame of another source, nothing of
   the old one is sent again: it would only hold that key frame up.

   All of it belongs to the worker that owns the leg. */
#ifndef VC_RESEND_H
#define VC_RESEND_H

#include <stdint.h>

#include "vcfwd/abi.h"

#define VC_RESEND_WINDOW 512u
#define VC_RESEND_RECENT 64u
#define VC_RESEND_QUEUE 64u
#define VC_RESEND_AGAIN_NS 50000000ull

struct vc_departure;
struct vc_leg;
struct vc_route;
struct vc_rtcp_nack;
struct vc_worker;

struct vc_resend { /* of a route; 1.3 KB */
    uint16_t sent[VC_RESEND_WINDOW]; /* by out index: low bits of the position */
    struct {
        uint16_t out, when; /* low bits of the index; units of 2^20 ns */
    } recent[VC_RESEND_RECENT];
    uint32_t recent_cnt;   /* free-running */
    uint32_t rtx_ssrc;     /* 0: no RTX stream */
    uint16_t rtx_seq_start;
    uint8_t rtx_pt, pad;
    uint32_t budget;       /* bytes */
    uint64_t budget_ns;    /* when it was reckoned */
    uint64_t rtx_next;     /* index */
    uint64_t top;          /* out indices below were sent or passed over */
    uint64_t plain_from;   /* out indices below left with other headers than now */
    uint64_t rx_ext;       /* of the source, when the last packet left */
};

struct vc_resend_entry {
    uint64_t out;
    uint32_t route, pad;
};

struct vc_resend_queue { /* of a leg; 1 KB; a ring */
    struct vc_resend_entry entries[VC_RESEND_QUEUE];
    uint32_t first, cnt;
};

/* A packet of the route has been sent for the first time. */
void vc_resend_sent(struct vc_resend *resend, uint64_t out, uint64_t position);
/* A NACK came in on this leg; route NULL: for an SSRC that is not there. */
void vc_resend_ask(struct vc_worker *w, struct vc_leg *leg, struct vc_route *route,
                   const struct vc_rtcp_nack *nack);
/* Makes the leg's next resend an item of the burst, in the frame of d.  0: there is none. */
int vc_resend_take(struct vc_worker *w, struct vc_leg *leg, struct vc_departure *d);
/* It is about to be committed: records its index. */
void vc_resend_leaves(struct vc_worker *w, struct vc_route *route, const struct vc_departure *d);
/* Drops what waits of one route, or (VC_NONE) of all. */
void vc_resend_drop(struct vc_worker *w, struct vc_leg *leg, uint32_t route,
                    enum vc_copy_drop reason);

#endif
