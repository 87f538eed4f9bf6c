/* SPDX-License-Identifier: MIT */
/* Repair of sound that came as RED: to a receiver that takes none the newest block leaves again as
   it left, on the RTX stream or byte for byte; to one that takes it the whole, byte for byte or not
   at all.  A tap on what leaves: no (key, SSRC, index) has two contents, whatever is asked for and
   however the receiver's wishes change meanwhile. */
#include "world.h"

#include "check.h"
#include "rtcp.h"

enum { OPUS = 111, RED = 63, OUT_OPUS = 101, OUT_RED = 45, RTX = 102, OLD = 33, NEW = 44 };
enum { SZ = 4 + 1 + OLD + NEW };
#define SSRC 0x101u
#define RTX_SSRC 0x201u
#define NUMBERS 4096u

static struct world world;

static struct left { /* the first packet with this number, and how often it left */
    uint8_t data[256], clear[128];
    uint32_t sz, clear_sz, cnt;
    uint8_t pt;
} left[2][NUMBERS]; /* on SSRC, on RTX_SSRC */

static uint64_t seed, repeated, repaired;

static uint32_t dice(uint32_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % n;
}

static struct vc_command route_command(uint8_t red_pt, int rtx)
{
    struct vc_command set = world_route_command(&world, 1, 1, 0, SSRC, 0);

    set.u.route_set.red_pt = red_pt;
    set.u.route_set.rtx_ssrc = rtx ? RTX_SSRC : 0;
    set.u.route_set.rtx_pt = rtx ? RTX : 0;
    set.u.route_set.rtx_seq_start = rtx ? 500 : 0;
    return set;
}

static void open_call(uint8_t red_pt, int rtx)
{
    struct vc_command set;

    memset(left, 0, sizeof left);
    repeated = repaired = 0;
    world_init(&world, 1);
    world_start(&world);
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    set = world_source_command(0, 0, 0xa0, 0);
    set.u.source_set.red_pt = RED;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    CHECK_EQ(world_command(&world, 0, route_command(red_pt, rtx)), VC_STATUS_OK);
}

/* Keeps what left first under each number; what leaves under it again is the same. */
static void tap(const struct vc_io_mem_packet *packet)
{
    struct vc_crypto_item item = { .key = &world.parties[1].down, .src = packet->data,
                                   .src_sz = packet->sz };
    struct vc_rtp rtp;
    struct left *one;
    uint8_t clear[1700];
    uint32_t sz;

    if (vc_rtp_is_rtcp(packet->data))
        return;
    VC_ASSERT(vc_rtp_parse(packet->data, packet->sz, &rtp) == VC_RTP_OK);
    VC_ASSERT(rtp.seq < NUMBERS && packet->sz <= sizeof one->data);
    VC_ASSERT(rtp.ssrc == SSRC || rtp.ssrc == RTX_SSRC);
    one = &left[rtp.ssrc == RTX_SSRC][rtp.seq];
    item.dst = clear;
    item.hdr_sz = rtp.header_sz;
    item.index = rtp.seq;
    CHECK_EQ(vc_crypto_open_rtp(world.crypto, &item, 1), 1);
    sz = item.dst_sz - rtp.header_sz;
    VC_ASSERT(sz <= sizeof one->clear);
    if (one->cnt++) {
        repeated++;
        CHECK(one->sz == packet->sz && !memcmp(one->data, packet->data, packet->sz));
        return;
    }
    memcpy(one->data, packet->data, packet->sz);
    memcpy(one->clear, clear + rtp.header_sz, sz);
    one->sz = packet->sz;
    one->clear_sz = sz;
    one->pt = rtp.pt;
    if (rtp.ssrc == RTX_SSRC) { /* what left under the number that it says, as the codec */
        const struct left *was = &left[0][vc_load_be16(one->clear) % NUMBERS];

        repaired++;
        CHECK_EQ(rtp.pt, RTX);
        CHECK_EQ(was->pt, OUT_OPUS);
        CHECK(was->clear_sz == sz - 2 && !memcmp(was->clear, one->clear + 2, sz - 2));
    }
}

static void settle(uint64_t ns)
{
    const struct vc_io_mem_packet *packet;

    world_pass(&world, ns);
    while ((packet = vc_io_mem_take(world.io[0])))
        tap(packet);
}

/* A packet of sound: RED, or its newest block alone. */
static void send(uint64_t index, int red)
{
    static const uint8_t head[5] = { 0x80 | OPUS, 960 >> 6, (960 & 63) << 2, OLD, OPUS };
    uint8_t clear[12 + SZ] = { 0x80, red ? RED : OPUS }, sealed[200];
    struct vc_crypto_item item = { .key = &world.parties[0].up, .src = clear, .dst = sealed,
                                   .hdr_sz = 12, .index = index };

    vc_store_be16(clear + 2, (uint16_t)index);
    vc_store_be32(clear + 4, (uint32_t)index * 960);
    vc_store_be32(clear + 8, 0xa0);
    if (red) {
        memcpy(clear + 12, head, sizeof head);
        memset(clear + 12 + sizeof head, (int)index - 1, OLD);
    }
    memset(clear + 12 + (red ? sizeof head + OLD : 0), (int)index, NEW);
    item.src_sz = 12 + (red ? SZ : NEW);
    CHECK_EQ(vc_crypto_seal_rtp(world.crypto, &item, 1), 1);
    world_put(&world, 0, 0, sealed, item.dst_sz);
    settle(0);
}

static void ask(uint16_t pid, uint16_t blp)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };

    CHECK(!vc_rtcp_write_nack(&writer, 1, SSRC, &(struct vc_rtcp_nack){ pid, blp }, 1));
    world_send_rtcp(&world, 1, data, writer.sz);
    for (int i = 0; i < 4; i++)
        settle(60 * WORLD_MS);
}

/* Numbers 100.. : each third of them is plain as it comes, the others RED. */
static void send_some(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++)
        send(i, i % 3 != 0);
}

/* To one that takes no RED, by RTX. */
static void test_rtx(void)
{
    open_call(0, 1);
    send_some(1, 21);
    ask(105, 0x3); /* in 6 plain, 7 and 8 RED */
    CHECK_EQ(world_counters(&world, 0)->resent_rtx, 3);
    CHECK_EQ(repaired, 3);
    CHECK_EQ(repeated, 0);
    for (uint16_t i = 0; i < 3; i++) {
        const struct left *one = &left[1][500 + i];

        CHECK_EQ(vc_load_be16(one->clear), 105 + i);
        CHECK_EQ(one->clear_sz, 2 + NEW);
        CHECK_EQ(one->clear[2], 6 + i);
        CHECK_EQ(one->clear[1 + NEW], 6 + i);
    }
    world_fini(&world);
}

/* The same without RTX: byte for byte. */
static void test_plain(void)
{
    open_call(0, 0);
    send_some(1, 21);
    ask(105, 0x3);
    CHECK_EQ(world_counters(&world, 0)->resent_plain, 3);
    CHECK_EQ(repeated, 3);
    for (uint16_t i = 105; i < 108; i++) {
        CHECK_EQ(left[0][i].cnt, 2);
        CHECK_EQ(left[0][i].clear_sz, NEW);
        CHECK_EQ(left[0][i].pt, OUT_OPUS);
    }
    world_fini(&world);
}

/* To one that takes it: whole, and by RTX not at all. */
static void test_taken_whole(void)
{
    open_call(OUT_RED, 0);
    send_some(1, 21);
    ask(105, 0x3);
    CHECK_EQ(world_counters(&world, 0)->resent_plain, 3);
    CHECK_EQ(repeated, 3);
    CHECK_EQ(left[0][106].clear_sz, SZ);
    CHECK_EQ(left[0][106].pt, OUT_RED);
    world_fini(&world);

    open_call(OUT_RED, 1);
    send_some(1, 21);
    ask(105, 0x3);
    CHECK_EQ(world_counters(&world, 0)->resent_rtx, 1);
    CHECK_EQ(world_counters(&world, 0)->resend_gone, 2);
    CHECK_EQ(repaired, 1);
    world_fini(&world);
}

/* The receiver changes its mind: what left before does not leave again as something else. */
static void test_changes(int rtx)
{
    open_call(OUT_RED, rtx);
    send_some(1, 21);
    CHECK_EQ(world_command(&world, 0, route_command(0, rtx)), VC_STATUS_OK);
    ask(106, 0); /* it left as RED */
    CHECK_EQ(repeated + repaired, 0);
    send_some(21, 41);
    ask(124, 0); /* in 25, RED */
    CHECK_EQ(left[0][124].clear_sz, NEW);
    CHECK_EQ(repeated + repaired, 1);
    CHECK_EQ(world_command(&world, 0, route_command(OUT_RED, rtx)), VC_STATUS_OK);
    ask(125, 0x2); /* they left as plain sound */
    CHECK_EQ(repeated + repaired, 1);
    world_fini(&world);
}

/* Everything at random. */
static void test_tap(int rtx)
{
    open_call(0, rtx);
    seed = 5 + (uint64_t)rtx;
    for (uint64_t i = 1; i < 900; i++) {
        uint16_t before = (uint16_t)dice(30), blp = (uint16_t)dice(65536);

        send(i, dice(3) != 0);
        if (dice(6) == 0)
            ask((uint16_t)(100 + i - before), blp);
        if (dice(60) == 0)
            CHECK_EQ(world_command(&world, 0, route_command(dice(2) ? OUT_RED : 0, rtx)),
                     VC_STATUS_OK);
    }
    CHECK(rtx ? repaired > 300 && !repeated : repeated > 300 && !repaired);
    world_fini(&world);
}

int main(void)
{
    test_rtx();
    test_plain();
    test_taken_whole();
    for (int rtx = 0; rtx < 2; rtx++) {
        test_changes(rtx);
        test_tap(rtx);
    }
    return check_report();
}
