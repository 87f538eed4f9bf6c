/* SPDX-License-Identifier: MIT */
#include "test_switch.h"

#include <srtp2/srtp.h>

#include "check.h"
#include "rtcp.h"

#define NTP_EPOCH 0x1234567800000000ull
#define FRAME_NS 33333333ull
#define LAX 250u
#define WIRE 256u /* packets that are remembered as they came */

struct world world;
struct encoder encoders[ENCODERS];
struct watcher video, sound;
uint32_t plis[ENCODERS], resent;

static struct {
    uint32_t sz;
    uint8_t data[500];
} wire[WIRE];

static srtp_t receiver;
static uint32_t workers;
static uint8_t dependency_in, dependency_out;

/* ---- the sending side -------------------------------------------------------------------- */

static uint32_t ticks_at(const struct encoder *e, uint64_t ns)
{
    return e->base + (uint32_t)(ns / 1000 * e->clock_hz / 1000000);
}

static uint64_t ntp_at(uint64_t ns)
{
    return NTP_EPOCH + (ns / 1000000000u << 32) + ((ns % 1000000000u << 32) / 1000000000u);
}

static uint32_t put_descriptor(const struct encoder *e, uint8_t *p, int first, int key)
{
    uint8_t *at = p;

    if (e->codec == VC_CODEC_VP8) {
        *at++ = 0x80 | (first ? 0x10 : 0);
        *at++ = e->form == FORM_NONE ? 0 : 0xf0; /* I L T K */
    } else if (e->codec == VC_CODEC_VP9) {
        *at++ = (uint8_t)((e->form == FORM_NONE ? 0 : 0xa0) | (first ? 0x08 : 0) |
                          (key ? 0 : 0x40));
    } else {
        *at++ = e->codec == VC_CODEC_AV1 ? (key && first ? 0x08 : 0) : key && first ? 0x67 : 0x41;
        return 1;
    }
    if (e->form == FORM_7)
        *at++ = e->picture & 0x7f;
    if (e->form == FORM_15) {
        vc_store_be16(at, 0x8000 | e->picture);
        at += 2;
    }
    if (e->form != FORM_NONE && e->codec == VC_CODEC_VP9)
        *at++ = (uint8_t)(e->tid << 5);
    if (e->form != FORM_NONE)
        *at++ = e->tl0;
    if (e->form != FORM_NONE && e->codec == VC_CODEC_VP8)
        *at++ = (uint8_t)(e->tid << 6 | 0x20 | (e->key & 0x1f));
    *at++ = !key;
    return (uint32_t)(at - p);
}

static void send_packet(struct encoder *e, uint8_t which, int first, int last, int key,
                        uint64_t capture_ns)
{
    const uint8_t pt = e->codec == VC_CODEC_OPAQUE ? 111 : 96;
    uint8_t clear[400] = { 0x80, (uint8_t)(last << 7 | pt) }, sealed[500];
    struct vc_crypto_item item = { .key = &world.parties[e->leg].up, .src = clear, .dst = sealed,
                                   .hdr_sz = 12, .index = e->index++ };
    uint32_t at;

    vc_store_be16(clear + 2, (uint16_t)item.index);
    vc_store_be32(clear + 4, ticks_at(e, capture_ns));
    vc_store_be32(clear + 8, e->ssrc);
    if (dependency_in && e->codec != VC_CODEC_OPAQUE) {
        clear[0] |= 0x10;
        memcpy(clear + 12, "\xbe\xde\0\1", 4);
        clear[16] = (uint8_t)(dependency_in << 4 | 2);
        clear[17] = (uint8_t)(first << 7 | last << 6 | 5);
        vc_store_be16(clear + 18, e->frame);
        item.hdr_sz = 20;
    }
    at = item.hdr_sz + put_descriptor(e, clear + item.hdr_sz, first, key);
    clear[at++] = which;
    clear[at++] = (uint8_t)key;
    vc_store_be64(clear + at, capture_ns);
    memset(clear + at + 8, (int)e->index, 100);
    item.src_sz = at + 108;
    VC_ASSERT(vc_crypto_seal_rtp(world.crypto, &item, 1) == 1);
    world_put(&world, world.parties[e->leg].owner, e->leg, sealed, item.dst_sz);
}

static void begin_frame(struct encoder *e)
{
    int key = e->wants_key && e->codec != VC_CODEC_OPAQUE;

    e->picture = (e->picture + 1) & (e->form == FORM_7 ? 0x7f : 0x7fff);
    e->frame++;
    e->tid = key ? 0 : !e->tid;
    e->tl0 = (uint8_t)(e->tl0 + !e->tid);
    e->key = (uint8_t)(e->key + key) & 0x1f;
    e->keys += key;
    e->is_key = key;
    e->wants_key = 0;
}

static uint32_t parts_of(const struct encoder *e)
{
    return e->codec == VC_CODEC_OPAQUE ? 1 : 3;
}

static void send_part(struct encoder *e, uint8_t which)
{
    int last = e->part == parts_of(e) - 1;

    if (e->part == 0)
        begin_frame(e);
    if (last && e->loses_end)
        e->index++;
    else
        send_packet(e, which, e->part == 0, last, e->is_key, e->next_ns);
    e->part++;
    if (!last)
        return;
    e->part = 0;
    e->loses_end = 0;
    e->next_ns += e->codec == VC_CODEC_OPAQUE ? 20 * WORLD_MS : FRAME_NS;
}

static void send_report(const struct encoder *e)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_sr sr = { ntp_at(world.now_ns + e->report_lie_ns),
                             ticks_at(e, world.now_ns), 1, 1 };

    CHECK(!vc_rtcp_write_sr(&writer, e->ssrc, &sr, NULL, 0));
    world_send_rtcp(&world, e->leg, data, writer.sz);
}

/* ---- the receiving side ------------------------------------------------------------------ */

static int64_t distance(uint32_t a, uint32_t b)
{
    int32_t d = (int32_t)(a - b);

    return d < 0 ? -(int64_t)d : d;
}

static void check_ids(struct watcher *at, const struct encoder *e, const struct vc_ids *ids,
                      int key)
{
    uint16_t wide = e->form == FORM_7 ? 0x7f : 0x7fff;

    CHECK_EQ(!!(ids->has & VC_ID_SHORT), e->form == FORM_7 && (e->codec == VC_CODEC_VP8 ||
                                                               e->codec == VC_CODEC_VP9));
    if (at->lax) { /* nothing twice, and nothing far away */
        CHECK(!(ids->has & VC_ID_PICTURE) ||
              (uint16_t)((ids->picture - at->picture - 1) & wide) < 64);
        CHECK(!(ids->has & VC_ID_FRAME) || (uint16_t)(ids->frame - at->ids.frame - 1) < 64);
        at->ids = *ids;
        at->picture = ids->picture;
        return;
    }
    at->picture = at->ids.has & VC_ID_PICTURE ? (at->picture + 1) & 0x7fff : ids->picture;
    if (ids->has & VC_ID_PICTURE)
        CHECK_EQ(ids->picture, at->picture & wide);
    if (ids->has & at->ids.has & VC_ID_TL0)
        CHECK((uint8_t)(ids->tl0 - at->ids.tl0) <= 1 && (!key || ids->tl0 != at->ids.tl0));
    if (ids->has & at->ids.has & VC_ID_KEY)
        CHECK_EQ(ids->key, (at->ids.key + key) & 0x1f);
    if (ids->has & at->ids.has & VC_ID_FRAME)
        CHECK_EQ(ids->frame, (uint16_t)(at->ids.frame + 1));
    at->ids = *ids;
}

static void check_frame(struct watcher *at, uint32_t timestamp, uint64_t capture_ns, uint8_t from,
                        int key, const struct vc_ids *ids)
{
    const struct encoder *e = &encoders[from];
    uint32_t since = (uint32_t)((capture_ns - at->origin_ns) / 1000 * e->clock_hz / 1000000);

    if (!at->begun) {
        at->base = timestamp;
        at->origin_ns = capture_ns;
        since = 0;
    }
    CHECK(!at->begun || (int32_t)(timestamp - at->timestamp) > 0);
    if (at->begun && at->unaligned && from != at->from) { /* by arrival at the node, to two steps */
        uint64_t arrival_ns = capture_ns + e->delay_ns;
        uint64_t passed_ns = arrival_ns > at->arrival_ns ? arrival_ns - at->arrival_ns : 0;
        uint32_t passed = (uint32_t)(passed_ns / 1000 * e->clock_hz / 1000000);

        CHECK(distance(timestamp, at->timestamp + passed) <= 2 * e->clock_hz / 1000);
        at->base = timestamp;
        at->origin_ns = capture_ns;
        at->unaligned = 0;
        since = 0;
    }
    if (distance(timestamp, at->base + since) > at->clock_error_max)
        at->clock_error_max = distance(timestamp, at->base + since);
    at->frames_off += distance(timestamp, at->base + since) > 45 * e->clock_hz / 1000;
    check_ids(at, e, ids, key);
    if (at->begun && from != at->from) {
        CHECK(key || e->codec == VC_CODEC_OPAQUE);
        at->changes++;
    }
    at->from = from;
    at->frames++;
    at->capture_ns = capture_ns;
    at->timestamp = timestamp;
    at->arrival_ns = capture_ns + e->delay_ns;
    at->begun = 1;
}

static void got_media(struct watcher *at, const uint8_t *data, uint32_t sz)
{
    struct vc_rtp rtp;
    struct vc_ids ids = { 0 };
    const uint8_t *payload, *ext;
    uint32_t ext_sz = 0, off, payload_sz;
    enum vc_codec codec = at == &sound ? VC_CODEC_OPAQUE : encoders[0].codec;
    static const uint32_t vp8_sz[] = { 7, 6, 3 }, vp9_sz[] = { 6, 5, 2 };

    VC_ASSERT(vc_rtp_parse(data, sz, &rtp) == VC_RTP_OK);
    CHECK(!at->begun || (uint16_t)(rtp.seq - at->seq - 1) < (at->lax ? LAX : 1));
    at->seq = rtp.seq;
    at->pt = rtp.pt;
    at->packets++;
    payload = data + rtp.header_sz;
    payload_sz = sz - rtp.header_sz;
    vc_descriptor_read(codec, payload, payload_sz, &ids);
    ext = vc_rtp_ext(data, &rtp, dependency_out, &ext_sz);
    if (dependency_out && at == &video)
        CHECK(ext && ext_sz == 3 && (ext[0] & 0x3f) == 5);
    if (ext)
        vc_dependency_read(ext, ext_sz, &ids);
    off = payload_sz - 110; /* sizes never change: it ends as it was sent */
    CHECK_EQ(off, codec == VC_CODEC_VP8 ? vp8_sz[encoders[payload[off]].form] :
                  codec == VC_CODEC_VP9 ? vp9_sz[encoders[payload[off]].form] : 1);
    if (!at->begun || vc_load_be64(payload + off + 2) != at->capture_ns ||
        payload[off] != at->from) {
        at->halves += at->begun && at->parts != parts_of(&encoders[payload[off]]);
        at->parts = 0;
        check_frame(at, rtp.timestamp, vc_load_be64(payload + off + 2), payload[off],
                    payload[off + 1], &ids);
    }
    at->parts++;
    CHECK_EQ(rtp.timestamp, at->timestamp);
    CHECK(!memcmp(&ids, &at->ids, sizeof ids));
    at->lax = 0;
}

static void got_report(const uint8_t *data, uint32_t sz)
{
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
    int n = vc_rtcp_parse(data, sz, items, VC_RTCP_ITEMS_MAX);

    for (int i = 0; i < n; i++) {
        struct watcher *at = items[i].ssrc == OUT_VIDEO ? &video : &sound;
        int64_t since, error;

        if (items[i].kind != VC_RTCP_SR)
            continue;
        CHECK(items[i].ssrc == OUT_VIDEO || items[i].ssrc == OUT_SOUND);
        since = (int64_t)(items[i].u.sr.ntp - ntp_at(at->origin_ns));
        error = distance(items[i].u.sr.rtp_timestamp,
                         at->base + (uint32_t)(since / 65536 * (at == &sound ? 48000 : 90000) /
                                               65536));
        if (error > at->report_error_max)
            at->report_error_max = error;
        at->reports++;
    }
}

/* Like libwebrtc, whose encoder of several streams drops a request within 300 ms of another. */
static int minds(uint32_t k)
{
    static uint64_t asked_ns;

    if (k > 1)
        return 1;
    if (world.now_ns >= asked_ns && world.now_ns - asked_ns < 300 * WORLD_MS)
        return 0;
    asked_ns = world.now_ns;
    return 1;
}

static void got_request(uint32_t leg, const uint8_t *data, uint32_t sz)
{
    struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX];
    struct vc_crypto_item item = { .key = &world.parties[leg].down, .src = data, .src_sz = sz };
    uint8_t clear[2048];
    int n;

    item.dst = clear;
    CHECK_EQ(vc_crypto_open_rtcp(world.crypto, &item, 1), 1);
    n = vc_rtcp_parse(clear, item.dst_sz, items, VC_RTCP_ITEMS_MAX);
    for (int i = 0; i < n; i++)
        for (uint32_t k = 0; k < ENCODERS; k++)
            if (items[i].kind == VC_RTCP_PLI && items[i].media_ssrc == encoders[k].ssrc) {
                plis[k]++;
                encoders[k].wants_key |= minds(k);
            }
}

/* 1: the packet of this number came as just these bytes. */
static int came_before(const uint8_t *data, uint32_t sz)
{
    uint32_t at = vc_load_be16(data + 2) % WIRE;

    if (vc_load_be32(data + 8) != OUT_VIDEO)
        return 0;
    if (wire[at].sz == sz && !memcmp(wire[at].data, data, sz)) {
        resent++;
        return 1;
    }
    wire[at].sz = sz;
    memcpy(wire[at].data, data, sz);
    return 0;
}

static void take(void)
{
    uint32_t changes = video.changes, reports = video.reports;

    for (uint32_t w = 0; w < workers; w++) {
        const struct vc_io_mem_packet *packet;

        while ((packet = vc_io_mem_take(world.io[w]))) {
            uint8_t data[2048];
            int sz = (int)packet->sz, rtcp = vc_rtp_is_rtcp(packet->data);

            memcpy(data, packet->data, packet->sz);
            if (memcmp(&packet->tuple, &world.parties[1].tuple, sizeof packet->tuple)) {
                got_request(memcmp(&packet->tuple, &world.parties[0].tuple, sizeof packet->tuple) ?
                                2 : 0, data, packet->sz);
                continue;
            }
            if (!rtcp && came_before(data, packet->sz))
                continue;
            CHECK_EQ(rtcp ? srtp_unprotect_rtcp(receiver, data, &sz) :
                            srtp_unprotect(receiver, data, &sz), srtp_err_status_ok);
            if (rtcp)
                got_report(data, (uint32_t)sz);
            else
                got_media(vc_load_be32(data + 8) == OUT_VIDEO ? &video : &sound, data,
                          (uint32_t)sz);
        }
    }
    if (video.changes != changes)
        video.reports_at_change += video.reports > reports;
}

/* ---- the course of a test ---------------------------------------------------------------- */

void stage_run(uint32_t ms)
{
    for (uint32_t i = 0; i < ms; i++) {
        world.now_ns += WORLD_MS;
        for (uint8_t k = 0; k < ENCODERS; k++) {
            struct encoder *e = &encoders[k];

            while (!e->silent && e->next_ns + e->delay_ns + e->part * e->apart_ns <= world.now_ns)
                send_part(e, k);
            if (e->reports && world.now_ns >= e->report_ns) {
                send_report(e);
                e->report_ns = world.now_ns + 900 * WORLD_MS;
            }
        }
        world_step(&world);
        take();
        world_step(&world); /* what went over the mesh */
        take();
    }
}

enum vc_status stage_route(struct vc_command command)
{
    return world_command(&world, world.parties[1].owner, command);
}

enum vc_status stage_switch(uint32_t source)
{
    return stage_route(world_route_command(&world, 1, 1, source, OUT_VIDEO, 1));
}

void stage_nack(uint16_t number)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };

    CHECK(!vc_rtcp_write_nack(&writer, 1, OUT_VIDEO, &(struct vc_rtcp_nack){ number, 0 }, 1));
    world_send_rtcp(&world, 1, data, writer.sz);
    stage_run(1);
}

uint32_t stage_asked(void)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < ENCODERS; k++)
        n += plis[k];
    return n;
}

static void set_leg(uint32_t leg)
{
    struct vc_command set =
        world_leg_command(&world, leg, leg == 2 ? VC_SRTP_AES_CM_128_HMAC_SHA1_80 :
                                                  VC_SRTP_AEAD_AES_128_GCM);

    world.parties[leg].owner = leg % workers;
    set.u.leg_set.owner = leg % workers;
    set.u.leg_set.rx_ext[VC_EXT_DEPENDENCY] = dependency_in;
    set.u.leg_set.tx_ext[VC_EXT_DEPENDENCY] = dependency_out;
    for (uint32_t w = 0; w < workers; w++)
        CHECK_EQ(world_command(&world, w, set), VC_STATUS_OK);
}

void stage_table(uint32_t source)
{
    for (uint32_t leg = 0; leg < 3; leg++)
        set_leg(leg);
    for (uint32_t k = 0; k < ENCODERS; k++) {
        struct encoder *e = &encoders[k];
        struct vc_command set =
            world_source_command(k, e->leg, e->ssrc, e->codec != VC_CODEC_OPAQUE);

        set.u.source_set.codec = (uint8_t)e->codec;
        CHECK_EQ(world_command(&world, world.parties[e->leg].owner, set), VC_STATUS_OK);
    }
    CHECK_EQ(stage_switch(source), VC_STATUS_OK);
    world_route(&world, 2, 1, SOUND, OUT_SOUND, 0);
}

static void open_receiver(void)
{
    uint8_t master[30];
    srtp_policy_t policy = { .ssrc = { .type = ssrc_any_inbound }, .window_size = 1024 };

    memcpy(master, world.parties[1].down_key, 16);
    memcpy(master + 16, world.parties[1].down_salt, 14);
    srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtp);
    srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtcp);
    policy.key = master;
    VC_ASSERT(srtp_create(&receiver, &policy) == srtp_err_status_ok);
}

void stage_open(uint32_t worker_cnt, enum vc_codec codec, enum form low, enum form high,
                int dependency)
{
    workers = worker_cnt;
    dependency_in = dependency ? 7 : 0;
    dependency_out = dependency ? 9 : 0;
    memset(&video, 0, sizeof video);
    memset(&sound, 0, sizeof sound);
    memset(plis, 0, sizeof plis);
    memset(wire, 0, sizeof wire);
    resent = 0;
    world_init(&world, workers);
    world_start(&world);
    for (uint32_t k = 0; k < ENCODERS; k++)
        encoders[k] = (struct encoder){
            .codec = k == SOUND || k == SOUND_2 ? VC_CODEC_OPAQUE : codec,
            .form = k == 1 ? high : low, .leg = k == STRANGER ? 2 : 0, .ssrc = 0xa0 + k,
            .clock_hz = k == SOUND || k == SOUND_2 ? 48000 : 90000,
            .base = 0x3fffff00u * (k + 1), .delay_ns = (k == 1 ? 17 : 5) * WORLD_MS,
            .next_ns = world.now_ns + (k == STRANGER ? 11 * WORLD_MS : 0),
            .index = 65000 + 100 * k, .picture = (uint16_t)(k == 1 ? 32700 : 100),
            .frame = (uint16_t)(65500 + k * 7), .tl0 = (uint8_t)(250 + k * 3),
            .key = (uint8_t)(28 + k),
            .wants_key = 1, .reports = 1, .report_ns = world.now_ns + (1 + k) * WORLD_MS,
        };
    stage_table(0);
    open_receiver();
}

void stage_close(void)
{
    CHECK_EQ(world.bad_cnt, 0);
    VC_ASSERT(srtp_dealloc(receiver) == srtp_err_status_ok);
    world_fini(&world);
}

void stage_tally(unsigned *good, unsigned *bad)
{
    *good += check_passed;
    *bad += check_failed + check_skipped;
}
