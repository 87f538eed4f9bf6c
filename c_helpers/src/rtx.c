/* SPDX-License-Identifier: MIT */
#include "rtx.h"

#include "bind.h"
#include "forward.h"
#include "left.h"
#include "twcc.h"

#define OSN_SZ 2u /* original sequence number */
#define PADDING_FLAG 0x20u

void vc_rtx_set(const struct vc_worker *w, struct vc_source *source,
                const struct vc_cmd_source_set *set)
{
    const struct vc_leg *leg = &w->node->legs[source->leg];
    struct vc_rx_index *store = &source->store->rtx;

    source->rtx_pt = set->rtx_pt;
    if (source->rtx_bound)
        return;
    if (set->rtx_ssrc) {
        source->rtx_ssrc = set->rtx_ssrc;
        source->rtx_bound = 1;
    } else if (source->resumed && source->rtx_pt && (store->flags & VC_INDEX_STARTED) &&
               !vc_leg_source(w, leg, store->ssrc) && !vc_leg_rtx_source(w, leg, store->ssrc)) {
        source->rtx_ssrc = store->ssrc;
        source->rtx_bound = 1;
    }
    if (store->ssrc != source->rtx_ssrc) {
        memset(store, 0, sizeof *store);
        store->ssrc = source->rtx_ssrc;
    }
    if (source->rtx_bound)
        vc_left_take(leg->store, store);
}

/* The source whose RTX stream the packet may begin; of several only labels can tell. */
static struct vc_source *propose(const struct vc_worker *w, const struct vc_leg *leg,
                                 const uint8_t *pkt, const struct vc_rtp *rtp)
{
    struct vc_source *found = NULL;

    for (uint32_t at = leg->sources; at != VC_NONE; at = w->node->sources[at].next) {
        struct vc_source *source = &w->node->sources[at];

        if (source->rtx_bound || !source->bound || source->rtx_pt != rtp->pt ||
            vc_source_left(source, rtp->ssrc))
            continue;
        if (source->mid[0] &&
            !vc_bind_label(source->mid, pkt, rtp, leg->rx_ext[VC_EXT_MID]))
            continue;
        if (source->rid[0] &&
            !vc_bind_label(source->rid, pkt, rtp, leg->rx_ext[VC_EXT_RRID]))
            continue;
        if (found)
            return NULL;
        found = source;
    }
    return found;
}

static int is_rtx_pt(const struct vc_worker *w, const struct vc_leg *leg, uint8_t pt)
{
    for (uint32_t at = leg->sources; pt && at != VC_NONE; at = w->node->sources[at].next)
        if (w->node->sources[at].rtx_pt == pt)
            return 1;
    return 0;
}

/* The packet as it was before it was lost, into the history.  1: it is there; 0: nothing new;
   -1: dropped and counted. */
static int restore(struct vc_worker *w, struct vc_leg *leg, struct vc_source *source,
                   const uint8_t *clear, uint32_t sz, const struct vc_rtp *rtp, uint32_t wire_sz)
{
    struct vc_rx_index *rx = &source->store->rx;
    int32_t padding = vc_rtp_padding(clear, sz, rtp);
    struct vc_slot_head head = { .arrival_ns = w->now_ns, .stream = source->stream,
                                 .flags = VC_SLOT_REPAIRED };
    uint16_t number;
    uint8_t *data;

    if (padding < 0 || sz - rtp->header_sz - (uint32_t)padding <= OSN_SZ ||
        !(rx->flags & VC_INDEX_STARTED))
        return 0;
    number = vc_load_be16(clear + rtp->header_sz);
    head.index = vc_rx_index_guess(rx, number);
    if (!vc_rx_index_check(rx, head.index) ||
        (head.index > rx->highest && head.index - rx->highest > VC_RTX_AHEAD_MAX))
        return 0;
    head.sz = sz - OSN_SZ - (uint32_t)padding;
    if (head.sz > source->history.data_sz) {
        vc_drop(w, VC_DROP_TOO_LONG);
        return -1;
    }
    if (!vc_history_reusable(&source->history, source->position, w->now_ns, w->node->slot_age_ns)) {
        vc_drop(w, VC_DROP_HISTORY_FULL);
        return -1;
    }
    data = vc_history_begin(&source->history, source->position)->data;
    memcpy(data, clear, rtp->header_sz);
    memcpy(data + rtp->header_sz, clear + rtp->header_sz + OSN_SZ, head.sz - rtp->header_sz);
    data[0] &= (uint8_t)~PADDING_FLAG;
    data[1] = (uint8_t)(rtp->marker << 7 | source->pt);
    vc_store_be16(data + 2, number);
    vc_store_be32(data + 8, source->ssrc);
    VC_ASSERT(vc_rtp_parse(data, head.sz, &head.rtp) == VC_RTP_OK);
    VC_ASSERT(vc_rx_index_accept(rx, head.index));
    vc_receive_accept(w, leg, source, &head, wire_sz);
    vc_receive_announce(w, source);
    return 1;
}

static void open_packet(struct vc_worker *w, struct vc_leg *leg, struct vc_source *source,
                        const struct vc_io_rx *pkt, const struct vc_rtp *rtp)
{
    uint8_t clear[VC_SLOT_VIDEO_SZ + VC_CRYPTO_TAG_MAX];
    struct vc_rx_index *rx = &source->store->rtx, begun = { .ssrc = rtp->ssrc };
    struct vc_crypto_item item = { .key = &leg->rx, .src = pkt->data, .dst = clear,
                                   .src_sz = pkt->sz, .hdr_sz = rtp->header_sz };
    const struct vc_rx_index *known = rx;
    int restored;

    if (!source->rtx_bound) {
        vc_left_take(leg->store, &begun);
        known = &begun;
    }
    item.index = vc_rx_index_guess(known, rtp->seq);
    if (!vc_rx_index_check(known, item.index)) {
        vc_drop(w, VC_DROP_REPLAYED);
        return;
    }
    if (vc_crypto_open_rtp(w->crypto, &item, 1) != 1) {
        vc_drop(w, VC_DROP_AUTH_FAILED);
        leg->stats->auth_failed++;
        return;
    }
    if (!source->rtx_bound) {
        source->rtx_bound = 1;
        source->rtx_ssrc = rtp->ssrc;
        *rx = begun;
    }
    VC_ASSERT(vc_rx_index_accept(rx, item.index));
    w->c.rtx_rx++;
    vc_twcc_note(w, leg, rtp->ssrc, clear, rtp);
    restored = restore(w, leg, source, clear, item.dst_sz, rtp, pkt->sz);
    if (restored > 0) {
        w->c.rtx_repaired++;
        return;
    }
    if (restored == 0)
        w->c.consumed++;
    leg->stats->rx_packets++;
    leg->stats->rx_bytes += pkt->sz;
    leg->stats->last_rx_ns = w->now_ns;
}

int vc_rtx_receive(struct vc_worker *w, struct vc_leg *leg, const struct vc_io_rx *pkt,
                   const struct vc_rtp *rtp)
{
    struct vc_source *source = vc_leg_rtx_source(w, leg, rtp->ssrc);

    if (!source && !is_rtx_pt(w, leg, rtp->pt))
        return 0;
    vc_receive_flush(w); /* the windows are as new as they can be */
    if (!source)
        source = propose(w, leg, pkt->data, rtp);
    if (!source)
        vc_drop(w, VC_DROP_UNKNOWN_SSRC);
    else if (pkt->sz > VC_SLOT_VIDEO_SZ || rtp->header_sz > VC_RTP_HEADER_IN_MAX)
        vc_drop(w, VC_DROP_TOO_LONG);
    else
        open_packet(w, leg, source, pkt, rtp);
    return 1;
}
