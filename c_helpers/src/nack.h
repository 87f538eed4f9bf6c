/* SPDX-License-Identifier: MIT */
/* Repair upstream: which packets of a source are missing, and when its sender is asked for them.

   A number is missing when an authentic packet with a higher one came.  It is asked for (generic
   NACK, RFC 4585 section 6.2.1) when VC_NACK_REORDER_NS later it is still missing, then again
   each time a repair could have come, VC_NACK_TRIES times in all and not longer than the history
   keeps packets.  What comes late takes its own number on the routes by itself.

   Belongs to the worker that owns the source.  Limits: VC_NACK_MAX missing packets of a source;
   of a larger gap nothing is asked for: video asks for a key frame instead. */
#ifndef VC_NACK_H
#define VC_NACK_H

#include <stdint.h>

#define VC_NACK_MAX 128u
#define VC_NACK_TRIES 4u
#define VC_NACK_REORDER_NS 2000000ull
#define VC_NACK_RETRY_NS 100000000ull /* until the time that a repair takes is known */

struct vc_leg;
struct vc_source;
struct vc_worker;

struct vc_nack_entry {
    uint64_t index;   /* in index */
    uint64_t born_ns; /* when it was missed */
    uint64_t sent_ns; /* when it was asked for last */
    uint64_t tries;
};

struct vc_nack { /* 4 KB */
    struct vc_nack_entry entries[VC_NACK_MAX]; /* ascending */
    uint32_t cnt, pad;
    uint64_t repair_ns; /* smoothed time from request to repair; 0: not known */
};

/* An authentic packet, before it is counted. */
void vc_nack_arrived(struct vc_worker *w, const struct vc_leg *leg, struct vc_source *source,
                     uint64_t index);
/* Requests that are due; returns how many it sent. */
uint32_t vc_nack_timers(struct vc_worker *w);

#endif
