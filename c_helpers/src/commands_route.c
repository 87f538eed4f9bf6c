/* SPDX-License-Identifier: MIT */
#include "commands.h"

#define INDEX_END (1ull << 48)
/* More than could have left between the last index that was stored and the death of the process,
   and far below half of the sequence space.  A route that was removed stored its last one. */
#define RESUME_SKIP 64u

static struct vc_route *find_out_ssrc(const struct vc_worker *w, const struct vc_leg *leg,
                                      uint32_t ssrc)
{
    for (uint32_t at = leg->routes; at != VC_NONE; at = w->node->routes[at].next)
        if (w->node->routes[at].out_ssrc == ssrc || w->node->routes[at].resend.rtx_ssrc == ssrc)
            return &w->node->routes[at];
    return NULL;
}

static int known_identity(const struct vc_tx_index *store, const struct vc_leg *leg,
                          uint32_t out_ssrc)
{
    return store->key_id == leg->key_id && store->out_ssrc == out_ssrc;
}

static int store_usable(const struct vc_tx_index *store)
{
    if (store->rtx_started > 1 || (store->rtx_started && store->rtx_highest >= INDEX_END))
        return 0;
    return store->started == 0 ||
           (store->started == 1 && store->highest < INDEX_END &&
            store->offset > -(int64_t)INDEX_END && store->offset < (int64_t)INDEX_END);
}

static enum vc_status check_living(const struct vc_worker *w, const struct vc_route *route,
                                   const struct vc_cmd_route_set *set)
{
    if (route->leg != set->leg || route->out_ssrc != set->out_ssrc ||
        route->seq_start != set->seq_start || route->ts_offset_set != set->ts_offset ||
        route->resend.rtx_ssrc != set->rtx_ssrc ||
        route->resend.rtx_seq_start != set->rtx_seq_start)
        return VC_STATUS_IDENTITY;
    return w->node->sources[set->source].queue == route->queue ? VC_STATUS_OK :
                                                                 VC_STATUS_BAD_VALUE;
}

/* The caller holds the source, or its owner could be ending it at this moment. */
static enum vc_status check_route_set(const struct vc_worker *w,
                                      const struct vc_cmd_route_set *set)
{
    const struct vc_ctl_setup *setup = &w->node->config.setup;
    const struct vc_route *route;
    const struct vc_leg *leg;
    enum vc_status status;

    status = vc_leg_owned(w, set->leg);
    if (status != VC_STATUS_OK)
        return status;
    if (set->source_owner >= setup->worker_cnt || set->seq_start >> 15 || set->pt > 127 ||
        set->flags & ~VC_ROUTE_GATED || set->rtx_seq_start >> 15 || set->rtx_pt > 127 ||
        set->red_pt > 127 ||
        !set->rtx_ssrc != !set->rtx_pt || (set->rtx_ssrc && set->rtx_ssrc == set->out_ssrc))
        return VC_STATUS_BAD_VALUE;
    if (w->node->sources[set->source].owner != set->source_owner)
        return VC_STATUS_NOT_OWNER;
    route = &w->node->routes[set->route];
    leg = &w->node->legs[set->leg];
    if (route->live)
        return check_living(w, route, set);
    if (find_out_ssrc(w, leg, set->out_ssrc) ||
        (set->rtx_ssrc && find_out_ssrc(w, leg, set->rtx_ssrc)))
        return VC_STATUS_DUPLICATE_SSRC;
    if (known_identity(&w->node->tx_store[set->route], leg, set->out_ssrc) &&
        !store_usable(&w->node->tx_store[set->route]))
        return VC_STATUS_INDEX_LOST;
    return VC_STATUS_OK;
}

/* A record of another identity says nothing about this one. */
static void reset_store(struct vc_tx_index *store, const struct vc_leg *leg, uint32_t out_ssrc)
{
    __atomic_store_n(&store->started, 0, __ATOMIC_RELEASE);
    store->key_id = 0;
    store->highest = store->packets = store->octets = 0;
    store->offset = 0;
    store->ids = store->id_offset = (struct vc_ids){ 0 };
    store->last_ns = store->last_ts = store->in_ssrc = 0;
    store->source = VC_NONE;
    store->rtx_started = store->rtx_ssrc = 0;
    store->rtx_highest = 0;
    store->out_ssrc = out_ssrc;
    __atomic_store_n(&store->key_id, leg->key_id, __ATOMIC_RELEASE);
}

static void new_route(struct vc_worker *w, struct vc_route *route,
                      const struct vc_cmd_route_set *set)
{
    struct vc_leg *leg = &w->node->legs[set->leg];
    uint8_t left = route->left;

    memset(route, 0, sizeof *route);
    route->left = left;
    route->id = set->route;
    route->leg = set->leg;
    route->live = 1;
    route->switch_at = UINT64_MAX;
    route->feeds[0].source = route->feeds[1].source = VC_NONE;
    route->waiting = VC_NONE;
    route->out_ssrc = set->out_ssrc;
    route->ts_offset = route->ts_offset_set = set->ts_offset;
    route->seq_start = set->seq_start;
    route->first_out = set->seq_start;
    route->max_spatial = route->max_temporal = VC_NONE;
    route->queue = w->node->sources[set->source].queue;
    route->store = &w->node->tx_store[set->route];
    route->stats = &w->route_stats[set->route];
    memset(route->stats, 0, sizeof *route->stats);
    route->resend.rtx_ssrc = set->rtx_ssrc;
    route->resend.rtx_seq_start = set->rtx_seq_start;
    route->resend.rtx_next = set->rtx_seq_start;
    route->prev = VC_NONE;
    route->next = leg->routes;
    if (leg->routes != VC_NONE)
        w->node->routes[leg->routes].prev = set->route;
    leg->routes = set->route;
    leg->route_cnt++;
    w->c.routes++;
}

/* Takes up the numbers of an earlier life, if there was one.  1: of the same source. */
static int restore(struct vc_worker *w, struct vc_route *route, const struct vc_cmd_route_set *set)
{
    const struct vc_leg *leg = &w->node->legs[set->leg];
    struct vc_tx_index *store = route->store;
    const struct vc_source_index *source = &w->node->source_store[set->source];
    uint32_t skip = route->left ? 1 : RESUME_SKIP;

    if (!known_identity(store, leg, set->out_ssrc)) {
        reset_store(store, leg, set->out_ssrc);
        return 0;
    }
    if (store->rtx_started && store->rtx_ssrc == set->rtx_ssrc)
        route->resend.rtx_next = store->rtx_highest + skip;
    else
        store->rtx_started = 0;
    if (!store->started)
        return 0;
    route->last_out_ts = store->last_ts;
    route->last_arrival_ns = store->last_ns;
    if (route->left || store->source != set->source || !w->node->sources[set->source].resumed ||
        store->in_ssrc != __atomic_load_n(&source->rx.ssrc, __ATOMIC_RELAXED)) {
        route->first_out = store->highest + skip;
        route->follows = 1;
        vc_rewrite_restore(&route->rewrite, &store->ids, NULL);
        return 0;
    }
    vc_rewrite_restore(&route->rewrite, &store->ids, &store->id_offset);
    vc_numbering_restore(&route->numbering, store->highest, store->offset);
    route->ts_offset = store->ts_offset;
    route->stream = 0; /* that of a source whose indices go on */
    return 1;
}

static void apply_route_set(struct vc_worker *w, const struct vc_cmd_route_set *set)
{
    const struct vc_route_types types = { set->pt, set->rtx_pt, set->red_pt };
    struct vc_route *route = &w->node->routes[set->route];
    int restored;

    if (route->live) {
        route->flags = set->flags;
        route->next_types = types;
        vc_route_change(w, route, set->source);
    } else {
        new_route(w, route, set);
        route->flags = set->flags;
        route->next_types = types;
        restored = restore(w, route, set);
        VC_ASSERT(!vc_route_attach(w, route, 0, set->source));
        vc_route_begin(w, route, restored);
    }
    if (memcmp(route->mid, set->mid, VC_LABEL_SZ))
        vc_route_header(route, route->resend.rx_ext);
    route->digest = set->digest;
    memcpy(route->mid, set->mid, VC_LABEL_SZ);
    if (route->feeds[1].source == VC_NONE) /* else the types belong to the source that comes */
        vc_route_take_types(route);
}

enum vc_status vc_command_route_set(struct vc_worker *w, const struct vc_cmd_route_set *set)
{
    const struct vc_ctl_setup *setup = &w->node->config.setup;
    enum vc_status status;

    if (set->route >= setup->routes_max || set->source >= setup->sources_max)
        return VC_STATUS_BAD_ID;
    if (vc_source_hold(&w->node->sources[set->source]))
        return VC_STATUS_NO_SOURCE;
    status = check_route_set(w, set);
    if (status == VC_STATUS_OK)
        apply_route_set(w, set);
    vc_source_release(&w->node->sources[set->source]);
    return status;
}

void vc_command_rekey_route(struct vc_worker *w, struct vc_route *route)
{
    memset(&route->numbering, 0, sizeof route->numbering);
    route->first_out = route->seq_start;
    route->resend.rtx_next = route->resend.rtx_seq_start;
    route->follows = 0;
    reset_store(route->store, &w->node->legs[route->leg], route->out_ssrc);
}

static enum vc_status own_route(const struct vc_worker *w, uint32_t id)
{
    if (id >= w->node->config.setup.routes_max)
        return VC_STATUS_BAD_ID;
    if (!w->node->routes[id].live)
        return VC_STATUS_NO_ROUTE;
    return w->peers[w->node->routes[id].leg].owner == w->id ? VC_STATUS_OK : VC_STATUS_NOT_OWNER;
}

enum vc_status vc_command_route_filter(struct vc_worker *w,
                                       const struct vc_cmd_route_filter *set)
{
    enum vc_status status = own_route(w, set->route);
    struct vc_route *route;

    if (status != VC_STATUS_OK)
        return status;
    if (set->paused > 1)
        return VC_STATUS_BAD_VALUE;
    route = &w->node->routes[set->route];
    route->max_spatial = set->max_spatial;
    route->max_temporal = set->max_temporal;
    if (set->paused == route->paused)
        return VC_STATUS_OK;
    route->paused = (uint8_t)set->paused;
    if (route->paused) {
        if (route->feeds[1].source != VC_NONE)
            vc_route_switch(w, route);
        vc_route_shed(w, route, vc_route_limit(w, route), VC_COPY_DROP_FILTER);
        vc_route_dequeue(w, route);
        vc_route_close_gate(w, route);
    } else {
        vc_route_reopen(w, route);
    }
    return VC_STATUS_OK;
}

enum vc_status vc_command_route_remove(struct vc_worker *w, uint32_t id)
{
    enum vc_status status = own_route(w, id);
    struct vc_route *route;
    struct vc_leg *leg;

    if (status != VC_STATUS_OK)
        return status;
    route = &w->node->routes[id];
    leg = &w->node->legs[route->leg];
    vc_route_dequeue(w, route);
    vc_resend_drop(w, leg, id, VC_COPY_DROP_REMOVED);
    for (uint32_t which = 0; which < 2; which++)
        if (route->feeds[which].source != VC_NONE)
            vc_route_detach(w, route, which, VC_COPY_DROP_REMOVED);
    if (route->prev != VC_NONE)
        w->node->routes[route->prev].next = route->next;
    else
        leg->routes = route->next;
    if (route->next != VC_NONE)
        w->node->routes[route->next].prev = route->prev;
    leg->route_cnt--;
    vc_route_forget(route);
    route->store->last_ns = route->last_arrival_ns;
    route->store->last_ts = route->last_out_ts;
    route->left = 1;
    route->live = 0;
    w->c.routes--;
    return VC_STATUS_OK;
}
