/* SPDX-License-Identifier: MIT */
/* Small things that every file needs: likely, cache lines, the invariant check, byte order. */
#ifndef VC_BASE_H
#define VC_BASE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define vc_likely(x) __builtin_expect(!!(x), 1)
#define vc_unlikely(x) __builtin_expect(!!(x), 0)
#define VC_CACHE_LINE 64

/* A broken invariant ends the process: the supervisor restarts the data plane and replays the table. */
#define VC_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (vc_unlikely(!(cond))) {                                                                \
            fprintf(stderr, "vcfwd-dataplane: invariant broken: %s (%s:%d)\n", #cond, __FILE__, __LINE__); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static inline uint16_t vc_load_be16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap16(v);
}

static inline uint32_t vc_load_be32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap32(v);
}

static inline uint64_t vc_load_be64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap64(v);
}

static inline void vc_store_be16(void *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(p, &v, sizeof v);
}

static inline void vc_store_be32(void *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof v);
}

static inline void vc_store_be64(void *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof v);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "vcfwd is built for little-endian hosts");

#endif
