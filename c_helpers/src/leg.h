/* SPDX-License-Identifier: MIT */
/* A leg: one secured association with one remote party: addresses, SRTP keys both ways, prebuilt
   headers, and the routes that wait to send on it.

   The struct belongs to the worker that owns the leg.  Every worker keeps a vc_leg_peer of each
   leg: who owns it and by which flows it is reached.

   A route that has work lies in the leg's list of its class, once; lists are served head first,
   and a route with more to send goes to the tail. */
#ifndef VC_LEG_H
#define VC_LEG_H

#include <stdint.h>

#include "base.h"
#include "crypto.h"
#include "resend.h"
#include "twcc.h"
#include "vcfwd/abi.h"

struct vc_leg_peer {
    uint32_t owner; /* worker; VC_NONE: no such leg */
    uint32_t tuple_cnt;
    struct vc_tuple tuples[VC_LEG_TUPLES];
};

struct vc_route_list {
    uint32_t head, tail; /* routes, or VC_NONE */
};

struct vc_leg {
    struct vc_crypto_key rx, tx;
    struct vc_leg_index *store;
    struct vc_leg_stats *stats;
    uint64_t digest, key_id;
    uint64_t rate_bps;
    uint64_t due_ns, gap_ns; /* when what was sent so far is paid for; the last packet's share */
    uint32_t id, suite;
    uint32_t tag_sz;
    uint32_t local, nominated, tuple_cnt;
    struct vc_tuple tuples[VC_LEG_TUPLES];
    uint32_t rtcp_ssrc;
    uint32_t sources, routes;   /* first of each, or VC_NONE */
    uint32_t source_cnt, route_cnt, binding_cnt, unbound_cnt;
    struct vc_route_list queues[VC_QUEUE_COUNT];
    uint32_t port;
    uint16_t l3_off, header_sz;
    uint8_t header[VC_HEADER_MAX];
    uint8_t dscp_audio, dscp_video;
    uint16_t transport_next; /* transport-wide number of the next departure, of whatever kind */
    uint32_t flags; /* VC_LEG_* */
    uint64_t estimate_ns, estimate_bps; /* the last one told of */
    uint8_t live, sendable; /* sendable: keys, a nominated address and a backend */
    uint8_t narrowed;       /* the last change of its rate was one down */
    uint8_t rx_ext[VC_EXT_COUNT], tx_ext[VC_EXT_COUNT];
    uint8_t cname[VC_LABEL_SZ];
    struct vc_resend_queue resends;
    struct vc_twcc twcc;
};

_Static_assert(sizeof(struct vc_leg) + 2 * sizeof(struct vc_leg_peer) <= 6144,
               "a leg with its keys fits 6 KB");

/* 1: something of this class waits. */
static inline int vc_leg_has(const struct vc_leg *leg, int queue)
{
    return queue == VC_QUEUE_RESEND ? leg->resends.cnt != 0 : leg->queues[queue].head != VC_NONE;
}

static inline uint32_t vc_cname_sz(const struct vc_leg *leg)
{
    return (uint32_t)strnlen((const char *)leg->cname, VC_LABEL_SZ);
}

#endif
