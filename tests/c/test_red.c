/* SPDX-License-Identifier: MIT */
/* The newest block of RED (RFC 2198): with none, one and most redundant ones, and cut anywhere. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "red.h"

enum { OPUS = 111 };

/* A payload of n redundant blocks of these sizes and a newest one.  Its size. */
static uint32_t build(uint8_t *out, const uint32_t *sizes, uint32_t n, uint32_t newest, uint8_t pt)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t offset = 960 * (n - i);

        out[at++] = 0x80 | OPUS;
        out[at++] = (uint8_t)(offset >> 6);
        out[at++] = (uint8_t)(offset << 2 | sizes[i] >> 8);
        out[at++] = (uint8_t)sizes[i];
    }
    out[at++] = pt;
    for (uint32_t i = 0; i < n; i++) {
        memset(out + at, (int)(1 + i), sizes[i]);
        at += sizes[i];
    }
    memset(out + at, 0xee, newest);
    return at + newest;
}

static void test_newest(void)
{
    static const uint32_t sizes[] = { 80, 1023, 1, 0, 256, 255, 257, 77, 3 };
    uint8_t payload[4096];

    for (uint32_t n = 0; n <= VC_RED_BLOCKS_MAX + 1; n++) {
        uint32_t sz = build(payload, sizes, n, 60, OPUS);
        uint32_t at = vc_red_primary(payload, sz, OPUS);

        if (n > VC_RED_BLOCKS_MAX) {
            CHECK_EQ(at, 0);
            continue;
        }
        CHECK_EQ(at, sz - 60);
        CHECK_EQ(payload[at], 0xee);
        CHECK(n == 0 || payload[at - 1] != 0xee);
        CHECK_EQ(vc_red_primary(payload, sz, OPUS + 1), 0);
    }
}

/* Each prefix on the heap, so that a sanitizer sees a byte read behind its end. */
static void test_cut(void)
{
    static const uint32_t sizes[] = { 7, 5 };
    uint8_t payload[64];
    uint32_t sz = build(payload, sizes, 2, 3, OPUS), newest = sz - 3;

    for (uint32_t n = 0; n <= sz; n++) {
        uint8_t *cut = malloc(n ? n : 1);

        memcpy(cut, payload, n);
        CHECK_EQ(vc_red_primary(cut, n, OPUS), n > newest ? newest : 0);
        free(cut);
    }
}

static void test_nonsense(void)
{
    uint8_t payload[VC_RED_HEAD_MAX];

    memset(payload, 0xff, sizeof(payload)); /* blocks without end */
    CHECK_EQ(vc_red_primary(payload, 1200, 127), 0);
    srand(3);
    for (int i = 0; i < 100000; i++) {
        uint32_t sz = (uint32_t)rand() % 1300;
        uint32_t at;

        for (uint32_t n = 0; n < sizeof(payload); n++)
            payload[n] = (uint8_t)rand();
        at = vc_red_primary(payload, sz, payload[0] & 0x7f);
        CHECK(at < sz || at == 0);
    }
}

int main(void)
{
    test_newest();
    test_cut();
    test_nonsense();
    return check_report();
}
