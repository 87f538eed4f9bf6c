/* SPDX-License-Identifier: MIT */
/* RTX and padding from a publisher: what was lost takes its own number on the routes, what brings
   nothing is acknowledged and leaves no gap; whose stream it is; what is refused. */
#include "world.h"

#include "check.h"
#include "rtcp.h"

static struct world world;

struct wire { /* what a publisher sends */
    uint64_t index;
    uint32_t ssrc, osn, payload_sz, padding; /* osn: VC_NONE: not RTX */
    uint8_t pt, key, flip;
    uint8_t vp8; /* a VP8 descriptor: 1, 2: a key frame's first and later packets; 3, 4: others */
    uint16_t number; /* transport-wide; 0: the index */
    char mid[5], rid[5]; /* 4 bytes each, when given; of RTX the repaired-rid */
};

static uint32_t seal(const struct wire *wire, uint8_t *out)
{
    uint8_t clear[1700] = { 0x90, wire->pt };
    uint32_t sz = 16;
    struct vc_crypto_item item = { .key = &world.parties[0].up, .src = clear, .dst = out,
                                   .index = wire->index };

    vc_store_be16(clear + 2, (uint16_t)wire->index);
    vc_store_be32(clear + 4, 90000);
    vc_store_be32(clear + 8, wire->ssrc);
    vc_store_be16(clear + 12, 0xbede);
    clear[sz] = 3 << 4 | 1; /* transport-wide number: that of the packet */
    vc_store_be16(clear + sz + 1, wire->number ? wire->number : (uint16_t)wire->index);
    sz += 3;
    for (int i = 0; i < 2; i++) {
        const char *label = i ? wire->rid : wire->mid;
        int id = !i ? 1 : wire->osn == VC_NONE ? 2 : 4;

        if (!label[0])
            continue;
        clear[sz] = (uint8_t)(id << 4 | 3);
        memcpy(clear + sz + 1, label, 4);
        sz += 5;
    }
    sz = (sz + 3) & ~3u;
    vc_store_be16(clear + 14, (uint16_t)((sz - 16) / 4));
    item.hdr_sz = sz;
    if (wire->osn != VC_NONE) {
        vc_store_be16(clear + sz, (uint16_t)wire->osn);
        sz += 2;
    }
    for (uint32_t i = 0; i < wire->payload_sz; i++)
        clear[sz + i] = (uint8_t)(i + (wire->osn != VC_NONE ? wire->osn : wire->index));
    if (wire->payload_sz)
        clear[sz] = wire->key ? 0x67 : 0x41;
    if (wire->payload_sz && wire->vp8) {
        clear[sz] = wire->vp8 % 2 ? 0x10 : 0;
        clear[sz + 1] = wire->vp8 > 2;
    }
    sz += wire->payload_sz + wire->padding;
    if (wire->padding) {
        clear[0] |= 0x20;
        clear[sz - 1] = (uint8_t)wire->padding;
    }
    item.src_sz = sz;
    CHECK_EQ(vc_crypto_seal_rtp(world.crypto, &item, 1), 1);
    if (wire->flip)
        out[item.dst_sz - 1] ^= 1;
    return item.dst_sz;
}

static void send(struct wire wire)
{
    uint8_t out[1800];

    world_put(&world, 0, 0, out, seal(&wire, out));
    world_step(&world);
}

static void media(uint64_t index)
{
    send((struct wire){ .index = index, .ssrc = 0xb0, .osn = VC_NONE, .payload_sz = 100, .pt = 96,
                        .key = index == 1 });
}

static void rtx(uint64_t index, uint16_t osn)
{
    send((struct wire){ .index = index, .ssrc = 0xc0, .osn = osn, .payload_sz = 100, .pt = 97 });
}

static void set_table(void)
{
    struct vc_command set;

    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    set = world_leg_command(&world, 0, VC_SRTP_AEAD_AES_128_GCM);
    set.u.leg_set.rx_ext[VC_EXT_TRANSPORT_CC] = 3;
    set.u.leg_set.rx_ext[VC_EXT_RRID] = 4;
    set.u.leg_set.flags = VC_LEG_NACK | VC_LEG_FEEDBACK;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    set = world_source_command(0, 0, 0xb0, 1);
    set.u.source_set.rtx_pt = 97;
    set.u.source_set.rtx_ssrc = 0xc0;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    world_route(&world, 1, 1, 0, 0x101, 1);
}

static void open_call(void)
{
    world_init(&world, 1);
    world_start(&world);
    set_table();
}

static uint64_t drops(enum vc_drop reason)
{
    return world_counters(&world, 0)->drops[reason];
}

static void test_repairs(void)
{
    const struct world_got *got;
    uint8_t replay[1800];
    uint32_t sz;

    open_call();
    rtx(7, 1); /* nothing has come: no number can be told */
    CHECK_EQ(world_counters(&world, 0)->consumed, 1);
    media(1);
    media(2);
    media(5); /* out 100, 101, 104 */
    rtx(8, 4);
    world_take(&world);
    got = world_last(&world, 1, 0x101);
    CHECK_EQ(got->index, 103);
    CHECK_EQ(got->pt, 101);
    CHECK_EQ(got->timestamp, 90000 + 12345);
    CHECK_EQ(got->sz - got->header_sz, 100);
    CHECK_EQ(got->data[got->header_sz + 1], 5); /* payload 1 + osn */
    rtx(9, 4); /* again: nothing new */
    CHECK_EQ(world_counters(&world, 0)->consumed, 2);
    rtx(9, 3); /* a replay of the RTX stream's own */
    CHECK_EQ(drops(VC_DROP_REPLAYED), 1);
    send((struct wire){ .index = 10, .ssrc = 0xc0, .osn = 3, .payload_sz = 100, .pt = 97,
                        .flip = 1 });
    CHECK_EQ(drops(VC_DROP_AUTH_FAILED), 1);
    send((struct wire){ .index = 10, .ssrc = 0xc0, .osn = 3, .payload_sz = 60, .padding = 40,
                        .pt = 97 });
    world_take(&world);
    got = world_last(&world, 1, 0x101);
    CHECK_EQ(got->index, 102);
    CHECK_EQ(got->sz - got->header_sz, 60); /* without the padding */
    CHECK_EQ(got->data[0] & 0x20, 0);
    rtx(11, 3000); /* too far ahead to be believed */
    send((struct wire){ .index = 12, .ssrc = 0xc0, .osn = VC_NONE, .padding = 200, .pt = 97 });
    send((struct wire){ .index = 13, .ssrc = 0xc0, .osn = VC_NONE, .pt = 97 });
    send((struct wire){ .index = 14, .ssrc = 0xc0, .osn = 6, .pt = 97 }); /* a number, no payload */
    CHECK_EQ(world_counters(&world, 0)->consumed, 6);
    CHECK_EQ(world_counters(&world, 0)->rtx_rx, 8);
    CHECK_EQ(world_counters(&world, 0)->rtx_repaired, 2);
    rtx(15, 6); /* the last of a burst, before anything followed */
    media(7);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 7);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 106);
    CHECK_EQ(world.workers[0]->source_stats[0].lost, 3); /* of the way here, not after repair */
    CHECK_EQ(world.bad_cnt, 0);

    world_restart(&world);
    set_table();
    sz = seal(&(struct wire){ .index = 15, .ssrc = 0xc0, .osn = 9, .payload_sz = 9, .pt = 97 },
              replay);
    world_put(&world, 0, 0, replay, sz);
    world_step(&world);
    CHECK_EQ(drops(VC_DROP_REPLAYED), 1); /* the window outlived the process */
    media(10);
    rtx(16, 9);
    world_take(&world);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 108);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* Padding on the media's own stream: acknowledged, not forwarded, no gap. */
static void test_padding(void)
{
    open_call();
    for (uint64_t i = 1; i < 30; i++) {
        if (i % 3)
            media(i);
        else
            send((struct wire){ .index = i, .ssrc = 0xb0, .osn = VC_NONE, .padding = 100,
                                .pt = 96 });
    }
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 20);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 119); /* 20 in a row */
    CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_PADDING], 9);
    world_pass(&world, 60 * WORLD_MS);
    CHECK_EQ(world_counters(&world, 0)->feedback_tx, 1);
    CHECK_EQ(world_counters(&world, 0)->nacked, 0);
    world_fini(&world);
}

/* The transport-wide numbers that leg 0 was told have come; -1: one was called lost. */
static int acknowledged(void)
{
    int cnt = 0;

    for (uint32_t i = 0; i < world.got_cnt; i++) {
        const struct world_got *got = &world.got[i];

        for (uint32_t at = 0; got->leg == 0 && got->rtcp && at + 20 <= got->sz;) {
            const uint8_t *p = got->data + at;

            at += 4 * (vc_load_be16(p + 2) + 1u);
            if (p[0] != (0x80 | 15) || p[1] != 205)
                continue;
            if (p[20] >> 5 == 0 || p[20] & 0x80) /* a run of what has come: nothing is missing */
                return -1;
            CHECK_EQ((p[20] & 0x1f) << 8 | p[21], vc_load_be16(p + 14));
            cnt += vc_load_be16(p + 14);
        }
    }
    return cnt;
}

/* As Chromium probes: after a frame, padding on the RTX stream (224 bytes, no number), old packets
   once more on it, and without RTX padding on the media's own stream, under its timestamp. */
static void test_probing(void)
{
    struct vc_command set;
    uint64_t media_index = 1, rtx_index = 1;
    uint16_t number = 1;
    int rtx_on;

    for (rtx_on = 0; rtx_on < 2; rtx_on++) {
        open_call();
        set = world_source_command(2, 0, 0xb2, 1);
        set.u.source_set.codec = VC_CODEC_VP8;
        set.u.source_set.rtx_pt = 97;
        set.u.source_set.rtx_ssrc = 0xc2;
        CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
        world_route(&world, 2, 1, 2, 0x102, 1);
        media_index = rtx_index = number = 1;
        for (uint32_t frame = 0; frame < 20; frame++) {
            for (uint32_t i = 0; i < 2; i++, number++)
                send((struct wire){ .index = media_index++, .ssrc = 0xb2, .osn = VC_NONE,
                                    .payload_sz = 100, .pt = 96, .number = number,
                                    .vp8 = 1 + (i > 0) + 2 * (frame > 0) });
            for (uint32_t i = 0; i < 3; i++, number++)
                send(rtx_on && i == 0 ?
                         (struct wire){ .index = rtx_index++, .ssrc = 0xc2, .osn = VC_NONE,
                                        .padding = 224, .pt = 97, .number = number } :
                     rtx_on ?
                         (struct wire){ .index = rtx_index++, .ssrc = 0xc2, .payload_sz = 100,
                                        .pt = 97, .osn = (uint32_t)media_index - i, .vp8 = 1,
                                        .number = number } :
                         (struct wire){ .index = media_index++, .ssrc = 0xb2, .osn = VC_NONE,
                                        .padding = 224, .pt = 96, .number = number });
            world_pass(&world, 10 * WORLD_MS);
        }
        world_pass(&world, 60 * WORLD_MS);
        world_take(&world);
        CHECK_EQ(world_count(&world, 1, 0x102), 40);
        CHECK_EQ(world_last(&world, 1, 0x102)->index, 139); /* 40 in a row */
        CHECK_EQ(acknowledged(), 100);
        CHECK_EQ(world_counters(&world, 0)->consumed, rtx_on ? 60 : 0);
        CHECK_EQ(world_counters(&world, 0)->copy_drops[VC_COPY_DROP_PADDING], rtx_on ? 0 : 60);
        CHECK_EQ(world_counters(&world, 0)->nacked, 0);
        CHECK_EQ(world.workers[0]->source_stats[2].keyframes, 1);
        CHECK_EQ(world.bad_cnt, 0);
        world_fini(&world);
    }
}

static void bound(uint32_t source, uint32_t ssrc)
{
    CHECK_EQ(world.node->sources[source].rtx_bound, ssrc != 0);
    CHECK_EQ(world.node->sources[source].rtx_ssrc, ssrc);
}

static void set_labelled(void)
{
    set_table();
    for (uint32_t i = 1; i < 3; i++) {
        struct vc_command set = world_source_command(i, 0, 0, 1);

        set.u.source_set.flags = VC_SOURCE_BY_LABEL;
        set.u.source_set.rtx_pt = 99;
        set.u.source_set.pt = 98;
        memcpy(set.u.source_set.mid, "mid0", 4);
        memcpy(set.u.source_set.rid, i == 1 ? "rid1" : "rid2", 4);
        CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    }
}

static void test_binding(void)
{
    world_init(&world, 1);
    world_start(&world);
    set_labelled();
    /* not before its source is bound */
    send((struct wire){ .index = 1, .ssrc = 0xd2, .osn = 4, .payload_sz = 9, .pt = 99,
                        .mid = "mid0", .rid = "rid2" });
    CHECK_EQ(drops(VC_DROP_UNKNOWN_SSRC), 1);
    for (uint32_t i = 1; i < 3; i++)
        send((struct wire){ .index = 3, .ssrc = 0xe0 + i, .osn = VC_NONE, .payload_sz = 9, .pt = 98,
                            .mid = "mid0", .rid = { 'r', 'i', 'd', (char)('0' + i) } });
    send((struct wire){ .index = 1, .ssrc = 0xd2, .osn = 4, .payload_sz = 9, .pt = 99,
                        .mid = "mid0", .rid = "rid3" });
    CHECK_EQ(drops(VC_DROP_UNKNOWN_SSRC), 2);
    send((struct wire){ .index = 1, .ssrc = 0xd2, .osn = 4, .payload_sz = 9, .pt = 99,
                        .mid = "mid0", .rid = "rid2", .flip = 1 });
    bound(2, 0); /* not authentic */
    send((struct wire){ .index = 1, .ssrc = 0xd2, .osn = 4, .payload_sz = 9, .pt = 99,
                        .mid = "mid0", .rid = "rid2" });
    bound(1, 0);
    bound(2, 0xd2);
    send((struct wire){ .index = 2, .ssrc = 0xd2, .osn = 2, .payload_sz = 9, .pt = 99 });
    CHECK_EQ(world_counters(&world, 0)->rtx_rx, 2);
    CHECK_EQ(world_counters(&world, 0)->rtx_repaired, 2); /* labels are no longer needed */
    send((struct wire){ .index = 1, .ssrc = 0xd1, .osn = 4, .payload_sz = 9, .pt = 99,
                        .mid = "mid0", .rid = "rid1" });
    bound(1, 0xd1);
    CHECK_EQ(world_counters(&world, 0)->rtx_repaired, 3);

    world_restart(&world); /* nor in the next process */
    set_labelled();
    bound(1, 0xd1);
    bound(2, 0xd2);
    send((struct wire){ .index = 2, .ssrc = 0xd1, .osn = 1, .payload_sz = 9, .pt = 99 });
    CHECK_EQ(world_counters(&world, 0)->rtx_repaired, 1);

    /* the source goes to another SSRC: its RTX stream is another too, the old one can tell nothing */
    send((struct wire){ .index = 40, .ssrc = 0xe8, .osn = VC_NONE, .payload_sz = 9, .pt = 98,
                        .mid = "mid0", .rid = "rid1" });
    bound(1, 0);
    send((struct wire){ .index = 3, .ssrc = 0xd1, .osn = 39, .payload_sz = 9, .pt = 99,
                        .mid = "mid0", .rid = "rid1" });
    bound(1, 0);
    send((struct wire){ .index = 1, .ssrc = 0xd8, .osn = 39, .payload_sz = 9, .pt = 99,
                        .mid = "mid0", .rid = "rid1" });
    bound(1, 0xd8);
    CHECK_EQ(world_counters(&world, 0)->rtx_repaired, 2);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

static void test_refused(void)
{
    struct vc_command set;

    open_call();
    set = world_source_command(1, 0, 0xc0, 1); /* is the RTX stream of another */
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_DUPLICATE_SSRC);
    set = world_source_command(1, 0, 0xb1, 1);
    set.u.source_set.rtx_ssrc = 0xc1;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_BAD_VALUE); /* of which payload type? */
    set.u.source_set.rtx_pt = 128;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_BAD_VALUE);
    set.u.source_set.rtx_pt = 97;
    set.u.source_set.rtx_ssrc = 0xb1;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_BAD_VALUE);
    set.u.source_set.rtx_ssrc = 0xb0;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_DUPLICATE_SSRC);
    set.u.source_set.rtx_ssrc = 0xc0;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_DUPLICATE_SSRC);
    set = world_source_command(0, 0, 0xb0, 1);
    set.u.source_set.rtx_pt = 97;
    set.u.source_set.rtx_ssrc = 0xc2;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_IDENTITY);
    world_fini(&world);
}

int main(void)
{
    test_repairs();
    test_padding();
    test_probing();
    test_binding();
    test_refused();
    return check_report();
}
