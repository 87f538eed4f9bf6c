/* SPDX-License-Identifier: MIT */
/* ns a packet of the SRTP engine: seal and open, both suites and backends, bursts of 1, 16, 64.

   Fan-out as a worker does it: one clear packet, a key of its own for each copy (61 keys in turn,
   a prime, so that they do not fall into step with the burst), out of place.  Each figure is the
   least of several rounds; the loop around costs below 2 ns.
   Usage: crypto_bench [rounds] */
#include "base.h"
#include "crypto.h"

#include <stdbool.h>
#include <time.h>

#define KEY_CNT 61
#define FRAME_SZ 2048
#define PACKETS_A_ROUND 8192

struct bench {
    struct vc_crypto *crypto;
    struct vc_crypto_key *keys;
    uint8_t *clear;  /* one packet */
    uint8_t *sealed; /* VC_CRYPTO_BURST frames */
    uint8_t *opened;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *frames(size_t cnt)
{
    void *p = NULL;

    VC_ASSERT(posix_memalign(&p, 4096, cnt * FRAME_SZ) == 0);
    memset(p, 0x5a, cnt * FRAME_SZ);
    return p;
}

/* One pass of PACKETS_A_ROUND packets; open repeats the burst that the last seal left. */
static uint64_t round_ns(struct bench *b, uint32_t sz, uint32_t burst, bool open)
{
    struct vc_crypto_item items[VC_CRYPTO_BURST] = {0};
    uint32_t key = 0;
    uint64_t start;

    for (uint32_t i = 0; i < burst; i++)
        items[i] = (struct vc_crypto_item){
            .key = &b->keys[i % KEY_CNT],
            .src = open ? b->sealed + i * FRAME_SZ : b->clear,
            .dst = (open ? b->opened : b->sealed) + i * FRAME_SZ,
            .src_sz = open ? sz + vc_srtp_tag_sz(vc_crypto_key_suite(&b->keys[0])) : sz,
            .hdr_sz = 12,
            .index = i};
    start = now_ns();
    for (uint32_t done = 0; done < PACKETS_A_ROUND; done += burst) {
        for (uint32_t i = 0; !open && i < burst; i++) {
            items[i].key = &b->keys[key];
            items[i].index = done + i;
            key = key + 1 == KEY_CNT ? 0 : key + 1;
        }
        VC_ASSERT((open ? vc_crypto_open_rtp : vc_crypto_seal_rtp)(b->crypto, items, burst) ==
                  burst);
    }
    return now_ns() - start;
}

/* Leaves a burst for open: item i under key i, index i. */
static void seal_for_open(struct bench *b, uint32_t sz, uint32_t burst)
{
    for (uint32_t i = 0; i < burst; i++) {
        struct vc_crypto_item item = {.key = &b->keys[i % KEY_CNT],
                                      .src = b->clear,
                                      .dst = b->sealed + i * FRAME_SZ,
                                      .src_sz = sz,
                                      .hdr_sz = 12,
                                      .index = i};

        VC_ASSERT(vc_crypto_seal_rtp(b->crypto, &item, 1) == 1);
    }
}

static double least_ns(struct bench *b, uint32_t sz, uint32_t burst, bool open, int rounds)
{
    uint64_t least = UINT64_MAX;

    if (open)
        seal_for_open(b, sz, burst);
    for (int r = 0; r < rounds; r++) {
        uint64_t ns = round_ns(b, sz, burst, open);

        least = ns < least ? ns : least;
    }
    return (double)least / ((PACKETS_A_ROUND + burst - 1) / burst * burst);
}

static void suite_rows(struct bench *b, enum vc_srtp_suite suite, const char *suite_name,
                       int rounds)
{
    static const uint32_t sizes[] = {160, 1200}, bursts[] = {1, 16, 64};
    uint8_t master[16] = {0}, salt[14] = {0};

    for (int k = 0; k < KEY_CNT; k++) {
        master[0] = (uint8_t)k;
        VC_ASSERT(vc_crypto_key_init(b->crypto, &b->keys[k], suite, master, salt) == 0);
    }
    for (int s = 0; s < 2; s++) {
        printf("%-22s %-10s %5u B", vc_crypto_backend_name(b->crypto), suite_name, sizes[s]);
        for (int open = 0; open < 2; open++)
            for (int n = 0; n < 3; n++)
                printf(" %7.0f", least_ns(b, sizes[s], bursts[n], open, rounds));
        putchar('\n');
    }
}

int main(int argc, char **argv)
{
    static const enum vc_crypto_backend backends[] = {VC_CRYPTO_IMB, VC_CRYPTO_EVP};
    int rounds = argc > 1 ? atoi(argv[1]) : 20;
    struct bench b = {.keys = frames(KEY_CNT),
                      .clear = frames(1),
                      .sealed = frames(VC_CRYPTO_BURST),
                      .opened = frames(VC_CRYPTO_BURST)};

    if (rounds < 1 || rounds > 10000) {
        fprintf(stderr, "crypto_bench: rounds must be 1..10000, not %s\n", argv[1]);
        return 2;
    }
    _Static_assert(VC_CRYPTO_KEY_SZ <= FRAME_SZ, "keys share the frames' allocation");
    b.clear[0] = 0x80;
    printf("ns a packet            suite      size     seal: 1      16      64 open: 1      16     "
           " 64\n");
    for (int i = 0; i < 2; i++) {
        b.crypto = vc_crypto_new(backends[i]);
        if (b.crypto == NULL)
            continue;
        suite_rows(&b, VC_SRTP_AEAD_AES_128_GCM, "gcm", rounds);
        suite_rows(&b, VC_SRTP_AES_CM_128_HMAC_SHA1_80, "cm+sha1-80", rounds);
        vc_crypto_delete(b.crypto);
    }
    free(b.keys);
    free(b.clear);
    free(b.sealed);
    free(b.opened);
    return 0;
}
