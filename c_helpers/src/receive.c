/* SPDX-License-Identifier: MIT */
#include "forward.h"
#include "bind.h"
#include "events.h"
#include "keyframe.h"
#include "left.h"
#include "nack.h"
#include "report.h"
#include "request.h"
#include "rtx.h"

/* Puts a packet into the burst that is opened next. */
static void add_packet(struct vc_worker *w, struct vc_leg *leg, struct vc_source *source,
                       const struct vc_io_rx *pkt, const struct vc_rtp *rtp)
{
    struct vc_open_batch *batch = &w->open;
    struct vc_rx_index begun;
    const struct vc_rx_index *rx = &source->store->rx;
    uint64_t position = source->position + source->pending;
    uint64_t index;

    if (vc_unlikely(!source->bound || rtp->ssrc != source->ssrc)) {
        begun = (struct vc_rx_index){ .ssrc = rtp->ssrc };
        vc_left_take(leg->store, &begun);
        rx = &begun;
    }
    index = vc_rx_index_guess(rx, rtp->seq);
    if (!vc_rx_index_check(rx, index)) {
        vc_drop(w, VC_DROP_REPLAYED);
        return;
    }
    if (!vc_history_reusable(&source->history, position, w->now_ns, w->node->slot_age_ns) ||
        source->pending > source->history.mask) {
        vc_drop(w, VC_DROP_HISTORY_FULL);
        return;
    }
    batch->items[batch->cnt] = (struct vc_crypto_item){
        .key = &leg->rx,
        .src = pkt->data,
        .dst = vc_history_begin(&source->history, position)->data,
        .src_sz = pkt->sz,
        .hdr_sz = rtp->header_sz,
        .index = index,
    };
    batch->heads[batch->cnt] = (struct vc_slot_head){
        .index = index,
        .arrival_ns = w->now_ns,
        .rtp = *rtp,
        .stream = source->stream,
    };
    batch->positions[batch->cnt] = position;
    batch->sources[batch->cnt++] = source;
    if (!source->pending++)
        batch->touched[batch->touched_cnt++] = source;
}

static void receive_rtp(struct vc_worker *w, struct vc_leg *leg, const struct vc_io_rx *pkt)
{
    struct vc_rtp rtp;
    enum vc_rtp_fault fault = vc_rtp_parse(pkt->data, pkt->sz, &rtp);
    struct vc_source *source;
    int alone = 0;

    if (fault != VC_RTP_OK || pkt->sz < rtp.header_sz + leg->tag_sz) {
        vc_drop(w, fault == VC_RTP_VERSION ? VC_DROP_RTP_VERSION : VC_DROP_RTP_TRUNCATED);
        return;
    }
    source = vc_leg_source(w, leg, rtp.ssrc);
    if (!source) {
        vc_receive_flush(w); /* what waits may be the packet that binds this SSRC */
        source = vc_leg_source(w, leg, rtp.ssrc);
    }
    if (!source && vc_rtx_receive(w, leg, pkt, &rtp))
        return;
    if (!source) {
        source = vc_bind_propose(w, leg, pkt->data, &rtp);
        alone = 1;
    }
    if (!source) {
        vc_drop(w, VC_DROP_UNKNOWN_SSRC);
        return;
    }
    if (pkt->sz > source->history.data_sz || rtp.header_sz > VC_RTP_HEADER_IN_MAX) {
        vc_drop(w, VC_DROP_TOO_LONG);
        return;
    }
    /* The first packet of a stream says where its indices begin: nothing beside it. */
    if (alone || !(source->store->rx.flags & VC_INDEX_STARTED)) {
        vc_receive_flush(w);
        alone = 1;
    }
    if (w->open.cnt == VC_CRYPTO_BURST)
        vc_receive_flush(w);
    add_packet(w, leg, source, pkt, &rtp);
    if (alone)
        vc_receive_flush(w);
}

static void note_level(struct vc_source *source, const uint8_t *data, const struct vc_rtp *rtp,
                       uint8_t id, uint64_t now_ns)
{
    uint32_t sz = 0;
    const uint8_t *element = vc_rtp_ext(data, rtp, id, &sz);

    if (element && sz)
        vc_source_level(source, element, now_ns);
}

void vc_receive_accept(struct vc_worker *w, struct vc_leg *leg, struct vc_source *source,
                       struct vc_slot_head *head, uint32_t wire_sz)
{
    uint64_t at = source->position;
    const uint8_t *data = vc_history_slot(&source->history, at)->data;
    int32_t padding = vc_rtp_padding(data, head->sz, &head->rtp);

    if (padding >= 0 && head->sz - head->rtp.header_sz == (uint32_t)padding)
        head->flags |= VC_SLOT_EMPTY;
    else if (vc_unlikely(head->rtp.pt != source->pt))
        head->flags |= source->red_pt && head->rtp.pt == source->red_pt ? VC_SLOT_RED :
                                                                          VC_SLOT_FOREIGN;
    else if (padding >= 0 &&
             vc_keyframe_starts((enum vc_codec)source->codec, data + head->rtp.header_sz,
                                head->sz - head->rtp.header_sz - (uint32_t)padding))
        head->flags |= VC_SLOT_KEY;
    if (source->queue == VC_QUEUE_AUDIO && !(head->flags & VC_SLOT_REPAIRED))
        note_level(source, data, &head->rtp, leg->rx_ext[VC_EXT_AUDIO_LEVEL], head->arrival_ns);
    source->ended = 0;
    vc_history_commit(&source->history, at, head);
    vc_nack_arrived(w, leg, source, head->index);
    vc_source_count(source, head, at);
    __atomic_store_n(&source->position, at + 1, __ATOMIC_RELEASE);
    w->c.routed++;
    leg->stats->rx_packets++;
    leg->stats->rx_bytes += wire_sz;
    leg->stats->last_rx_ns = head->arrival_ns;
    if (!source->seen) {
        source->seen = 1;
        vc_event_active(w, source);
    }
    if (source->keyframe_wanted)
        vc_request_keyframe(w, source->id);
}

static void accept_packet(struct vc_worker *w, struct vc_leg *leg, struct vc_source *source,
                          const struct vc_crypto_item *item, struct vc_slot_head *head,
                          uint64_t position)
{
    uint64_t at = source->position; /* below `position` when one before it did not verify */
    struct vc_slot *slot = vc_history_slot(&source->history, at);

    if (at != position)
        memcpy(slot->data, item->dst, item->dst_sz);
    head->sz = item->dst_sz;
    vc_twcc_note(w, leg, source->ssrc, slot->data, &head->rtp);
    vc_receive_accept(w, leg, source, head, item->src_sz);
}

void vc_receive_announce(struct vc_worker *w, struct vc_source *source)
{
    uint32_t watchers = __atomic_load_n(&source->watchers, __ATOMIC_SEQ_CST);

    if (source->announced == source->position)
        return;
    source->announced = source->position;
    vc_route_announce(w, source->id, source->position);
    watchers &= ~(1u << w->id);
    while (watchers) {
        uint32_t to = (uint32_t)__builtin_ctz(watchers);

        watchers &= watchers - 1;
        vc_mesh_send(w, to, VC_MESH_PACKETS, source->id, source->position);
    }
}

void vc_receive_flush(struct vc_worker *w)
{
    struct vc_open_batch *batch = &w->open;

    if (!batch->cnt)
        return;
    vc_crypto_open_rtp(w->crypto, batch->items, batch->cnt);
    for (uint32_t i = 0; i < batch->cnt; i++) {
        struct vc_source *source = batch->sources[i];
        struct vc_leg *leg = &w->node->legs[source->leg];

        if (!batch->items[i].ok) {
            vc_drop(w, VC_DROP_AUTH_FAILED);
            leg->stats->auth_failed++;
            continue;
        }
        if (vc_unlikely(!source->bound)) {
            vc_source_bind(w, source, batch->heads[i].rtp.ssrc);
        } else if (vc_unlikely(source->ssrc != batch->heads[i].rtp.ssrc)) {
            vc_source_move(w, source, batch->heads[i].rtp.ssrc);
            batch->heads[i].stream = source->stream;
        }
        if (!vc_rx_index_accept(&source->store->rx, batch->heads[i].index)) {
            vc_drop(w, VC_DROP_REPLAYED); /* twice in this burst */
        } else {
            accept_packet(w, leg, source, &batch->items[i], &batch->heads[i],
                          batch->positions[i]);
        }
    }
    batch->cnt = 0;
    for (uint32_t i = 0; i < batch->touched_cnt; i++) {
        batch->touched[i]->pending = 0;
        vc_receive_announce(w, batch->touched[i]);
    }
    batch->touched_cnt = 0;
}

void vc_receive_one(struct vc_worker *w, const struct vc_io_rx *pkt, int from_xsk, int handed)
{
    uint32_t id = vc_flows_find(&w->flows, &pkt->tuple);
    int media = pkt->sz > 0 && pkt->data[0] >= 128 && pkt->data[0] <= 191;
    int foreign = media && id != VC_NONE && w->peers[id].owner != w->id;
    struct vc_leg *leg;

    if (foreign && !handed) {
        w->c.rx_wrong_queue++;
        if (!vc_mesh_hand_over(w, w->peers[id].owner, pkt, from_xsk))
            return; /* counted where it goes */
    }
    w->c.rx++;
    w->c.rx_bytes += pkt->sz;
    if (from_xsk)
        w->c.rx_xsk++;
    else
        w->c.rx_socket++;
    if (!media || id == VC_NONE || foreign) {
        vc_drop(w, !media                  ? VC_DROP_BAD_CLASS :
                   !foreign || handed      ? VC_DROP_UNKNOWN_FLOW :
                   pkt->sz > VC_HANDOFF_SZ ? VC_DROP_TOO_LONG :
                                             VC_DROP_HANDOFF_FULL);
        return;
    }
    leg = &w->node->legs[id];
    if (leg->suite == VC_SRTP_NONE)
        vc_drop(w, VC_DROP_LEG_NO_KEYS);
    else if (pkt->sz < 2)
        vc_drop(w, VC_DROP_RTP_TRUNCATED);
    else if (vc_rtp_is_rtcp(pkt->data))
        vc_report_receive(w, leg, pkt);
    else
        receive_rtp(w, leg, pkt);
}

uint32_t vc_receive(struct vc_worker *w, int which)
{
    struct vc_io *io = vc_worker_io(w, which);
    uint32_t n = io ? vc_mesh_room(w, VC_IO_BURST) : 0;

    if (!n)
        return 0;
    n = io->ops->rx(io, w->burst, n, w->now_ns);
    for (uint32_t i = 0; i < n; i++)
        vc_receive_one(w, &w->burst[i], which == VC_IO_XSK, 0);
    vc_receive_flush(w);
    if (n)
        io->ops->rx_done(io);
    return n;
}
