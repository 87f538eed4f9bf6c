/* SPDX-License-Identifier: MIT */
/* The small runner of the SRTP engine's tests: named cases, counted checks, a seeded generator.
   A failed check prints its place and its message and the run goes on; main's exit status tells. */
#ifndef VC_TEST_CRYPTO_H
#define VC_TEST_CRYPTO_H

#include "crypto_impl.h"

#include <stdio.h>
#include <string.h>

struct test_tally {
    unsigned passed;
    unsigned failed;
};
extern struct test_tally tally;

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (cond) {                                                                                \
            tally.passed++;                                                                        \
        } else if (tally.failed++ < 20) {                                                          \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);                             \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)

#define PACKET_MAX (VC_CRYPTO_MAX_SZ + 64)

/* xorshift64*: the same packets in every run. */
uint64_t test_random(void);
void test_random_fill(uint8_t *out, uint32_t n);
uint32_t test_unhex(const char *hex, uint8_t *out); /* returns bytes; blanks are skipped */

/* A clear RTP packet of `sz` bytes with cc CSRCs and, with ext_words >= 0, an extension of
   that many words.  Returns the header size; sz must hold it. */
uint32_t test_rtp(uint8_t *out, uint32_t sz, uint32_t cc, int ext_words, uint16_t seq,
                  uint32_t ssrc);
void test_rtcp(uint8_t *out, uint32_t sz, uint32_t ssrc); /* sz: multiple of 4, >= 8 */

/* The backends under test: [0] ipsec-mb, [1] EVP.  A missing backend ends the run. */
extern struct vc_crypto *engines[2];
extern const enum vc_srtp_suite suites[2];

/* OpenSSL's calls of malloc and realloc since the start, and blocks it holds now. */
extern uint64_t openssl_allocations, openssl_live;

/* One packet through one call: returns ok. */
uint32_t test_seal(struct vc_crypto *crypto, const struct vc_crypto_key *key, bool rtcp,
                   const uint8_t *src, uint32_t sz, uint32_t hdr_sz, uint64_t index, uint8_t *dst,
                   uint32_t *dst_sz);
uint32_t test_open(struct vc_crypto *crypto, const struct vc_crypto_key *key, bool rtcp,
                   const uint8_t *src, uint32_t sz, uint32_t hdr_sz, uint64_t *index, uint8_t *dst,
                   uint32_t *dst_sz);

void test_vectors(void);
void test_agree(void);
void test_libsrtp(void);
void test_bad(void);

#endif
