/* SPDX-License-Identifier: MIT */
/* Published vectors: RFC 7714 sections 16.1 and 17.1, 17.3; RFC 3711 appendix B.2 and B.3. */
#include "test_crypto.h"

#define GCM_KEY "000102030405060708090a0b0c0d0e0f"
#define GCM_SALT "51756964 2070726f 2071756f"

struct gcm_vector {
    const char *what;
    const char *clear;
    const char *sealed;
    bool rtcp;
    bool opens_only; /* the engine never seals without encryption */
    uint64_t index;
};

static const struct gcm_vector gcm_vectors[] = {
    {.what = "RFC 7714 16.1.1, 16.1.2",
     .clear = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976"
              "69736120 696e2070 61727465 73207472 6573",
     .sealed = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5"
               "0d294e6f 42a5f47a 51c7d19b 36de3adf 8833 899d7f27 beb16a91 52cf765e e4390cce",
     .index = 0xf17b},
    {.what = "RFC 7714 17.1",
     .clear = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61"
              "deadbeef deadbeef deadbeef deadbeef deadbeef",
     .sealed = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d"
               "c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872"
               "45d9eade 800005d4",
     .rtcp = true,
     .index = 0x5d4},
    {.what = "RFC 7714 17.3, 17.4: tag only",
     .clear = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61"
              "deadbeef deadbeef deadbeef deadbeef deadbeef",
     .sealed = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61"
               "deadbeef deadbeef deadbeef deadbeef deadbeef 841dd968 3dd78ec9 2ae58790"
               "125f62b3 000005d4",
     .rtcp = true,
     .opens_only = true,
     .index = 0x5d4},
};

static void gcm_vector(struct vc_crypto *crypto, const struct gcm_vector *v)
{
    struct vc_session_keys keys[2] = {0};
    struct vc_crypto_key key;
    uint8_t clear[128], sealed[128], dst[PACKET_MAX];
    uint32_t clear_sz = test_unhex(v->clear, clear), sealed_sz = test_unhex(v->sealed, sealed);
    uint32_t dst_sz;
    uint64_t index = v->index;

    for (int i = 0; i < 2; i++) {
        test_unhex(GCM_KEY, keys[i].cipher);
        test_unhex(GCM_SALT, keys[i].salt);
    }
    CHECK(vc_crypto_key_set(crypto, &key, VC_SRTP_AEAD_AES_128_GCM, keys) == 0, "%s", v->what);
    if (!v->opens_only) {
        CHECK(test_seal(crypto, &key, v->rtcp, clear, clear_sz, 12, index, dst, &dst_sz), "%s",
              v->what);
        CHECK(dst_sz == sealed_sz && memcmp(dst, sealed, sealed_sz) == 0, "%s: sealed bytes (%s)",
              v->what, vc_crypto_backend_name(crypto));
    }
    if (v->rtcp)
        index = 0;
    CHECK(test_open(crypto, &key, v->rtcp, sealed, sealed_sz, 12, &index, dst, &dst_sz),
          "%s: opens", v->what);
    CHECK(index == v->index, "%s: index", v->what);
    CHECK(dst_sz == clear_sz && memcmp(dst, clear, clear_sz) == 0, "%s: clear bytes (%s)", v->what,
          vc_crypto_backend_name(crypto));
    sealed[sealed_sz - 6] ^= 1;
    CHECK(!test_open(crypto, &key, v->rtcp, sealed, sealed_sz, 12, &index, dst, &dst_sz),
          "%s: a flipped tag bit", v->what);
}

/* Appendix B.2: the keystream is what zeros are sealed to, with SSRC, ROC and SEQ zero. */
static void keystream_vector(struct vc_crypto *crypto)
{
    struct vc_session_keys keys[2] = {0};
    struct vc_crypto_key key;
    uint8_t clear[12 + 48] = {0x80}, dst[PACKET_MAX], expected[48], iv[16];
    uint32_t dst_sz;

    test_unhex("2b7e151628aed2a6abf7158809cf4f3c", keys[0].cipher);
    test_unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfd", keys[0].salt);
    CHECK(vc_crypto_key_set(crypto, &key, VC_SRTP_AES_CM_128_HMAC_SHA1_80, keys) == 0, "B.2 key");
    CHECK(test_seal(crypto, &key, false, clear, sizeof(clear), 12, 0, dst, &dst_sz), "B.2 seals");
    test_unhex("e03ead0935c95e80e166b16dd92b4eb4 d23513162b02d0f72a43a2fe4a5f97ab"
               "41e95b3bb0a2e8dd477901e4fca894c0",
               expected);
    CHECK(memcmp(dst + 12, expected, 48) == 0, "B.2 keystream, first blocks");

    /* The far end of the segment lies past any packet: ask the cipher for it. */
    test_unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", iv);
    crypto->ops->keystream(crypto, keys[0].cipher, iv, dst, 32);
    test_unhex("ec8cdf7398607cb0f2d21675ea9ea1e4 362b7c3c6773516318a077d7fc5073ae", expected);
    CHECK(memcmp(dst, expected, 32) == 0, "B.2 keystream, counter carry");
}

static void derivation_vector(struct vc_crypto *crypto)
{
    uint8_t key[16], salt[VC_SALT_SZ], out[32], expected[32];

    test_unhex("e1f97a0d3e018be0d64fa32c06de4139", key);
    test_unhex("0ec675ad498afeebb6960b3aabe6", salt);
    vc_srtp_derive(crypto, key, salt, VC_LABEL_RTP_CIPHER, out, 16);
    test_unhex("c61e7a93744f39ee10734afe3ff7a087", expected);
    CHECK(memcmp(out, expected, 16) == 0, "B.3 cipher key");
    vc_srtp_derive(crypto, key, salt, VC_LABEL_RTP_SALT, out, 14);
    test_unhex("30cbbc08863d8c85d49db34a9ae1", expected);
    CHECK(memcmp(out, expected, 14) == 0, "B.3 salt");
    vc_srtp_derive(crypto, key, salt, VC_LABEL_RTP_AUTH, out, 32);
    test_unhex("cebe321f6ff7716b6fd4ab49af256a15 6d38baa48f0a0acf3c34e2359e6cdbce", expected);
    CHECK(memcmp(out, expected, 32) == 0, "B.3 authentication key");
}

void test_vectors(void)
{
    for (int e = 0; e < 2; e++) {
        for (size_t i = 0; i < sizeof(gcm_vectors) / sizeof(gcm_vectors[0]); i++)
            gcm_vector(engines[e], &gcm_vectors[i]);
        keystream_vector(engines[e]);
        derivation_vector(engines[e]);
    }
}
