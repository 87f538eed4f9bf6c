/* SPDX-License-Identifier: MIT */
#include "report.h"

#include "compound.h"
#include "events.h"
#include "request.h"
#include "senders.h"
#include "switch.h"

#define FEEDBACK_NS 1000000000ull /* between two events about a route */
#define ESTIMATE_NS 500000000ull      /* between two events about a leg */
#define ESTIMATE_FALLING_NS 20000000ull /* when it fell by an eighth */
#define LOSSY 26u                     /* a fraction lost of a tenth: told of sooner */
#define LOSSY_NS 200000000ull
#define PASS_NS 100000000ull          /* between two sender reports of a source that are passed on */
#define RTT_MAX_US 10000000u          /* a longer round trip is not believed */
#define ESTIMATE_MAX_BPS 10000000000ull
#define REPORT_AGE_NS 20000000000ull /* an older sender report says nothing any more */

/* ---- out --------------------------------------------------------------------------------- */

void vc_report_route(struct vc_worker *w, struct vc_route *route)
{
    struct vc_leg *leg = &w->node->legs[route->leg];
    struct vc_sender_report report;
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_sr sr;

    route->report_due = 0;
    if (vc_source_report_read(&w->node->sources[route->feeds[0].source], &report) ||
        w->now_ns - report.arrival_ns > REPORT_AGE_NS)
        return;
    if (!route->numbering.started || route->switched || !leg->sendable)
        return;
    sr = (struct vc_rtcp_sr){
        .ntp = report.ntp,
        .rtp_timestamp = report.rtp_timestamp + route->ts_offset,
        .packets = (uint32_t)route->store->packets,
        .octets = (uint32_t)route->store->octets,
    };
    vc_rtcp_write_sr(&writer, route->out_ssrc, &sr, NULL, 0);
    vc_rtcp_write_sdes(&writer, route->out_ssrc, leg->cname, vc_cname_sz(leg));
    route->report_middle = vc_ntp_middle(report.ntp);
    route->report_ns = w->now_ns;
    route->store->last_ts = route->last_out_ts; /* in this order: they are never behind */
    VC_INDEX_FENCE();
    route->store->last_ns = route->last_arrival_ns;
    vc_compound_send(w, leg, data, writer.sz);
}

void vc_report_pass(struct vc_worker *w, uint32_t source)
{
    for (uint32_t at = w->watches[source].first; at != VC_NONE;) {
        struct vc_route *route = &w->node->routes[at / 2];

        if (!(at & 1))
            vc_report_route(w, route);
        if (route->waits)
            vc_switch_resume(w, route);
        at = route->feeds[at & 1].next;
    }
}

/* Reports on the leg's sources, as many compounds as it takes. */
static uint32_t send_receiver_reports(struct vc_worker *w, struct vc_leg *leg)
{
    struct vc_rtcp_block blocks[VC_RTCP_BLOCKS_MAX];
    uint32_t at = leg->sources, sent = 0;

    while (at != VC_NONE) {
        uint8_t data[VC_RTCP_MAX];
        struct vc_rtcp_writer writer = { data, 0, sizeof data };
        uint32_t n = 0;

        for (; at != VC_NONE && n < VC_RTCP_BLOCKS_MAX; at = w->node->sources[at].next)
            if (w->node->sources[at].received)
                vc_source_block(&w->node->sources[at], &blocks[n++], w->now_ns);
        if (!n)
            break;
        vc_rtcp_write_rr(&writer, leg->rtcp_ssrc, blocks, n);
        vc_rtcp_write_sdes(&writer, leg->rtcp_ssrc, leg->cname, vc_cname_sz(leg));
        vc_compound_send(w, leg, data, writer.sz);
        sent++;
    }
    return sent;
}

uint32_t vc_report_timers(struct vc_worker *w)
{
    uint32_t cnt = 0, id;

    for (int i = 0; i < 16; i++) {
        id = vc_pacer_pop_due(&w->reports, w->now_ns);
        if (id == VC_NONE)
            break;
        if (w->node->legs[id].sendable)
            cnt += send_receiver_reports(w, &w->node->legs[id]);
        vc_pacer_schedule(&w->reports, id, w->now_ns + w->node->rtcp_interval_ns);
    }
    return cnt;
}

/* ---- in ---------------------------------------------------------------------------------- */

static struct vc_route *find_route(const struct vc_worker *w, const struct vc_leg *leg,
                                   uint32_t ssrc)
{
    for (uint32_t at = leg->routes; at != VC_NONE; at = w->node->routes[at].next)
        if (w->node->routes[at].out_ssrc == ssrc)
            return &w->node->routes[at];
    return NULL;
}

static void on_sender_report(struct vc_worker *w, struct vc_source *source,
                             const struct vc_rtcp_sr *sr)
{
    struct vc_sender_report report = {
        .ntp = sr->ntp,
        .arrival_ns = w->now_ns,
        .rtp_timestamp = sr->rtp_timestamp,
    };
    uint32_t watchers = __atomic_load_n(&source->watchers, __ATOMIC_SEQ_CST) & ~(1u << w->id);

    vc_source_report_write(source, &report);
    if (source->passed_ns && w->now_ns - source->passed_ns < PASS_NS)
        return; /* one that floods is not multiplied by its receivers */
    source->passed_ns = w->now_ns;
    vc_report_pass(w, source->id);
    while (watchers) {
        vc_mesh_send(w, (uint32_t)__builtin_ctz(watchers), VC_MESH_REPORT, source->id, 0);
        watchers &= watchers - 1;
    }
}

static void on_block(struct vc_worker *w, struct vc_route *route,
                     const struct vc_rtcp_block *block)
{
    struct vc_event event = { .type = VC_EVT_FEEDBACK };
    uint64_t passed = vc_ns_to_ntp_short((w->now_ns - route->report_ns) & 0xffffffffffffull);
    uint64_t rtt_us = (passed - block->dlsr) * 1000000u >> 16;

    if (route->numbering.started &&
        (int16_t)(block->highest_seq - (uint32_t)route->numbering.highest_out) > 0) {
        w->c.rtcp_absurd++; /* it says it has what was never sent */
        return;
    }
    route->stats->fraction_lost = block->fraction_lost;
    route->stats->cumulative_lost = block->cumulative_lost;
    route->stats->jitter = block->jitter;
    if (block->lsr && block->lsr == route->report_middle) {
        if (passed >= block->dlsr && rtt_us <= RTT_MAX_US)
            route->stats->rtt_us = (uint32_t)rtt_us;
        else
            w->c.rtcp_absurd++;
    }
    if (route->feedback_ns &&
        w->now_ns - route->feedback_ns < (block->fraction_lost >= LOSSY ? LOSSY_NS : FEEDBACK_NS))
        return;
    route->feedback_ns = w->now_ns;
    event.u.feedback.route = route->id;
    event.u.feedback.fraction_lost = block->fraction_lost;
    event.u.feedback.cumulative_lost = block->cumulative_lost;
    event.u.feedback.jitter = block->jitter;
    event.u.feedback.highest_seq = block->highest_seq;
    event.u.feedback.rtt_us = route->stats->rtt_us;
    vc_event_push(w, &event);
}

static int has_rtx(const struct vc_worker *w, const struct vc_leg *leg, uint32_t ssrc)
{
    for (uint32_t at = leg->routes; at != VC_NONE; at = w->node->routes[at].next)
        if (w->node->routes[at].resend.rtx_ssrc == ssrc)
            return 1;
    return 0;
}

/* 1: it speaks of a stream of the leg, or names none. */
static int remb_is_ours(const struct vc_worker *w, const struct vc_leg *leg,
                        const struct vc_rtcp_remb *remb)
{
    for (uint32_t i = 0; i < remb->ssrc_cnt; i++) {
        uint32_t ssrc = vc_load_be32(remb->ssrcs + 4 * i);

        if (find_route(w, leg, ssrc) || has_rtx(w, leg, ssrc))
            return 1;
    }
    return !remb->ssrc_cnt;
}

/* What falls is told of at once, the rest from time to time. */
static void on_estimate(struct vc_worker *w, struct vc_leg *leg, const struct vc_rtcp_remb *remb)
{
    struct vc_event event = { .type = VC_EVT_ESTIMATE };
    uint64_t bitrate_bps = remb->bitrate_bps;

    if (!remb_is_ours(w, leg, remb)) {
        w->c.rtcp_unknown++;
        return;
    }
    if (bitrate_bps > ESTIMATE_MAX_BPS) {
        bitrate_bps = ESTIMATE_MAX_BPS;
        w->c.rtcp_absurd++;
    }
    if (leg->estimate_ns && w->now_ns - leg->estimate_ns < ESTIMATE_NS &&
        (bitrate_bps >= leg->estimate_bps - leg->estimate_bps / 8 ||
         w->now_ns - leg->estimate_ns < ESTIMATE_FALLING_NS))
        return;
    leg->estimate_ns = w->now_ns;
    leg->estimate_bps = bitrate_bps;
    event.u.estimate.leg = leg->id;
    event.u.estimate.bitrate_bps = bitrate_bps;
    vc_event_push(w, &event);
}

static void on_keyframe_request(struct vc_worker *w, struct vc_route *route)
{
    route->stats->plis++;
    vc_request_keyframe(w, route->feeds[0].source); /* the next source was asked already */
}

static void on_item(struct vc_worker *w, struct vc_leg *leg, const struct vc_rtcp_item *item)
{
    struct vc_source *source;
    struct vc_route *route;

    switch (item->kind) {
    case VC_RTCP_SR:
        source = vc_leg_source(w, leg, item->ssrc);
        if (source)
            on_sender_report(w, source, &item->u.sr);
        else if (!vc_leg_rtx_source(w, leg, item->ssrc))
            w->c.rtcp_unknown++;
        break;
    case VC_RTCP_REPORT:
        route = find_route(w, leg, item->u.block.ssrc);
        if (route)
            on_block(w, route, &item->u.block);
        else if (!has_rtx(w, leg, item->u.block.ssrc))
            w->c.rtcp_unknown++;
        break;
    case VC_RTCP_PLI:
    case VC_RTCP_FIR:
        route = find_route(w, leg, item->media_ssrc);
        if (route)
            on_keyframe_request(w, route);
        else
            w->c.rtcp_unknown++;
        break;
    case VC_RTCP_BYE:
        source = vc_leg_source(w, leg, item->ssrc);
        if (!source)
            w->c.rtcp_unknown++;
        else if (!source->ended) /* told once, until it sends again */
            vc_event_bound(w, VC_EVT_BYE, source);
        if (source)
            source->ended = 1;
        break;
    case VC_RTCP_NACK:
        vc_resend_ask(w, leg, find_route(w, leg, item->media_ssrc), &item->u.nack);
        break;
    case VC_RTCP_REMB:
        on_estimate(w, leg, &item->u.remb);
        break;
    case VC_RTCP_OTHER: /* no answer of ours asked for it */
        w->c.rtcp_unknown++;
        break;
    }
}

void vc_report_receive(struct vc_worker *w, struct vc_leg *leg, const struct vc_io_rx *pkt)
{
    uint8_t clear[VC_CRYPTO_MAX_SZ + VC_CRYPTO_RTCP_GROW_MAX];
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
    struct vc_crypto_item item = { .key = &leg->rx, .src = pkt->data, .src_sz = pkt->sz,
                                   .dst = clear };
    int n;

    if (pkt->sz < 8 + vc_srtcp_grow_sz((enum vc_srtp_suite)leg->suite) ||
        pkt->sz > VC_CRYPTO_MAX_SZ) {
        vc_drop(w, VC_DROP_RTCP_TRUNCATED);
        return;
    }
    if (vc_crypto_open_rtcp(w->crypto, &item, 1) != 1) {
        vc_drop(w, VC_DROP_RTCP_AUTH_FAILED);
        leg->stats->auth_failed++;
        return;
    }
    if (!vc_senders_accept(leg->store, vc_load_be32(clear + 4), (uint32_t)item.index)) {
        vc_drop(w, VC_DROP_RTCP_REPLAYED);
        return;
    }
    n = vc_rtcp_parse(clear, item.dst_sz, items, VC_RTCP_ITEMS_MAX);
    if (n < 0) {
        vc_drop(w, VC_DROP_RTCP_TRUNCATED);
        return;
    }
    w->c.consumed++;
    leg->stats->rtcp_rx++;
    leg->stats->last_rx_ns = w->now_ns;
    for (int i = 0; i < n; i++)
        on_item(w, leg, &items[i]);
}
