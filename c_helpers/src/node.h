/* SPDX-License-Identifier: MIT */
/* What the workers of a process share (vc_node) and what one of them owns (vc_worker).

   Tables of legs, sources and routes lie in the node, indexed by id, so that an id means the same
   everywhere; but an entry is touched by the worker that owns it alone, except for the shared
   part of a source (source.h).  They are taken as untouched zero pages: what is not used costs
   no memory.

   Only the files of the forwarding core include this. */
#ifndef VC_NODE_H
#define VC_NODE_H

#include "base.h"
#include "crypto.h"
#include "descriptor.h"
#include "flows.h"
#include "io.h"
#include "leg.h"
#include "mesh.h"
#include "pacer.h"
#include "ring.h"
#include "route.h"
#include "source.h"
#include "wheel.h"
#include "vcfwd/worker.h"

#define VC_RESEND_AGE_NS 500000000ull   /* beyond the queue's limit a slot stays for resends */
#define VC_FAST_START_NS 500000000ull   /* a key frame older than this is not served from history */
#define VC_KEYFRAME_RETRY_NS 1000000000ull /* a closed gate asks again */
#define VC_RTP_HEADER_IN_MAX 512u       /* a longer incoming header is dropped as too long */
#define VC_DEPARTURES_KICK 16u          /* copies sealed and flushed together */
#define VC_DEPARTURES_CYCLE 512u        /* copies a duty cycle */

struct vc_node {
    struct vc_node_config config;
    uint64_t queue_limit_ns, slot_age_ns, rtcp_interval_ns;
    struct vc_leg *legs;
    struct vc_source *sources;
    struct vc_route *routes;
    struct vc_history_pool pools[2]; /* audio, video */
    struct vc_mesh_pair *mesh;       /* [from * worker_cnt + to] */
    struct vc_tx_index *tx_store;
    struct vc_leg_index *leg_store;
    struct vc_source_index *source_store;
};

/* The routes of one source on one worker. */
struct vc_watch {
    uint64_t announced;
    uint32_t first; /* feed, or VC_NONE */
    uint32_t cnt;
};

struct vc_open_batch { /* received packets that wait for their tag */
    struct vc_crypto_item items[VC_CRYPTO_BURST];
    struct vc_slot_head heads[VC_CRYPTO_BURST];
    uint64_t positions[VC_CRYPTO_BURST];
    struct vc_source *sources[VC_CRYPTO_BURST];
    uint32_t cnt;
    struct vc_source *touched[VC_CRYPTO_BURST];
    uint32_t touched_cnt;
};

enum vc_departure_how { VC_DEPARTURE_FIRST, VC_DEPARTURE_PLAIN, VC_DEPARTURE_RTX };

struct vc_departure {
    struct vc_route *route;
    struct vc_io *io;
    struct vc_io_tx tx;
    struct vc_slot_head head;
    uint64_t position, out, waited_ns, due_ns;
    uint64_t rtx; /* index on the RTX stream */
    uint32_t out_ts;
    uint8_t committed, how; /* enum vc_departure_how */
    uint8_t ids_sz, ids[VC_DESCRIPTOR_SZ]; /* how the payload begins instead; 0: as it is */
    uint16_t skip; /* bytes of the payload that stay behind: of RED, all but its newest block */
    const struct vc_history *history;
    uint8_t header[VC_RTP_HEADER_MAX];
    uint8_t in_header[VC_RTP_HEADER_IN_MAX];
};

struct vc_seal_batch {
    struct vc_crypto_item items[VC_DEPARTURES_KICK];
    struct vc_departure departures[VC_DEPARTURES_KICK];
    uint32_t cnt;
};

struct vc_dump {
    uint64_t command;
    uint32_t active, phase, at;
};

struct vc_worker {
    struct vc_node *node;
    uint32_t id;
    uint64_t now_ns;
    struct vc_io *io_socket, *io_xsk;
    uint64_t errors_seen[2];
    uint64_t flushed_ns; /* after the last flush */
    uint32_t copies_pending[2], rtcp_pending[2]; /* committed, not flushed; by backend */
    struct vc_crypto *crypto;
    struct vc_shm_header *shm;
    struct vc_ring commands, events;
    struct vc_counters *published;
    struct vc_leg_stats *leg_stats;
    struct vc_source_stats *source_stats;
    struct vc_route_stats *route_stats;
    struct vc_counters c;
    struct vc_flows flows;
    struct vc_leg_peer *peers; /* by leg */
    struct vc_watch *watches;  /* by source */
    struct vc_wheel departures;        /* legs */
    struct vc_pacer reports, requests; /* legs, sources */
    struct vc_pacer nacks, feedbacks;  /* sources, legs */
    uint32_t woken; /* legs that began to send in this duty cycle */
    struct vc_dump dump;
    uint32_t wake, events_pushed;
    uint32_t crowded;    /* workers whose hand-off ring had no room for a burst */
    uint64_t crowded_ns; /* when it was waited for that last began */
    uint64_t published_ns, housekept_ns, hold_until_ns;
    uint64_t socket_asked_ns; /* the media sockets, beside AF_XDP */
    int socket_had;           /* they had packets then */
    int hold; /* nothing is received yet */
    struct vc_io_rx burst[VC_IO_BURST];
    struct vc_open_batch open;
    struct vc_seal_batch seal;
};

enum { VC_IO_SOCKET, VC_IO_XSK };

static inline struct vc_io *vc_worker_io(const struct vc_worker *w, int which)
{
    return which == VC_IO_XSK ? w->io_xsk : w->io_socket;
}

/* By which backend a leg sends. */
static inline int vc_leg_backend(const struct vc_worker *w, const struct vc_leg *leg)
{
    return leg->header_sz && w->io_xsk ? VC_IO_XSK : VC_IO_SOCKET;
}

static inline struct vc_io_dst vc_leg_dst(const struct vc_leg *leg, uint8_t dscp)
{
    return (struct vc_io_dst){
        .tuple = &leg->tuples[leg->nominated],
        .header = leg->header,
        .port = leg->port,
        .local = leg->local,
        .header_sz = leg->header_sz,
        .l3_off = leg->l3_off,
        .dscp = dscp,
    };
}

static inline void vc_drop(struct vc_worker *w, enum vc_drop reason)
{
    w->c.drops[reason]++;
}

static inline void vc_copy_drop(struct vc_worker *w, struct vc_route *route,
                                enum vc_copy_drop reason, uint64_t n)
{
    w->c.copy_drops[reason] += n;
    route->stats->dropped += n;
}

/* The leg's source of this SSRC, or NULL. */
struct vc_source *vc_leg_source(const struct vc_worker *w, const struct vc_leg *leg, uint32_t ssrc);
/* The leg's source whose RTX stream has this SSRC, or NULL. */
struct vc_source *vc_leg_rtx_source(const struct vc_worker *w, const struct vc_leg *leg,
                                    uint32_t ssrc);
/* VC_STATUS_OK when this worker owns the leg. */
enum vc_status vc_leg_owned(const struct vc_worker *w, uint32_t id);

/* Law, for tests: every sum that must hold between the tables and the counters.  NULL or what
   is broken. */
const char *vc_worker_audit(const struct vc_worker *w);

#endif
