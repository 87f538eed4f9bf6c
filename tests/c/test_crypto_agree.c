/* SPDX-License-Identifier: MIT */
/* Both backends write the same bytes, and open what the other sealed: sizes, headers, indices
   around wraps, bursts of every length with mixed suites, in place and out of place, header
   apart from the payload; and nothing allocates after vc_crypto_new. */
#include "test_crypto.h"

static const uint64_t rtp_indices[] = {0,          1,           65535,          65536,
                                       0xffffffff, 0x100000000, 0x7fffffff8000, 0xffffffffffff};
static const uint64_t rtcp_indices[] = {0, 1, 65535, 65536, 0x7fffffff};

static void make_keys(enum vc_srtp_suite suite, struct vc_crypto_key key[2])
{
    uint8_t master[16], salt[14];

    test_random_fill(master, sizeof(master));
    test_random_fill(salt, sizeof(salt));
    for (int e = 0; e < 2; e++) {
        CHECK(vc_crypto_key_init(engines[e], &key[e], suite, master, salt) == 0, "key_init");
        CHECK(vc_crypto_key_suite(&key[e]) == suite, "the key knows its suite");
        salt[12] ^= suite == VC_SRTP_AEAD_AES_128_GCM; /* bytes 12, 13 are not part of GCM's salt */
    }
}

/* Seals on both, compares, opens each on the other, out of place and in place. */
static void round_trip(const struct vc_crypto_key key[2], bool rtcp, const uint8_t *clear,
                       uint32_t sz, uint32_t hdr_sz, uint64_t index)
{
    uint8_t sealed[2][PACKET_MAX], opened[PACKET_MAX], expected_end = 0x5a;
    uint32_t sealed_sz[2], opened_sz;
    enum vc_srtp_suite suite = vc_crypto_key_suite(&key[0]);
    uint32_t grow = rtcp ? vc_srtcp_grow_sz(suite) : vc_srtp_tag_sz(suite);

    for (int e = 0; e < 2; e++) {
        sealed[e][sz + grow] = expected_end;
        CHECK(test_seal(engines[e], &key[e], rtcp, clear, sz, hdr_sz, index, sealed[e],
                        &sealed_sz[e]),
              "seals %u bytes", sz);
        CHECK(sealed_sz[e] == sz + grow, "size %u of %u", sealed_sz[e], sz);
        CHECK(sealed[e][sz + grow] == expected_end, "writes past its end, %u bytes", sz);
        CHECK(memcmp(sealed[e], clear, hdr_sz) == 0, "the header stays clear");
        CHECK(sz < hdr_sz + 16 || memcmp(sealed[e] + hdr_sz, clear + hdr_sz, sz - hdr_sz) != 0,
              "the payload does not stay clear");
    }
    CHECK(memcmp(sealed[0], sealed[1], sz + grow) == 0, "suite %d rtcp %d sz %u hdr %u index %llx",
          suite, rtcp, sz, hdr_sz, (unsigned long long)index);
    for (int e = 0; e < 2; e++) {
        uint64_t found = rtcp ? 0 : index;

        CHECK(test_open(engines[e], &key[e], rtcp, sealed[1 - e], sz + grow, hdr_sz, &found, opened,
                        &opened_sz),
              "opens the other's");
        CHECK(found == index, "index");
        CHECK(opened_sz == sz && memcmp(opened, clear, sz) == 0, "clear again, %u bytes", sz);

        memcpy(opened, clear, sz);
        CHECK(test_seal(engines[e], &key[e], rtcp, opened, sz, hdr_sz, index, opened, &opened_sz),
              "seals in place");
        CHECK(memcmp(opened, sealed[0], sz + grow) == 0, "in place: the same bytes");
        CHECK(test_open(engines[e], &key[e], rtcp, opened, sz + grow, hdr_sz, &found, opened,
                        &opened_sz),
              "opens in place");
        CHECK(opened_sz == sz && memcmp(opened, clear, sz) == 0, "in place: clear again");
    }
}

static void sweep(enum vc_srtp_suite suite)
{
    struct vc_crypto_key key[2];
    uint8_t clear[PACKET_MAX];

    make_keys(suite, key);
    for (uint32_t sz = 12; sz <= 1500; sz++) {
        uint32_t hdr_sz = test_rtp(clear, sz, 0, -1, (uint16_t)sz, 0xdecafbad);

        round_trip(key, false, clear, sz, hdr_sz, sz);
    }
    for (uint32_t cc = 0; cc <= 15; cc++) {
        for (int ext = -1; ext <= 16; ext++) {
            uint32_t hdr_sz = test_rtp(clear, 1200, cc, ext, 7, (uint32_t)test_random());

            round_trip(key, false, clear, 1200, hdr_sz, 7);
            round_trip(key, false, clear, hdr_sz, hdr_sz, 8);
        }
    }
    for (size_t i = 0; i < sizeof(rtp_indices) / sizeof(rtp_indices[0]); i++) {
        uint32_t hdr_sz = test_rtp(clear, 300, 1, 2, (uint16_t)rtp_indices[i], 1);

        round_trip(key, false, clear, 300, hdr_sz, rtp_indices[i]);
    }
    for (uint32_t sz = 8; sz <= 1200; sz += 4) {
        test_rtcp(clear, sz, (uint32_t)test_random());
        round_trip(key, true, clear, sz, 8, sz);
    }
    for (size_t i = 0; i < sizeof(rtcp_indices) / sizeof(rtcp_indices[0]); i++) {
        test_rtcp(clear, 52, 5);
        round_trip(key, true, clear, 52, 8, rtcp_indices[i]);
    }
    vc_crypto_key_wipe(&key[0]);
    for (size_t i = 0; i < sizeof(key[0].opaque); i++)
        CHECK(key[0].opaque[i] == 0, "wiped");
}

/* Bursts: n items with mixed suites, sizes and sources (every second one is the packet before it),
   must give what one packet at a time gives; the header comes apart in every third. */
static void burst(struct vc_crypto *crypto, const struct vc_crypto_key *key[2], uint32_t n,
                  bool rtcp)
{
    static uint8_t clear[VC_CRYPTO_BURST][PACKET_MAX], sealed[VC_CRYPTO_BURST][PACKET_MAX];
    static uint8_t opened[VC_CRYPTO_BURST][PACKET_MAX];
    struct vc_crypto_item items[VC_CRYPTO_BURST] = {0}, back[VC_CRYPTO_BURST] = {0};
    uint32_t sz[VC_CRYPTO_BURST], hdr_sz[VC_CRYPTO_BURST];

    for (uint32_t i = 0; i < n; i++) {
        uint32_t from = i % 2 ? i - 1 : i;

        sz[i] = i % 2 ? sz[from] : 60 + 4 * (uint32_t)(test_random() % 300);
        if (from == i && rtcp)
            test_rtcp(clear[i], sz[i], i);
        hdr_sz[i] = rtcp ? 8 : i % 2 ? hdr_sz[from] : test_rtp(clear[i], sz[i], i % 4, 1, 9, i);
        items[i] = (struct vc_crypto_item){.key = key[test_random() % 2],
                                           .src = clear[from],
                                           .dst = sealed[i],
                                           .src_sz = sz[i],
                                           .hdr_sz = hdr_sz[i],
                                           .index = 1000 + i};
        if (i % 3 == 0) {
            items[i].hdr = clear[from];
            items[i].src += hdr_sz[i];
            items[i].src_sz -= hdr_sz[i];
        }
    }
    CHECK((rtcp ? vc_crypto_seal_rtcp : vc_crypto_seal_rtp)(crypto, items, n) == n, "seals %u", n);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t one[PACKET_MAX];
        uint32_t one_sz;

        test_seal(crypto, items[i].key, rtcp, clear[i % 2 ? i - 1 : i], sz[i], hdr_sz[i], 1000 + i,
                  one, &one_sz);
        CHECK(items[i].ok == 1 && items[i].dst_sz == one_sz && !memcmp(one, sealed[i], one_sz),
              "item %u of %u is as if alone", i, n);
        back[i] = (struct vc_crypto_item){.key = items[i].key,
                                          .src = sealed[i],
                                          .dst = opened[i],
                                          .src_sz = one_sz,
                                          .hdr_sz = hdr_sz[i],
                                          .index = rtcp ? 0 : 1000 + i};
        if (i % 5 == 4)
            sealed[i][sz[i] - 1] ^= 0x40;
    }
    CHECK((rtcp ? vc_crypto_open_rtcp : vc_crypto_open_rtp)(crypto, back, n) == n - n / 5,
          "opens all but the forged of %u", n);
    for (uint32_t i = 0; i < n; i++) {
        CHECK(back[i].ok == (i % 5 != 4), "item %u of %u", i, n);
        CHECK(!back[i].ok || (back[i].dst_sz == sz[i] && back[i].index == 1000 + i &&
                              !memcmp(opened[i], clear[i % 2 ? i - 1 : i], sz[i])),
              "item %u of %u: clear again", i, n);
    }
}

static void bursts(void)
{
    for (int e = 0; e < 2; e++) {
        struct vc_crypto_key gcm[2], cm[2];
        const struct vc_crypto_key *mixed[2] = {&gcm[e], &cm[e]};

        make_keys(VC_SRTP_AEAD_AES_128_GCM, gcm);
        make_keys(VC_SRTP_AES_CM_128_HMAC_SHA1_80, cm);
        for (uint32_t n = 1; n <= VC_CRYPTO_BURST; n++) {
            burst(engines[e], mixed, n, false);
            burst(engines[e], mixed, n, true);
        }
        CHECK(vc_crypto_seal_rtp(engines[e], NULL, 0) == 0, "an empty burst");
        CHECK(vc_crypto_open_rtcp(engines[e], NULL, 0) == 0, "an empty burst");
    }
}

/* The payload already lies behind the place of the header, which comes from elsewhere. */
static void header_apart_in_place(void)
{
    struct vc_crypto_key key[2];
    uint8_t clear[400], expected[PACKET_MAX], buffer[PACKET_MAX];
    uint32_t hdr_sz, sealed_sz;

    for (int s = 0; s < 2; s++) {
        make_keys(suites[s], key);
        hdr_sz = test_rtp(clear, sizeof(clear), 2, 3, 5, 6);
        for (int e = 0; e < 2; e++) {
            struct vc_crypto_item item = {.key = &key[e],
                                          .src = buffer + hdr_sz,
                                          .dst = buffer,
                                          .src_sz = sizeof(clear) - hdr_sz,
                                          .hdr_sz = hdr_sz,
                                          .hdr = clear,
                                          .index = 5};

            test_seal(engines[e], &key[e], false, clear, sizeof(clear), hdr_sz, 5, expected,
                      &sealed_sz);
            memcpy(buffer + hdr_sz, clear + hdr_sz, sizeof(clear) - hdr_sz);
            CHECK(vc_crypto_seal_rtp(engines[e], &item, 1) == 1, "seals");
            CHECK(item.dst_sz == sealed_sz && !memcmp(buffer, expected, sealed_sz), "same bytes");
        }
    }
}

void test_agree(void)
{
    sweep(suites[0]);
    sweep(suites[1]);
    bursts();
    header_apart_in_place();
}
