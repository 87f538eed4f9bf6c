/* SPDX-License-Identifier: MIT */
/* The receiver's arithmetic on stamps whose answers are known.  Run by tests/unit/test_perf_c.py. */
#include <stdlib.h>
#include <string.h>

#include "measure.h"

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { SLOTS = 16, MS = 1000000 };

static struct {
    struct times_header header;
    struct times_entry entries[2 * SLOTS];
} times = { .header = { TIMES_MAGIC, 2, SLOTS, 100, { 0 } } };

static int near(double value, double wanted)
{
    double error = value > wanted ? value - wanted : wanted - value;

    return error <= wanted * 0.008 + 1e-9;
}

static void test_buckets(void)
{
    static struct histogram h;

    for (uint64_t ns = 0; ns < 5000; ns++) {
        uint32_t i = histogram_bucket(ns);

        CHECK(histogram_floor(i) <= ns && ns < histogram_floor(i + 1));
    }
    for (unsigned bit = 13; bit < 40; bit++) {
        uint64_t ns = (1ull << bit) - 1;

        CHECK(histogram_floor(histogram_bucket(ns)) <= ns);
        CHECK(histogram_bucket(ns + 1) == histogram_bucket(ns) + 1);
        CHECK((double)(ns - histogram_floor(histogram_bucket(ns))) <= (double)ns * 0.008);
    }
    CHECK(histogram_bucket(UINT64_MAX) == HISTOGRAM_BUCKETS - 1);
    for (uint64_t ns = 1; ns <= 1000; ns++)
        histogram_add(&h, ns * 1000);
    CHECK(h.cnt == 1000 && h.min == 1000 && h.max == 1000000);
    CHECK(near((double)histogram_at(&h, 0.5), 500000) && near((double)histogram_at(&h, 0.99), 990000));
    CHECK(histogram_at(&h, 1.0) <= h.max && histogram_at(&h, 0.0) >= h.min);
}

/* A packet of a flow, sent at send_ns with a frame of so many packets, and its stamp at one port. */
static void packet(struct measure *m, uint32_t flow, uint64_t index, uint64_t send_ns, uint64_t frame_ns,
                   uint16_t packets, uint64_t arrival_ns)
{
    struct times_entry e = { send_ns, frame_ns, index, (uint32_t)(frame_ns / MS * 90), packets, 0 };
    struct stamp s = { arrival_ns, 100 + flow, e.rtp_time, 5000, (uint16_t)index, 1000, 96, 0 };

    times.entries[flow * SLOTS + index % SLOTS] = e;
    if (arrival_ns)
        measure_stamp(m, &times.header, &s);
}

/* Two frames: the first whole and evenly spaced, of the second one packet lost and one late. */
static void test_frames(void)
{
    struct measure *m = measure_new(100, 8e6); /* 1000 bytes: 1 ms */

    CHECK(m);
    packet(m, 0, 65534, 10 * MS, 10 * MS, 3, 11 * MS);
    packet(m, 0, 65535, 10 * MS, 10 * MS, 3, 12 * MS);
    packet(m, 0, 65536, 10 * MS, 10 * MS, 3, 13 * MS);
    packet(m, 0, 65537, 40 * MS, 40 * MS, 4, 42 * MS);
    packet(m, 0, 65538, 40 * MS, 40 * MS, 4, 0);
    packet(m, 0, 65540, 40 * MS, 40 * MS, 4, 43 * MS);
    packet(m, 0, 65539, 40 * MS, 40 * MS, 4, 45 * MS);
    measure_finish(m);
    CHECK(m->cnt == 6 && m->streams == 1 && m->lost == 1 && m->reordered == 1 && m->duplicates == 0);
    CHECK(m->frames == 2 && m->frames_whole == 1 && m->frame.cnt == 1 && m->frame.max == 3 * MS);
    CHECK(m->delay.min == 1 * MS && m->delay.max == 5 * MS && m->pdv.min == 0 && m->pdv.max == 4 * MS);
    /* gaps: 1, 1 in the first frame; 65539 to 65540: 2 ms, backwards */
    CHECK(m->gap.cnt == 3 && m->gap.max == 2 * MS && m->ipd.min == 0 && m->ipd.max == 1 * MS);
    /* consecutive pairs: two in the first frame (1 ms), across (3 -> 2: 1 ms), the late one (5 -> 3) */
    CHECK(m->ipdv.cnt == 4 && m->ipdv.min == 1 * MS && m->ipdv.max == 2 * MS);
    measure_delete(m);
}

static void test_jitter(void)
{
    struct measure *m = measure_new(10, 0);

    CHECK(m);
    packet(m, 1, 1, 100 * MS, 100 * MS, 1, 101 * MS);
    packet(m, 1, 2, 110 * MS, 110 * MS, 1, 111 * MS + 1600000); /* D = 1.6 ms: J = 100 us */
    measure_finish(m);
    CHECK(near(m->jitter_us, 100) && m->ipd.cnt == 0);
    measure_delete(m);
}

static void test_unmatched(void)
{
    struct measure *m = measure_new(2, 0);
    struct stamp stray = { 5, 99, 0, 5000, 0, 1000, 96, 0 };

    CHECK(m);
    measure_stamp(m, &times.header, &stray); /* no such flow */
    packet(m, 0, 1, 10 * MS, 10 * MS, 1, 11 * MS);
    packet(m, 0, 2, 10 * MS, 10 * MS, 1, 9 * MS); /* before it was sent */
    packet(m, 0, 1 + SLOTS, 20 * MS, 20 * MS, 1, 0);
    stray = (struct stamp){ 12 * MS, 100, 900, 5000, 1, 1000, 96, 0 };
    measure_stamp(m, &times.header, &stray); /* its entry was overtaken */
    CHECK(m->cnt == 1 && m->unmatched == 3);
    packet(m, 0, 3, 10 * MS, 10 * MS, 1, 11 * MS);
    packet(m, 0, 3, 10 * MS, 10 * MS, 1, 12 * MS);
    CHECK(m->cnt == 2 && m->overflow == 1);
    measure_reset(m);
    CHECK(m->cnt == 0 && m->max == 2 && m->records);
    packet(m, 0, 4, 10 * MS, 10 * MS, 1, 11 * MS);
    packet(m, 0, 4, 10 * MS, 10 * MS, 1, 12 * MS);
    measure_finish(m);
    CHECK(m->duplicates == 1 && m->lost == 0);
    measure_delete(m);
}

int main(void)
{
    test_buckets();
    test_frames();
    test_jitter();
    test_unmatched();
    puts("ok");
    return 0;
}
