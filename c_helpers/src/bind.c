/* SPDX-License-Identifier: MIT */
#include "bind.h"

#include "events.h"
#include "left.h"

void vc_bind_reset(struct vc_source_index *store, uint32_t leg, uint64_t key_id, uint32_t ssrc)
{
    store->key_id = 0;
    VC_INDEX_FENCE();
    memset(store, 0, sizeof *store);
    store->leg = leg;
    store->rx.ssrc = ssrc;
    VC_INDEX_FENCE();
    store->key_id = key_id;
}

/* Its indices begin anew. */
static void restart(struct vc_worker *w, struct vc_source *source)
{
    struct vc_source_index *store = source->store;
    struct vc_source_index before = *store;

    vc_bind_reset(store, source->leg, 0, source->ssrc);
    memcpy(store->moved, before.moved, sizeof store->moved);
    store->moved_cnt = before.moved_cnt;
    store->rtx.ssrc = source->rtx_ssrc;
    VC_INDEX_FENCE();
    store->key_id = w->node->legs[source->leg].key_id;
    source->stream++;
    source->received = source->expected_prior = source->received_prior = 0;
    source->nack.cnt = 0;
    vc_source_report_write(source, &(struct vc_sender_report){ 0 }); /* of other timestamps */
    __atomic_store_n(&source->key_ns, 0, __ATOMIC_RELAXED);
}

void vc_source_rekey(struct vc_worker *w, struct vc_source *source)
{
    source->store->moved_cnt = 0; /* what was sent under the old keys cannot be played again */
    restart(w, source);
}

void vc_source_bind(struct vc_worker *w, struct vc_source *source, uint32_t ssrc)
{
    struct vc_leg *leg = &w->node->legs[source->leg];

    source->ssrc = source->store->rx.ssrc = ssrc; /* labels may never come again */
    vc_left_take(leg->store, &source->store->rx);
    source->bound = 1;
    leg->unbound_cnt--;
    leg->binding_cnt++;
    vc_event_bound(w, VC_EVT_BOUND, source);
}

void vc_source_move(struct vc_worker *w, struct vc_source *source, uint32_t ssrc)
{
    struct vc_source_index *store = source->store;

    vc_source_leave(w, source);
    store->moved[store->moved_cnt].ssrc = source->ssrc;
    store->moved[store->moved_cnt].rtx_ssrc = source->rtx_ssrc;
    store->moved_cnt++;
    source->ssrc = ssrc;
    source->rtx_bound = 0;
    source->rtx_ssrc = 0;
    source->keyframe_wanted = source->queue == VC_QUEUE_VIDEO;
    restart(w, source);
    vc_left_take(w->node->legs[source->leg].store, &store->rx);
    vc_event_bound(w, VC_EVT_BOUND, source);
}

void vc_source_leave(struct vc_worker *w, struct vc_source *source)
{
    struct vc_leg_index *leg = w->node->legs[source->leg].store;

    if (source->bound)
        vc_left_put(leg, &source->store->rx);
    if (source->rtx_bound)
        vc_left_put(leg, &source->store->rtx);
}

/* 1: the label takes the source to this SSRC.  Never back, and not for ever: one that was left could
   be played again, and each move costs all that read the source a seam. */
static int may_move(const struct vc_source *source, const struct vc_rtp *rtp)
{
    const struct vc_source_index *store = source->store;

    if (!(source->flags & VC_SOURCE_BY_LABEL) || !(source->mid[0] || source->rid[0]) ||
        (rtp->pt != source->pt && (!source->red_pt || rtp->pt != source->red_pt)) ||
        store->moved_cnt >= VC_SOURCE_MOVES)
        return 0;
    return !vc_source_left(source, rtp->ssrc);
}

int vc_bind_label(const uint8_t label[VC_LABEL_SZ], const uint8_t *pkt, const struct vc_rtp *rtp,
                  uint8_t id)
{
    uint8_t padded[VC_LABEL_SZ] = { 0 };
    uint32_t sz = 0;
    const uint8_t *data = id ? vc_rtp_ext(pkt, rtp, id, &sz) : NULL;

    if (data && sz > VC_LABEL_SZ)
        return 0;
    if (data)
        memcpy(padded, data, sz);
    return !memcmp(padded, label, VC_LABEL_SZ);
}

/* SSRCs that labels and payload types brought to the sources that are here, and that those went away
   from since. */
static uint32_t bindings(const struct vc_worker *w, const struct vc_leg *leg)
{
    uint32_t cnt = 0;

    for (uint32_t at = leg->sources; at != VC_NONE; at = w->node->sources[at].next)
        if (w->node->sources[at].bound && !(w->node->sources[at].flags & VC_SOURCE_BY_SSRC))
            cnt += 1 + w->node->sources[at].store->moved_cnt;
    return cnt;
}

struct vc_source *vc_bind_propose(const struct vc_worker *w, const struct vc_leg *leg,
                                  const uint8_t *pkt, const struct vc_rtp *rtp)
{
    const uint8_t none[VC_LABEL_SZ] = { 0 };
    struct vc_source *by_pt = NULL;
    uint32_t by_pt_cnt = 0;

    if ((!leg->unbound_cnt && !leg->binding_cnt) || bindings(w, leg) >= VC_LEG_BINDINGS)
        return NULL;
    for (uint32_t at = leg->sources; at != VC_NONE; at = w->node->sources[at].next) {
        struct vc_source *source = &w->node->sources[at];

        if (source->bound && !may_move(source, rtp))
            continue;
        if ((source->flags & VC_SOURCE_BY_LABEL) &&
            vc_bind_label(source->mid, pkt, rtp, leg->rx_ext[VC_EXT_MID]) &&
            vc_bind_label(source->rid, pkt, rtp, leg->rx_ext[VC_EXT_RID]))
            return source;
        if (!source->bound && (source->flags & VC_SOURCE_BY_PT) && source->pt == rtp->pt) {
            by_pt = source;
            by_pt_cnt++;
        }
    }
    return by_pt_cnt == 1 && vc_bind_label(none, pkt, rtp, leg->rx_ext[VC_EXT_MID]) &&
                   vc_bind_label(none, pkt, rtp, leg->rx_ext[VC_EXT_RID]) ?
               by_pt : NULL;
}
