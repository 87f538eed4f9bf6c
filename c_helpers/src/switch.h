/* SPDX-License-Identifier: MIT */
/* A change of source on a living route.

   A gated route goes on with the old source (feed 0) until the new one (feed 1) gives a key frame
   that comes after everything that the old one has sent; another route changes at once.  The frame
   of the old one that has begun by then is let through to its end, VC_CUT_WAIT_NS at most, so that
   no decoder gets half of it.  Sequence numbers and ids of frames go on (numbering.h, rewrite.h),
   and a sender report with the new mapping follows the first packet.  Timestamps:

     both sources are of one leg: by its sender's own reports (timeline.h).  While one of these is
                                  missing the change waits, VC_ALIGN_WAIT_NS at most.  No key
                                  frame is asked for before it can be used, so a change costs one
                                  request.
     else:                        by the time that passed at this node between the last packet of
                                  the old and the first of the new one.

   They never go back, and the first is a tick ahead at least.  Where the sources' packets come at
   different times the key frame may be older than what has left, by half a second at most: the
   first frames are then a sixteenth of their distance apart, until the clock is the sender's again.
   Reports tell of that clock all the while.  A key frame of the history must not be older, or a
   receiver would see the past once more.

   All of it belongs to the worker that owns the route's leg. */
#ifndef VC_SWITCH_H
#define VC_SWITCH_H

#include <stdint.h>

#include "history.h"

#define VC_ALIGN_WAIT_NS 3000000000ull
#define VC_CUT_WAIT_NS 50000000ull

struct vc_route;
struct vc_worker;

/* Feed 1 was attached to a gated route whose receiver can be reached. */
void vc_switch_begin(struct vc_worker *w, struct vc_route *route);
/* It waits for sender reports; one came, or time has passed. */
void vc_switch_resume(struct vc_worker *w, struct vc_route *route);
/* The first key frame of feed 1 in [key, to) that it can change at, or `to`. */
uint64_t vc_switch_find(struct vc_worker *w, struct vc_route *route, uint64_t key, uint64_t to);
/* 1: a key frame with this timestamp can be changed at.  stored: it did not come just now. */
int vc_switch_fits(struct vc_worker *w, struct vc_route *route, uint32_t timestamp, int stored);
/* Feed 1's key frame was found; more of one of the feeds came.  Sets switch_at once the end of feed
   0 is known. */
void vc_switch_cut(struct vc_worker *w, struct vc_route *route);
/* Feed 1 is about to take the place of feed 0: what must be known of that one is remembered. */
void vc_switch_taken(struct vc_worker *w, struct vc_route *route);
/* The next packet to leave is the first of its stream: sets ts_offset. */
void vc_switch_clock(struct vc_route *route, const struct vc_slot_head *head, uint32_t clock_hz);
/* The out timestamp, the same whenever it is asked for until the stream changes. */
uint32_t vc_switch_timestamp(const struct vc_route *route, uint32_t timestamp);
/* A packet with this in timestamp leaves, the newest so far. */
void vc_switch_left(struct vc_route *route, uint32_t timestamp);

#endif
