/* SPDX-License-Identifier: MIT */
#include "measure.h"

#include <stdlib.h>
#include <string.h>

#define CLOCK_HZ 90000.0

struct measure *measure_new(uint64_t records_max, double spacing_bps)
{
    struct measure *m = calloc(1, sizeof *m);

    if (!m)
        return NULL;
    m->records = calloc(records_max, sizeof *m->records);
    if (!m->records) {
        free(m);
        return NULL;
    }
    m->max = records_max;
    m->spacing_bps = spacing_bps;
    return m;
}

void measure_delete(struct measure *m)
{
    if (m)
        free(m->records);
    free(m);
}

void measure_reset(struct measure *m)
{
    struct record *records = m->records;
    uint64_t max = m->max;
    double spacing_bps = m->spacing_bps;

    memset(m, 0, sizeof *m);
    m->records = records;
    m->max = max;
    m->spacing_bps = spacing_bps;
}

void measure_stamp(struct measure *m, const struct times_header *times, const struct stamp *stamp)
{
    const struct times_entry *entries = (const struct times_entry *)(times + 1);
    uint32_t flow = stamp->ssrc - times->ssrc_base;
    struct times_entry e;

    if (flow >= times->flows) {
        m->unmatched++;
        return;
    }
    e = entries[(size_t)flow * times->slots + (stamp->sequence & (times->slots - 1))];
    if ((uint16_t)e.index != stamp->sequence || e.rtp_time != stamp->rtp_time || e.send_ns > stamp->arrival_ns) {
        m->unmatched++;
        return;
    }
    if (m->cnt == m->max) {
        m->overflow++;
        return;
    }
    m->records[m->cnt++] = (struct record){
        .arrival_ns = stamp->arrival_ns, .send_ns = e.send_ns, .frame_ns = e.frame_ns, .index = e.index,
        .rtp_time = e.rtp_time, .port = stamp->port, .flow = (uint16_t)flow, .length = stamp->length,
        .frame_packets = e.frame_packets,
    };
}

static int by_stream(const void *one, const void *two)
{
    const struct record *a = one, *b = two;

    if (a->port != b->port)
        return a->port < b->port ? -1 : 1;
    if (a->flow != b->flow)
        return a->flow < b->flow ? -1 : 1;
    return a->arrival_ns < b->arrival_ns ? -1 : a->arrival_ns > b->arrival_ns;
}

static int by_index(const void *one, const void *two)
{
    const struct record *a = one, *b = two;

    return a->index < b->index ? -1 : a->index > b->index;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

/* RFC 3550 section 6.4.1, in the order of arrival; also the order itself. */
static double jitter_of(struct measure *m, const struct record *r, uint64_t n)
{
    double jitter = 0;
    uint64_t highest = r[0].index;

    for (uint64_t i = 1; i < n; i++) {
        double ticks = (double)(int32_t)(r[i].rtp_time - r[i - 1].rtp_time);
        double d = (double)(int64_t)(r[i].arrival_ns - r[i - 1].arrival_ns) / 1e3 - ticks * 1e6 / CLOCK_HZ;

        jitter += ((d < 0 ? -d : d) - jitter) / 16;
        if (r[i].index < highest)
            m->reordered++;
        else
            highest = r[i].index;
    }
    return jitter;
}

/* A frame whose last record is r[last]; n records of the stream from r on. */
static void end_frame(struct measure *m, const struct record *r, uint64_t first, uint64_t last)
{
    uint64_t end_ns = 0;

    m->frames++;
    for (uint64_t i = first; i <= last; i++)
        if (r[i].arrival_ns > end_ns)
            end_ns = r[i].arrival_ns;
    if (last - first + 1 != r[first].frame_packets)
        return;
    m->frames_whole++;
    histogram_add(&m->frame, end_ns - r[first].frame_ns);
}

/* In the order of the index, duplicates gone. */
static void in_sequence(struct measure *m, const struct record *r, uint64_t n)
{
    uint64_t first = 0;

    for (uint64_t i = 1; i <= n; i++) {
        if (i == n || r[i].rtp_time != r[i - 1].rtp_time) {
            end_frame(m, r, first, i - 1);
            first = i;
        }
        if (i == n || r[i].index != r[i - 1].index + 1)
            continue;
        histogram_add(&m->ipdv, apart(r[i].arrival_ns - r[i].send_ns, r[i - 1].arrival_ns - r[i - 1].send_ns));
        if (r[i].rtp_time == r[i - 1].rtp_time) {
            uint64_t gap = apart(r[i].arrival_ns, r[i - 1].arrival_ns);

            histogram_add(&m->gap, gap);
            if (m->spacing_bps > 0)
                histogram_add(&m->ipd, apart(gap, (uint64_t)(r[i - 1].length * 8e9 / m->spacing_bps)));
        }
    }
    m->lost += r[n - 1].index - r[0].index + 1 - n;
}

static void finish_stream(struct measure *m, struct record *r, uint64_t n)
{
    uint64_t least = UINT64_MAX, kept = 1;

    m->jitter_us += jitter_of(m, r, n);
    m->streams++;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t delay = r[i].arrival_ns - r[i].send_ns;

        histogram_add(&m->delay, delay);
        least = delay < least ? delay : least;
    }
    for (uint64_t i = 0; i < n; i++)
        histogram_add(&m->pdv, r[i].arrival_ns - r[i].send_ns - least);
    qsort(r, n, sizeof *r, by_index);
    for (uint64_t i = 1; i < n; i++) {
        if (r[i].index == r[kept - 1].index)
            m->duplicates++;
        else
            r[kept++] = r[i];
    }
    in_sequence(m, r, kept);
}

void measure_finish(struct measure *m)
{
    uint64_t first = 0;

    if (!m->cnt)
        return;
    qsort(m->records, m->cnt, sizeof *m->records, by_stream);
    m->first_ns = UINT64_MAX;
    for (uint64_t i = 0; i < m->cnt; i++) {
        const struct record *r = &m->records[i];

        m->first_ns = r->arrival_ns < m->first_ns ? r->arrival_ns : m->first_ns;
        m->last_ns = r->arrival_ns > m->last_ns ? r->arrival_ns : m->last_ns;
    }
    for (uint64_t i = 1; i <= m->cnt; i++)
        if (i == m->cnt || m->records[i].port != m->records[first].port ||
            m->records[i].flow != m->records[first].flow) {
            finish_stream(m, &m->records[first], i - first);
            first = i;
        }
    m->jitter_us /= (double)m->streams;
}

void measure_print(const struct measure *m, FILE *to, int buckets)
{
    const struct {
        const char *name;
        const struct histogram *h;
    } all[] = { { "delay", &m->delay }, { "pdv", &m->pdv }, { "ipdv", &m->ipdv },
                { "ipd", &m->ipd },     { "gap", &m->gap }, { "frame", &m->frame } };

    fprintf(to,
            "{\"records\":%llu,\"streams\":%llu,\"unmatched\":%llu,\"overflow\":%llu,\"lost\":%llu,\"reordered\":%llu,"
            "\"duplicates\":%llu,\"frames\":%llu,\"frames_whole\":%llu,\"jitter\":%.3f,\"span_s\":%.6f",
            (unsigned long long)m->cnt, (unsigned long long)m->streams, (unsigned long long)m->unmatched,
            (unsigned long long)m->overflow, (unsigned long long)m->lost, (unsigned long long)m->reordered,
            (unsigned long long)m->duplicates, (unsigned long long)m->frames, (unsigned long long)m->frames_whole,
            m->jitter_us, (double)(m->last_ns - m->first_ns) / 1e9);
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        fprintf(to, ",\"%s\":", all[i].name);
        histogram_print(to, all[i].h, buckets);
    }
    fprintf(to, "}");
}
