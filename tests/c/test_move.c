/* SPDX-License-Identifier: MIT */
/* A leg goes from one worker to another: removed, answered, set there.  No (key, SSRC, index)
   leaves twice, replays stay refused, a roll-over counter is not lost, what was bound by label
   stays bound; and a header for an interface that the worker does not serve is refused. */
#include "world.h"

#include "check.h"

static struct world world;

static void apply(uint32_t worker, uint32_t type, uint32_t id)
{
    struct vc_command command = { .type = type, .u.id.id = id };

    CHECK_EQ(world_command(&world, worker, command), VC_STATUS_OK);
}

static void set_source(int labelled, int resume)
{
    struct vc_command set = world_source_command(0, 0, labelled ? 0 : 0xa0, 0);

    if (labelled) {
        set.u.source_set.flags = VC_SOURCE_BY_LABEL;
        memcpy(set.u.source_set.mid, "snd", 3);
    }
    set.u.source_set.resume = (uint8_t)resume;
    CHECK_EQ(world_command(&world, world.parties[0].owner, set), VC_STATUS_OK);
}

static void set_route(void)
{
    struct vc_command set = world_route_command(&world, 1, 1, 0, 0x101, 0);

    set.u.route_set.source_owner = world.parties[0].owner;
    CHECK_EQ(world_command(&world, world.parties[1].owner, set), VC_STATUS_OK);
}

static void open_call(int labelled)
{
    world_init(&world, 2);
    world_start(&world);
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    set_source(labelled, 0);
    set_route();
}

static struct world_rtp packet(uint64_t index, int labelled)
{
    struct world_rtp rtp = { .index = index, .ssrc = 0xa0, .timestamp = (uint32_t)index * 960,
                             .payload_sz = 100, .pt = 111 };

    if (labelled)
        memcpy(rtp.mid, "snd", 3);
    return rtp;
}

static void send(uint64_t from, uint64_t to, int labelled)
{
    for (uint64_t i = from; i < to; i++) {
        struct world_rtp rtp = packet(i, labelled);

        world_send(&world, 0, &rtp);
        world_step(&world);
    }
    for (int i = 0; i < 4; i++)
        world_pass(&world, WORLD_MS);
    world_take(&world);
}

/* As the supervisor does: the routes first, then the sources, then the leg, at every worker. */
static void move(uint32_t leg, uint32_t to, int labelled, int resume)
{
    apply(world.parties[1].owner, VC_CMD_ROUTE_REMOVE, 1);
    if (leg == 0)
        apply(world.parties[0].owner, VC_CMD_SOURCE_REMOVE, 0);
    for (uint32_t w = 0; w < 2; w++)
        apply(w, VC_CMD_LEG_REMOVE, leg);
    world_leg(&world, leg, to, VC_SRTP_AEAD_AES_128_GCM);
    if (leg == 0)
        set_source(labelled, resume);
    set_route();
}

/* The receiver moves there and back: its numbers go on without a hole. */
static void test_receiver(void)
{
    open_call(0);
    send(1, 11, 0);
    move(1, 1, 0, 0);
    send(11, 21, 0);
    CHECK_EQ(world_counters(&world, 1)->transmitted, 10);
    move(1, 0, 0, 0);
    send(21, 31, 0);
    CHECK_EQ(world_twice(&world), 0);
    CHECK_EQ(world_count(&world, 1, 0x101), 30);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 129);
    world_fini(&world);
}

/* The sender moves, past a roll-over: `labelled` by label, else by a signalled SSRC. */
static void test_sender(int labelled)
{
    struct world_rtp old = packet(65538, labelled);
    uint8_t replay[1700];
    uint32_t sz, rtcp;

    open_call(labelled);
    send(65530, 65540, labelled);
    world_pass(&world, 2000 * WORLD_MS); /* reports to it leave as well */
    rtcp = world.node->leg_store[0].rtcp_tx;
    CHECK(rtcp > 0);
    move(0, 1, labelled, 1);
    sz = world_seal(&world, 0, &old, replay);
    world_put(&world, 1, 0, replay, sz);
    world_step(&world);
    CHECK_EQ(world_counters(&world, 1)->drops[VC_DROP_REPLAYED], 1);
    send(65540, 65550, 0); /* the label is not said again */
    CHECK_EQ(world_counters(&world, 1)->routed, 10);
    world_pass(&world, 2000 * WORLD_MS);
    CHECK(world.node->leg_store[0].rtcp_tx > rtcp);
    CHECK_EQ(world_twice(&world), 0);
    CHECK_EQ(world_count(&world, 1, 0x101), 20);
    CHECK_EQ(world_last(&world, 1, 0x101)->index, 119);
    world_fini(&world);
}

/* Without the word another stream may have this id now: nothing of the old one is believed. */
static void test_another_stream_by_label(void)
{
    open_call(1);
    send(40, 50, 1);
    move(0, 1, 1, 0);
    CHECK(!world.node->sources[0].bound);
    send(50, 51, 0);
    CHECK_EQ(world_counters(&world, 1)->routed, 0);
    world_fini(&world);
}

static void test_interfaces(void)
{
    struct vc_command header = { .type = VC_CMD_LEG_HEADER };
    struct vc_cmd_leg_header *set = &header.u.leg_header;

    world_init(&world, 2);
    world.setup.interface_cnt = 2;
    world.setup.interfaces[0].worker_cnt = 1;
    world.setup.interfaces[1].worker_first = 1;
    world_start(&world);
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(&world, leg, leg, VC_SRTP_AEAD_AES_128_GCM);
    set->header_sz = 42;
    set->l3_off = 14;
    set->header[14] = 0x45;
    for (uint32_t leg = 0; leg < 2; leg++)
        for (set->leg = leg, set->port = 0; set->port < 3; set->port++)
            CHECK_EQ(world_command(&world, leg, header),
                     set->port == leg ? VC_STATUS_OK : VC_STATUS_BAD_VALUE);
    world_fini(&world);
}

int main(void)
{
    test_receiver();
    test_sender(0);
    test_sender(1);
    test_another_stream_by_label();
    test_interfaces();
    return check_report();
}
