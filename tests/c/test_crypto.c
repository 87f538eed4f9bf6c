/* SPDX-License-Identifier: MIT */
/* Tests of the SRTP engine; see test_crypto.h.  Usage: test_crypto [case ...] */
#include "test_crypto.h"

#include <openssl/crypto.h>
#include <stdlib.h>

struct test_tally tally;
struct vc_crypto *engines[2];
const enum vc_srtp_suite suites[2] = {VC_SRTP_AEAD_AES_128_GCM, VC_SRTP_AES_CM_128_HMAC_SHA1_80};

uint64_t openssl_allocations, openssl_live;

static void *counted_malloc(size_t sz, const char *file, int line)
{
    (void)file;
    (void)line;
    openssl_allocations++;
    openssl_live++;
    return malloc(sz);
}

static void *counted_realloc(void *old, size_t sz, const char *file, int line)
{
    (void)file;
    (void)line;
    openssl_allocations++;
    openssl_live += old == NULL;
    return realloc(old, sz);
}

static void counted_free(void *old, const char *file, int line)
{
    (void)file;
    (void)line;
    openssl_live -= old != NULL;
    free(old);
}

uint64_t test_random(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15ull;

    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dull;
}

void test_random_fill(uint8_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = (uint8_t)(test_random() >> 32);
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

uint32_t test_unhex(const char *hex, uint8_t *out)
{
    uint32_t digits = 0;

    for (; *hex != '\0'; hex++) {
        if (nibble(*hex) < 0)
            continue;
        out[digits / 2] = (uint8_t)((digits % 2 ? out[digits / 2] << 4 : 0) | nibble(*hex));
        digits++;
    }
    return digits / 2;
}

uint32_t test_rtp(uint8_t *out, uint32_t sz, uint32_t cc, int ext_words, uint16_t seq,
                  uint32_t ssrc)
{
    uint32_t hdr_sz = 12 + 4 * cc;

    test_random_fill(out, sz);
    out[0] = (uint8_t)(0x80 | (ext_words >= 0 ? 0x10 : 0) | cc);
    out[2] = (uint8_t)(seq >> 8);
    out[3] = (uint8_t)seq;
    for (uint32_t i = 0; i < 4; i++)
        out[8 + i] = (uint8_t)(ssrc >> (24 - 8 * i));
    if (ext_words < 0)
        return hdr_sz;
    out[hdr_sz] = 0xbe;
    out[hdr_sz + 1] = 0xde;
    out[hdr_sz + 2] = 0;
    out[hdr_sz + 3] = (uint8_t)ext_words;
    return hdr_sz + 4 + 4 * (uint32_t)ext_words;
}

void test_rtcp(uint8_t *out, uint32_t sz, uint32_t ssrc)
{
    test_random_fill(out, sz);
    out[0] = 0x80;
    out[1] = 201;
    out[2] = (uint8_t)((sz / 4 - 1) >> 8);
    out[3] = (uint8_t)(sz / 4 - 1);
    for (uint32_t i = 0; i < 4; i++)
        out[4 + i] = (uint8_t)(ssrc >> (24 - 8 * i));
}

uint32_t test_seal(struct vc_crypto *crypto, const struct vc_crypto_key *key, bool rtcp,
                   const uint8_t *src, uint32_t sz, uint32_t hdr_sz, uint64_t index, uint8_t *dst,
                   uint32_t *dst_sz)
{
    struct vc_crypto_item item = {
        .key = key, .src = src, .dst = dst, .src_sz = sz, .hdr_sz = hdr_sz, .index = index};
    uint32_t ok_cnt =
        rtcp ? vc_crypto_seal_rtcp(crypto, &item, 1) : vc_crypto_seal_rtp(crypto, &item, 1);

    CHECK(ok_cnt == item.ok, "the count must agree with the item");
    *dst_sz = item.dst_sz;
    return item.ok;
}

uint32_t test_open(struct vc_crypto *crypto, const struct vc_crypto_key *key, bool rtcp,
                   const uint8_t *src, uint32_t sz, uint32_t hdr_sz, uint64_t *index, uint8_t *dst,
                   uint32_t *dst_sz)
{
    struct vc_crypto_item item = {
        .key = key, .src = src, .dst = dst, .src_sz = sz, .hdr_sz = hdr_sz, .index = *index};
    uint32_t ok_cnt =
        rtcp ? vc_crypto_open_rtcp(crypto, &item, 1) : vc_crypto_open_rtp(crypto, &item, 1);

    CHECK(ok_cnt == item.ok, "the count must agree with the item");
    *index = item.index;
    *dst_sz = item.dst_sz;
    return item.ok;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"vectors", test_vectors},
                 {"agree", test_agree},
                 {"libsrtp", test_libsrtp},
                 {"bad", test_bad}};

    if (CRYPTO_set_mem_functions(counted_malloc, counted_realloc, counted_free) != 1)
        return 1;
    engines[0] = vc_crypto_new(VC_CRYPTO_IMB);
    engines[1] = vc_crypto_new(VC_CRYPTO_EVP);
    if (engines[0] == NULL || engines[1] == NULL) {
        fprintf(stderr, "test_crypto: needs both backends; ipsec-mb %s, openssl %s\n",
                engines[0] ? "works" : "is missing", engines[1] ? "works" : "is missing");
        return 1;
    }
    printf("backends: %s, %s\n", vc_crypto_backend_name(engines[0]),
           vc_crypto_backend_name(engines[1]));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct test_tally before = tally;
        bool wanted = argc < 2;

        for (int a = 1; a < argc; a++)
            wanted = wanted || strcmp(argv[a], cases[i].name) == 0;
        if (!wanted)
            continue;
        cases[i].run();
        printf("%-8s %u passed, %u failed\n", cases[i].name, tally.passed - before.passed,
               tally.failed - before.failed);
    }
    vc_crypto_delete(engines[0]);
    vc_crypto_delete(engines[1]);
    printf("%u passed, %u failed\n", tally.passed, tally.failed);
    return tally.failed != 0 || tally.passed == 0;
}
