/* SPDX-License-Identifier: MIT */
/* ring.h: order, full, empty, counters that wrap; then a producer and a consumer at once. */
#include "ring.h"

#include "check.h"

#include <pthread.h>
#include <sched.h>

struct record {
    uint64_t number, twice;
    uint8_t fill[48];
};

struct fixture {
    _Alignas(64) uint64_t head;
    _Alignas(64) uint64_t tail;
    struct record records[8];
    struct vc_ring ring;
};

static void set_up(struct fixture *f, uint32_t capacity, uint64_t start)
{
    memset(f, 0, sizeof *f);
    f->head = f->tail = start;
    vc_ring_init(&f->ring, &f->head, &f->tail, f->records, sizeof *f->records, capacity);
}

/* From 0, and from where the counters wrap. */
static void test_order(void)
{
    static const uint64_t starts[] = { 0, 7, UINT32_MAX - 2, UINT64_MAX - 2 };

    for (uint32_t s = 0; s < sizeof starts / sizeof *starts; s++)
        for (uint32_t capacity = 1; capacity <= 8; capacity *= 2) {
            struct fixture f;
            uint64_t in = 0, out = 0;

            set_up(&f, capacity, starts[s]);
            CHECK(!vc_ring_front(&f.ring));
            for (uint32_t round = 0; round < 20; round++) {
                uint32_t n = 1 + round % capacity;

                for (uint32_t i = 0; i < n; i++, in++)
                    CHECK_EQ(
                        vc_ring_push(&f.ring, &(struct record){ .number = in, .twice = 2 * in }),
                        0);
                CHECK_EQ(vc_ring_used(&f.ring), n);
                for (uint32_t i = 0; i < n; i++, out++) {
                    const struct record *r = vc_ring_front(&f.ring);

                    CHECK(r && r->number == out && r->twice == 2 * out);
                    vc_ring_pop(&f.ring);
                }
                CHECK(!vc_ring_front(&f.ring));
            }
        }
}

static void test_full(void)
{
    struct fixture f;
    struct record *place;

    set_up(&f, 4, UINT64_MAX - 1);
    for (uint64_t i = 0; i < 4; i++)
        CHECK_EQ(vc_ring_push(&f.ring, &(struct record){ .number = i }), 0);
    CHECK_EQ(vc_ring_push(&f.ring, &(struct record){ .number = 99 }), -1);
    CHECK(!vc_ring_reserve(&f.ring));
    CHECK_EQ(vc_ring_used(&f.ring), 4);
    CHECK_EQ(((struct record *)vc_ring_front(&f.ring))->number, 0); /* nothing was overwritten */
    vc_ring_pop(&f.ring);
    place = vc_ring_reserve(&f.ring);
    CHECK(place != NULL);
    place->number = 4;
    CHECK_EQ(vc_ring_used(&f.ring), 3); /* not visible before it is published */
    vc_ring_publish(&f.ring);
    for (uint64_t i = 1; i <= 4; i++) {
        const struct record *r = vc_ring_front(&f.ring);

        CHECK(r && r->number == i);
        vc_ring_pop(&f.ring);
    }
}

enum { TRANSFERS = 200000 };

static void *produce(void *arg)
{
    struct fixture *f = arg;

    for (uint64_t i = 0; i < TRANSFERS;) {
        struct record r = { .number = i, .twice = 2 * i };

        if (vc_ring_push(&f->ring, &r))
            sched_yield();
        else
            i++;
    }
    return NULL;
}

static void test_two_threads(void)
{
    struct fixture f;
    uint64_t wrong = 0;
    pthread_t producer;

    set_up(&f, 8, UINT64_MAX - 100);
    CHECK_EQ(pthread_create(&producer, NULL, produce, &f), 0);
    for (uint64_t i = 0; i < TRANSFERS;) {
        const struct record *r = vc_ring_front(&f.ring);

        if (!r) {
            sched_yield();
            continue;
        }
        wrong += r->number != i || r->twice != 2 * i;
        vc_ring_pop(&f.ring);
        i++;
    }
    CHECK_EQ(pthread_join(producer, NULL), 0);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(vc_ring_used(&f.ring), 0);
}

int main(void)
{
    test_order();
    test_full();
    test_two_threads();
    return check_report();
}
