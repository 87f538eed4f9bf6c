/* SPDX-License-Identifier: MIT */
/* Repair downstream: what a NACK asks for leaves on the RTX stream, or byte for byte, or not at
   all; its limits; its numbers after a restart. */
#include "world.h"

#include "check.h"
#include "rtcp.h"

void test_resend_tap(unsigned *good, unsigned *bad);

static struct world world;

static void set_table(uint32_t rtx_ssrc)
{
    struct vc_command route;

    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xb0, 1);
    route = world_route_command(&world, 1, 1, 0, 0x101, 1);
    route.u.route_set.rtx_ssrc = rtx_ssrc;
    route.u.route_set.rtx_pt = rtx_ssrc ? 102 : 0;
    route.u.route_set.rtx_seq_start = rtx_ssrc ? 500 : 0;
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_OK);
}

static void open_call(uint32_t rtx_ssrc)
{
    world_init(&world, 1);
    world_start(&world);
    set_table(rtx_ssrc);
}

static void send(uint64_t index)
{
    struct world_rtp rtp = { .index = index, .ssrc = 0xb0, .timestamp = (uint32_t)index * 3000,
                             .payload_sz = 1000, .pt = 96, .marker = index % 3 == 0,
                             .key = index % 1000 == 1 };

    world_send(&world, 0, &rtp);
    world_step(&world);
    world_step(&world);
}

static void nack(uint32_t ssrc, uint16_t pid, uint16_t blp)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };

    CHECK(!vc_rtcp_write_nack(&writer, 1, ssrc, &(struct vc_rtcp_nack){ pid, blp }, 1));
    world_send_rtcp(&world, 1, data, writer.sz);
    for (int i = 0; i < 4; i++)
        world_step(&world);
}

static void test_rtx(void)
{
    const struct world_got *sent, *again;

    open_call(0x201);
    for (uint64_t i = 1; i < 50; i++)
        send(i); /* out 100 .. */
    world_take(&world);
    nack(0x101, 103, 1u << 4); /* in 4 and 9 */
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x201), 2);
    CHECK_EQ(world.bad_cnt, 0);
    again = world_last(&world, 1, 0x201);
    CHECK_EQ(again->index, 501);
    CHECK_EQ(again->pt, 102);
    for (sent = world.got; sent->index != 108 || sent->ssrc != 0x101;)
        sent++;
    CHECK_EQ(again->timestamp, sent->timestamp);
    CHECK_EQ(again->marker, 1);
    CHECK_EQ(again->header_sz, sent->header_sz); /* the extensions as they were */
    CHECK_EQ(vc_load_be16(again->data + again->header_sz), 108);
    CHECK_EQ(again->sz, sent->sz + 2);
    CHECK(!memcmp(again->data + again->header_sz + 2, sent->data + sent->header_sz, 1000));
    CHECK_EQ(world_counters(&world, 0)->resent_rtx, 2);
    nack(0x101, 103, 1u << 4); /* within the round trip */
    CHECK_EQ(world_counters(&world, 0)->resend_recent, 2);
    world_pass(&world, 60 * WORLD_MS);
    nack(0x101, 103, 0);
    nack(0x999, 103, 1);
    nack(0x101, 149, 0); /* not sent yet */
    CHECK_EQ(world_counters(&world, 0)->resend_unknown, 2);
    CHECK_EQ(world_counters(&world, 0)->resend_gone, 1);
    world_take(&world);
    CHECK_EQ(world_last(&world, 1, 0x201)->index, 502);
    CHECK_EQ(world_counters(&world, 0)->nack_rx, 8);

    world_restart(&world);
    set_table(0x201);
    nack(0x101, 110, 0); /* what left in the earlier life is gone with it */
    CHECK_EQ(world_counters(&world, 0)->resend_gone, 1);
    send(50);
    nack(0x101, 149, 0);
    world_take(&world);
    CHECK_EQ(world_last(&world, 1, 0x201)->index, 502 + 64);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* What left on this leg as one of these bytes; number: out sequence number. */
static uint32_t take_bytes(uint16_t number, uint8_t bytes[2][1700], uint32_t sz[2])
{
    const struct vc_io_mem_packet *packet;
    uint32_t cnt = 0;

    while ((packet = vc_io_mem_take(world.io[0]))) {
        if (vc_rtp_is_rtcp(packet->data) || vc_load_be16(packet->data + 2) != number || cnt == 2)
            continue;
        memcpy(bytes[cnt], packet->data, packet->sz);
        sz[cnt++] = packet->sz;
    }
    return cnt;
}

static void test_plain(void)
{
    struct vc_command set = { 0 };
    uint8_t bytes[2][1700];
    uint32_t sz[2] = { 0, 0 };

    open_call(0);
    for (uint64_t i = 1; i < 20; i++)
        if (i != 7)
            send(i);
    nack(0x101, 105, 0x3); /* in 6, 7 (never came), 8 */
    CHECK_EQ(world_counters(&world, 0)->resend_gone, 1);
    CHECK_EQ(world_counters(&world, 0)->resent_plain, 2);
    CHECK_EQ(take_bytes(105, bytes, sz), 2);
    CHECK_EQ(sz[0], sz[1]);
    CHECK(!memcmp(bytes[0], bytes[1], sz[0]));
    /* with other header extensions the same bytes cannot be made */
    set = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    set.u.leg_set.tx_ext[VC_EXT_MID] = 9;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    world_pass(&world, 60 * WORLD_MS);
    nack(0x101, 105, 0);
    CHECK_EQ(world_counters(&world, 0)->resend_changed, 1);
    send(20);
    nack(0x101, 119, 0);
    CHECK_EQ(world_counters(&world, 0)->resent_plain, 3);
    CHECK_EQ(take_bytes(119, bytes, sz), 2);
    CHECK(sz[0] == sz[1] && !memcmp(bytes[0], bytes[1], sz[0]));
    set.u.leg_set.tx_ext[VC_EXT_ABS_SEND_TIME] = 3; /* stamped at departure */
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    send(21);
    nack(0x101, 120, 0);
    CHECK_EQ(world_counters(&world, 0)->resend_changed, 2);
    world_fini(&world);
}

static void test_limits(void)
{
    struct vc_command set;

    open_call(0x201);
    set = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    set.u.leg_set.rate_bps = 1000000; /* a quarter of it for half a second: 15 KB, so the least */
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    for (uint64_t i = 1; i < 120; i++) {
        send(i);
        world_pass(&world, 10 * WORLD_MS);
    }
    nack(0x101, 180, 0xffff);
    CHECK_EQ(world_counters(&world, 0)->resend_budget, 1);
    CHECK_EQ(world_counters(&world, 0)->queued > 10, 1); /* paced */
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_ROUTE_REMOVE,
                                                           .u.id.id = 1 }), VC_STATUS_OK);
    CHECK_EQ(world_counters(&world, 0)->queued, 0);
    set_table(0x202); /* other SSRCs: the first were used with this key */
    world_fini(&world);
    open_call(0x201);
    set = world_leg_command(&world, 1, VC_SRTP_AEAD_AES_128_GCM);
    set.u.leg_set.rate_bps = 50000000;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    for (uint64_t i = 1; i < 120; i++) {
        send(i);
        world_pass(&world, WORLD_MS);
    }
    for (uint16_t pid = 110; pid < 200; pid += 17) {
        uint8_t data[VC_RTCP_MAX];
        struct vc_rtcp_writer writer = { data, 0, sizeof data };

        CHECK(!vc_rtcp_write_nack(&writer, 1, 0x101, &(struct vc_rtcp_nack){ pid, 0xffff }, 1));
        world_send_rtcp(&world, 1, data, writer.sz);
    }
    world_step(&world);
    CHECK(world_counters(&world, 0)->resend_full > 0);
    world_pass(&world, 20 * WORLD_MS);
    for (int i = 0; i < 200; i++)
        world_pass(&world, WORLD_MS);
    CHECK_EQ(world_counters(&world, 0)->queued, 0);
    CHECK_EQ(world_counters(&world, 0)->resent_rtx, VC_RESEND_QUEUE);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x201), VC_RESEND_QUEUE);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

static void set_rate(uint64_t rate_bps)
{
    struct vc_command rate = { .type = VC_CMD_LEG_RATE,
                               .u.leg_rate = { .leg = 1, .rate_bps = rate_bps } };

    CHECK_EQ(world_command(&world, 0, rate), VC_STATUS_OK);
}

/* A route that waits for a key frame of another source: what it leaves is sent again, but not where
   the way has become narrow. */
static void test_left(void)
{
    struct vc_command route;

    open_call(0x201);
    world_source(&world, 1, 0, 0xb1, 1);
    for (uint64_t i = 1; i < 50; i++)
        send(i);
    route = world_route_command(&world, 1, 1, 1, 0x101, 1);
    route.u.route_set.rtx_ssrc = 0x201;
    route.u.route_set.rtx_pt = 102;
    route.u.route_set.rtx_seq_start = 500;
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_OK);
    set_rate(5000000);
    nack(0x101, 103, 0x3);
    CHECK_EQ(world_counters(&world, 0)->resend_gone, 3); /* from no rate to one is down */
    set_rate(8000000);
    nack(0x101, 103, 0x3);
    CHECK_EQ(world_counters(&world, 0)->resend_gone, 3);
    CHECK(world_counters(&world, 0)->queued > 0); /* paced */
    set_rate(400000);
    for (int i = 0; i < 100; i++)
        world_pass(&world, WORLD_MS);
    CHECK_EQ(world_counters(&world, 0)->queued, 0); /* what waited goes too */
    CHECK(world_counters(&world, 0)->resent_rtx < 3);
    world_fini(&world);
}

static void test_refused(void)
{
    struct vc_command route;

    open_call(0x201);
    route = world_route_command(&world, 1, 1, 0, 0x101, 1);
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_IDENTITY); /* its RTX stream is gone */
    route = world_route_command(&world, 2, 1, 0, 0x201, 1);
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_DUPLICATE_SSRC);
    route = world_route_command(&world, 2, 1, 0, 0x102, 1);
    route.u.route_set.rtx_ssrc = 0x102;
    route.u.route_set.rtx_pt = 102;
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_BAD_VALUE);
    route.u.route_set.rtx_ssrc = 0x101;
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_DUPLICATE_SSRC);
    route.u.route_set.rtx_ssrc = 0x202;
    route.u.route_set.rtx_seq_start = 1 << 15;
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_BAD_VALUE);
    route.u.route_set.rtx_seq_start = 0;
    route.u.route_set.rtx_pt = 0;
    CHECK_EQ(world_command(&world, 0, route), VC_STATUS_BAD_VALUE);
    world_fini(&world);
}

int main(void)
{
    test_rtx();
    test_plain();
    test_limits();
    test_left();
    test_refused();
    test_resend_tap(&check_passed, &check_failed);
    return check_report();
}
