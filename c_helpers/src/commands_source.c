/* SPDX-License-Identifier: MIT */
#include "commands.h"

#include "bind.h"
#include "left.h"
#include "rtx.h"

static struct vc_history_pool *pool_of(const struct vc_worker *w, uint8_t queue)
{
    return &w->node->pools[queue == VC_QUEUE_VIDEO];
}

static int same_identity(const struct vc_source *source, const struct vc_cmd_source_set *set)
{
    return source->leg == set->leg && source->flags == set->flags &&
           (!(set->flags & VC_SOURCE_BY_SSRC) || source->ssrc == set->ssrc) &&
           source->clock_hz == set->clock_hz && source->queue == set->queue &&
           !memcmp(source->mid, set->mid, VC_LABEL_SZ) &&
           !memcmp(source->rid, set->rid, VC_LABEL_SZ);
}

static enum vc_status check_rtx(const struct vc_worker *w, const struct vc_cmd_source_set *set)
{
    const struct vc_leg *leg = &w->node->legs[set->leg];
    const struct vc_source *other;

    if (set->rtx_pt > 127 || (set->rtx_ssrc && !set->rtx_pt) ||
        (set->rtx_ssrc && set->flags & VC_SOURCE_BY_SSRC && set->rtx_ssrc == set->ssrc))
        return VC_STATUS_BAD_VALUE;
    if (!set->rtx_ssrc)
        return VC_STATUS_OK;
    other = vc_leg_rtx_source(w, leg, set->rtx_ssrc);
    if (vc_leg_source(w, leg, set->rtx_ssrc) || (other && other->id != set->source))
        return VC_STATUS_DUPLICATE_SSRC;
    other = &w->node->sources[set->source];
    return vc_source_live(other) && other->rtx_bound && other->rtx_ssrc != set->rtx_ssrc ?
               VC_STATUS_IDENTITY : VC_STATUS_OK;
}

static enum vc_status check_source_set(const struct vc_worker *w,
                                       const struct vc_cmd_source_set *set)
{
    const uint32_t labels = VC_SOURCE_BY_LABEL | VC_SOURCE_BY_PT;
    const struct vc_source *source, *other;
    enum vc_status status;

    if (set->source >= w->node->config.setup.sources_max)
        return VC_STATUS_BAD_ID;
    status = vc_leg_owned(w, set->leg);
    if (status != VC_STATUS_OK)
        return status;
    if ((set->flags != VC_SOURCE_BY_SSRC && (!set->flags || set->flags & ~labels)) ||
        !set->clock_hz || set->clock_hz > 1000000u || set->pt > 127 ||
        set->red_pt > 127 || set->resume > 1 || (set->red_pt && set->red_pt == set->pt) || set->codec > VC_CODEC_AV1 ||
        (set->queue != VC_QUEUE_AUDIO && set->queue != VC_QUEUE_VIDEO))
        return VC_STATUS_BAD_VALUE;
    source = &w->node->sources[set->source];
    if (vc_source_live(source) && source->owner != w->id)
        return VC_STATUS_NOT_OWNER;
    if (vc_source_live(source))
        return same_identity(source, set) ? check_rtx(w, set) : VC_STATUS_IDENTITY;
    other = set->flags & VC_SOURCE_BY_SSRC ?
                vc_leg_source(w, &w->node->legs[set->leg], set->ssrc) : NULL;
    if (set->flags & VC_SOURCE_BY_SSRC &&
        vc_leg_rtx_source(w, &w->node->legs[set->leg], set->ssrc))
        return VC_STATUS_DUPLICATE_SSRC;
    return other ? VC_STATUS_DUPLICATE_SSRC : check_rtx(w, set);
}

/* The store is keyed by key and SSRC.  1: it knows this stream from an earlier life.  A source
   bound by label takes up the SSRC that it had, but only in a new process, or where the command
   says so: else the id may have been given to another stream of the leg since. */
static int resume_store(const struct vc_worker *w, const struct vc_leg *leg,
                        const struct vc_source *source, int same)
{
    const struct vc_source_index *store = source->store;

    if (store->key_id != leg->key_id || !(store->rx.flags & VC_INDEX_STARTED))
        return 0;
    if (source->flags & VC_SOURCE_BY_SSRC)
        return store->rx.ssrc == source->ssrc;
    return (same || (!source->known && !store->left)) && store->rx.ssrc && !vc_leg_source(w, leg, store->rx.ssrc);
}

/* position goes on over the lives of an id: a message about an earlier one says nothing new. */
static void new_source(struct vc_worker *w, struct vc_leg *leg, struct vc_source *source,
                       const struct vc_cmd_source_set *set, const struct vc_history *history)
{
    const uint64_t position = source->position;
    const uint8_t known = source->known;

    /* `state` says that nobody reads the rest; it is looked at from elsewhere all the same */
    memset((uint8_t *)source + sizeof source->state, 0, sizeof *source - sizeof source->state);
    source->position = source->announced = position;
    source->known = known;
    source->id = set->source;
    source->leg = set->leg;
    source->owner = w->id;
    source->flags = set->flags;
    source->ssrc = set->ssrc;
    source->clock_hz = set->clock_hz;
    source->queue = set->queue;
    memcpy(source->mid, set->mid, VC_LABEL_SZ);
    memcpy(source->rid, set->rid, VC_LABEL_SZ);
    memcpy(&source->rx_ext, leg->rx_ext, sizeof source->rx_ext);
    source->history = *history;
    source->store = &w->node->source_store[set->source];
    source->stats = &w->source_stats[set->source];
    memset(source->stats, 0, sizeof *source->stats);
    source->stats->level = VC_LEVEL_SILENT;
    source->next = leg->sources;
    leg->sources = set->source;
    leg->source_cnt++;
    source->bound = (set->flags & VC_SOURCE_BY_SSRC) != 0;
    if (!source->bound)
        leg->unbound_cnt++;
}

enum vc_status vc_command_source_set(struct vc_worker *w, const struct vc_cmd_source_set *set)
{
    enum vc_status status = check_source_set(w, set);
    struct vc_source *source;
    struct vc_history history;
    struct vc_leg *leg;

    if (status != VC_STATUS_OK)
        return status;
    source = &w->node->sources[set->source];
    leg = &w->node->legs[set->leg];
    if (!vc_source_live(source)) {
        if (vc_history_take(pool_of(w, set->queue), w->id, w->node->config.setup.worker_cnt,
                            &history))
            return VC_STATUS_HISTORY_FULL;
        new_source(w, leg, source, set, &history);
        if (resume_store(w, leg, source, set->resume)) {
            source->resumed = 1;
            if (!source->bound)
                vc_source_bind(w, source, source->store->rx.ssrc);
        } else {
            source->stream = 1;
            vc_bind_reset(source->store, set->leg, leg->key_id, set->ssrc);
        }
        source->store->left = 0;
        if (source->bound)
            vc_left_take(leg->store, &source->store->rx);
        source->known = 1;
        w->c.sources++;
        w->c.history_bytes += vc_history_bytes(pool_of(w, set->queue));
    }
    source->digest = set->digest;
    __atomic_store_n(&source->pt, set->pt, __ATOMIC_RELAXED); /* other workers look at it for RED */
    source->red_pt = set->red_pt;
    __atomic_store_n(&source->codec, set->codec, __ATOMIC_RELAXED);
    vc_rtx_set(w, source, set);
    if (!vc_source_live(source))
        __atomic_store_n(&source->state, VC_SOURCE_LIVE, __ATOMIC_RELEASE);
    return VC_STATUS_OK;
}

enum vc_status vc_command_source_remove(struct vc_worker *w, uint32_t id)
{
    struct vc_source *source;
    struct vc_leg *leg;
    uint32_t *link;

    if (id >= w->node->config.setup.sources_max)
        return VC_STATUS_BAD_ID;
    source = &w->node->sources[id];
    if (!vc_source_live(source))
        return VC_STATUS_NO_SOURCE;
    if (source->owner != w->id)
        return VC_STATUS_NOT_OWNER;
    if (vc_source_end(source))
        return VC_STATUS_IN_USE;
    leg = &w->node->legs[source->leg];
    vc_source_leave(w, source);
    VC_INDEX_FENCE();
    source->store->left = 1;
    for (link = &leg->sources; *link != id;)
        link = &w->node->sources[*link].next;
    *link = source->next;
    leg->source_cnt--;
    if (!source->bound)
        leg->unbound_cnt--;
    else if (!(source->flags & VC_SOURCE_BY_SSRC))
        leg->binding_cnt--;
    vc_pacer_cancel(&w->requests, id);
    vc_pacer_cancel(&w->nacks, id);
    w->c.history_bytes -= vc_history_bytes(pool_of(w, source->queue));
    vc_history_give(pool_of(w, source->queue), &source->history);
    w->c.sources--;
    return VC_STATUS_OK;
}
