/* SPDX-License-Identifier: MIT */
#include "source.h"

int vc_source_hold(struct vc_source *source)
{
    uint64_t state = __atomic_load_n(&source->state, __ATOMIC_ACQUIRE);

    do {
        if (!(state & VC_SOURCE_LIVE))
            return -1;
    } while (!__atomic_compare_exchange_n(&source->state, &state, state + 1, 0, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    return 0;
}

void vc_source_release(struct vc_source *source)
{
    __atomic_fetch_sub(&source->state, 1, __ATOMIC_ACQ_REL);
}

int vc_source_end(struct vc_source *source)
{
    uint64_t alone = VC_SOURCE_LIVE;

    return __atomic_compare_exchange_n(&source->state, &alone, 0, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED) ? 0 : -1;
}

/* RFC 3550 appendix A.8, integer form. */
static void count_jitter(struct vc_source *source, const struct vc_slot_head *at)
{
    uint64_t arrival = at->arrival_ns / 1000u * source->clock_hz / 1000000u;
    uint32_t transit = (uint32_t)arrival - at->rtp.timestamp;
    int32_t change = (int32_t)(transit - source->transit);
    uint32_t size = change < 0 ? 0u - (uint32_t)change : (uint32_t)change;

    if (source->received > 1)
        source->jitter16 += size - ((source->jitter16 + 8) >> 4);
    source->transit = transit;
}

static int32_t lost(const struct vc_source *source)
{
    int64_t missing = (int64_t)(source->highest - source->base + 1) - (int64_t)source->received;

    if (missing > 0x7fffff)
        return 0x7fffff;
    return missing < -0x800000 ? -0x800000 : (int32_t)missing;
}

void vc_source_count(struct vc_source *source, const struct vc_slot_head *at, uint64_t position)
{
    struct vc_source_stats *stats = source->stats;

    if (!source->received || (at->index < source->base && !(at->flags & VC_SLOT_REPAIRED)))
        source->base = at->index; /* what came before the first one was not expected then */
    if (!source->received || at->index > source->highest)
        __atomic_store_n(&source->highest, at->index, __ATOMIC_RELAXED);
    if (!(at->flags & VC_SLOT_REPAIRED)) { /* RFC 4588 section 10: reports speak of what came itself */
        source->received++;
        count_jitter(source, at);
    }
    if (at->flags & VC_SLOT_KEY) {
        if (!source->key_ns || at->rtp.timestamp != source->key_timestamp) {
            source->key_timestamp = at->rtp.timestamp;
            __atomic_store_n(&source->key_position, position, __ATOMIC_RELAXED);
            __atomic_store_n(&source->key_index, at->index, __ATOMIC_RELAXED);
            __atomic_store_n(&source->key_ns, at->arrival_ns, __ATOMIC_RELAXED);
            stats->keyframes++;
        }
        source->keyframe_wanted = 0;
    }
    stats->packets++;
    stats->bytes += at->sz;
    stats->last_rx_ns = at->arrival_ns;
    stats->ssrc = source->ssrc;
    stats->highest_seq = (uint32_t)source->highest;
    stats->lost = lost(source);
    stats->jitter = source->jitter16 >> 4;
}

void vc_source_level(struct vc_source *source, const uint8_t *data, uint64_t now_ns)
{
    struct vc_source_stats *stats = source->stats;

    if (source->level_since_ns && now_ns - source->level_since_ns >= VC_LEVEL_WINDOW_NS) {
        stats->level = (source->level_sum + source->level_cnt / 2) / source->level_cnt;
        __atomic_store_n(&stats->level_ns, source->level_since_ns + VC_LEVEL_WINDOW_NS,
                         __ATOMIC_RELEASE);
        source->level_since_ns = 0;
    }
    if (!source->level_since_ns) {
        source->level_since_ns = now_ns;
        source->level_sum = source->level_cnt = 0;
    }
    source->level_sum += data[0] & 0x7fu;
    source->level_cnt++;
}

void vc_source_block(struct vc_source *source, struct vc_rtcp_block *block, uint64_t now_ns)
{
    uint64_t expected = source->highest - source->base + 1;
    int64_t expected_now = (int64_t)(expected - source->expected_prior);
    int64_t missing = expected_now - (int64_t)(source->received - source->received_prior);
    struct vc_sender_report report;

    *block = (struct vc_rtcp_block){
        .ssrc = source->ssrc,
        .cumulative_lost = lost(source),
        .highest_seq = (uint32_t)source->highest,
        .jitter = source->jitter16 >> 4,
    };
    if (expected_now > 0 && missing > 0) /* RFC 3550 appendix A.3 */
        block->fraction_lost = (uint8_t)(missing * 256 / expected_now > 255 ?
                                             255 : missing * 256 / expected_now);
    source->expected_prior = expected;
    source->received_prior = source->received;
    if (!vc_source_report_read(source, &report)) {
        block->lsr = vc_ntp_middle(report.ntp);
        block->dlsr = vc_ns_to_ntp_short((now_ns - report.arrival_ns) & 0xffffffffffffull);
    }
}

void vc_source_report_write(struct vc_source *source, const struct vc_sender_report *report)
{
    uint64_t gen = source->report_gen, words[3];

    memcpy(words, report, sizeof words);
    __atomic_store_n(&source->report_gen, gen + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (int i = 0; i < 3; i++)
        __atomic_store_n(&source->report[i], words[i], __ATOMIC_RELAXED);
    __atomic_store_n(&source->report_gen, gen + 2, __ATOMIC_RELEASE);
}

int vc_source_report_read(const struct vc_source *source, struct vc_sender_report *report)
{
    uint64_t gen = __atomic_load_n(&source->report_gen, __ATOMIC_ACQUIRE), words[3];

    if (gen & 1) /* being written: the next report comes soon */
        return -1;
    for (int i = 0; i < 3; i++)
        words[i] = __atomic_load_n(&source->report[i], __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&source->report_gen, __ATOMIC_RELAXED) != gen)
        return -1;
    memcpy(report, words, sizeof words);
    return report->arrival_ns ? 0 : -1;
}
