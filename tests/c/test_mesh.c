/* SPDX-License-Identifier: MIT */
/* Two workers: datagrams on the wrong queue, full rings, sources read from elsewhere. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "world.h"

#include "check.h"

static struct world world;

static void open_slots(uint32_t audio_slots)
{
    world_init(&world, 2);
    world.setup.audio_slots = audio_slots;
    world_start(&world);
    world_leg(&world, 0, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_leg(&world, 1, 1, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xa0, 0);
    world_route(&world, 1, 1, 0, 0x101, 0);
}

static void open_call(void)
{
    open_slots(64);
}

static uint32_t seal(uint64_t index, uint8_t *sealed)
{
    struct world_rtp rtp = { .index = index, .ssrc = 0xa0, .payload_sz = 100, .pt = 111 };

    return world_seal(&world, 0, &rtp, sealed);
}

static void test_wrong_queue(void)
{
    const uint8_t too_long[VC_HANDOFF_SZ + 1] = { 0x80 };
    const struct vc_counters *a, *b;
    uint8_t sealed[1700];

    open_call();
    a = world_counters(&world, 0);
    b = world_counters(&world, 1);
    for (uint64_t i = 0; i < 10; i++)
        world_put(&world, i % 2, 0, sealed, seal(i, sealed));
    for (int i = 0; i < 4; i++)
        world_step(&world);
    CHECK_EQ(b->rx_wrong_queue, 5);
    CHECK_EQ(b->rx, 0);
    CHECK_EQ(a->rx, 10);
    CHECK_EQ(a->rx_socket, 10);
    CHECK_EQ(a->routed, 10);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), 10);
    CHECK_EQ(world.bad_cnt, 0);
    for (uint64_t i = 10; i < 10 + VC_HANDOFF_CAP + 7; i++) { /* the holder does not run */
        world_put(&world, 1, 0, sealed, seal(i, sealed));
        vc_worker_do_work(world.workers[1], world.now_ns);
    }
    CHECK_EQ(b->drops[VC_DROP_HANDOFF_FULL], 0);
    world.now_ns += VC_HANDOFF_WAIT_NS;
    vc_worker_do_work(world.workers[1], world.now_ns); /* for so long they may wait */
    CHECK_EQ(b->drops[VC_DROP_HANDOFF_FULL], 7);
    CHECK_EQ(b->rx, 7);
    world_put(&world, 1, 0, memset(sealed, 0x80, sizeof sealed), sizeof sealed);
    world_put(&world, 1, 0, too_long, sizeof too_long);
    vc_worker_do_work(world.workers[1], world.now_ns);
    CHECK_EQ(b->drops[VC_DROP_HANDOFF_FULL], 8);
    CHECK_EQ(b->drops[VC_DROP_TOO_LONG], 1);
    CHECK(!vc_worker_audit(world.workers[1]));
    CHECK(!vc_worker_sleep_begin(world.workers[0], world.now_ns)); /* there is work for it */
    world_pass(&world, 2000 * WORLD_MS);
    world_step(&world);
    CHECK_EQ(a->routed + a->drops[VC_DROP_HISTORY_FULL], 10 + VC_HANDOFF_CAP);
    CHECK(vc_worker_sleep_begin(world.workers[0], world.now_ns));
    CHECK_EQ(world.workers[0]->shm->sleeping, 1);
    vc_worker_sleep_end(world.workers[0], world.now_ns);
    CHECK_EQ(world.workers[0]->shm->sleeping, 0);
    CHECK_EQ(world.workers[0]->shm->beat_ns, world.now_ns);
    world_fini(&world);
}

static void put_foreign(uint64_t from, uint64_t to)
{
    uint8_t sealed[1700];

    for (uint64_t i = from; i < to; i++)
        world_put(&world, 1, 0, sealed, seal(i, sealed));
}

/* What a link kept while it was away comes at once, several rings of it, and the holder has to wake
   up first: all of it arrives. */
static void test_burst(void)
{
    const uint64_t n = 5 * VC_HANDOFF_CAP / 2;
    const struct vc_counters *a, *b;

    open_slots(512);
    a = world_counters(&world, 0);
    b = world_counters(&world, 1);
    put_foreign(0, n);
    for (int i = 0; i < 20; i++)
        vc_worker_do_work(world.workers[1], world.now_ns += WORLD_MS);
    CHECK_EQ(b->rx_wrong_queue, VC_HANDOFF_CAP);
    for (int i = 0; i < 40; i++)
        world_pass(&world, WORLD_MS / 20);
    CHECK_EQ(b->drops[VC_DROP_HANDOFF_FULL], 0);
    CHECK_EQ(b->rx_wrong_queue, n);
    CHECK_EQ(a->routed, n);
    world_take(&world);
    CHECK_EQ(world_count(&world, 1, 0x101), n);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* A holder that hangs holds up the media of others for a moment, and not again soon. */
static void test_holder_hangs(void)
{
    struct world_rtp own = { .ssrc = 0xa1, .payload_sz = 100, .pt = 111 };
    const struct vc_counters *b;
    uint64_t began_ns;

    open_slots(512);
    b = world_counters(&world, 1);
    world_source(&world, 1, 1, 0xa1, 0);
    began_ns = world.now_ns;
    put_foreign(0, VC_HANDOFF_CAP + 10);
    world_send(&world, 1, &own);
    for (int i = 0; i < 3; i++)
        vc_worker_do_work(world.workers[1], world.now_ns);
    for (; world.now_ns < began_ns + VC_HANDOFF_WAIT_NS; world.now_ns += WORLD_MS)
        vc_worker_do_work(world.workers[1], world.now_ns);
    CHECK_EQ(b->drops[VC_DROP_HANDOFF_FULL], 0);
    CHECK_EQ(b->routed, 0);
    vc_worker_do_work(world.workers[1], world.now_ns);
    CHECK_EQ(b->drops[VC_DROP_HANDOFF_FULL], 10);
    CHECK_EQ(b->routed, 1);
    for (int i = 0; world.now_ns < began_ns + VC_HANDOFF_EVERY_NS; i++) { /* at once */
        put_foreign(1000 + (uint64_t)i, 1001 + (uint64_t)i);
        own.index++;
        world_send(&world, 1, &own);
        vc_worker_do_work(world.workers[1], world.now_ns);
        CHECK_EQ(b->drops[VC_DROP_HANDOFF_FULL], 11 + i);
        CHECK_EQ(b->routed, 2 + i);
        world.now_ns += 20 * WORLD_MS;
    }
    own.index++;
    world_send(&world, 1, &own);
    vc_worker_do_work(world.workers[1], world.now_ns); /* it is given another chance */
    CHECK_EQ(b->routed, own.index);
    CHECK(!vc_worker_audit(world.workers[1]));
    world_step(&world); /* the holder is back */
    world_step(&world);
    CHECK_EQ(b->routed, own.index + 1);
    CHECK_EQ(world_counters(&world, 0)->routed, VC_HANDOFF_CAP);
    world_fini(&world);
}

/* The consumer stands still until the ring is full: it finds out by the next look. */
static void test_full_ring(void)
{
    uint8_t sealed[1700];
    uint64_t sent = 0;

    open_call();
    while (world_counters(&world, 0)->mesh_full < 3) {
        world.now_ns += 20 * WORLD_MS;
        world_put(&world, 0, 0, sealed, seal(sent++, sealed));
        vc_worker_do_work(world.workers[0], world.now_ns);
        vc_worker_do_work(world.workers[0], world.now_ns + 1); /* its timers too */
        world_take(&world);
    }
    CHECK_EQ(world_counters(&world, 0)->routed, sent);
    world_step(&world);
    CHECK_EQ(world_counters(&world, 1)->copies, sent);
    world_take(&world);
    world_put(&world, 0, 0, sealed, seal(sent, sealed));
    world_step(&world);
    world_step(&world);
    CHECK_EQ(world_counters(&world, 1)->copies, sent + 1);
    CHECK(world_counters(&world, 1)->copy_drops[VC_COPY_DROP_STALE] > 0); /* the history went on */
    CHECK(world_counters(&world, 1)->transmitted > 0);
    world_take(&world);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

static void test_removal(void)
{
    struct vc_command remove = { .type = VC_CMD_SOURCE_REMOVE };
    uint8_t sealed[1700];

    open_call();
    world_put(&world, 0, 0, sealed, seal(5, sealed));
    vc_worker_do_work(world.workers[0], world.now_ns); /* a message is on its way */
    CHECK_EQ(world_command(&world, 0, remove), VC_STATUS_IN_USE);
    remove.type = VC_CMD_ROUTE_REMOVE;
    remove.u.id.id = 1;
    CHECK_EQ(world_command(&world, 1, remove), VC_STATUS_OK);
    world_put(&world, 0, 0, sealed, seal(6, sealed));
    vc_worker_do_work(world.workers[0], world.now_ns);
    remove.type = VC_CMD_SOURCE_REMOVE;
    remove.u.id.id = 0;
    CHECK_EQ(world_command(&world, 0, remove), VC_STATUS_OK);
    /* The id again, for another stream: what was said about the old one is not heard. */
    world_source(&world, 0, 0, 0xa1, 0);
    world_route(&world, 1, 1, 0, 0x111, 0);
    world_step(&world);
    CHECK_EQ(world_counters(&world, 1)->queued, 0);
    remove.type = VC_CMD_LEG_REMOVE;
    remove.u.id.id = 1;
    CHECK_EQ(world_command(&world, 1, remove), VC_STATUS_IN_USE);
    CHECK_EQ(world_command(&world, 0, remove), VC_STATUS_OK); /* knows its flows only */
    world_fini(&world);
}

/* A bell rings for a sleeper, and only for a sleeper. */
static void test_bells(void)
{
    int wake = eventfd(0, EFD_NONBLOCK), events = eventfd(0, EFD_NONBLOCK);
    struct vc_command nop = { 0 };
    uint8_t sealed[1700];
    uint64_t rings = 0;

    open_call();
    world.node->config.wake_bell[1] = wake;
    world.node->config.evt_bell[1] = events;
    world_put(&world, 0, 0, sealed, seal(1, sealed));
    vc_worker_do_work(world.workers[0], world.now_ns);
    CHECK(read(wake, &rings, sizeof rings) < 0); /* it is awake */
    world_step(&world);
    CHECK(vc_worker_sleep_begin(world.workers[1], world.now_ns + 1));
    world_put(&world, 0, 0, sealed, seal(2, sealed));
    vc_worker_do_work(world.workers[0], world.now_ns);
    CHECK(read(wake, &rings, sizeof rings) == sizeof rings && rings == 1);
    CHECK(!vc_worker_sleep_begin(world.workers[1], world.now_ns + 1)); /* seen by itself, too */
    while (read(events, &rings, sizeof rings) > 0)
        ;
    CHECK(!vc_ring_push(&world.workers[1]->commands, &nop));
    CHECK(!vc_worker_sleep_begin(world.workers[1], world.now_ns + 1));
    world_step(&world);
    CHECK(read(events, &rings, sizeof rings) == sizeof rings && rings == 1);
    close(wake);
    close(events);
    world_fini(&world);
}

int main(void)
{
    test_bells();
    test_wrong_queue();
    test_burst();
    test_holder_hangs();
    test_full_ring();
    test_removal();
    return check_report();
}
