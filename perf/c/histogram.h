/* SPDX-License-Identifier: MIT */
/* A log-linear histogram of nanoseconds: 128 steps for each power of two, error below 0.8 %.
   Values of 2^40 ns (18 minutes) and more are counted in the last bucket.  One thread. */
#ifndef VC_PERF_HISTOGRAM_H
#define VC_PERF_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_BITS 7
#define HISTOGRAM_STEPS (1u << HISTOGRAM_BITS)
#define HISTOGRAM_BUCKETS ((40 - HISTOGRAM_BITS + 1) * HISTOGRAM_STEPS)

struct histogram {
    uint64_t cnt, sum, min, max; /* of the exact values; min is valid when cnt > 0 */
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline uint32_t histogram_bucket(uint64_t ns)
{
    uint32_t shift;

    if (ns >> 40)
        return HISTOGRAM_BUCKETS - 1;
    if (ns < HISTOGRAM_STEPS)
        return (uint32_t)ns;
    shift = 63 - (uint32_t)__builtin_clzll(ns) - HISTOGRAM_BITS;
    return (shift + 1) * HISTOGRAM_STEPS + (uint32_t)(ns >> shift) - HISTOGRAM_STEPS;
}

/* The least value of a bucket. */
static inline uint64_t histogram_floor(uint32_t bucket)
{
    uint32_t shift;

    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    shift = bucket / HISTOGRAM_STEPS - 1;
    return (uint64_t)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) << shift;
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
    if (!h->cnt || ns < h->min)
        h->min = ns;
    if (ns > h->max)
        h->max = ns;
    h->cnt++;
    h->sum += ns;
    h->buckets[histogram_bucket(ns)]++;
}

/* The middle of the bucket that holds the value of rank ceil(share * cnt); 0 when empty. */
static inline uint64_t histogram_at(const struct histogram *h, double share)
{
    uint64_t rank = (uint64_t)(share * (double)h->cnt + 0.9999999), seen = 0;

    if (!rank)
        rank = 1;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= rank) {
            uint64_t low = histogram_floor(i);
            uint64_t high = i + 1 < HISTOGRAM_BUCKETS ? histogram_floor(i + 1) - 1 : h->max;
            uint64_t middle = low + (high - low) / 2;

            return middle < h->min ? h->min : middle > h->max ? h->max : middle;
        }
    }
    return 0;
}

/* Microseconds; with `buckets`, also [least value in ns, count] of each bucket that is not empty. */
static inline void histogram_print(FILE *to, const struct histogram *h, int buckets)
{
    fprintf(to, "{\"count\":%llu,\"mean\":%.3f,\"min\":%.3f,\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f",
            (unsigned long long)h->cnt, h->cnt ? (double)h->sum / (double)h->cnt / 1e3 : 0.0,
            h->cnt ? (double)h->min / 1e3 : 0.0, (double)histogram_at(h, 0.5) / 1e3,
            (double)histogram_at(h, 0.99) / 1e3, (double)histogram_at(h, 0.999) / 1e3, (double)h->max / 1e3);
    if (buckets) {
        const char *comma = "";

        fprintf(to, ",\"buckets\":[");
        for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
            if (h->buckets[i]) {
                fprintf(to, "%s[%llu,%llu]", comma, (unsigned long long)histogram_floor(i),
                        (unsigned long long)h->buckets[i]);
                comma = ",";
            }
        fprintf(to, "]");
    }
    fprintf(to, "}");
}

#endif
