/* SPDX-License-Identifier: MIT */
/* Two workers as threads on a deliberately tiny history.  The clock of the first one runs ahead, so
   that it reuses slots which the second one is just reading: copies go stale, and whatever does
   leave is whole.  Run under TSan: reads that may be torn are confined to vc_history_copy and the
   engine, everything else must be ordered. */
#include <pthread.h>
#include <sched.h>

#include "world.h"

#include "check.h"

#define PACKETS 20000

static struct world world;
static uint64_t writer_ns, reader_ns;
static int done;

static void *write_history(void *arg)
{
    struct vc_worker *w = world.workers[0];
    struct vc_crypto *crypto = vc_crypto_new(VC_CRYPTO_AUTO); /* an engine is one thread's own */
    uint8_t clear[400] = { 0x80, 111 }, sealed[500];

    (void)arg;
    vc_store_be32(clear + 8, 0xa0);
    for (uint32_t i = 0; i < PACKETS; i++) {
        struct vc_crypto_item item = { .key = &world.parties[0].up, .src = clear, .dst = sealed,
                                       .src_sz = 300, .hdr_sz = 12, .index = i };

        vc_store_be16(clear + 2, (uint16_t)i);
        memset(clear + 12, (int)i, 288);
        VC_ASSERT(vc_crypto_seal_rtp(crypto, &item, 1) == 1);
        VC_ASSERT(!vc_io_mem_put(world.io[0], &world.parties[0].tuple, sealed, item.dst_sz));
        writer_ns += 2000 * WORLD_MS;
        vc_worker_do_work(w, writer_ns);
        while (vc_io_mem_take(world.io[0]))
            ; /* reports */
        if (i % 8 == 7)
            sched_yield();
    }
    vc_crypto_delete(crypto);
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static uint32_t whole, torn;

static void check_packet(struct vc_crypto *crypto, const struct vc_io_mem_packet *packet,
                         struct vc_rx_index *rx)
{
    uint8_t clear[2048];
    struct vc_crypto_item item = { .key = &world.parties[1].down, .src = packet->data,
                                   .dst = clear, .src_sz = packet->sz, .hdr_sz = 20 };

    if (vc_rtp_is_rtcp(packet->data))
        return;
    item.index = vc_rx_index_guess(rx, vc_load_be16(packet->data + 2));
    if (vc_crypto_open_rtp(crypto, &item, 1) != 1 || !vc_rx_index_accept(rx, item.index)) {
        torn++;
        return;
    }
    for (uint32_t i = 1; i < 288; i++)
        if (clear[20 + i] != clear[20]) {
            torn++;
            return;
        }
    whole++;
}

static void *read_history(void *arg)
{
    struct vc_crypto *crypto = vc_crypto_new(VC_CRYPTO_AUTO);
    struct vc_rx_index rx = { 0 };

    (void)arg;
    for (int last = 0; !last;) {
        const struct vc_io_mem_packet *packet;

        last = __atomic_load_n(&done, __ATOMIC_ACQUIRE);
        reader_ns += 1000;
        vc_worker_do_work(world.workers[1], reader_ns);
        while ((packet = vc_io_mem_take(world.io[1])))
            check_packet(crypto, packet, &rx);
    }
    vc_crypto_delete(crypto);
    return NULL;
}

int main(void)
{
    pthread_t writer, reader;
    const struct vc_counters *c;

    world_init(&world, 2);
    world.setup.audio_slots = 8;
    world_start(&world);
    world_leg(&world, 0, 0, VC_SRTP_AEAD_AES_128_GCM);
    world_leg(&world, 1, 1, VC_SRTP_AEAD_AES_128_GCM);
    world_source(&world, 0, 0, 0xa0, 0);
    world_route(&world, 1, 1, 0, 0x101, 0);
    writer_ns = reader_ns = world.now_ns;
    VC_ASSERT(!pthread_create(&reader, NULL, read_history, NULL));
    VC_ASSERT(!pthread_create(&writer, NULL, write_history, NULL));
    pthread_join(writer, NULL);
    pthread_join(reader, NULL);
    world_step(&world); /* both audits */
    c = world_counters(&world, 1);
    CHECK_EQ(torn, 0);
    CHECK_EQ(world_counters(&world, 0)->routed, PACKETS);
    CHECK_EQ(c->copies, PACKETS);
    CHECK_EQ(whole, c->transmitted);
    CHECK(whole > 0);
    printf("%u whole, %llu stale: ", whole,
           (unsigned long long)c->copy_drops[VC_COPY_DROP_STALE]);
    world_fini(&world);
    return check_report();
}
