/* SPDX-License-Identifier: MIT */
/* The smallest runner that will do: CHECK counts and says where, check_report ends main.

   exact() puts bytes into a heap block of exactly their size, so that the address sanitizer
   sees one byte read too far. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned check_passed, check_failed, check_skipped;

#define CHECK(cond)                                                                          \
    do {                                                                                     \
        if (cond) {                                                                          \
            check_passed++;                                                                  \
        } else {                                                                             \
            check_failed++;                                                                  \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #cond); \
        }                                                                                    \
    } while (0)

#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        long long check_a = (long long)(a), check_b = (long long)(b);                              \
        if (check_a == check_b) {                                                                  \
            check_passed++;                                                                        \
        } else {                                                                                   \
            check_failed++;                                                                        \
            fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__, #a, \
                    check_a, check_b);                                                             \
        }                                                                                          \
    } while (0)

static inline void check_skip(const char *what, const char *why)
{
    check_skipped++;
    printf("skipped: %s: %s\n", what, why);
}

static inline int check_report(void)
{
    printf("%u passed, %u failed, %u skipped\n", check_passed, check_failed, check_skipped);
    return check_failed || !(check_passed + check_skipped);
}

static inline uint8_t *exact(const void *bytes, size_t sz)
{
    uint8_t *p = malloc(sz);

    if (p && sz)
        memcpy(p, bytes, sz);
    return p;
}

/* A fixed sequence: the same packets in every run. */
static inline uint32_t check_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}

#endif
