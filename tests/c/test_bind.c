/* SPDX-License-Identifier: MIT */
/* Whose packet is it: SSRCs bound by (mid, rid) or payload type, by authentic packets alone, at
   most VC_LEG_BINDINGS of a leg, moves included; what was signalled wins; the binding is told of, dumped, and
   outlives the process. */
#include "world.h"

#include "check.h"

static struct world world;

struct wire { /* what leg 1's party sends */
    uint64_t index;
    uint32_t ssrc;
    uint8_t pt, flip, two_byte;
    const char *mid, *rid; /* ids 1 and 2 */
};

static uint32_t put_label(uint8_t *p, uint8_t id, const char *label, int two_byte)
{
    uint32_t sz = label ? (uint32_t)strlen(label) : 0;

    if (!sz)
        return 0;
    if (two_byte) {
        p[0] = id;
        p[1] = (uint8_t)sz;
    } else {
        p[0] = (uint8_t)(id << 4 | (sz - 1));
    }
    memcpy(p + 1 + two_byte, label, sz);
    return 1 + (uint32_t)two_byte + sz;
}

static void send(struct wire wire)
{
    uint8_t clear[200] = { 0x90, wire.pt }, sealed[300];
    struct vc_crypto_item item = { .key = &world.parties[1].up, .src = clear, .dst = sealed,
                                   .index = wire.index };
    uint32_t sz = 16;

    vc_store_be16(clear + 2, (uint16_t)wire.index);
    vc_store_be32(clear + 8, wire.ssrc);
    vc_store_be16(clear + 12, wire.two_byte ? 0x1000 : 0xbede);
    sz += put_label(clear + sz, 1, wire.mid, wire.two_byte);
    sz += put_label(clear + sz, 2, wire.rid, wire.two_byte);
    sz = (sz + 3) & ~3u;
    vc_store_be16(clear + 14, (uint16_t)((sz - 16) / 4));
    item.hdr_sz = sz;
    item.src_sz = sz + 20;
    CHECK_EQ(vc_crypto_seal_rtp(world.crypto, &item, 1), 1);
    sealed[item.dst_sz - 1] ^= wire.flip;
    world_put(&world, 0, 1, sealed, item.dst_sz);
    world_step(&world);
}

static void open_call(void)
{
    world_init(&world, 1);
    world.setup.history_audio = 16;
    world_start(&world);
    world_leg(&world, 1, 0, VC_SRTP_AEAD_AES_128_GCM);
}

static enum vc_status expect(uint32_t id, uint32_t flags, const char *mid, const char *rid,
                             uint8_t pt)
{
    struct vc_command set = world_source_command(id, 1, 0, 0);

    set.u.source_set.flags = flags;
    set.u.source_set.pt = pt;
    memcpy(set.u.source_set.mid, mid, strlen(mid));
    memcpy(set.u.source_set.rid, rid, strlen(rid));
    return world_command(&world, 0, set);
}

static uint32_t bound_to(uint32_t id)
{
    const struct vc_source *source = &world.node->sources[id];

    return source->bound ? source->ssrc : 0;
}

static uint64_t unknown(void)
{
    return world_counters(&world, 0)->drops[VC_DROP_UNKNOWN_SSRC];
}

static void test_labels(void)
{
    open_call();
    CHECK_EQ(expect(5, VC_SOURCE_BY_LABEL, "snd1", "", 111), VC_STATUS_OK);
    send((struct wire){ .index = 40, .ssrc = 0xfeed, .mid = "snd0" });
    CHECK_EQ(unknown(), 1);
    send((struct wire){ .index = 40, .ssrc = 0xfeed, .mid = "snd1", .rid = "hi" }); /* no such */
    CHECK_EQ(unknown(), 2);
    send((struct wire){ .index = 40, .ssrc = 0xfeed, .mid = "snd1", .flip = 1 }); /* forged */
    CHECK_EQ(bound_to(5), 0);
    send((struct wire){ .index = 40, .ssrc = 0xfeed, .mid = "snd1" });
    CHECK_EQ(bound_to(5), 0xfeed);
    send((struct wire){ .index = 41, .ssrc = 0xfeed }); /* labels come with the first packets */
    send((struct wire){ .index = 42, .ssrc = 0xfeed, .mid = "else" }); /* the SSRC says more */
    CHECK_EQ(world_counters(&world, 0)->routed, 3);
    send((struct wire){ .index = 41, .ssrc = 0xfeee, .mid = "snd1" }); /* the label is taken */
    CHECK_EQ(unknown(), 3);
    world_fini(&world);
}

/* Two of one mid, told apart by rid alone, in either form of the extension. */
static void test_two_of_one_mid(void)
{
    uint32_t events;

    open_call();
    CHECK_EQ(expect(3, VC_SOURCE_BY_LABEL, "1", "lo", 96), VC_STATUS_OK);
    CHECK_EQ(expect(4, VC_SOURCE_BY_LABEL, "1", "hi", 96), VC_STATUS_OK);
    events = world.event_cnt;
    send((struct wire){ .index = 1, .ssrc = 0xa1, .pt = 96, .mid = "1" });
    CHECK_EQ(unknown(), 1);
    send((struct wire){ .index = 1, .ssrc = 0xa2, .pt = 96, .mid = "1", .rid = "hi",
                        .two_byte = 1 });
    send((struct wire){ .index = 1, .ssrc = 0xa1, .pt = 96, .mid = "1", .rid = "lo" });
    CHECK_EQ(bound_to(3), 0xa1);
    CHECK_EQ(bound_to(4), 0xa2);
    world_command(&world, 0, (struct vc_command){ 0 });
    CHECK_EQ(world.event_cnt, events + 4); /* each: bound, active */
    CHECK_EQ(world.events[events % 64].type, VC_EVT_BOUND);
    CHECK_EQ(world.events[events % 64].u.bound.source, 4);
    CHECK_EQ(world.events[events % 64].u.bound.ssrc, 0xa2);

    events = world.event_cnt;
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_DUMP }), VC_STATUS_OK);
    CHECK_EQ(world.event_cnt, events + 5); /* the leg, and twice: source, bound */
    CHECK_EQ(world.events[(events + 1) % 64].type, VC_EVT_DUMP_SOURCE);
    CHECK_EQ(world.events[(events + 2) % 64].type, VC_EVT_BOUND);
    CHECK_EQ(world.events[(events + 2) % 64].u.bound.ssrc, 0xa1);
    CHECK_EQ(world.events[(events + 4) % 64].u.bound.ssrc, 0xa2);

    world_restart(&world); /* the sender no longer says whose its packets are */
    world_leg(&world, 1, 0, VC_SRTP_AEAD_AES_128_GCM);
    CHECK_EQ(expect(3, VC_SOURCE_BY_LABEL, "1", "lo", 96), VC_STATUS_OK);
    CHECK_EQ(expect(4, VC_SOURCE_BY_LABEL, "1", "hi", 96), VC_STATUS_OK);
    send((struct wire){ .index = 2, .ssrc = 0xa1, .pt = 96 });
    send((struct wire){ .index = 2, .ssrc = 0xa2, .pt = 96 });
    CHECK_EQ(world_counters(&world, 0)->routed, 2);
    CHECK_EQ(unknown(), 0);
    world_fini(&world);
}

static void test_payload_type(void)
{
    open_call();
    CHECK_EQ(expect(6, VC_SOURCE_BY_PT, "", "", 7), VC_STATUS_OK);
    send((struct wire){ .index = 1, .ssrc = 0xb1, .pt = 8 });
    send((struct wire){ .index = 1, .ssrc = 0xb1, .pt = 7, .mid = "x" }); /* says whose: nobody's */
    send((struct wire){ .index = 1, .ssrc = 0xb1, .pt = 7, .rid = "x" });
    CHECK_EQ(unknown(), 3);
    CHECK_EQ(expect(7, VC_SOURCE_BY_PT | VC_SOURCE_BY_LABEL, "m", "", 7), VC_STATUS_OK);
    send((struct wire){ .index = 1, .ssrc = 0xb1, .pt = 7 }); /* of which of the two? */
    CHECK_EQ(unknown(), 4);
    send((struct wire){ .index = 1, .ssrc = 0xb2, .pt = 7, .mid = "m" });
    CHECK_EQ(bound_to(7), 0xb2);
    send((struct wire){ .index = 1, .ssrc = 0xb1, .pt = 7 });
    CHECK_EQ(bound_to(6), 0xb1);
    world_fini(&world);
}

/* A signalled SSRC is its source's, whatever the packet's labels say. */
static void test_signalled(void)
{
    open_call();
    CHECK_EQ(expect(6, VC_SOURCE_BY_LABEL, "m", "", 7), VC_STATUS_OK);
    world_source(&world, 7, 1, 0xc0, 0);
    send((struct wire){ .index = 1, .ssrc = 0xc0, .pt = 7, .mid = "m" });
    CHECK_EQ(bound_to(6), 0);
    CHECK_EQ(world.node->sources[7].seen, 1);
    world_fini(&world);
}

/* Any number of SSRCs: so many are bound, and stay. */
static void test_flood(void)
{
    const uint32_t taken = VC_LEG_BINDINGS;
    char mid[3] = "m0";

    open_call();
    for (uint32_t i = 0; i < VC_LEG_BINDINGS + 2; i++) {
        mid[1] = (char)('a' + i);
        CHECK_EQ(expect(i, VC_SOURCE_BY_LABEL, mid, "", 7), VC_STATUS_OK);
    }
    for (uint32_t ssrc = 1; ssrc <= 1000; ssrc++) {
        mid[1] = (char)('a' + ssrc % 20);
        send((struct wire){ .index = 1, .ssrc = ssrc, .pt = 7, .mid = mid });
    }
    CHECK_EQ(world.node->legs[1].binding_cnt, VC_LEG_BINDINGS);
    CHECK_EQ(world_counters(&world, 0)->routed, taken);
    CHECK_EQ(unknown(), 1000 - taken);
    for (uint32_t i = 1; i <= VC_LEG_BINDINGS; i++) {
        CHECK_EQ(bound_to(i), i);
        send((struct wire){ .index = 2, .ssrc = i, .pt = 7 });
    }
    CHECK_EQ(world_counters(&world, 0)->routed, taken + VC_LEG_BINDINGS);
    world_fini(&world);
}

/* A move is a binding too, also in the next process; what was bound goes with its source, as where
   the other side says that a stream has ended. */
static void test_moves_count(void)
{
    const uint32_t others = VC_LEG_BINDINGS - VC_SOURCE_MOVES - 1;
    char mid[3] = "m1";
    uint64_t refused;

    open_call();
    CHECK_EQ(expect(0, VC_SOURCE_BY_LABEL, "m0", "", 7), VC_STATUS_OK);
    for (uint32_t i = 1; i <= others + 1; i++, mid[1]++)
        CHECK_EQ(expect(i, VC_SOURCE_BY_LABEL, mid, "", 7), VC_STATUS_OK);
    for (uint32_t ssrc = 0xa0; ssrc <= 0xa0 + VC_SOURCE_MOVES; ssrc++)
        send((struct wire){ .index = 1, .ssrc = ssrc, .pt = 7, .mid = "m0" });
    CHECK_EQ(bound_to(0), 0xa0 + VC_SOURCE_MOVES);
    for (uint32_t i = 1; i <= others; i++) {
        mid[1] = (char)('0' + i);
        send((struct wire){ .index = 1, .ssrc = 0xb0 + i, .pt = 7, .mid = mid });
    }
    CHECK_EQ(unknown(), 0);
    for (int life = 0; life < 2; life++) {
        refused = unknown();
        mid[1] = (char)('1' + others);
        send((struct wire){ .index = 1, .ssrc = 0xc0, .pt = 7, .mid = mid }); /* one too many */
        send((struct wire){ .index = 1, .ssrc = 0xc1, .pt = 7, .mid = "m1" });
        CHECK_EQ(unknown(), refused + 2);
        CHECK_EQ(bound_to(1), 0xb1);
        if (life)
            break;
        world_restart(&world);
        world_leg(&world, 1, 0, VC_SRTP_AEAD_AES_128_GCM);
        for (uint32_t i = 0; i <= others + 1; i++) {
            mid[1] = (char)('0' + i);
            CHECK_EQ(expect(i, VC_SOURCE_BY_LABEL, mid, "", 7), VC_STATUS_OK);
        }
    }
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_SOURCE_REMOVE,
                                                           .u.id.id = 0 }), VC_STATUS_OK);
    send((struct wire){ .index = 1, .ssrc = 0xc0, .pt = 7, .mid = mid });
    send((struct wire){ .index = 1, .ssrc = 0xc1, .pt = 7, .mid = "m1" });
    CHECK_EQ(bound_to(others + 1), 0xc0);
    CHECK_EQ(bound_to(1), 0xc1);
    world_fini(&world);
}

/* The label comes with another SSRC (a restarted encoder): the source goes there, its indices begin
   anew, and never back, be it in this process or the next. */
static void test_moves(void)
{
    const struct vc_source *source;

    open_call();
    source = &world.node->sources[5];
    CHECK_EQ(expect(5, VC_SOURCE_BY_LABEL, "snd1", "", 111), VC_STATUS_OK);
    world_leg(&world, 2, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_route(&world, 1, 2, 5, 0x101, 0);
    for (uint64_t i = 60000; i < 60010; i++)
        send((struct wire){ .index = i, .ssrc = 0xa1, .pt = 111, .mid = "snd1" });
    send((struct wire){ .index = 7, .ssrc = 0xa2, .pt = 111, .mid = "snd2" }); /* whose? */
    send((struct wire){ .index = 7, .ssrc = 0xa2, .pt = 13, .mid = "snd1" }); /* not agreed on */
    CHECK_EQ(unknown(), 2);
    send((struct wire){ .index = 7, .ssrc = 0xa2, .pt = 111, .mid = "snd1", .flip = 1 });
    CHECK_EQ(bound_to(5), 0xa1);
    send((struct wire){ .index = 60010, .ssrc = 0xa1, .pt = 111 }); /* a forged one did no harm */
    send((struct wire){ .index = 7, .ssrc = 0xa2, .pt = 111, .mid = "snd1" });
    send((struct wire){ .index = 8, .ssrc = 0xa2, .pt = 111 });
    CHECK_EQ(bound_to(5), 0xa2);
    CHECK_EQ(source->stats->ssrc, 0xa2);
    CHECK_EQ(source->stats->lost, 0);
    CHECK_EQ(world.node->legs[1].binding_cnt, 1);
    send((struct wire){ .index = 60000, .ssrc = 0xa1, .pt = 111, .mid = "snd1" }); /* played again */
    CHECK_EQ(bound_to(5), 0xa2);
    CHECK_EQ(unknown(), 3);
    world_take(&world);
    CHECK_EQ(world_count(&world, 2, 0x101), 13);
    CHECK_EQ(world_last(&world, 2, 0x101)->index, 112); /* from 100 on, no gap */

    world_restart(&world);
    world_leg(&world, 1, 0, VC_SRTP_AEAD_AES_128_GCM);
    CHECK_EQ(expect(5, VC_SOURCE_BY_LABEL, "snd1", "", 111), VC_STATUS_OK);
    CHECK_EQ(bound_to(5), 0xa2);
    send((struct wire){ .index = 60000, .ssrc = 0xa1, .pt = 111, .mid = "snd1" });
    CHECK_EQ(unknown(), 1);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* The process ends between a move and the first packet that leaves of the new stream: the offset
   that is stored is the old one's. */
static void test_moves_unsent(void)
{
    struct vc_command pause = { .type = VC_CMD_ROUTE_FILTER, .u.route_filter = { .route = 1,
                                .paused = 1, .max_spatial = VC_NONE, .max_temporal = VC_NONE } };
    uint64_t before;

    open_call();
    CHECK_EQ(expect(5, VC_SOURCE_BY_LABEL, "snd1", "", 111), VC_STATUS_OK);
    world_leg(&world, 2, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_route(&world, 1, 2, 5, 0x101, 0);
    for (uint64_t i = 60000; i < 60010; i++)
        send((struct wire){ .index = i, .ssrc = 0xa1, .pt = 111, .mid = "snd1" });
    world_take(&world);
    before = world_last(&world, 2, 0x101)->index;
    CHECK_EQ(world_command(&world, 0, pause), VC_STATUS_OK);
    send((struct wire){ .index = 7, .ssrc = 0xa2, .pt = 111, .mid = "snd1" });
    world_restart(&world);
    world_leg(&world, 1, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_leg(&world, 2, 0, VC_SRTP_AEAD_AES_128_GCM);
    CHECK_EQ(expect(5, VC_SOURCE_BY_LABEL, "snd1", "", 111), VC_STATUS_OK);
    world_route(&world, 1, 2, 5, 0x101, 0);
    for (uint64_t i = 8; i < 12; i++)
        send((struct wire){ .index = i, .ssrc = 0xa2, .pt = 111 });
    world_take(&world);
    CHECK_EQ(world_count(&world, 2, 0x101), 14);
    CHECK(world_last(&world, 2, 0x101)->index > before);
    CHECK(world_last(&world, 2, 0x101)->index < before + 5000);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

int main(void)
{
    test_labels();
    test_two_of_one_mid();
    test_payload_type();
    test_signalled();
    test_flood();
    test_moves_count();
    test_moves();
    test_moves_unsent();
    return check_report();
}
