/* SPDX-License-Identifier: MIT */
/* What sealing and opening share: layout of a packet, nonce, the engine's lists of transforms.
   Included by crypto_seal.c, crypto_open.c and crypto.c only. */
#ifndef VC_CRYPTO_PACKET_H
#define VC_CRYPTO_PACKET_H

#include "base.h"
#include "crypto_impl.h"

enum {
    RTP_HDR_MIN = 12,
    RTCP_HDR_SZ = 8,
    CM_TAG_SZ = 10,
    WORD_SZ = 4, /* ROC that is hashed only, or E||index that is sent */
};
#define RTCP_E_FLAG 0x80000000u
#define RTP_INDEX_END (1ull << 48)
#define RTCP_INDEX_END (1ull << 31)

static inline const struct vc_key_impl *key_of(const struct vc_crypto_item *item)
{
    return (const struct vc_key_impl *)item->key->opaque;
}

static inline bool is_gcm(const struct vc_xform *x)
{
    return x->key->suite == VC_SRTP_AEAD_AES_128_GCM;
}

struct layout {
    const uint8_t *hdr;
    const uint8_t *body;
    uint32_t hdr_sz;
    uint32_t body_sz;
};

/* RFC 3711 section 4.1.1 (16 bytes: salt, SSRC at 4, index at 8, block counter) and RFC 7714
   sections 8.1 and 9.1 (12 bytes: the same two bytes earlier, no counter). */
static inline void set_iv(struct vc_xform *x, const uint8_t *ssrc, uint64_t index)
{
    uint32_t at = is_gcm(x) ? 2 : 4;

    memcpy(x->iv, x->key->salt[x->rtcp], VC_SALT_SZ);
    x->iv[14] = 0;
    x->iv[15] = 0;
    for (uint32_t i = 0; i < 4; i++)
        x->iv[at + i] ^= ssrc[i];
    for (uint32_t i = 0; i < 6; i++)
        x->iv[at + 4 + i] ^= (uint8_t)(index >> (40 - 8 * i));
}

/* Adds the item to the engine's list for its suite. */
static inline struct vc_xform *next_xform(struct vc_crypto *crypto,
                                          const struct vc_crypto_item *item, uint32_t cnt[2],
                                          uint32_t item_idx, bool rtcp)
{
    const struct vc_key_impl *key = key_of(item);
    bool gcm = key->suite == VC_SRTP_AEAD_AES_128_GCM;
    struct vc_xform *x = gcm ? &crypto->gcm[cnt[0]++] : &crypto->cm[cnt[1]++];

    x->key = key;
    x->item = item_idx;
    x->rtcp = rtcp;
    x->encrypted = true;
    x->ok = true;
    return x;
}

#endif
