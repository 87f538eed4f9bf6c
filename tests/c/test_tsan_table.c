/* SPDX-License-Identifier: MIT */
/* Two workers as threads change their tables at once: one makes and ends a source and feeds it, the
   other attaches and removes routes of it.  A source never ends under a route, an id given again
   never inherits anything, and every law holds on both sides at every step. */
#include <pthread.h>
#include <sched.h>

#include "world.h"

#include "check.h"

#define ROUNDS 3000

static struct world world;
static uint32_t ended, in_use, attached, refused;
static int done;

static void cycle(uint32_t worker, uint64_t now_ns)
{
    vc_worker_do_work(world.workers[worker], now_ns);
    VC_ASSERT(!vc_worker_audit(world.workers[worker]));
    while (vc_io_mem_take(world.io[worker]))
        ;
}

static enum vc_status command(uint32_t worker, struct vc_command command, uint64_t now_ns)
{
    struct vc_worker *w = world.workers[worker];
    enum vc_status status = VC_STATUS_COUNT;
    const struct vc_event *event;

    command.id = 7;
    VC_ASSERT(!vc_ring_push(&w->commands, &command));
    cycle(worker, now_ns);
    while ((event = vc_ring_front(&w->events))) {
        if (event->type == VC_EVT_APPLIED)
            status = (enum vc_status)event->u.applied.status;
        vc_ring_pop(&w->events);
    }
    return status;
}

static void *make_sources(void *arg)
{
    struct vc_command set = world_source_command(0, 0, 0, 1);
    struct vc_command end = { .type = VC_CMD_SOURCE_REMOVE };
    struct world_rtp rtp = { .payload_sz = 500, .pt = 96 };
    uint64_t now_ns = world.now_ns;

    (void)arg;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        enum vc_status status;

        set.u.source_set.ssrc = rtp.ssrc = i;
        VC_ASSERT(command(0, set, now_ns) == VC_STATUS_OK);
        for (uint64_t k = 0; k < 6; k++) {
            rtp.index = k;
            rtp.key = k % 3 == 0;
            world_send(&world, 0, &rtp);
            cycle(0, now_ns += WORLD_MS);
        }
        while ((status = command(0, end, now_ns += WORLD_MS)) == VC_STATUS_IN_USE) {
            in_use++;
            sched_yield();
        }
        VC_ASSERT(status == VC_STATUS_OK);
        ended++;
    }
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *attach_routes(void *arg)
{
    struct vc_command set = *(const struct vc_command *)arg;
    struct vc_command end = { .type = VC_CMD_ROUTE_REMOVE, .u.id.id = 1 };
    uint64_t now_ns = world.now_ns;

    for (uint32_t i = 1; !__atomic_load_n(&done, __ATOMIC_ACQUIRE); i++) {
        enum vc_status status;

        set.u.route_set.out_ssrc = i;
        status = command(1, set, now_ns += WORLD_MS);
        VC_ASSERT(status == VC_STATUS_OK || status == VC_STATUS_NO_SOURCE);
        refused += status != VC_STATUS_OK;
        if (status != VC_STATUS_OK) {
            sched_yield();
            continue;
        }
        attached++;
        for (int k = 0; k < 5; k++)
            cycle(1, now_ns += WORLD_MS);
        VC_ASSERT(command(1, end, now_ns) == VC_STATUS_OK);
    }
    return NULL;
}

int main(void)
{
    struct vc_command route;
    pthread_t maker, taker;

    world_init(&world, 2);
    world_start(&world);
    world_leg(&world, 0, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_leg(&world, 1, 1, VC_SRTP_AEAD_AES_128_GCM);
    route = world_route_command(&world, 1, 1, 0, 0, 1);
    VC_ASSERT(!pthread_create(&taker, NULL, attach_routes, &route));
    VC_ASSERT(!pthread_create(&maker, NULL, make_sources, NULL));
    pthread_join(maker, NULL);
    pthread_join(taker, NULL);
    CHECK_EQ(ended, ROUNDS);
    CHECK(attached > 0);
    CHECK_EQ(world_counters(&world, 0)->routed, 6 * ROUNDS);
    CHECK_EQ(world_counters(&world, 1)->queued, 0);
    CHECK_EQ(world_counters(&world, 1)->routes, 0);
    CHECK_EQ(world_counters(&world, 0)->history_bytes, 0);
    printf("%u attached, %u too late, %u times in use: ", attached, refused, in_use);
    world_fini(&world);
    return check_report();
}
