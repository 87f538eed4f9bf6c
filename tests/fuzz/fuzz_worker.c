/* SPDX-License-Identifier: MIT */
/* A whole worker: the bytes are datagrams, as they come, with a wrong tag, or well sealed (so that
   what lies behind the tag is reached too: headers, extensions, payloads, RTCP).  After each duty
   cycle every law holds. */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

static struct world world;
static uint16_t sequence;

static void seal_and_put(uint32_t leg, const uint8_t *data, uint32_t sz, int rtcp, int known)
{
    uint8_t clear[1700], sealed[2200];
    struct vc_rtp rtp;
    struct vc_crypto_item item = { .key = &world.parties[leg].up, .src_sz = sz,
                                   .dst = sealed, .index = world.parties[leg].rtcp_index++ };

    if (sz < 16 || sz > 1700)
        return;
    memcpy(clear, data, sz);
    if (known && rtcp) { /* a NACK of a stream that there is */
        sz &= ~3u;
        clear[0] = 0x81;
        clear[1] = 205;
        vc_store_be16(clear + 2, (uint16_t)(sz / 4 - 1));
        vc_store_be32(clear + 8, clear[11] & 1 ? 0x100 + clear[11] % 6 : leg == 2 ? 0x100 : 0x103);
        vc_store_be16(clear + 12, (uint16_t)(100 + clear[13] % 8)); /* what may have left */
        item.src_sz = sz;
    } else if (known) { /* a stream that there is: the rest is the fuzzer's */
        clear[0] = 0x80 | (clear[0] & 0x3f);
        vc_store_be16(clear + 2, (uint16_t)(sequence += 1 + clear[2] % 3));
        vc_store_be32(clear + 8, 0x80808080 + (clear[11] & 1)); /* or its RTX stream */
    }
    item.src = clear;
    if (rtcp) {
        if (vc_crypto_seal_rtcp(world.crypto, &item, 1) == 1)
            world_put(&world, 0, leg, sealed, item.dst_sz);
    } else if (vc_rtp_parse(clear, sz, &rtp) == VC_RTP_OK) {
        item.hdr_sz = rtp.header_sz;
        item.index = rtp.seq;
        if (vc_crypto_seal_rtp(world.crypto, &item, 1) == 1)
            world_put(&world, 0, leg, sealed, item.dst_sz);
    }
}

static void open_call(void)
{
    static const uint32_t suites[] = { VC_SRTP_AEAD_AES_128_GCM, VC_SRTP_AES_CM_128_HMAC_SHA1_80 };
    struct vc_command set;

    sequence = 0;
    world_init(&world, 1);
    world.packets = 128;
    world_start(&world);
    for (uint32_t leg = 0; leg < 3; leg++)
        world_leg(&world, leg, 0, suites[leg % 2]);
    for (uint32_t leg = 0; leg < 3; leg++) {
        set = world_leg_command(&world, leg, suites[leg % 2]);
        set.u.leg_set.flags = VC_LEG_FLAGS;
        set.u.leg_set.rx_ext[VC_EXT_TRANSPORT_CC] = 3;
        set.u.leg_set.rx_ext[VC_EXT_AUDIO_LEVEL] = 4;
        set.u.leg_set.rx_ext[VC_EXT_DEPENDENCY] = 5;
        set.u.leg_set.tx_ext[VC_EXT_AUDIO_LEVEL] = 6;
        set.u.leg_set.tx_ext[VC_EXT_DEPENDENCY] = 7;
        set.u.leg_set.tx_ext[VC_EXT_ABS_SEND_TIME] = leg ? 8 : 0;
        set.u.leg_set.tx_ext[VC_EXT_TRANSPORT_CC] = leg ? 15 : 0;
        world_command(&world, 0, set);
    }
    for (uint32_t source = 0; source < 2; source++) {
        set = world_source_command(source, source, 0x80808080, (int)source);
        set.u.source_set.rtx_ssrc = 0x80808081;
        set.u.source_set.rtx_pt = 97;
        set.u.source_set.red_pt = 63;
        world_command(&world, 0, set);
    }
    set = world_source_command(2, 0, 0, 1);
    set.u.source_set.flags = VC_SOURCE_BY_LABEL | VC_SOURCE_BY_PT;
    set.u.source_set.codec = VC_CODEC_VP9;
    world_command(&world, 0, set);
    for (uint32_t route = 0; route < 6; route++) {
        set = world_route_command(&world, route, 2 - route % 2 * 2, route % 3, 0x100 + route,
                                  route % 3 > 0);
        set.u.route_set.red_pt = route > 3 ? 63 : 0;
        if (route > 2) {
            set.u.route_set.rtx_ssrc = 0x200 + route;
            set.u.route_set.rtx_pt = 99;
        }
        world_command(&world, 0, set);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    uint32_t held = 0;

    open_call();
    for (uint32_t i = 0; i < 4; i++) { /* something to ask for */
        struct world_rtp rtp = { .index = ++sequence, .ssrc = 0x80808080, .payload_sz = 20 };

        world_send(&world, 0, &rtp);
    }
    world_step(&world);
    while (sz >= 4) {
        uint32_t how = data[0], n = 1 + (data[1] | (uint32_t)(data[2] & 7) << 8), leg = how % 3;

        world.now_ns += (uint64_t)data[3] * WORLD_MS / 8;
        data += 4;
        sz -= 4;
        if (n > sz)
            n = (uint32_t)sz;
        if (how & 0x80)
            world_put(&world, 0, leg, data, n);
        else
            seal_and_put(leg, data, n, (how & 0x60) == 0x40, how & 0x28);
        data += n;
        sz -= n;
        if (how & 0x10 || ++held == 100) {
            world_step(&world);
            held = 0;
        }
        while (vc_io_mem_take(world.io[0]))
            ;
    }
    world_pass(&world, 10 * WORLD_MS);
    world_fini(&world);
    return 0;
}
