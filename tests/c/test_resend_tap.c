/* SPDX-License-Identifier: MIT */
/* A tap on everything that a worker sends, through random losses, NACKs, switches, pauses, other
   headers, other keys and restarts: no (key, SSRC, index) has two contents, RTP and RTCP, and what
   RTX brings is what was sent, whatever ids were rewritten in it. */
#include "world.h"

#include "check.h"
#include "rtcp.h"

#define SEEN (1u << 17)
#define LEGS 4u
#define SOURCES 2u

void test_resend_tap(unsigned *good, unsigned *bad);

static struct world world;

static struct seen {
    uint64_t key_id, index, content; /* content 0: empty */
    uint32_t ssrc, rtcp;
} seen[SEEN];

static struct stream { /* as the tap follows it */
    uint64_t key_id;
    struct vc_rx_index rx;
} streams[512];

static uint64_t seed, next_index[SOURCES], key_ids, repeated, same;
static uint64_t payloads[65536]; /* by sequence number, of the leg with RTX */
static uint32_t stream_cnt, now_source[LEGS];
static uint8_t mid_id[LEGS], pts[LEGS], stamped[LEGS], reds[LEGS];
static uint16_t highest[LEGS];

static uint32_t dice(uint32_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % n;
}

static uint64_t hash(uint64_t h, const void *data, uint32_t sz)
{
    for (uint32_t i = 0; i < sz; i++)
        h = (h ^ ((const uint8_t *)data)[i]) * 1099511628211ull;
    return h;
}

static void note(const struct seen *one)
{
    uint64_t h = hash(14695981039346656037ull, &one->key_id, 8);
    uint32_t at = (uint32_t)(hash(hash(h, &one->index, 8), &one->ssrc, 8) % SEEN);

    while (seen[at].content && (seen[at].key_id != one->key_id || seen[at].index != one->index ||
                                seen[at].ssrc != one->ssrc || seen[at].rtcp != one->rtcp))
        at = (at + 1) % SEEN;
    if (seen[at].content) {
        repeated++;
        CHECK(seen[at].content == one->content);
    }
    seen[at] = *one;
}

static struct vc_rx_index *stream_of(uint64_t key_id, uint32_t ssrc)
{
    for (uint32_t i = 0; i < stream_cnt; i++)
        if (streams[i].key_id == key_id && streams[i].rx.ssrc == ssrc)
            return &streams[i].rx;
    VC_ASSERT(stream_cnt < 512);
    streams[stream_cnt] = (struct stream){ .key_id = key_id, .rx = { .ssrc = ssrc } };
    return &streams[stream_cnt++].rx;
}

/* A payload behind its original number is the one that left with that number. */
static void note_payload(const struct vc_rtp *rtp, const uint8_t *payload, uint32_t sz)
{
    if (rtp->ssrc == 0x103) {
        payloads[rtp->seq] = hash(1, payload, sz);
    } else if (rtp->ssrc == 0x300) {
        CHECK(payloads[vc_load_be16(payload)] == hash(1, payload + 2, sz - 2));
        same++;
    }
}

static void tap(const struct vc_io_mem_packet *packet)
{
    uint32_t leg = 0;
    struct vc_rtp rtp;
    struct seen one = { .content = hash(14695981039346656037ull, packet->data, packet->sz) | 1 };
    struct vc_rx_index *rx;
    uint8_t clear[1700];
    struct vc_crypto_item item = { .src = packet->data, .src_sz = packet->sz, .dst = clear };

    while (memcmp(&world.parties[leg].tuple, &packet->tuple, sizeof packet->tuple))
        leg++;
    one.key_id = world.parties[leg].key_id;
    item.key = &world.parties[leg].down;
    if (vc_rtp_is_rtcp(packet->data)) {
        CHECK_EQ(vc_crypto_open_rtcp(world.crypto, &item, 1), 1);
        one.rtcp = 1;
        one.ssrc = vc_load_be32(packet->data + 4);
        one.index = item.index;
        note(&one);
        return;
    }
    VC_ASSERT(vc_rtp_parse(packet->data, packet->sz, &rtp) == VC_RTP_OK);
    rx = stream_of(one.key_id, rtp.ssrc);
    one.ssrc = rtp.ssrc;
    one.index = item.index = vc_rx_index_guess(rx, rtp.seq);
    item.hdr_sz = rtp.header_sz;
    CHECK_EQ(vc_crypto_open_rtp(world.crypto, &item, 1), 1); /* so this was the index */
    vc_rx_index_accept(rx, one.index);
    note_payload(&rtp, clear + rtp.header_sz, item.dst_sz - rtp.header_sz);
    if (rtp.ssrc < 0x200)
        highest[leg] = (uint16_t)rx->highest;
    note(&one);
}

static void settle(uint64_t ns)
{
    const struct vc_io_mem_packet *packet;

    world_pass(&world, ns);
    for (uint32_t w = 0; w < world.setup.worker_cnt; w++)
        while ((packet = vc_io_mem_take(world.io[w])))
            tap(packet);
}

static struct vc_command leg_command(uint32_t leg)
{
    struct vc_command set =
        world_leg_command(&world, leg, leg == 2 ? VC_SRTP_AES_CM_128_HMAC_SHA1_80 :
                                                  VC_SRTP_AEAD_AES_128_GCM);

    set.u.leg_set.tx_ext[VC_EXT_MID] = mid_id[leg];
    set.u.leg_set.tx_ext[VC_EXT_ABS_SEND_TIME] = stamped[leg] & 1 ? 100 : 0;
    set.u.leg_set.tx_ext[VC_EXT_TRANSPORT_CC] = stamped[leg] & 2 ? 15 : 0;
    set.u.leg_set.rate_bps = leg == 3 ? 2000000 : 0;
    return set;
}

static void set_leg(uint32_t leg)
{
    world.parties[leg].owner = leg % world.setup.worker_cnt;
    for (uint32_t w = 0; w < world.setup.worker_cnt; w++)
        CHECK_EQ(world_command(&world, w, leg_command(leg)), VC_STATUS_OK);
}

static void tell(uint32_t leg, struct vc_command command)
{
    CHECK_EQ(world_command(&world, world.parties[leg].owner, command), VC_STATUS_OK);
}

static struct vc_command route_command(uint32_t leg)
{
    struct vc_command set =
        world_route_command(&world, leg, leg, now_source[leg], 0x100 + leg, leg != 2);

    set.u.route_set.pt = pts[leg];
    set.u.route_set.red_pt = reds[leg];
    if (leg == 3) {
        set.u.route_set.rtx_ssrc = 0x300;
        set.u.route_set.rtx_pt = 99;
        set.u.route_set.rtx_seq_start = 32767;
    }
    return set;
}

static void set_table(void)
{
    for (uint32_t leg = 0; leg < LEGS; leg++)
        set_leg(leg);
    for (uint32_t i = 0; i < SOURCES; i++) {
        struct vc_command set = world_source_command(i, 0, 0xb0 + i, 1);

        set.u.source_set.codec = VC_CODEC_VP8;
        set.u.source_set.red_pt = 63;
        tell(0, set);
    }
    for (uint32_t leg = 1; leg < LEGS; leg++)
        tell(leg, route_command(leg));
}

static void send_some(void)
{
    for (uint32_t i = 0; i < SOURCES; i++) {
        struct world_rtp rtp = { .index = next_index[i]++, .ssrc = 0xb0 + i,
                                 .payload_sz = 20 + dice(100), .pt = 96, .key = dice(20) == 0,
                                 .vp8 = 1 };

        rtp.timestamp = (uint32_t)rtp.index * 3000;
        if (dice(5) == 0)
            rtp.pt = 63;
        if (dice(20) == 0)
            continue; /* lost on its way in */
        if (dice(30) == 0 && rtp.index > 40)
            rtp.index -= dice(30); /* late, or here before */
        world_send(&world, 0, &rtp);
    }
}

/* What they say moves about by seconds: the clocks are not at stake here. */
static void report_some(void)
{
    for (uint32_t i = 0; i < SOURCES; i++) {
        uint8_t data[VC_RTCP_MAX];
        struct vc_rtcp_writer writer = { data, 0, sizeof data };
        struct vc_rtcp_sr sr = { world.now_ns / 1000000000u << 32,
                                 (uint32_t)(next_index[i] - 1) * 3000, 1, 1 };

        CHECK(!vc_rtcp_write_sr(&writer, 0xb0 + i, &sr, NULL, 0));
        world_send_rtcp(&world, 0, data, writer.sz);
    }
}

static void ask_some(uint32_t leg)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_nack nacks[2] = {
        { (uint16_t)(highest[leg] - dice(40)), (uint16_t)dice(65536) },
        { (uint16_t)(highest[leg] - dice(600)), (uint16_t)dice(65536) },
    };

    CHECK(!vc_rtcp_write_nack(&writer, 1, 0x100 + leg, nacks, 2));
    world_send_rtcp(&world, leg, data, writer.sz);
}

static void disturb(void)
{
    uint32_t leg = 1 + dice(LEGS - 1);
    struct vc_command pause = { .type = VC_CMD_ROUTE_FILTER,
                                .u.route_filter = { .route = leg, .paused = dice(3) == 0 } };

    switch (dice(15)) {
    case 0:
    case 1:
    case 2:
        now_source[leg] = dice(SOURCES);
        tell(leg, route_command(leg));
        break;
    case 3:
    case 4:
        tell(leg, pause);
        break;
    case 5:
    case 6:
        mid_id[leg] = (uint8_t)(1 + dice(14));
        stamped[leg] = (uint8_t)(dice(2) ? 0 : dice(4));
        set_leg(leg);
        break;
    case 7:
    case 8:
        if (dice(2))
            pts[leg] = (uint8_t)(96 + dice(20));
        else
            reds[leg] = (uint8_t)(dice(4) ? 45 + dice(2) : 0);
        tell(leg, route_command(leg));
        break;
    case 9:
        settle(0);
        world.parties[leg].key_id = ++key_ids;
        set_leg(leg);
        break;
    case 10:
        tell(leg, (struct vc_command){ .type = VC_CMD_ROUTE_REMOVE, .u.id.id = leg });
        tell(leg, route_command(leg));
        break;
    case 11:
        settle(0);
        world_restart(&world);
        set_table();
        break;
    case 12: /* the publisher begins anew, sometimes with numbers that it had */
        settle(0);
        world.parties[0].key_id = ++key_ids;
        set_leg(0);
        for (uint32_t i = 0; i < SOURCES; i++)
            next_index[i] = dice(2) ? dice(60000) : (next_index[i] | 128) % 65536 - dice(100);
        break;
    default:
        settle(dice(600) * WORLD_MS);
    }
}

static uint64_t sum(uint32_t rtx)
{
    uint64_t n = 0;

    for (uint32_t w = 0; w < world.setup.worker_cnt; w++)
        n += rtx ? world_counters(&world, w)->resent_rtx : world_counters(&world, w)->resent_plain;
    return n;
}

static void run(uint32_t workers)
{
    uint64_t plain = 0, rtx = 0;

    memset(seen, 0, sizeof seen);
    stream_cnt = 0;
    repeated = same = 0;
    memset(now_source, 0, sizeof now_source);
    seed = 22;
    key_ids = 90000;
    world_init(&world, workers);
    world_start(&world);
    for (uint32_t i = 0; i < SOURCES; i++)
        next_index[i] = 65000;
    for (uint32_t leg = 0; leg < LEGS; leg++) {
        pts[leg] = 96;
        mid_id[leg] = 5;
    }
    set_table();
    for (uint32_t round = 0; round < 12000; round++) {
        uint64_t plain_before = sum(0), rtx_before = sum(1);

        send_some();
        if (dice(4) == 0)
            ask_some(1 + dice(LEGS - 1));
        if (dice(50) == 0)
            report_some();
        settle((1 + dice(5)) * WORLD_MS);
        plain += sum(0) - plain_before;
        rtx += sum(1) - rtx_before;
        if (dice(40) == 0)
            disturb();
    }
    CHECK(plain > 300);
    CHECK(rtx > 300);
    CHECK(same >= rtx);
    CHECK(repeated >= plain); /* all of them were seen by the tap, and nothing else twice */
    printf("tap: %lu plain, %lu rtx, %lu repeated: ", plain, rtx, repeated);
    world_fini(&world);
}

void test_resend_tap(unsigned *good, unsigned *bad)
{
    run(1);
    run(2);
    *good += check_passed;
    *bad += check_failed + check_skipped;
}
