/* SPDX-License-Identifier: MIT */
/* The command decoder: every status can be had, a refused command changes nothing, a dump is
   whole even when the event ring is not. */
#include "world.h"

#include "check.h"

static uint32_t seen[VC_STATUS_COUNT];

static void expect(struct world *world, uint32_t worker, struct vc_command command,
                   enum vc_status status)
{
    struct vc_worker *w = world->workers[worker];
    struct vc_counters before = w->c;
    enum vc_status got = world_command(world, worker, command);

    CHECK_EQ(got, status);
    seen[got]++;
    if (got == VC_STATUS_OK)
        return;
    CHECK_EQ(w->c.commands_refused, before.commands_refused + 1);
    CHECK_EQ(w->c.legs, before.legs);
    CHECK_EQ(w->c.sources, before.sources);
    CHECK_EQ(w->c.routes, before.routes);
    CHECK_EQ(w->c.history_bytes, before.history_bytes);
}

static struct vc_command by_id(uint32_t type, uint32_t id)
{
    return (struct vc_command){ .type = type, .u.id.id = id };
}

static void open_call(struct world *world, uint32_t workers)
{
    world_init(world, workers);
    world_start(world);
    for (uint32_t leg = 0; leg < 2; leg++)
        world_leg(world, leg, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_source(world, 0, 0, 0xa0, 0);
    world_source(world, 1, 0, 0xb0, 1);
    world_route(world, 0, 1, 0, 0x100, 0);
}

static void test_legs(void)
{
    static struct world world;
    struct vc_command c, good;

    open_call(&world, 2);
    good = world_leg_command(&world, 2, VC_SRTP_AEAD_AES_128_GCM);
#define REFUSE(change, status)                                                                     \
    do {                                                                                           \
        struct vc_cmd_leg_set *set = &c.u.leg_set;                                                 \
        c = good;                                                                                  \
        change;                                                                                    \
        (void)set;                                                                                 \
        expect(&world, 0, c, VC_STATUS_##status);                                                  \
    } while (0)
    REFUSE(c.type = VC_CMD_COUNT, BAD_TYPE);
    REFUSE(c.type = 0xffffffff, BAD_TYPE);
    REFUSE(set->leg = WORLD_LEGS, BAD_ID);
    REFUSE(set->owner = 2, BAD_VALUE);
    REFUSE(set->local = 1, BAD_VALUE);
    REFUSE(set->key_id = 0, BAD_VALUE);
    REFUSE(set->suite = 2, BAD_SUITE);
    REFUSE(set->tuple_cnt = 5, BAD_VALUE);
    REFUSE(set->nominated = 1, BAD_VALUE);
    REFUSE(set->dscp_audio = 64, BAD_VALUE);
    REFUSE(set->rx_ext[VC_EXT_RID] = 1, BAD_VALUE);
    REFUSE(set->tuples[0] = world.parties[0].tuple, DUPLICATE_TUPLE);
    REFUSE((set->tuple_cnt = 2, set->tuples[1] = set->tuples[0]), DUPLICATE_TUPLE);
    REFUSE((set->leg = 0, set->owner = 1), NOT_OWNER);
    expect(&world, 0, good, VC_STATUS_OK);
    REFUSE(set->suite = VC_SRTP_AES_CM_128_HMAC_SHA1_80, IDENTITY);
    for (uint32_t leg = 3; leg < WORLD_LEGS; leg++) { /* four flows each, until there are no more */
        c = world_leg_command(&world, leg, VC_SRTP_AEAD_AES_128_GCM);
        c.u.leg_set.tuple_cnt = 4;
        for (int i = 1; i < 4; i++) {
            c.u.leg_set.tuples[i] = c.u.leg_set.tuples[0];
            c.u.leg_set.tuples[i].remote_port_be += (uint16_t)(i << 8);
        }
        expect(&world, 0, c,
               world.workers[0]->flows.cnt + 4 > world.workers[0]->flows.max ?
                   VC_STATUS_FLOWS_FULL : VC_STATUS_OK);
    }
#undef REFUSE
    CHECK(seen[VC_STATUS_FLOWS_FULL]);
    expect(&world, 0, by_id(VC_CMD_LEG_REMOVE, WORLD_LEGS), VC_STATUS_BAD_ID);
    expect(&world, 0, by_id(VC_CMD_LEG_REMOVE, WORLD_LEGS - 1), VC_STATUS_NO_LEG);
    expect(&world, 0, by_id(VC_CMD_LEG_REMOVE, 0), VC_STATUS_IN_USE);
    expect(&world, 0, by_id(VC_CMD_LEG_REMOVE, 2), VC_STATUS_OK);
    c = (struct vc_command){ .type = VC_CMD_LEG_RATE, .u.leg_rate = { .leg = 1, .rate_bps = 1 } };
    expect(&world, 0, c, VC_STATUS_OK);
    expect(&world, 1, c, VC_STATUS_NOT_OWNER);
    c.u.leg_rate.leg = 2;
    expect(&world, 0, c, VC_STATUS_NO_LEG);
    world_fini(&world);
}

static void test_headers(void)
{
    static struct world world;
    struct vc_command good = {
        .type = VC_CMD_LEG_HEADER,
        .u.leg_header = { .leg = 1, .port = 0, .l3_off = 14, .header_sz = 42 },
    }, c;

    open_call(&world, 1);
    good.u.leg_header.header[14] = 0x45;
    expect(&world, 0, good, VC_STATUS_OK);
    c = good;
    c.u.leg_header.port = 1;
    expect(&world, 0, c, VC_STATUS_BAD_VALUE);
    c = good;
    c.u.leg_header.l3_off = 15;
    expect(&world, 0, c, VC_STATUS_BAD_VALUE);
    c = good;
    c.u.leg_header.header_sz = VC_HEADER_MAX + 1;
    expect(&world, 0, c, VC_STATUS_BAD_VALUE);
    c = good;
    c.u.leg_header.header[14] = 0x65;
    expect(&world, 0, c, VC_STATUS_BAD_VALUE);
    c = good;
    c.u.leg_header.port = VC_PORT_SOCKET;
    expect(&world, 0, c, VC_STATUS_BAD_VALUE);
    c.u.leg_header.header_sz = 0;
    expect(&world, 0, c, VC_STATUS_OK);
    c.u.leg_header.leg = 5;
    expect(&world, 0, c, VC_STATUS_NO_LEG);
    world_fini(&world);
}

static void test_sources(void)
{
    static struct world world;
    struct vc_command good = world_source_command(2, 1, 0xc0, 0), c;

    open_call(&world, 2);
#define REFUSE(change, status)                                                                     \
    do {                                                                                           \
        struct vc_cmd_source_set *set = &c.u.source_set;                                           \
        c = good;                                                                                  \
        change;                                                                                    \
        expect(&world, 0, c, VC_STATUS_##status);                                                  \
    } while (0)
    REFUSE(set->source = 16, BAD_ID);
    REFUSE(set->leg = WORLD_LEGS, BAD_ID);
    REFUSE(set->leg = 9, NO_LEG);
    REFUSE(set->flags = 0, BAD_VALUE);
    REFUSE(set->flags = VC_SOURCE_BY_SSRC | VC_SOURCE_BY_PT, BAD_VALUE);
    REFUSE(set->clock_hz = 0, BAD_VALUE);
    REFUSE(set->pt = 128, BAD_VALUE);
    REFUSE(set->codec = 5, BAD_VALUE);
    REFUSE(set->queue = VC_QUEUE_RESEND, BAD_VALUE);
    REFUSE((set->leg = 0, set->ssrc = 0xa0), DUPLICATE_SSRC);
    REFUSE((set->source = 0, set->leg = 0), IDENTITY);
    expect(&world, 1, good, VC_STATUS_NOT_OWNER);
    expect(&world, 0, good, VC_STATUS_OK);
    expect(&world, 0, good, VC_STATUS_OK); /* again: nothing changes */
#undef REFUSE
    for (uint32_t i = 3; i < 16; i++) { /* eight histories of audio */
        c = world_source_command(i, 1, 0xc00 + i, 0);
        expect(&world, 0, c, i < 9 ? VC_STATUS_OK : VC_STATUS_HISTORY_FULL);
    }
    expect(&world, 0, by_id(VC_CMD_SOURCE_REMOVE, 16), VC_STATUS_BAD_ID);
    expect(&world, 0, by_id(VC_CMD_SOURCE_REMOVE, 15), VC_STATUS_NO_SOURCE);
    expect(&world, 1, by_id(VC_CMD_SOURCE_REMOVE, 2), VC_STATUS_NOT_OWNER);
    expect(&world, 0, by_id(VC_CMD_SOURCE_REMOVE, 0), VC_STATUS_IN_USE);
    expect(&world, 0, by_id(VC_CMD_SOURCE_REMOVE, 2), VC_STATUS_OK);
    expect(&world, 0, by_id(VC_CMD_KEYFRAME_REQUEST, 2), VC_STATUS_NO_SOURCE);
    expect(&world, 0, by_id(VC_CMD_KEYFRAME_REQUEST, 99), VC_STATUS_BAD_ID);
    expect(&world, 1, by_id(VC_CMD_KEYFRAME_REQUEST, 1), VC_STATUS_NOT_OWNER);
    expect(&world, 0, by_id(VC_CMD_KEYFRAME_REQUEST, 1), VC_STATUS_OK);
    world_fini(&world);
}

static void test_routes(void)
{
    static struct world world;
    struct vc_command good, c;
    struct vc_tx_index *store;

    open_call(&world, 2);
    good = world_route_command(&world, 1, 1, 1, 0x200, 1);
#define REFUSE(change, status)                                                                     \
    do {                                                                                           \
        struct vc_cmd_route_set *set = &c.u.route_set;                                             \
        c = good;                                                                                  \
        change;                                                                                    \
        expect(&world, 0, c, VC_STATUS_##status);                                                  \
    } while (0)
    REFUSE(set->route = 64, BAD_ID);
    REFUSE(set->source = 16, BAD_ID);
    REFUSE(set->leg = 9, NO_LEG);
    REFUSE(set->source = 9, NO_SOURCE);
    REFUSE(set->source_owner = 1, NOT_OWNER);
    REFUSE(set->source_owner = 2, BAD_VALUE);
    REFUSE(set->seq_start = 0x8000, BAD_VALUE);
    REFUSE(set->pt = 128, BAD_VALUE);
    REFUSE(set->flags = 2, BAD_VALUE);
    REFUSE(set->out_ssrc = 0x100, DUPLICATE_SSRC);
    REFUSE((set->route = 0, set->out_ssrc = 0x101), IDENTITY);
    store = &world.node->tx_store[1];
    *store = (struct vc_tx_index){ .key_id = 1001, .out_ssrc = 0x200, .started = 2 };
    REFUSE((void)set, INDEX_LOST);
    CHECK_EQ(store->started, 2);
    store->out_ssrc = 0x201; /* of somebody else */
    expect(&world, 0, good, VC_STATUS_OK);
    expect(&world, 1, good, VC_STATUS_NOT_OWNER);
    REFUSE(set->source = 0, BAD_VALUE); /* audio for a route of video */
#undef REFUSE
    c = (struct vc_command){ .type = VC_CMD_ROUTE_FILTER, .u.route_filter = { .route = 1, .paused = 2 } };
    expect(&world, 0, c, VC_STATUS_BAD_VALUE);
    c.u.route_filter.paused = 1;
    expect(&world, 0, c, VC_STATUS_OK);
    c.u.route_filter.route = 5;
    expect(&world, 0, c, VC_STATUS_NO_ROUTE);
    expect(&world, 0, by_id(VC_CMD_ROUTE_REMOVE, 64), VC_STATUS_BAD_ID);
    expect(&world, 0, by_id(VC_CMD_ROUTE_REMOVE, 5), VC_STATUS_NO_ROUTE);
    expect(&world, 0, by_id(VC_CMD_ROUTE_REMOVE, 1), VC_STATUS_OK);
    world_fini(&world);
}

/* What a dump says, counted by type. */
static void read_dump(struct world *world, uint32_t cnt[3], int *applied)
{
    struct vc_worker *w = world->workers[0];
    const struct vc_event *event;

    while ((event = vc_ring_front(&w->events))) {
        if (event->type >= VC_EVT_DUMP_LEG && event->type <= VC_EVT_DUMP_ROUTE)
            cnt[event->type - VC_EVT_DUMP_LEG]++;
        if (event->type == VC_EVT_DUMP_LEG)
            CHECK(event->u.object.key_id == 1000 + event->u.object.object &&
                  event->u.object.digest == 0x1e600 + event->u.object.object);
        *applied |= event->type == VC_EVT_APPLIED && event->u.applied.id == 77;
        vc_ring_pop(&w->events);
    }
}

static void test_dump_and_full_ring(void)
{
    static struct world world;
    struct vc_command dump = { .id = 77, .type = VC_CMD_DUMP }, nop = { .id = 1 };
    uint32_t cnt[3] = { 0 };
    struct vc_worker *w;
    int applied = 0;

    open_call(&world, 1);
    w = world.workers[0];
    while (vc_ring_used(&w->events) < world.workers[0]->shm->evt_cap) { /* nobody reads */
        CHECK(!vc_ring_push(&w->commands, &nop));
        world_step(&world);
    }
    CHECK_EQ(w->c.events_lost, 0);
    CHECK_EQ(w->shm->overflow, 0);
    CHECK(!vc_ring_push(&w->commands, &nop));
    world_step(&world);
    CHECK_EQ(w->c.events_lost, 1);
    CHECK_EQ(w->shm->overflow, 1);
    CHECK(!vc_ring_push(&w->commands, &dump));
    for (int i = 0; i < 3; i++)
        world_step(&world); /* the dump waits */
    vc_ring_pop(&w->events);
    world_step(&world);
    vc_ring_pop(&w->events);
    world_step(&world);
    CHECK_EQ(w->c.events_lost, 1);
    for (int i = 0; i < 10 && !applied; i++) {
        read_dump(&world, cnt, &applied);
        world_step(&world);
    }
    CHECK(applied);
    CHECK_EQ(cnt[0], 2);
    CHECK_EQ(cnt[1], 2);
    CHECK_EQ(cnt[2], 1);
    world_fini(&world);
}

static void test_segments(void)
{
    struct vc_ctl_setup setup = { .worker_cnt = 2, .legs_max = 3, .sources_max = 5, .routes_max = 7 };
    uint64_t sz = vc_shm_format(NULL, 0, &setup, 1), isz = vc_index_format(NULL, 0, &setup);
    uint8_t *mem = calloc(1, sz), *index = calloc(1, isz);

    CHECK(mem && index);
    CHECK_EQ(vc_shm_format(mem, sz - 1, &setup, 1), 0);
    CHECK_EQ(vc_index_format(index, isz - 1, &setup), 0);
    CHECK(vc_shm_check(mem, sz, &setup, 1) != NULL);
    CHECK(vc_index_check(index, isz, &setup) != NULL);
    CHECK_EQ(vc_shm_format(mem, sz, &setup, 1), sz);
    CHECK_EQ(vc_index_format(index, isz, &setup), isz);
    CHECK(!vc_shm_check(mem, sz, &setup, 1) && !vc_index_check(index, isz, &setup));
    CHECK(vc_shm_check(mem, sz, &setup, 0) != NULL);
    CHECK(vc_shm_check(mem, sz - 1, &setup, 1) != NULL);
    CHECK(vc_shm_check(mem, 10, &setup, 1) != NULL && vc_index_check(index, 10, &setup) != NULL);
    setup.routes_max = 8;
    CHECK(vc_shm_check(mem, sz, &setup, 1) != NULL && vc_index_check(index, isz, &setup) != NULL);
    free(mem);
    free(index);
}

int main(void)
{
    test_legs();
    test_headers();
    test_sources();
    test_routes();
    test_dump_and_full_ring();
    test_segments();
    for (int i = 0; i < VC_STATUS_COUNT; i++)
        if (!seen[i])
            CHECK_EQ(i, -1); /* no command was ever answered so */
    return check_report();
}
