/* SPDX-License-Identifier: MIT */
/* Two workers as threads: one receives two encodings of a picture with reports of their clocks,
   the other has a route that changes between them all the time.  What leaves is whole, in order,
   and has its ids and timestamps in order; a report is read whole or not at all.  A worker that
   was kept from running while it sealed loses the copy: a hole in numbers and ids alike. */
#include <pthread.h>
#include <sched.h>

#include "world.h"

#include "check.h"
#include "rtcp.h"

#define FRAMES 12000u
#define FRAME_MS 10u

static struct world world;
static uint64_t clock_ns;
static int done;
static uint32_t frames, changes, holes, bad;

static void send_report(uint32_t source, uint64_t now_ns)
{
    uint8_t data[VC_RTCP_MAX];
    struct vc_rtcp_writer writer = { data, 0, sizeof data };
    struct vc_rtcp_sr sr = { (now_ns / 1000000000u << 32) |
                                 (now_ns % 1000000000u << 32) / 1000000000u,
                             (uint32_t)(now_ns / 1000 * 9 / 100) + source * 0x40000000u, 1, 1 };

    VC_ASSERT(!vc_rtcp_write_sr(&writer, 0xb0 + source, &sr, NULL, 0));
    world_send_rtcp(&world, 0, data, writer.sz);
}

static void cycle(uint32_t worker, uint64_t now_ns)
{
    vc_worker_do_work(world.workers[worker], now_ns);
    VC_ASSERT(!vc_worker_audit(world.workers[worker]));
}

static void *send_frames(void *arg)
{
    uint64_t now_ns = clock_ns;

    (void)arg;
    for (uint32_t i = 0; i < FRAMES; i++) {
        now_ns += FRAME_MS * WORLD_MS;
        for (uint32_t source = 0; source < 2; source++) {
            struct world_rtp rtp = { .index = 100 + i, .ssrc = 0xb0 + source, .payload_sz = 60,
                                     .pt = 96, .key = i % 8 == source, .vp8 = 1 };

            rtp.timestamp = (uint32_t)(now_ns / 1000 * 9 / 100) + source * 0x40000000u;
            world_send(&world, 0, &rtp);
            if (i % 4 == 0)
                send_report(source, now_ns);
        }
        cycle(0, now_ns);
        __atomic_store_n(&clock_ns, now_ns, __ATOMIC_RELEASE);
        while (vc_io_mem_take(world.io[0]))
            ; /* requests, reports */
        if (i % 4 == 3)
            sched_yield();
    }
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void check_packet(struct vc_crypto *crypto, const struct vc_io_mem_packet *packet,
                         struct vc_rx_index *rx)
{
    static uint32_t timestamp, encoding;
    static uint64_t index;
    static uint16_t picture;
    uint8_t clear[2048];
    struct vc_crypto_item item = { .key = &world.parties[1].down, .src = packet->data,
                                   .dst = clear, .src_sz = packet->sz, .hdr_sz = 20 };
    struct vc_ids ids = { 0 };

    if (vc_rtp_is_rtcp(packet->data))
        return;
    item.index = vc_rx_index_guess(rx, vc_load_be16(packet->data + 2));
    if (vc_crypto_open_rtp(crypto, &item, 1) != 1 || !vc_rx_index_accept(rx, item.index)) {
        bad++;
        return;
    }
    vc_descriptor_read(VC_CODEC_VP8, clear + 20, item.dst_sz - 20, &ids);
    if (frames && (item.index <= index ||
                   ids.picture != ((picture + item.index - index) & 0x7fff) ||
                   (int32_t)(vc_load_be32(clear + 4) - timestamp) <= 0))
        bad++;
    holes += frames ? (uint32_t)(item.index - index - 1) : 0;
    index = item.index;
    changes += world.node->routes[1].feeds[0].source != encoding;
    encoding = world.node->routes[1].feeds[0].source;
    picture = ids.picture;
    timestamp = vc_load_be32(clear + 4);
    frames++;
}

static void *change_sources(void *arg)
{
    struct vc_command set = *(const struct vc_command *)arg;
    struct vc_crypto *crypto = vc_crypto_new(VC_CRYPTO_AUTO);
    struct vc_worker *w = world.workers[1];
    struct vc_rx_index rx = { 0 };

    for (uint32_t i = 0; !__atomic_load_n(&done, __ATOMIC_ACQUIRE); i++) {
        const struct vc_io_mem_packet *packet;

        if (i % 64 == 0) {
            set.u.route_set.source = i / 64 % 2;
            VC_ASSERT(!vc_ring_push(&w->commands, &set));
        }
        cycle(1, __atomic_load_n(&clock_ns, __ATOMIC_ACQUIRE));
        while (vc_ring_front(&w->events))
            vc_ring_pop(&w->events);
        while ((packet = vc_io_mem_take(world.io[1])))
            check_packet(crypto, packet, &rx);
        sched_yield();
    }
    vc_crypto_delete(crypto);
    return NULL;
}

int main(void)
{
    struct vc_command set;
    pthread_t sender, receiver;

    world_init(&world, 2);
    world_start(&world);
    world_leg(&world, 0, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_leg(&world, 1, 1, VC_SRTP_AEAD_AES_128_GCM);
    for (uint32_t source = 0; source < 2; source++) {
        set = world_source_command(source, 0, 0xb0 + source, 1);
        set.u.source_set.codec = VC_CODEC_VP8;
        VC_ASSERT(world_command(&world, 0, set) == VC_STATUS_OK);
    }
    set = world_route_command(&world, 1, 1, 0, 0x101, 1);
    VC_ASSERT(world_command(&world, 1, set) == VC_STATUS_OK);
    clock_ns = world.now_ns;
    VC_ASSERT(!pthread_create(&receiver, NULL, change_sources, &set));
    VC_ASSERT(!pthread_create(&sender, NULL, send_frames, NULL));
    pthread_join(sender, NULL);
    pthread_join(receiver, NULL);
    CHECK_EQ(bad, 0);
    CHECK(holes <= world_counters(&world, 1)->copy_drops[VC_COPY_DROP_STALE]);
    CHECK_EQ(world_counters(&world, 0)->routed, 2 * FRAMES);
    CHECK(frames > 0 && changes > 0);
    printf("%u frames, %u changes: ", frames, changes);
    world_fini(&world);
    return check_report();
}
