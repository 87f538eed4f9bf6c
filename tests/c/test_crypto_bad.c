/* SPDX-License-Identifier: MIT */
/* What must not pass: forged, flipped, truncated, replayed under another index or key, out of
   limits; and what must not happen: an allocation after vc_crypto_new. */
#include "test_crypto.h"

#include <stdlib.h>

struct sealed_packet {
    uint8_t bytes[PACKET_MAX];
    uint32_t sz;
    uint32_t hdr_sz;
    uint32_t clear_sz;
    bool rtcp;
    uint64_t index;
};

static void make_key(struct vc_crypto *crypto, enum vc_srtp_suite suite, uint8_t fill,
                     struct vc_crypto_key *key)
{
    uint8_t master[16], salt[14];

    memset(master, fill, sizeof(master));
    memset(salt, fill ^ 0xff, sizeof(salt));
    CHECK(vc_crypto_key_init(crypto, key, suite, master, salt) == 0, "key_init");
}

static void make_packet(struct vc_crypto *crypto, const struct vc_crypto_key *key, bool rtcp,
                        struct sealed_packet *p)
{
    uint8_t clear[200];

    p->rtcp = rtcp;
    p->clear_sz = sizeof(clear);
    p->index = rtcp ? 77 : 0x10005;
    p->hdr_sz = 8;
    if (rtcp)
        test_rtcp(clear, sizeof(clear), 0x01020304);
    else
        p->hdr_sz = test_rtp(clear, sizeof(clear), 3, 2, 5, 0x01020304);
    CHECK(test_seal(crypto, key, rtcp, clear, sizeof(clear), p->hdr_sz, p->index, p->bytes, &p->sz),
          "seals");
}

static uint32_t opens(struct vc_crypto *crypto, const struct vc_crypto_key *key,
                      const struct sealed_packet *p, const uint8_t *bytes, uint32_t sz)
{
    uint8_t *src = malloc(sz + 1); /* exact size: the sanitizer watches its end */
    uint8_t *dst = malloc(sz + VC_CRYPTO_RTCP_GROW_MAX);
    uint64_t index = p->index;
    uint32_t ok, dst_sz;

    if (src == NULL || dst == NULL)
        abort();
    memcpy(src, bytes, sz);
    ok = test_open(crypto, key, p->rtcp, src, sz, p->hdr_sz, &index, dst, &dst_sz);
    CHECK(ok || dst_sz == 0, "no size for what did not open");
    free(src);
    free(dst);
    return ok;
}

static void each_flipped_bit(struct vc_crypto *crypto, const struct vc_crypto_key *key,
                             struct sealed_packet *p)
{
    for (uint32_t bit = 0; bit < p->sz * 8; bit++) {
        p->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(!opens(crypto, key, p, p->bytes, p->sz), "bit %u of byte %u of %u", bit % 8, bit / 8,
              p->sz);
        p->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(opens(crypto, key, p, p->bytes, p->sz), "untouched it opens");
}

static void each_length(struct vc_crypto *crypto, const struct vc_crypto_key *key,
                        struct sealed_packet *p)
{
    for (uint32_t sz = 0; sz < p->sz; sz++)
        CHECK(!opens(crypto, key, p, p->bytes, sz), "truncated to %u of %u", sz, p->sz);
    for (uint32_t more = 1; more <= 32; more++) {
        memset(p->bytes + p->sz, 0, more);
        CHECK(!opens(crypto, key, p, p->bytes, p->sz + more), "%u bytes longer", more);
    }
}

static void wrong_state(struct vc_crypto *crypto, enum vc_srtp_suite suite,
                        const struct vc_crypto_key *key, struct sealed_packet *p)
{
    struct vc_crypto_key other;
    uint32_t hdr_sz = p->hdr_sz;

    make_key(crypto, suite, 0x43, &other);
    CHECK(!opens(crypto, &other, p, p->bytes, p->sz), "another key");
    make_key(crypto, suites[suite == suites[0]], 0x42, &other);
    CHECK(!opens(crypto, &other, p, p->bytes, p->sz), "another suite");
    memset(&other, 0, sizeof(other));
    CHECK(!opens(crypto, &other, p, p->bytes, p->sz), "no key");
    if (p->rtcp)
        return;
    p->index += 0x10000;
    CHECK(!opens(crypto, key, p, p->bytes, p->sz), "another roll-over counter");
    p->index = 1ull << 48 | 5;
    CHECK(!opens(crypto, key, p, p->bytes, p->sz), "an index past 48 bits");
    p->index = 0x10005;
    for (p->hdr_sz = 0; p->hdr_sz < 12; p->hdr_sz++)
        CHECK(!opens(crypto, key, p, p->bytes, p->sz), "header of %u bytes", p->hdr_sz);
    p->hdr_sz = p->clear_sz + 1;
    CHECK(!opens(crypto, key, p, p->bytes, p->sz), "a header that reaches into the tag");
    p->hdr_sz = UINT32_MAX;
    CHECK(!opens(crypto, key, p, p->bytes, p->sz), "a header of 2^32 - 1 bytes");
    if (suite ==
        VC_SRTP_AEAD_AES_128_GCM) { /* CM authenticates the whole, wherever the payload starts */
        p->hdr_sz = hdr_sz + 4;
        CHECK(!opens(crypto, key, p, p->bytes, p->sz), "another header size");
    }
    p->hdr_sz = hdr_sz;
}

/* A forged packet that only lacks its tag: zeros, ones, another packet's tag, a short match. */
static void forged_tags(struct vc_crypto *crypto, const struct vc_crypto_key *key,
                        const struct sealed_packet *p)
{
    uint32_t tag_sz = vc_srtp_tag_sz(vc_crypto_key_suite(key));
    bool word_last = p->rtcp && tag_sz == VC_GCM_TAG_SZ;
    uint32_t tag_at = p->sz - tag_sz - (word_last ? 4 : 0);
    struct sealed_packet forged = *p;

    memset(forged.bytes + tag_at, 0, tag_sz);
    CHECK(!opens(crypto, key, p, forged.bytes, p->sz), "a tag of zeros");
    memset(forged.bytes + tag_at, 0xff, tag_sz);
    CHECK(!opens(crypto, key, p, forged.bytes, p->sz), "a tag of ones");
    make_packet(crypto, key, p->rtcp, &forged);
    memcpy(forged.bytes + tag_at, p->bytes + tag_at, tag_sz);
    CHECK(!opens(crypto, key, p, forged.bytes, p->sz), "another packet's tag");
    for (uint32_t kept = 0; kept < tag_sz; kept++) {
        forged = *p;
        for (uint32_t i = kept; i < tag_sz; i++)
            forged.bytes[tag_at + i] ^= 0x80;
        CHECK(!opens(crypto, key, p, forged.bytes, p->sz), "%u right bytes of a tag", kept);
    }
}

/* Items that are refused leave dst alone. */
static void seal_limits(struct vc_crypto *crypto, const struct vc_crypto_key *key)
{
    static uint8_t src[2 * VC_CRYPTO_MAX_SZ], dst[2 * VC_CRYPTO_MAX_SZ];
    static const struct vc_crypto_key no_key;
    const struct {
        const char *what;
        struct vc_crypto_item item;
        bool rtcp;
    } cases[] = {
        {"no key", {.key = &no_key, .src_sz = 100, .hdr_sz = 12}, false},
        {"shorter than its header", {.src_sz = 11, .hdr_sz = 12}, false},
        {"header below 12", {.src_sz = 100, .hdr_sz = 11}, false},
        {"header of 2^32 - 1", {.src_sz = 100, .hdr_sz = UINT32_MAX, .hdr = src}, false},
        {"too long", {.src_sz = VC_CRYPTO_MAX_SZ + 1, .hdr_sz = 12}, false},
        {"too long with its header", {.src_sz = 2037, .hdr_sz = 12, .hdr = src}, false},
        {"index of 49 bits", {.src_sz = 100, .hdr_sz = 12, .index = 1ull << 48}, false},
        {"RTCP of 7 bytes", {.src_sz = 7}, true},
        {"RTCP index of 32 bits", {.src_sz = 100, .index = 1ull << 31}, true},
        {"RTCP too long", {.src_sz = VC_CRYPTO_MAX_SZ + 1}, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vc_crypto_item item = cases[i].item;

        if (item.key == NULL)
            item.key = key;
        item.src = src;
        item.dst = dst;
        memset(dst, 0x77, sizeof(dst));
        CHECK((cases[i].rtcp ? vc_crypto_seal_rtcp : vc_crypto_seal_rtp)(crypto, &item, 1) == 0,
              "%s", cases[i].what);
        CHECK(item.ok == 0 && item.dst_sz == 0, "%s", cases[i].what);
        for (size_t k = 0; k < sizeof(dst); k++)
            if (dst[k] != 0x77) {
                CHECK(false, "%s: dst is written at %zu", cases[i].what, k);
                break;
            }
    }
}

static void unknown_suites(struct vc_crypto *crypto)
{
    static const uint8_t master[16], salt[14];
    struct vc_crypto_key key;

    for (int suite = 0; suite < 16; suite++) {
        bool known = suite == VC_SRTP_AEAD_AES_128_GCM || suite == VC_SRTP_AES_CM_128_HMAC_SHA1_80;
        enum vc_srtp_suite as_suite = (enum vc_srtp_suite)suite;

        CHECK(vc_crypto_key_init(crypto, &key, as_suite, master, salt) == (known ? 0 : -1),
              "suite %d", suite);
        CHECK((vc_srtp_tag_sz(as_suite) != 0) == known, "suite %d", suite);
        CHECK((vc_srtcp_grow_sz(as_suite) != 0) == known, "suite %d", suite);
    }
}

/* OpenSSL is the part that likes to allocate: it counts itself (see main).  Its SHA-1 takes a
   context at every init and gives it back at the next; nothing else may, and nothing may stay. */
static void no_allocation(struct vc_crypto *crypto, enum vc_srtp_suite suite)
{
    static struct sealed_packet p;
    struct vc_crypto_key key;
    bool evp_sha1 = crypto == engines[1] && suite == VC_SRTP_AES_CM_128_HMAC_SHA1_80;
    const uint32_t rounds = 500;
    uint64_t before = 0, live_before = 0;

    for (uint32_t i = 0; i <= rounds; i++) {
        uint8_t dst[PACKET_MAX];
        uint64_t index;
        uint32_t dst_sz;

        if (i == 1) { /* the first round warms OpenSSL up */
            before = openssl_allocations;
            live_before = openssl_live;
        }
        make_key(crypto, suite, (uint8_t)i, &key);
        make_packet(crypto, &key, i % 2, &p);
        index = p.index;
        CHECK(test_open(crypto, &key, i % 2, p.bytes, p.sz, p.hdr_sz, &index, dst, &dst_sz),
              "opens");
    }
    CHECK(before != 0, "the counter is in place");
    CHECK(openssl_allocations - before <= (evp_sha1 ? 2 * 2 * rounds : 0),
          "%s allocated %llu times", vc_crypto_backend_name(crypto),
          (unsigned long long)(openssl_allocations - before));
    CHECK(openssl_live == live_before, "%s keeps what it takes", vc_crypto_backend_name(crypto));
}

void test_bad(void)
{
    for (int e = 0; e < 2; e++) {
        struct vc_crypto *crypto = engines[e];

        for (int s = 0; s < 2; s++) {
            struct vc_crypto_key key;
            struct sealed_packet p;

            make_key(crypto, suites[s], 0x42, &key);
            for (int rtcp = 0; rtcp < 2; rtcp++) {
                make_packet(crypto, &key, rtcp, &p);
                each_flipped_bit(crypto, &key, &p);
                each_length(crypto, &key, &p);
                wrong_state(crypto, suites[s], &key, &p);
                forged_tags(crypto, &key, &p);
            }
            seal_limits(crypto, &key);
            no_allocation(crypto, suites[s]);
        }
        unknown_suites(crypto);
    }
}
