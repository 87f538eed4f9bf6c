/* SPDX-License-Identifier: MIT */
#include "bind.h"
#include "commands.h"
#include "pace.h"

static int same_tuple(const struct vc_tuple *a, const struct vc_tuple *b)
{
    return !memcmp(a, b, sizeof *a);
}

/* Ids of extensions: none twice, or a packet could be read two ways. */
static int ext_valid(const uint8_t ext[VC_EXT_COUNT])
{
    for (int i = 0; i < VC_EXT_COUNT; i++)
        for (int j = 0; ext[i] && j < i; j++)
            if (ext[i] == ext[j])
                return 0;
    return 1;
}

static enum vc_status check_tuples(const struct vc_worker *w, const struct vc_cmd_leg_set *set)
{
    const struct vc_leg_peer *peer = &w->peers[set->leg];
    uint32_t had = peer->owner == VC_NONE ? 0 : peer->tuple_cnt;

    for (uint32_t i = 0; i < set->tuple_cnt; i++) {
        uint32_t found = vc_flows_find(&w->flows, &set->tuples[i]);

        if (found != VC_NONE && found != set->leg)
            return VC_STATUS_DUPLICATE_TUPLE;
        for (uint32_t j = 0; j < i; j++)
            if (same_tuple(&set->tuples[i], &set->tuples[j]))
                return VC_STATUS_DUPLICATE_TUPLE;
    }
    return w->flows.cnt - had + set->tuple_cnt > w->flows.max ? VC_STATUS_FLOWS_FULL :
                                                                VC_STATUS_OK;
}

static enum vc_status check_leg_set(const struct vc_worker *w, const struct vc_cmd_leg_set *set)
{
    const struct vc_ctl_setup *setup = &w->node->config.setup;
    const struct vc_leg *leg;

    if (set->leg >= setup->legs_max)
        return VC_STATUS_BAD_ID;
    if (set->suite != VC_SRTP_NONE && set->suite != VC_SRTP_AEAD_AES_128_GCM &&
        set->suite != VC_SRTP_AES_CM_128_HMAC_SHA1_80)
        return VC_STATUS_BAD_SUITE;
    if (set->owner >= setup->worker_cnt || set->local >= setup->local_cnt || !set->key_id ||
        set->tuple_cnt > VC_LEG_TUPLES ||
        (set->nominated != VC_NONE && set->nominated >= set->tuple_cnt) ||
        set->flags & ~VC_LEG_FLAGS || set->dscp_audio > 63 || set->dscp_video > 63 || !ext_valid(set->rx_ext) ||
        !ext_valid(set->tx_ext))
        return VC_STATUS_BAD_VALUE;
    if (w->peers[set->leg].owner != VC_NONE && w->peers[set->leg].owner != set->owner)
        return VC_STATUS_NOT_OWNER;
    leg = &w->node->legs[set->leg];
    if (set->owner == w->id && leg->live && leg->key_id == set->key_id &&
        leg->suite != VC_SRTP_NONE && leg->suite != set->suite)
        return VC_STATUS_IDENTITY; /* a key belongs to one suite */
    return check_tuples(w, set);
}

static void set_peer(struct vc_worker *w, const struct vc_cmd_leg_set *set)
{
    struct vc_leg_peer *peer = &w->peers[set->leg];

    if (peer->owner != VC_NONE)
        for (uint32_t i = 0; i < peer->tuple_cnt; i++)
            vc_flows_remove(&w->flows, &peer->tuples[i]);
    peer->owner = set->owner;
    peer->tuple_cnt = set->tuple_cnt;
    memcpy(peer->tuples, set->tuples, sizeof peer->tuples);
    for (uint32_t i = 0; i < peer->tuple_cnt; i++)
        vc_flows_add(&w->flows, &peer->tuples[i], set->leg);
}

/* Transport-wide numbers go on over the lives of an id, as those of a leg that moves must. */
static void new_leg(struct vc_worker *w, struct vc_leg *leg, uint32_t id)
{
    const uint16_t transport_next = leg->transport_next;

    memset(leg, 0, sizeof *leg);
    leg->transport_next = transport_next;
    leg->id = id;
    leg->live = 1;
    leg->sources = leg->routes = VC_NONE;
    leg->port = VC_PORT_SOCKET;
    leg->nominated = VC_NONE;
    leg->store = &w->node->leg_store[id];
    leg->stats = &w->leg_stats[id];
    memset(leg->stats, 0, sizeof *leg->stats);
    for (int queue = 0; queue < VC_QUEUE_COUNT; queue++)
        leg->queues[queue] = (struct vc_route_list){ VC_NONE, VC_NONE };
    /* Reports of legs that came together do not leave together. */
    vc_pacer_schedule(&w->reports, id,
                      w->now_ns + w->node->rtcp_interval_ns / 2 +
                          id % 64u * (w->node->rtcp_interval_ns / 128));
    w->c.legs++;
}

/* Installs keys.  Only another key_id begins indices anew. */
static void set_keys(struct vc_worker *w, struct vc_leg *leg, const struct vc_cmd_leg_set *set)
{
    int rekeyed = leg->key_id && leg->key_id != set->key_id;

    if (leg->key_id == set->key_id && leg->suite == set->suite)
        return;
    leg->key_id = set->key_id;
    leg->suite = set->suite;
    leg->tag_sz = vc_srtp_tag_sz((enum vc_srtp_suite)set->suite);
    if (leg->store->key_id != set->key_id) {
        memset(leg->store, 0, sizeof *leg->store);
        leg->store->key_id = set->key_id;
    }
    if (set->suite != VC_SRTP_NONE) {
        enum vc_srtp_suite suite = (enum vc_srtp_suite)set->suite;

        VC_ASSERT(!vc_crypto_key_init(w->crypto, &leg->rx, suite, set->rx_key, set->rx_salt));
        VC_ASSERT(!vc_crypto_key_init(w->crypto, &leg->tx, suite, set->tx_key, set->tx_salt));
    }
    for (uint32_t at = leg->sources; rekeyed && at != VC_NONE; at = w->node->sources[at].next)
        vc_source_rekey(w, &w->node->sources[at]);
    for (uint32_t at = leg->routes; rekeyed && at != VC_NONE; at = w->node->routes[at].next)
        vc_command_rekey_route(w, &w->node->routes[at]);
}

/* Nothing can leave any more: what waits is dropped, gates close. */
static void shed_all(struct vc_worker *w, struct vc_leg *leg)
{
    for (uint32_t at = leg->routes; at != VC_NONE; at = w->node->routes[at].next) {
        struct vc_route *route = &w->node->routes[at];

        if (route->feeds[1].source != VC_NONE)
            vc_route_switch(w, route);
        vc_route_shed(w, route, vc_route_limit(w, route), VC_COPY_DROP_NO_PATH);
        vc_route_dequeue(w, route);
        vc_route_close_gate(w, route);
    }
    vc_resend_drop(w, leg, VC_NONE, VC_COPY_DROP_NO_PATH);
    vc_wheel_cancel(&w->departures, leg->id);
}

/* Whether the leg can be sent to may have changed: reopens its routes when it has become so. */
static void refresh(struct vc_worker *w, struct vc_leg *leg)
{
    int sendable = leg->suite != VC_SRTP_NONE && leg->nominated != VC_NONE &&
                   vc_worker_io(w, vc_leg_backend(w, leg)) != NULL;

    if (sendable == leg->sendable)
        return;
    leg->sendable = (uint8_t)sendable;
    if (!sendable)
        shed_all(w, leg);
    for (uint32_t at = leg->routes; sendable && at != VC_NONE; at = w->node->routes[at].next)
        vc_route_reopen(w, &w->node->routes[at]);
    for (uint32_t at = leg->sources; sendable && at != VC_NONE; at = w->node->sources[at].next)
        if (w->node->sources[at].keyframe_wanted)
            vc_pacer_hasten(&w->requests, at, w->now_ns);
}

enum vc_status vc_command_leg_set(struct vc_worker *w, const struct vc_cmd_leg_set *set)
{
    enum vc_status status = check_leg_set(w, set);
    struct vc_leg *leg;
    uint64_t rx_ext;

    if (status != VC_STATUS_OK)
        return status;
    set_peer(w, set);
    if (set->owner != w->id)
        return VC_STATUS_OK;
    leg = &w->node->legs[set->leg];
    if (!leg->live)
        new_leg(w, leg, set->leg);
    set_keys(w, leg, set);
    leg->digest = set->digest;
    leg->local = set->local;
    leg->nominated = set->nominated;
    leg->tuple_cnt = set->tuple_cnt;
    memcpy(leg->tuples, set->tuples, sizeof leg->tuples);
    vc_pace_rate(w, leg, set->rate_bps);
    leg->rtcp_ssrc = set->rtcp_ssrc;
    leg->flags = set->flags;
    leg->dscp_audio = set->dscp_audio;
    leg->dscp_video = set->dscp_video;
    for (uint32_t at = leg->routes; at != VC_NONE; at = w->node->routes[at].next)
        if (memcmp(leg->tx_ext, set->tx_ext, sizeof leg->tx_ext))
            vc_route_header(&w->node->routes[at], w->node->routes[at].resend.rx_ext);
    memcpy(leg->rx_ext, set->rx_ext, sizeof leg->rx_ext);
    memcpy(leg->tx_ext, set->tx_ext, sizeof leg->tx_ext);
    memcpy(leg->cname, set->cname, sizeof leg->cname);
    memcpy(&rx_ext, set->rx_ext, sizeof rx_ext);
    for (uint32_t at = leg->sources; at != VC_NONE; at = w->node->sources[at].next)
        __atomic_store_n(&w->node->sources[at].rx_ext, rx_ext, __ATOMIC_RELAXED);
    refresh(w, leg);
    return VC_STATUS_OK;
}

enum vc_status vc_command_leg_header(struct vc_worker *w, const struct vc_cmd_leg_header *set)
{
    enum vc_status status = vc_leg_owned(w, set->leg);
    struct vc_leg *leg;

    if (status != VC_STATUS_OK)
        return status;
    if (set->port == VC_PORT_SOCKET) {
        if (set->header_sz)
            return VC_STATUS_BAD_VALUE;
    } else {
        uint32_t ip_sz = (uint32_t)set->header_sz - set->l3_off;

        if (set->port >= w->node->config.setup.interface_cnt ||
            !vc_serves(&w->node->config.setup.interfaces[set->port], w->id) ||
            set->header_sz > VC_HEADER_MAX ||
            (set->l3_off != 14 && set->l3_off != 18 && set->l3_off != 22) ||
            (ip_sz != 20 + 8 && ip_sz != 40 + 8) ||
            set->header[set->l3_off] >> 4 != (ip_sz == 28 ? 4 : 6))
            return VC_STATUS_BAD_VALUE;
    }
    leg = &w->node->legs[set->leg];
    leg->port = set->port;
    leg->l3_off = set->l3_off;
    leg->header_sz = set->header_sz;
    memcpy(leg->header, set->header, sizeof leg->header);
    refresh(w, leg);
    return VC_STATUS_OK;
}

enum vc_status vc_command_leg_rate(struct vc_worker *w, const struct vc_cmd_leg_rate *set)
{
    enum vc_status status = vc_leg_owned(w, set->leg);

    if (status != VC_STATUS_OK)
        return status;
    vc_pace_rate(w, &w->node->legs[set->leg], set->rate_bps);
    return VC_STATUS_OK;
}

enum vc_status vc_command_leg_remove(struct vc_worker *w, uint32_t id)
{
    struct vc_leg *leg;
    struct vc_leg_peer *peer;

    if (id >= w->node->config.setup.legs_max)
        return VC_STATUS_BAD_ID;
    peer = &w->peers[id];
    if (peer->owner == VC_NONE)
        return VC_STATUS_NO_LEG;
    leg = &w->node->legs[id];
    if (peer->owner == w->id) {
        if (leg->source_cnt || leg->route_cnt)
            return VC_STATUS_IN_USE;
        vc_wheel_cancel(&w->departures, id);
        vc_pacer_cancel(&w->reports, id);
        vc_pacer_cancel(&w->feedbacks, id);
        vc_crypto_key_wipe(&leg->rx);
        vc_crypto_key_wipe(&leg->tx);
        leg->live = leg->sendable = 0;
        leg->key_id = 0;
        w->c.legs--;
    }
    for (uint32_t i = 0; i < peer->tuple_cnt; i++)
        vc_flows_remove(&w->flows, &peer->tuples[i]);
    peer->owner = VC_NONE;
    peer->tuple_cnt = 0;
    return VC_STATUS_OK;
}
