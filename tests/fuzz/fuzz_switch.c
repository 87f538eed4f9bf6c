/* SPDX-License-Identifier: MIT */
/* A route between sources: the bytes are media, lying sender reports, commands, NACKs, time, and
   the death of the process.  After each step every law holds, and no (SSRC, index) of a leg ever
   leaves with two contents. */
#include "world.h"

#include "rtcp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

#define SEEN 4096u

static struct world world;
static uint64_t indices[4];
static struct {
    uint64_t index, content; /* content 0: empty */
    uint32_t ssrc;
} seen[SEEN];

static const uint8_t *input;
static size_t left;

static uint8_t next(void)
{
    if (!left)
        return 0;
    left--;
    return *input++;
}

static uint32_t next32(void)
{
    uint32_t high = (uint32_t)(next() << 8 | next());

    return high << 16 | (uint32_t)(next() << 8 | next());
}

static void note(const struct vc_io_mem_packet *packet, const struct vc_rtp *rtp)
{
    uint64_t content = 14695981039346656037ull;
    uint32_t at = (rtp->ssrc * 31u + rtp->seq) % SEEN;

    for (uint32_t i = 0; i < packet->sz; i++)
        content = (content ^ packet->data[i]) * 1099511628211ull;
    while (seen[at].content && (seen[at].index != rtp->seq || seen[at].ssrc != rtp->ssrc))
        at = (at + 1) % SEEN;
    VC_ASSERT(!seen[at].content || seen[at].content == (content | 1));
    seen[at].index = rtp->seq; /* too few leave for a sequence number to come round */
    seen[at].ssrc = rtp->ssrc;
    seen[at].content = content | 1;
}

static void step(uint64_t ns)
{
    world_pass(&world, ns);
    for (uint32_t w = 0; w < world.setup.worker_cnt; w++) {
        const struct vc_io_mem_packet *packet;

        while ((packet = vc_io_mem_take(world.io[w]))) {
            struct vc_rtp rtp;

            if (vc_rtp_is_rtcp(packet->data) ||
                memcmp(&packet->tuple, &world.parties[1].tuple, sizeof packet->tuple))
                continue;
            VC_ASSERT(vc_rtp_parse(packet->data, packet->sz, &rtp) == VC_RTP_OK);
            note(packet, &rtp);
        }
    }
}

/* Sources 0, 1 are VP8 of leg 0, 2 is VP9 of it, 3 VP8 of leg 2. */
static uint32_t leg_of(uint32_t source)
{
    return source == 3 ? 2 : 0;
}

static struct vc_command route_command(uint32_t route, uint32_t source)
{
    struct vc_command set = world_route_command(&world, route, 1, source, 0x100 + route, 1);

    if (route == 2) {
        set.u.route_set.rtx_ssrc = 0x202;
        set.u.route_set.rtx_pt = 99;
    }
    return set;
}

static void set_table(uint32_t source)
{
    struct vc_command set;

    for (uint32_t leg = 0; leg < 3; leg++) {
        world.parties[leg].owner = leg % world.setup.worker_cnt;
        set = world_leg_command(&world, leg, VC_SRTP_AEAD_AES_128_GCM);
        set.u.leg_set.rx_ext[VC_EXT_DEPENDENCY] = 3;
        set.u.leg_set.tx_ext[VC_EXT_DEPENDENCY] = 4;
        for (uint32_t w = 0; w < world.setup.worker_cnt; w++)
            VC_ASSERT(world_command(&world, w, set) == VC_STATUS_OK);
    }
    for (uint32_t i = 0; i < 4; i++) {
        set = world_source_command(i, leg_of(i), 0xb0 + i, 1);
        set.u.source_set.codec = i == 2 ? VC_CODEC_VP9 : VC_CODEC_VP8;
        VC_ASSERT(world_command(&world, world.parties[leg_of(i)].owner, set) == VC_STATUS_OK);
    }
    for (uint32_t route = 1; route < 3; route++)
        VC_ASSERT(world_command(&world, world.parties[1].owner, route_command(route, source)) ==
                  VC_STATUS_OK);
}

static void send_media(uint32_t source)
{
    uint8_t clear[64] = { 0x90, 96 }, sealed[128], n = next() % 24;
    struct vc_crypto_item item = { .key = &world.parties[leg_of(source)].up, .src = clear,
                                   .dst = sealed, .hdr_sz = 20, .index = indices[source] };

    indices[source] += 1 + (n == 23);
    clear[0] |= next() % 8 ? 0 : 0x20; /* padding */
    vc_store_be16(clear + 2, (uint16_t)item.index);
    vc_store_be32(clear + 4, (uint32_t)(world.now_ns / 100000 * 9) + (uint32_t)next() * 300);
    vc_store_be32(clear + 8, 0xb0 + source);
    memcpy(clear + 12, "\xbe\xde\0\1\x32", 5);
    for (uint32_t i = 17; i < 20u + n; i++)
        clear[i] = next();
    if (n > 6 && clear[19] & 1) { /* a key frame with all ids, or nothing would ever pass */
        clear[20] = source == 2 ? 0xa8 : 0x90;
        clear[21] = source == 2 ? clear[21] : 0xf0;
        clear[source == 2 ? 23 : 26] &= 0xf0;
    }
    item.src_sz = 20u + n;
    VC_ASSERT(vc_crypto_seal_rtp(world.crypto, &item, 1) == 1);
    world_put(&world, world.parties[leg_of(source)].owner, leg_of(source), sealed, item.dst_sz);
}

static void send_report(uint32_t source)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_sr sr = { (uint64_t)(next() % 16) << 32 | next32(), next32(), 1, 1 };

    VC_ASSERT(!vc_rtcp_write_sr(&writer, 0xb0 + source, &sr, NULL, 0));
    world_send_rtcp(&world, leg_of(source), data, writer.sz);
}

static void send_nack(uint32_t route)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_nack nack = { (uint16_t)(100 + next()), (uint16_t)(next() << 8 | next()) };

    VC_ASSERT(!vc_rtcp_write_nack(&writer, 1, 0x100 + route, &nack, 1));
    world_send_rtcp(&world, 1, data, writer.sz);
}

static void act(uint8_t what)
{
    uint32_t owner = world.parties[1].owner, route = 1 + (what >> 4 & 1), source = what >> 6;
    struct vc_command filter = { .type = VC_CMD_ROUTE_FILTER,
                                 .u.route_filter = { .route = route, .paused = source & 1 } };

    switch (what & 15) {
    case 0:
    case 1:
        world_command(&world, owner, route_command(route, source));
        break;
    case 2:
        world_command(&world, owner, filter);
        break;
    case 3:
        send_report(source);
        break;
    case 4:
        send_nack(route);
        break;
    case 5:
        step((uint64_t)next() * 20 * WORLD_MS);
        break;
    case 6:
        world_command(&world, owner, (struct vc_command){ .type = VC_CMD_ROUTE_REMOVE,
                                                          .u.id.id = route });
        world_command(&world, owner, route_command(route, source));
        break;
    case 7:
        step(0);
        world_restart(&world);
        set_table(source);
        break;
    default:
        send_media(source);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    input = data;
    left = sz;
    memset(seen, 0, sizeof seen);
    for (uint32_t i = 0; i < 4; i++)
        indices[i] = 65500 + i;
    world_init(&world, 1 + next() % 2);
    world.packets = 256;
    world.setup.video_slots = 32;
    world_start(&world);
    set_table(0);
    for (uint32_t i = 0; left && i < 300; i++) {
        act(next());
        step(WORLD_MS);
    }
    step(10 * WORLD_MS);
    world_fini(&world);
    return 0;
}
