/* SPDX-License-Identifier: MIT */
#include "world.h"

#include "rtcp.h"

#define WORLD_NS 5000000000ull

void world_init(struct world *world, uint32_t workers)
{
    memset(world, 0, sizeof *world);
    world->setup = (struct vc_ctl_setup){
        .worker_cnt = workers,
        .interface_cnt = 1,
        .local_cnt = 1,
        .legs_max = WORLD_LEGS,
        .sources_max = 16,
        .routes_max = 64,
        .history_audio = 8,
        .history_video = 8,
        .audio_slots = 64,
        .video_slots = 256,
        .queue_limit_ms = 400,
        .rtcp_interval_ms = 1000,
    };
    world->now_ns = WORLD_NS;
    world->packets = 2048;
    world->crypto = vc_crypto_new(VC_CRYPTO_AUTO);
    VC_ASSERT(world->crypto);
}

static void open_node(struct world *world)
{
    struct vc_node_config config = { .setup = world->setup, .index_store = world->index_store };
    const char *why = "";

    for (uint32_t w = 0; w < world->setup.worker_cnt; w++) {
        uint64_t sz = vc_shm_format(NULL, 0, &world->setup, w);

        world->shm[w] = calloc(1, sz);
        VC_ASSERT(vc_shm_format(world->shm[w], sz, &world->setup, w) == sz);
        VC_ASSERT(!vc_shm_check(world->shm[w], sz, &world->setup, w));
        config.shm[w] = world->shm[w];
        config.evt_bell[w] = config.wake_bell[w] = -1;
        world->io[w] = vc_io_mem_new(world->packets);
        VC_ASSERT(world->io[w]);
    }
    world->node = vc_node_new(&config, &why);
    VC_ASSERT(world->node);
    for (uint32_t w = 0; w < world->setup.worker_cnt; w++) {
        world->workers[w] = vc_worker_new(world->node, w, world->io[w], NULL, &why);
        VC_ASSERT(world->workers[w]);
    }
}

static void close_node(struct world *world)
{
    for (uint32_t w = 0; w < world->setup.worker_cnt; w++) {
        vc_worker_delete(world->workers[w]);
        world->io[w]->ops->delete(world->io[w]);
        free(world->shm[w]);
    }
    vc_node_delete(world->node);
}

void world_start(struct world *world)
{
    uint64_t sz = vc_index_format(NULL, 0, &world->setup);

    world->index_store = calloc(1, sz);
    VC_ASSERT(vc_index_format(world->index_store, sz, &world->setup) == sz);
    VC_ASSERT(!vc_index_check(world->index_store, sz, &world->setup));
    open_node(world);
}

void world_restart(struct world *world)
{
    close_node(world);
    open_node(world);
}

void world_fini(struct world *world)
{
    close_node(world);
    vc_crypto_delete(world->crypto);
    free(world->index_store);
    free(world->got);
}

static void drain_events(struct world *world, uint32_t worker, uint64_t command,
                         enum vc_status *status)
{
    struct vc_worker *w = world->workers[worker];
    const struct vc_event *event;

    while ((event = vc_ring_front(&w->events))) {
        if (event->type == VC_EVT_APPLIED && event->u.applied.id == command)
            *status = (enum vc_status)event->u.applied.status;
        else
            world->events[world->event_cnt++ % 64] = *event;
        vc_ring_pop(&w->events);
    }
}

void world_step(struct world *world)
{
    for (uint32_t w = 0; w < world->setup.worker_cnt; w++) {
        const char *fault;

        vc_io_mem_clock(world->io[w], world->now_ns);
        vc_worker_do_work(world->workers[w], world->now_ns);
        fault = vc_worker_audit(world->workers[w]);
        if (fault)
            fprintf(stderr, "audit of worker %u: %s\n", w, fault);
        VC_ASSERT(!fault);
        world->audits++;
    }
}

void world_pass(struct world *world, uint64_t ns)
{
    world->now_ns += ns;
    world_step(world);
}

static void party_got(struct world *world, uint32_t leg, const struct vc_io_mem_packet *packet)
{
    struct world_party *party = &world->parties[leg];
    struct world_got *got = &world->got[world->got_cnt];
    struct vc_crypto_item item = {
        .key = &party->down, .src = packet->data, .src_sz = packet->sz, .dst = got->data
    };
    struct vc_rx_index *stream = NULL;
    struct vc_rtp rtp;

    VC_ASSERT(world->got_cnt < WORLD_GOT);
    *got = (struct world_got){ .leg = leg, .dscp = packet->dscp };
    if (vc_rtp_is_rtcp(packet->data)) {
        got->rtcp = 1;
        got->ssrc = vc_load_be32(packet->data + 4);
        if (vc_crypto_open_rtcp(world->crypto, &item, 1) != 1)
            world->bad_cnt++;
        got->index = item.index;
        got->sz = item.dst_sz;
        world->got_cnt++;
        return;
    }
    VC_ASSERT(vc_rtp_parse(packet->data, packet->sz, &rtp) == VC_RTP_OK);
    for (uint32_t i = 0; i < party->stream_cnt; i++)
        if (party->streams[i].ssrc == rtp.ssrc)
            stream = &party->streams[i];
    if (!stream) {
        VC_ASSERT(party->stream_cnt < 8);
        stream = &party->streams[party->stream_cnt++];
        *stream = (struct vc_rx_index){ .ssrc = rtp.ssrc };
    }
    item.hdr_sz = rtp.header_sz;
    item.index = vc_rx_index_guess(stream, rtp.seq);
    if (vc_crypto_open_rtp(world->crypto, &item, 1) != 1 ||
        !vc_rx_index_accept(stream, item.index)) {
        world->bad_cnt++;
        return;
    }
    got->index = item.index;
    got->ssrc = rtp.ssrc;
    got->timestamp = rtp.timestamp;
    got->sz = item.dst_sz;
    got->pt = rtp.pt;
    got->marker = rtp.marker;
    got->header_sz = rtp.header_sz;
    world->got_cnt++;
}

void world_take(struct world *world)
{
    if (!world->got)
        world->got = calloc(WORLD_GOT, sizeof *world->got);
    VC_ASSERT(world->got);
    for (uint32_t w = 0; w < world->setup.worker_cnt; w++) {
        const struct vc_io_mem_packet *packet;

        while ((packet = vc_io_mem_take(world->io[w]))) {
            uint32_t leg = 0;

            while (leg < WORLD_LEGS && memcmp(&world->parties[leg].tuple, &packet->tuple,
                                              sizeof packet->tuple))
                leg++;
            VC_ASSERT(leg < WORLD_LEGS);
            party_got(world, leg, packet);
        }
    }
}

void world_forget(struct world *world)
{
    world->got_cnt = 0;
}

enum vc_status world_command(struct world *world, uint32_t worker, struct vc_command command)
{
    enum vc_status status = VC_STATUS_COUNT;

    command.id = ++world->commands;
    VC_ASSERT(!vc_ring_push(&world->workers[worker]->commands, &command));
    for (int i = 0; i < 100 && status == VC_STATUS_COUNT; i++) {
        world_step(world);
        drain_events(world, worker, command.id, &status);
    }
    VC_ASSERT(status != VC_STATUS_COUNT);
    return status;
}

static void make_party(struct world *world, uint32_t leg, uint32_t suite)
{
    struct world_party *party = &world->parties[leg];
    enum vc_srtp_suite as = (enum vc_srtp_suite)suite;

    party->suite = suite;
    if (!party->key_id)
        party->key_id = 1000 + leg;
    for (int i = 0; i < 16; i++) {
        party->up_key[i] = (uint8_t)(leg * 16 + (uint32_t)i + party->key_id);
        party->down_key[i] = (uint8_t)(leg * 32 + (uint32_t)i * 3 + 1 + party->key_id);
        party->up_salt[i % 14] = (uint8_t)(0x40 + i);
        party->down_salt[i % 14] = (uint8_t)(0x80 + i);
    }
    party->tuple.remote_ip[10] = party->tuple.remote_ip[11] = 0xff;
    party->tuple.remote_ip[12] = 10;
    party->tuple.remote_ip[15] = (uint8_t)(leg + 1);
    party->tuple.remote_port_be = (uint16_t)(0x1000 + leg);
    party->tuple.local_port_be = 0x5111;
    if (suite == VC_SRTP_NONE)
        return;
    VC_ASSERT(!vc_crypto_key_init(world->crypto, &party->up, as, party->up_key, party->up_salt));
    VC_ASSERT(!vc_crypto_key_init(world->crypto, &party->down, as, party->down_key,
                                  party->down_salt));
}

struct vc_command world_leg_command(struct world *world, uint32_t leg, uint32_t suite)
{
    struct vc_command command = { .type = VC_CMD_LEG_SET };
    struct vc_cmd_leg_set *set = &command.u.leg_set;
    struct world_party *party = &world->parties[leg];

    make_party(world, leg, suite);
    *set = (struct vc_cmd_leg_set){
        .leg = leg,
        .owner = party->owner,
        .digest = 0x1e600 + leg,
        .key_id = party->key_id,
        .suite = suite,
        .tuple_cnt = 1,
        .tuples = { party->tuple },
        .rtcp_ssrc = 0x7000 + leg,
        .dscp_audio = 46,
        .dscp_video = 34,
        .rx_ext = { [VC_EXT_MID] = 1, [VC_EXT_RID] = 2 },
        .tx_ext = { [VC_EXT_MID] = 5 },
        .cname = "node",
    };
    memcpy(set->rx_key, party->up_key, 16);
    memcpy(set->tx_key, party->down_key, 16);
    memcpy(set->rx_salt, party->up_salt, 14);
    memcpy(set->tx_salt, party->down_salt, 14);
    return command;
}

void world_leg(struct world *world, uint32_t leg, uint32_t owner, uint32_t suite)
{
    world->parties[leg].owner = owner;
    for (uint32_t w = 0; w < world->setup.worker_cnt; w++)
        VC_ASSERT(world_command(world, w, world_leg_command(world, leg, suite)) == VC_STATUS_OK);
}

struct vc_command world_source_command(uint32_t source, uint32_t leg, uint32_t ssrc, int video)
{
    return (struct vc_command){
        .type = VC_CMD_SOURCE_SET,
        .u.source_set = {
            .source = source,
            .leg = leg,
            .digest = 0x50000 + source,
            .flags = VC_SOURCE_BY_SSRC,
            .ssrc = ssrc,
            .clock_hz = video ? 90000 : 48000,
            .pt = video ? 96 : 111,
            .queue = video ? VC_QUEUE_VIDEO : VC_QUEUE_AUDIO,
            .codec = video ? VC_CODEC_H264 : VC_CODEC_OPAQUE,
        },
    };
}

struct vc_command world_route_command(struct world *world, uint32_t route, uint32_t leg,
                                      uint32_t source, uint32_t out_ssrc, int gated)
{
    return (struct vc_command){
        .type = VC_CMD_ROUTE_SET,
        .u.route_set = {
            .route = route,
            .leg = leg,
            .digest = 0x40000 + route,
            .source = source,
            .source_owner = world->node->sources[source].owner,
            .out_ssrc = out_ssrc,
            .ts_offset = 12345,
            .seq_start = 100,
            .pt = 101,
            .flags = gated ? VC_ROUTE_GATED : 0,
            .mid = "out",
        },
    };
}

void world_source(struct world *world, uint32_t source, uint32_t leg, uint32_t ssrc, int video)
{
    VC_ASSERT(world_command(world, world->parties[leg].owner,
                            world_source_command(source, leg, ssrc, video)) == VC_STATUS_OK);
}

void world_route(struct world *world, uint32_t route, uint32_t leg, uint32_t source,
                 uint32_t out_ssrc, int gated)
{
    VC_ASSERT(world_command(world, world->parties[leg].owner,
                            world_route_command(world, route, leg, source, out_ssrc, gated)) ==
              VC_STATUS_OK);
}

uint32_t world_seal(struct world *world, uint32_t leg, const struct world_rtp *rtp, uint8_t *out)
{
    uint8_t clear[1600] = { 0x80, (uint8_t)(rtp->marker << 7 | rtp->pt) };
    struct vc_crypto_item item = {
        .key = &world->parties[leg].up, .src = clear, .dst = out, .hdr_sz = 12, .index = rtp->index
    };

    vc_store_be16(clear + 2, (uint16_t)rtp->index);
    vc_store_be32(clear + 4, rtp->timestamp);
    vc_store_be32(clear + 8, rtp->ssrc);
    if (rtp->mid[0]) { /* one element of four bytes, one-byte form */
        clear[0] |= 0x10;
        vc_store_be16(clear + 12, 0xbede);
        vc_store_be16(clear + 14, 2);
        clear[16] = 1 << 4 | 3;
        memcpy(clear + 17, rtp->mid, 4);
        item.hdr_sz = 24;
    }
    for (uint32_t i = 0; i < rtp->payload_sz; i++)
        clear[item.hdr_sz + i] = (uint8_t)(rtp->index * 7 + i);
    if (rtp->payload_sz)
        clear[item.hdr_sz] = rtp->key ? 0x67 : 0x41; /* SPS, non-IDR slice */
    if (rtp->vp8 && rtp->payload_sz > 6) { /* X, S; I, L, K */
        memcpy(clear + item.hdr_sz, "\x90\xd0", 2);
        vc_store_be16(clear + item.hdr_sz + 2, 0x8000 | (uint16_t)rtp->index);
        clear[item.hdr_sz + 4] = (uint8_t)(rtp->index / 2);
        clear[item.hdr_sz + 5] = (uint8_t)(rtp->index / 5 % 32);
        clear[item.hdr_sz + 6] = !rtp->key;
    }
    item.src_sz = item.hdr_sz + rtp->payload_sz;
    VC_ASSERT(vc_crypto_seal_rtp(world->crypto, &item, 1) == 1);
    return item.dst_sz;
}

void world_put(struct world *world, uint32_t worker, uint32_t leg, const void *data, uint32_t sz)
{
    VC_ASSERT(!vc_io_mem_put(world->io[worker], &world->parties[leg].tuple, data, sz));
}

void world_send(struct world *world, uint32_t leg, const struct world_rtp *rtp)
{
    uint8_t sealed[1700];

    world_put(world, world->parties[leg].owner, leg, sealed,
              world_seal(world, leg, rtp, sealed));
}

void world_send_rtcp(struct world *world, uint32_t leg, const uint8_t *clear, uint32_t sz)
{
    uint8_t sealed[1400];
    struct vc_crypto_item item = {
        .key = &world->parties[leg].up, .src = clear, .src_sz = sz, .dst = sealed,
        .index = world->parties[leg].rtcp_index++,
    };

    VC_ASSERT(vc_crypto_seal_rtcp(world->crypto, &item, 1) == 1);
    world_put(world, world->parties[leg].owner, leg, sealed, item.dst_sz);
}

uint32_t world_count(const struct world *world, uint32_t leg, uint32_t ssrc)
{
    uint32_t cnt = 0;

    for (uint32_t i = 0; i < world->got_cnt; i++)
        cnt += world->got[i].leg == leg && world->got[i].ssrc == ssrc && !world->got[i].rtcp;
    return cnt;
}

uint32_t world_twice(struct world *world)
{
    uint32_t cnt;

    world_take(world);
    cnt = world->bad_cnt;
    for (const struct world_got *a = world->got; a < world->got + world->got_cnt; a++)
        for (const struct world_got *b = world->got; b < a; b++)
            cnt += a->leg == b->leg && a->ssrc == b->ssrc && a->rtcp == b->rtcp &&
                   a->index == b->index;
    return cnt;
}

const struct world_got *world_last(const struct world *world, uint32_t leg, uint32_t ssrc)
{
    for (uint32_t i = world->got_cnt; i-- > 0;)
        if (world->got[i].leg == leg && world->got[i].ssrc == ssrc && !world->got[i].rtcp)
            return &world->got[i];
    return NULL;
}

const struct vc_counters *world_counters(const struct world *world, uint32_t worker)
{
    return &world->workers[worker]->c;
}
