/* SPDX-License-Identifier: MIT */
/* The index guess and the replay windows, against definitions written the slow way: the guess is
   the nearest index by distance, the window is a list of everything ever accepted. */
#include "srtp_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned passed, failed;

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (cond) {                                                                                \
            passed++;                                                                              \
        } else if (failed++ < 20) {                                                                \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);                             \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)

static const uint16_t edges[] = {0, 1, 127, 128, 32767, 32768, 65534, 65535};
static const uint64_t rocs[] = {0, 1, 0xffff, 0xfffffffe, 0xffffffff};
#define EDGE_CNT (sizeof(edges) / sizeof(edges[0]))
#define ROC_CNT (sizeof(rocs) / sizeof(rocs[0]))

static uint64_t random_next(void)
{
    static uint64_t state = 88172645463325252ull;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* The candidates are ROC-1, ROC, ROC+1; the nearest wins.  At a distance of exactly 2^15 the RFC
   stays in the present ROC. */
static uint64_t nearest(uint64_t highest, uint16_t seq)
{
    uint64_t best = (highest >> 16) << 16 | seq;

    for (int step = -1; step <= 1; step += 2) {
        int64_t roc = (int64_t)(highest >> 16) + step;
        uint64_t candidate = (uint64_t)roc << 16 | seq;

        if (roc < 0)
            continue;
        if (llabs((int64_t)(candidate - highest)) < llabs((int64_t)(best - highest)))
            best = candidate;
    }
    return best;
}

static void guess_sweep(void)
{
    for (size_t r = 0; r < ROC_CNT; r++) {
        for (size_t a = 0; a < EDGE_CNT; a++) {
            struct vc_rx_index rx = {.flags = VC_INDEX_STARTED,
                                     .highest = rocs[r] << 16 | edges[a]};

            for (uint32_t seq = 0; seq <= 0xffff; seq++)
                if (vc_rx_index_guess(&rx, (uint16_t)seq) != nearest(rx.highest, (uint16_t)seq))
                    CHECK(false, "highest %llx seq %u: %llx", (unsigned long long)rx.highest, seq,
                          (unsigned long long)vc_rx_index_guess(&rx, (uint16_t)seq));
            passed++;
        }
    }
    for (size_t a = 0; a < EDGE_CNT; a++) {
        struct vc_rx_index rx = {.highest = 0x123456789};

        CHECK(vc_rx_index_guess(&rx, edges[a]) == edges[a], "not begun: ROC 0");
    }
}

static void guess_cases(void)
{
    static const struct {
        const char *what;
        uint64_t highest;
        uint16_t seq;
        uint64_t index;
    } cases[] = {
        {"next over the wrap", 0x0000ffff, 0, 0x10000},
        {"late from before the wrap", 0x10000, 65535, 0x0ffff},
        {"late, but there is no ROC before 0", 5, 65535, 0xffff},
        {"2^15 ahead", 0x10000, 0x8000, 0x18000},
        {"2^15 + 1 ahead is behind", 0x10000, 0x8001, 0x08001},
        {"2^15 behind", 0x18000, 0, 0x10000},
        {"2^15 + 1 behind is ahead", 0x18001, 0, 0x20000},
        {"past the last ROC", 0xffffffffffff, 0, 1ull << 48},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vc_rx_index rx = {.flags = VC_INDEX_STARTED, .highest = cases[i].highest};

        CHECK(vc_rx_index_guess(&rx, cases[i].seq) == cases[i].index, "%s: %llx", cases[i].what,
              (unsigned long long)vc_rx_index_guess(&rx, cases[i].seq));
    }
}

/* A stream across each edge: in order, then each index again, then just inside and outside. */
static void window_edges(void)
{
    for (size_t r = 0; r < ROC_CNT; r++) {
        for (size_t a = 0; a < EDGE_CNT; a++) {
            struct vc_rx_index rx = {0};
            uint64_t first = (rocs[r] << 16 | edges[a]) + 2;
            uint64_t last = first + 3 * VC_RX_WINDOW;

            for (uint64_t i = first; i <= last; i += 2)
                CHECK(vc_rx_index_check(&rx, i) && vc_rx_index_accept(&rx, i), "new");
            for (uint64_t i = first; i <= last; i += 2)
                CHECK(!vc_rx_index_check(&rx, i) && !vc_rx_index_accept(&rx, i), "replayed");
            CHECK(vc_rx_index_check(&rx, last - VC_RX_WINDOW + 1), "the oldest that counts");
            CHECK(!vc_rx_index_check(&rx, last - VC_RX_WINDOW - 1), "too old");
            for (uint64_t i = last - VC_RX_WINDOW + 1; i < last; i += 2)
                CHECK(vc_rx_index_accept(&rx, i), "late, once");
            for (uint64_t i = last - VC_RX_WINDOW + 1; i <= last; i++)
                CHECK(!vc_rx_index_accept(&rx, i), "late, twice");
            CHECK(rx.highest == last, "late packets do not move the highest");
        }
    }
}

#define WALK 4000

/* Random jumps and returns against the list of all that was accepted. */
static void window_walk(uint64_t start, uint64_t jump_max)
{
    static uint64_t accepted[WALK];
    struct vc_rx_index rx = {0};
    struct vc_rtcp_index rtcp = {0};
    uint64_t highest = 0;
    uint32_t accepted_cnt = 0;

    for (uint32_t i = 0; i < WALK; i++) {
        uint64_t back = random_next() % 160;
        uint64_t index = highest == 0 ? start : highest + random_next() % jump_max;
        bool seen = false, late, late_rtcp;

        if (highest != 0 && random_next() % 2)
            index = highest > back + start ? highest - back : start;
        for (uint32_t k = 0; k < accepted_cnt; k++)
            seen = seen || accepted[k] == index;
        late = index + VC_RX_WINDOW <= highest;
        late_rtcp = index + VC_RTCP_WINDOW <= highest;
        CHECK(vc_rx_index_check(&rx, index) == (!seen && !late), "check %llx, highest %llx",
              (unsigned long long)index, (unsigned long long)highest);
        CHECK(vc_rtcp_index_check(&rtcp, (uint32_t)index) == (!seen && !late_rtcp), "RTCP check");
        if (late_rtcp) /* keep the two in step: what one refuses neither may record */
            continue;
        CHECK(vc_rx_index_accept(&rx, index) == !seen, "accept");
        CHECK(vc_rtcp_index_accept(&rtcp, (uint32_t)index) == !seen, "RTCP accept");
        if (!seen)
            accepted[accepted_cnt++] = index;
        highest = index > highest ? index : highest;
        CHECK(rx.highest == highest && rtcp.highest == highest, "highest");
    }
    CHECK(accepted_cnt > WALK / 8, "the walk accepts something");
}

static void rtcp_edges(void)
{
    static const uint32_t starts[] = {0, 1, 127, 128, 65535, 0x7fffff00};

    for (size_t s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
        struct vc_rtcp_index rx = {0};

        for (uint32_t i = starts[s]; i < starts[s] + 256; i++) {
            if (i % 7 == 3)
                continue;
            CHECK(vc_rtcp_index_accept(&rx, i), "new");
            CHECK(!vc_rtcp_index_accept(&rx, i), "twice");
        }
        for (uint32_t i = starts[s]; i < starts[s] + 256; i++)
            CHECK(vc_rtcp_index_check(&rx, i) == (i % 7 == 3 && i + VC_RTCP_WINDOW > rx.highest),
                  "%u of %u", i, starts[s]);
    }
}

/* Whatever the memory holds: no fault (the sanitizer watches), and accepted means accepted. */
static void any_content(void)
{
    for (uint32_t i = 0; i < 20000; i++) {
        struct vc_rx_index rx;
        struct vc_rtcp_index rtcp;
        uint64_t index;

        for (size_t k = 0; k < sizeof(rx); k++)
            ((uint8_t *)&rx)[k] = (uint8_t)random_next();
        for (size_t k = 0; k < sizeof(rtcp); k++)
            ((uint8_t *)&rtcp)[k] = (uint8_t)random_next();
        if (i % 4 == 0)
            rx.highest = UINT64_MAX - random_next() % 3;
        index = vc_rx_index_guess(&rx, i % 8 ? (uint16_t)random_next() : 0xffff);
        if (vc_rx_index_accept(&rx, index))
            CHECK(!vc_rx_index_accept(&rx, index), "twice");
        index = random_next() & 0x7fffffff;
        if (vc_rtcp_index_accept(&rtcp, (uint32_t)index))
            CHECK(!vc_rtcp_index_accept(&rtcp, (uint32_t)index), "twice");
    }
}

int main(void)
{
    guess_sweep();
    guess_cases();
    window_edges();
    for (size_t a = 0; a < EDGE_CNT; a++) {
        window_walk(0x10000u + edges[a] - 60, 3);
        window_walk(0x10000u + edges[a] - 60, 90);
        window_walk(0x10000u + edges[a] - 60, 300);
        window_walk(0x10000u + edges[a] - 60, 3000);
    }
    rtcp_edges();
    any_content();
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
