/* SPDX-License-Identifier: MIT */
/* What crypto.c (packet layout, nonces, tags) asks of a backend (ciphers and hashes).

   A backend knows nothing of RTP: it transforms arrays of vc_xform.  Everything
   about packets is written once, in crypto.c, and so is the same on both.
   Included by crypto*.c and by tests that need session keys of their own choice. */
#ifndef VC_CRYPTO_IMPL_H
#define VC_CRYPTO_IMPL_H

#include "crypto.h"

#include <stdbool.h>

#define VC_AES_KEY_SZ 16
#define VC_SALT_SZ 14 /* GCM uses the first 12 */
#define VC_HMAC_KEY_SZ 20
#define VC_SHA1_SZ 20
#define VC_GCM_TAG_SZ 16
#define VC_KEY_EXPANDED_SZ 1280 /* ipsec-mb 2.0; 1.3: 1008 */

/* One direction of one kind (SRTP or SRTCP) as it leaves the key derivation. */
struct vc_session_keys {
    uint8_t cipher[VC_AES_KEY_SZ];
    uint8_t auth[VC_HMAC_KEY_SZ]; /* CM only */
    uint8_t salt[VC_SALT_SZ];     /* GCM: 12 bytes, then zeros */
};

/* The inside of vc_crypto_key.  `expanded` belongs to the backend. */
struct vc_key_impl {
    _Alignas(64) uint8_t expanded[VC_KEY_EXPANDED_SZ];
    uint32_t suite;
    uint8_t salt[2][VC_SALT_SZ];        /* [0] SRTP, [1] SRTCP */
    uint8_t rtcp_cipher[VC_AES_KEY_SZ]; /* raw */
};
_Static_assert(sizeof(struct vc_key_impl) <= VC_CRYPTO_KEY_SZ,
               "session keys must fit a vc_crypto_key");

/* One transform of one packet.  ctr, gcm: in[0..sz) -> out[0..sz), in == out or disjoint.
   hmac: mac_in[0..mac_sz) -> mac.  GCM seal writes 16 bytes to tag_out; GCM open compares
   with tag_in and sets ok. */
struct vc_xform {
    const struct vc_key_impl *key;
    const uint8_t *in;
    uint8_t *out;
    const uint8_t *aad;
    const uint8_t *mac_in;
    uint8_t *tag_out;
    uint32_t sz;
    uint32_t aad_sz;
    uint32_t mac_sz;
    uint32_t item; /* which vc_crypto_item */
    bool rtcp;     /* which of the key's two halves */
    bool ok;
    bool encrypted; /* SRTCP: the E flag */
    uint8_t iv[16];
    uint8_t tag_in[VC_GCM_TAG_SZ];
    uint8_t mac[VC_SHA1_SZ];
    uint8_t esrtcp_aad[12]; /* RFC 7714 section 9.2: 8-byte header, E and index */
};

struct vc_crypto_ops {
    void (*destroy)(struct vc_crypto *crypto);
    /* expand: session keys, [0] SRTP and [1] SRTCP, into key->expanded. */
    void (*expand)(struct vc_crypto *crypto, struct vc_key_impl *key,
                   const struct vc_session_keys keys[2]);
    /* keystream: n bytes (<= 32) of AES-128 in counter mode from a raw key. */
    void (*keystream)(struct vc_crypto *crypto, const uint8_t key[16], const uint8_t iv[16],
                      uint8_t *out, uint32_t n);
    void (*gcm_seal)(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n);
    void (*gcm_open)(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n);
    void (*ctr)(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n);
    void (*hmac)(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n);
};

/* A backend's engine begins with this. */
struct vc_crypto {
    const struct vc_crypto_ops *ops;
    char name[64];
    struct vc_xform gcm[VC_CRYPTO_BURST];
    struct vc_xform cm[VC_CRYPTO_BURST];
};

struct vc_crypto *vc_crypto_imb_new(void);
struct vc_crypto *vc_crypto_evp_new(void);

/* vc_srtp_derive: RFC 3711 section 4.3 with AES-CM as PRF, rate 0; n <= 32 bytes to out. */
enum vc_srtp_label {
    VC_LABEL_RTP_CIPHER = 0,
    VC_LABEL_RTP_AUTH = 1,
    VC_LABEL_RTP_SALT = 2,
    VC_LABEL_RTCP_CIPHER = 3,
    VC_LABEL_RTCP_AUTH = 4,
    VC_LABEL_RTCP_SALT = 5,
};
void vc_srtp_derive(struct vc_crypto *crypto, const uint8_t master_key[16],
                    const uint8_t master_salt[VC_SALT_SZ], enum vc_srtp_label label, uint8_t *out,
                    uint32_t n);

/* vc_crypto_key_set: a key from session keys instead of master keys (test vectors give these). */
int vc_crypto_key_set(struct vc_crypto *crypto, struct vc_crypto_key *key, enum vc_srtp_suite suite,
                      const struct vc_session_keys keys[2]);

/* vc_same: 1 when a[0..n) equals b[0..n), in time that depends on n alone. */
static inline bool vc_same(const uint8_t *a, const uint8_t *b, uint32_t n)
{
    volatile uint8_t diff = 0;

    for (uint32_t i = 0; i < n; i++)
        diff |= a[i] ^ b[i];
    return diff == 0;
}

#endif
