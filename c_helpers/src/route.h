/* SPDX-License-Identifier: MIT */
/* A route: an outgoing stream of a leg with an identity of its own.

   Its queue is a cursor: what waits is [cursor, position announced to this worker) of the
   source's history.  So a route has no memory for its queue; to queue is to link the route into its
   leg's list, to shed is to move the cursor on, and fast start moves it back.

   A route reads one source through feed 0; while it changes its source, feed 1 waits for a
   key frame of the next one.

   All of it belongs to the worker that owns the leg. */
#ifndef VC_ROUTE_H
#define VC_ROUTE_H

#include <stdint.h>

#include "history.h"
#include "numbering.h"
#include "resend.h"
#include "rewrite.h"
#include "vcfwd/abi.h"

struct vc_source;
struct vc_worker;

struct vc_feed {
    uint64_t cursor;
    uint32_t source; /* VC_NONE: unused */
    uint32_t prev, next; /* feeds of the same source on this worker; id = 2 * route + which */
    uint32_t pad;
};

struct vc_route_types { /* payload types */
    uint8_t pt, rtx_pt, red_pt; /* red_pt 0: its receiver takes no RED */
};

struct vc_route {
    struct vc_feed feeds[2]; /* current, next */
    uint64_t switch_at;      /* the current feed ends here; UINT64_MAX: no end in sight */
    uint64_t found_ns;       /* when feed 1's key frame was found; 0: it was not */
    uint64_t found_at;       /* what feed 0's source had announced then */
    struct vc_numbering numbering;
    uint64_t digest;
    uint64_t since_ns;       /* age in the queue counts from here at the earliest */
    uint64_t asked_ns[2];    /* last request for a key frame, of each feed */
    uint64_t switch_ns;      /* when the next source was chosen */
    uint64_t feedback_ns;
    uint64_t last_arrival_ns, report_ns; /* of the packet with the highest out timestamp */
    uint32_t last_out_ts, report_middle; /* that timestamp; the sender report passed on last */
    struct vc_tx_index *store;
    struct vc_route_stats *stats;
    uint32_t id, leg;
    uint32_t prev, next;     /* routes of the leg */
    uint32_t waiting;        /* next in the leg's queue, or VC_NONE */
    uint32_t out_ssrc, ts_offset, stream;
    uint32_t ts_offset_set; /* as the command said */
    uint32_t late_from, late_as; /* in and out timestamp of a frame that came late, see switch.h */
    uint32_t aligned_offset, next_offset; /* of feed 0 while switched, of feed 1 */
    uint16_t seq_start;
    uint64_t first_out;      /* out index of the first packet */
    uint32_t max_spatial, max_temporal;
    uint8_t queue, pt, flags;
    uint8_t red_pt; /* 0: its receiver takes no RED */
    uint8_t live, queued, gate_open, paused;
    uint8_t switched;        /* the next packet comes from another source than the last */
    struct vc_route_types next_types; /* from the next source on */
    uint8_t report_due;      /* the stored sender report is to be sent */
    uint8_t aligned, next_aligned; /* these offsets are known */
    uint8_t waits;           /* feed 1, for sender reports */
    uint8_t late;            /* late_from and late_as hold */
    uint8_t follows;         /* packets left in an earlier life, the numbering begins anew */
    uint8_t left;            /* removed in this process: what it stored is exact */
    uint8_t mid[VC_LABEL_SZ];
    struct vc_rewrite rewrite;
    struct vc_resend resend;
};

_Static_assert(sizeof(struct vc_route) <= 2048, "a route with its queue fits 2 KB");

/* New positions [.., to) of a source are there for this worker: queues them on its routes. */
void vc_route_announce(struct vc_worker *w, uint32_t source, uint64_t to);
/* A route begins to read a source from now (or, fast start, from a recent key frame) on. */
int vc_route_attach(struct vc_worker *w, struct vc_route *route, uint32_t which,
                    uint32_t source);
/* It ends; what still waited is counted as dropped for this reason. */
void vc_route_detach(struct vc_worker *w, struct vc_route *route, uint32_t which,
                     enum vc_copy_drop reason);
/* Starts the current feed: restored = the numbering goes on from an earlier life. */
void vc_route_begin(struct vc_worker *w, struct vc_route *route, int restored);
/* Another source: the next feed is attached and takes over as switch.h says. */
void vc_route_change(struct vc_worker *w, struct vc_route *route, uint32_t source);
/* What the index store holds of its source is void: the id may be given to another stream. */
static inline void vc_route_forget(struct vc_route *route)
{
    __atomic_store_n(&route->store->source, VC_NONE, __ATOMIC_RELEASE);
}
/* From now on packets leave with other headers: what left cannot be made again (resend.h). */
void vc_route_header(struct vc_route *route, uint64_t rx_ext);
/* From now on packets leave with next_types. */
void vc_route_take_types(struct vc_route *route);
/* Takes the next feed as the current one. */
void vc_route_switch(struct vc_worker *w, struct vc_route *route);
/* For switch.h: serves a feed from a recent key frame (1: there was one); asks for one; says that
   the next feed begins at its cursor; finds the first key frame in [from, to), or `to`. */
int vc_route_fast_start(struct vc_worker *w, struct vc_route *route, uint32_t which);
void vc_route_ask(struct vc_worker *w, struct vc_route *route, uint32_t which);
void vc_route_next_found(struct vc_worker *w, struct vc_route *route);
uint64_t vc_route_find_key(const struct vc_source *source, uint64_t from, uint64_t to);
/* Closes the gate (of a gated route) and asks for a key frame. */
void vc_route_close_gate(struct vc_worker *w, struct vc_route *route);
/* Reopens the way to a route whose leg has become reachable, or which is no longer paused. */
void vc_route_reopen(struct vc_worker *w, struct vc_route *route);
/* Drops what waits up to `to`. */
void vc_route_shed(struct vc_worker *w, struct vc_route *route, uint64_t to,
                   enum vc_copy_drop reason);
/* Where what waits on the current feed ends. */
uint64_t vc_route_limit(const struct vc_worker *w, const struct vc_route *route);
/* Links a route with new work into its leg's list, and sees to it that the leg departs. */
void vc_route_enqueue(struct vc_worker *w, struct vc_route *route);
/* Links a route that is not queued and has more to send; the caller schedules the leg. */
void vc_route_requeue(struct vc_worker *w, struct vc_route *route);
void vc_route_dequeue(struct vc_worker *w, struct vc_route *route);

#endif
