/* SPDX-License-Identifier: MIT */
/* libsrtp2 as the oracle: what it seals we open, what we seal it opens, RTP and RTCP, from master
   keys, over sequence wraps and with a roll-over counter set from outside. */
#include "test_crypto.h"

#include <stdlib.h>

#include "srtp_oracle.h"

#define SSRC 0x0badcafe
#define RTP_CNT 400

struct oracle {
    srtp_t tx; /* libsrtp seals */
    srtp_t rx; /* libsrtp opens */
    struct vc_crypto_key key;
    struct vc_crypto *engine;
};

static srtp_t session_new(enum vc_srtp_suite suite, uint8_t *master, uint32_t roc)
{
    srtp_policy_t policy = oracle_policy(suite, master);
    srtp_t session = NULL;

    policy.ssrc.type = ssrc_specific;
    policy.ssrc.value = SSRC;
    if (srtp_create(&session, &policy) != srtp_err_status_ok)
        abort();
    if (roc != 0 && srtp_set_stream_roc(session, SSRC, roc) != srtp_err_status_ok)
        abort();
    return session;
}

static void oracle_new(struct oracle *o, struct vc_crypto *engine, enum vc_srtp_suite suite,
                       uint32_t roc)
{
    uint8_t master[16 + 14];

    test_random_fill(master, sizeof(master));
    o->engine = engine;
    o->tx = session_new(suite, master, roc);
    o->rx = session_new(suite, master, roc);
    CHECK(vc_crypto_key_init(engine, &o->key, suite, master, master + 16) == 0, "key_init");
}

static void oracle_delete(struct oracle *o)
{
    srtp_dealloc(o->tx);
    srtp_dealloc(o->rx);
}

/* Both directions for one RTP packet; `index` is what the stream has come to. */
static void rtp_both_ways(struct oracle *o, uint64_t index, uint32_t sz)
{
    _Alignas(8) uint8_t clear[PACKET_MAX], theirs[PACKET_MAX], ours[PACKET_MAX];
    uint32_t hdr_sz =
        test_rtp(clear, sz, (uint32_t)index % 4, (int)(index % 5) - 1, (uint16_t)index, SSRC);
    uint32_t ours_sz, back_sz;
    int theirs_sz = (int)sz;

    memcpy(theirs, clear, sz);
    CHECK(srtp_protect(o->tx, theirs, &theirs_sz) == srtp_err_status_ok, "libsrtp seals");
    CHECK(test_seal(o->engine, &o->key, false, clear, sz, hdr_sz, index, ours, &ours_sz),
          "we seal");
    CHECK((int)ours_sz == theirs_sz && memcmp(ours, theirs, ours_sz) == 0,
          "the same bytes at index %llx", (unsigned long long)index);

    theirs_sz = (int)ours_sz;
    CHECK(test_open(o->engine, &o->key, false, theirs, ours_sz, hdr_sz, &index, clear, &back_sz),
          "we open libsrtp's");
    CHECK(srtp_unprotect(o->rx, ours, &theirs_sz) == srtp_err_status_ok, "libsrtp opens ours");
    CHECK(theirs_sz == (int)sz && back_sz == sz && memcmp(ours, clear, sz) == 0,
          "both see the same clear packet");
}

static void rtcp_both_ways(struct oracle *o, uint64_t index, uint32_t sz)
{
    _Alignas(8) uint8_t clear[PACKET_MAX], theirs[PACKET_MAX], ours[PACKET_MAX];
    uint32_t ours_sz, back_sz;
    uint64_t found = 0;
    int theirs_sz = (int)sz;

    test_rtcp(clear, sz, SSRC);
    memcpy(theirs, clear, sz);
    CHECK(srtp_protect_rtcp(o->tx, theirs, &theirs_sz) == srtp_err_status_ok, "libsrtp seals");
    CHECK(test_seal(o->engine, &o->key, true, clear, sz, 0, index, ours, &ours_sz), "we seal");
    CHECK((int)ours_sz == theirs_sz && memcmp(ours, theirs, ours_sz) == 0,
          "the same RTCP bytes at index %llu", (unsigned long long)index);

    CHECK(test_open(o->engine, &o->key, true, theirs, (uint32_t)theirs_sz, 0, &found, clear,
                    &back_sz),
          "we open libsrtp's RTCP");
    CHECK(found == index, "index %llu found as %llu", (unsigned long long)index,
          (unsigned long long)found);
    theirs_sz = (int)ours_sz;
    CHECK(srtp_unprotect_rtcp(o->rx, ours, &theirs_sz) == srtp_err_status_ok, "libsrtp opens ours");
    CHECK(theirs_sz == (int)sz && back_sz == sz && memcmp(ours, clear, sz) == 0,
          "both see the same clear RTCP");
}

void test_libsrtp(void)
{
    static const struct {
        uint16_t first_seq;
        uint32_t roc;
    } starts[] = {{0, 0}, {65400, 0}, {100, 1}, {65300, 0x12345}, {32700, 0xfffffffe}};
    struct oracle o;

    if (srtp_init() != srtp_err_status_ok)
        abort();
    for (int e = 0; e < 2; e++) {
        for (int s = 0; s < 2; s++) {
            for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
                uint64_t first = (uint64_t)starts[i].roc << 16 | starts[i].first_seq;

                oracle_new(&o, engines[e], suites[s], starts[i].roc);
                for (uint64_t k = 0; k < RTP_CNT; k++)
                    rtp_both_ways(&o, first + k, 60 + (uint32_t)(test_random() % 1400));
                /* libsrtp counts SRTCP packets from 1 */
                for (uint64_t k = 1; k <= RTP_CNT; k++)
                    rtcp_both_ways(&o, k, 8 + 4 * (uint32_t)(k % 300));
                oracle_delete(&o);
            }
        }
    }
    srtp_shutdown();
}
