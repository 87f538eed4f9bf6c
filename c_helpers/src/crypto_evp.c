/* SPDX-License-Identifier: MIT */
/* The OpenSSL 3 EVP backend, for CPUs that ipsec-mb does not serve.  One context of each
   kind for the engine, keyed anew for each packet: a context for each key would be memory
   outside the caller's tables.  HMAC is written out over the digest (RFC 2104), because
   EVP_MAC allocates whenever it is keyed. */
#include "base.h"
#include "crypto_impl.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define SHA1_BLOCK_SZ 64

struct raw_half {
    uint8_t cipher[VC_AES_KEY_SZ];
    uint8_t ipad[SHA1_BLOCK_SZ];
    uint8_t opad[SHA1_BLOCK_SZ];
};
struct raw_keys {
    struct raw_half half[2];
};
_Static_assert(sizeof(struct raw_keys) <= VC_KEY_EXPANDED_SZ, "raw keys must fit");

struct evp {
    struct vc_crypto base;
    EVP_CIPHER_CTX *gcm_enc;
    EVP_CIPHER_CTX *gcm_dec;
    EVP_CIPHER_CTX *ctr;
    EVP_MD_CTX *sha1;
};

static struct evp *evp_of(struct vc_crypto *crypto)
{
    return (struct evp *)crypto;
}

static const struct raw_half *half_of(const struct vc_xform *x)
{
    return &((const struct raw_keys *)x->key->expanded)->half[x->rtcp];
}

/* None of these calls can fail on a context that is set up, short of a broken library. */
static void must(int rc)
{
    VC_ASSERT(rc == 1);
}

static void evp_free(struct evp *evp)
{
    EVP_CIPHER_CTX_free(evp->gcm_enc);
    EVP_CIPHER_CTX_free(evp->gcm_dec);
    EVP_CIPHER_CTX_free(evp->ctr);
    EVP_MD_CTX_free(evp->sha1);
    explicit_bzero(evp, sizeof(*evp));
    free(evp);
}

static void evp_destroy(struct vc_crypto *crypto)
{
    evp_free(evp_of(crypto));
}

static void evp_expand(struct vc_crypto *crypto, struct vc_key_impl *key,
                       const struct vc_session_keys keys[2])
{
    struct raw_keys *raw = (struct raw_keys *)key->expanded;

    (void)crypto;
    for (uint32_t i = 0; i < 2; i++) {
        struct raw_half *half = &raw->half[i];

        memcpy(half->cipher, keys[i].cipher, VC_AES_KEY_SZ);
        memset(half->ipad, 0x36, SHA1_BLOCK_SZ);
        memset(half->opad, 0x5c, SHA1_BLOCK_SZ);
        for (uint32_t k = 0; k < VC_HMAC_KEY_SZ; k++) {
            half->ipad[k] ^= keys[i].auth[k];
            half->opad[k] ^= keys[i].auth[k];
        }
    }
}

static void ctr_one(struct evp *evp, const uint8_t key[16], const uint8_t iv[16], const uint8_t *in,
                    uint8_t *out, uint32_t n)
{
    int out_sz = 0;

    must(EVP_EncryptInit_ex(evp->ctr, NULL, NULL, key, iv));
    if (n != 0)
        must(EVP_EncryptUpdate(evp->ctr, out, &out_sz, in, (int)n));
}

static void evp_keystream(struct vc_crypto *crypto, const uint8_t key[16], const uint8_t iv[16],
                          uint8_t *out, uint32_t n)
{
    static const uint8_t zeros[32];

    ctr_one(evp_of(crypto), key, iv, zeros, out, n);
}

static void evp_gcm_seal(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n)
{
    EVP_CIPHER_CTX *ctx = evp_of(crypto)->gcm_enc;
    int out_sz = 0;

    for (uint32_t i = 0; i < n; i++, x++) {
        must(EVP_EncryptInit_ex(ctx, NULL, NULL, half_of(x)->cipher, x->iv));
        must(EVP_EncryptUpdate(ctx, NULL, &out_sz, x->aad, (int)x->aad_sz));
        if (x->sz != 0)
            must(EVP_EncryptUpdate(ctx, x->out, &out_sz, x->in, (int)x->sz));
        must(EVP_EncryptFinal_ex(ctx, x->tag_out, &out_sz));
        must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, VC_GCM_TAG_SZ, x->tag_out));
    }
}

static void evp_gcm_open(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n)
{
    EVP_CIPHER_CTX *ctx = evp_of(crypto)->gcm_dec;
    uint8_t none[VC_GCM_TAG_SZ];
    int out_sz = 0;

    for (uint32_t i = 0; i < n; i++, x++) {
        must(EVP_DecryptInit_ex(ctx, NULL, NULL, half_of(x)->cipher, x->iv));
        must(EVP_DecryptUpdate(ctx, NULL, &out_sz, x->aad, (int)x->aad_sz));
        if (x->sz != 0)
            must(EVP_DecryptUpdate(ctx, x->out, &out_sz, x->in, (int)x->sz));
        must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, VC_GCM_TAG_SZ, x->tag_in));
        x->ok = EVP_DecryptFinal_ex(ctx, none, &out_sz) == 1;
    }
}

static void evp_ctr(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, x++)
        ctr_one(evp_of(crypto), half_of(x)->cipher, x->iv, x->in, x->out, x->sz);
}

static void evp_hmac(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n)
{
    EVP_MD_CTX *ctx = evp_of(crypto)->sha1;

    for (uint32_t i = 0; i < n; i++, x++) {
        const struct raw_half *half = half_of(x);

        must(EVP_DigestInit_ex(ctx, NULL, NULL));
        must(EVP_DigestUpdate(ctx, half->ipad, SHA1_BLOCK_SZ));
        must(EVP_DigestUpdate(ctx, x->mac_in, x->mac_sz));
        must(EVP_DigestFinal_ex(ctx, x->mac, NULL));
        must(EVP_DigestInit_ex(ctx, NULL, NULL));
        must(EVP_DigestUpdate(ctx, half->opad, SHA1_BLOCK_SZ));
        must(EVP_DigestUpdate(ctx, x->mac, VC_SHA1_SZ));
        must(EVP_DigestFinal_ex(ctx, x->mac, NULL));
    }
}

static const struct vc_crypto_ops evp_ops = {
    .destroy = evp_destroy,
    .expand = evp_expand,
    .keystream = evp_keystream,
    .gcm_seal = evp_gcm_seal,
    .gcm_open = evp_gcm_open,
    .ctr = evp_ctr,
    .hmac = evp_hmac,
};

static bool contexts_new(struct evp *evp)
{
    static const uint8_t zero_key[VC_AES_KEY_SZ], zero_iv[16];

    evp->gcm_enc = EVP_CIPHER_CTX_new();
    evp->gcm_dec = EVP_CIPHER_CTX_new();
    evp->ctr = EVP_CIPHER_CTX_new();
    evp->sha1 = EVP_MD_CTX_new();
    return evp->gcm_enc != NULL && evp->gcm_dec != NULL && evp->ctr != NULL && evp->sha1 != NULL &&
           EVP_EncryptInit_ex(evp->gcm_enc, EVP_aes_128_gcm(), NULL, zero_key, zero_iv) == 1 &&
           EVP_DecryptInit_ex(evp->gcm_dec, EVP_aes_128_gcm(), NULL, zero_key, zero_iv) == 1 &&
           EVP_EncryptInit_ex(evp->ctr, EVP_aes_128_ctr(), NULL, zero_key, zero_iv) == 1 &&
           EVP_DigestInit_ex(evp->sha1, EVP_sha1(), NULL) == 1;
}

struct vc_crypto *vc_crypto_evp_new(void)
{
    struct evp *evp;

    if (posix_memalign((void **)&evp, 64, sizeof(*evp)) != 0)
        return NULL;
    memset(evp, 0, sizeof(*evp));
    evp->base.ops = &evp_ops;
    if (!contexts_new(evp)) {
        evp_free(evp);
        return NULL;
    }
    snprintf(evp->base.name, sizeof(evp->base.name), "openssl %s",
             OpenSSL_version(OPENSSL_VERSION_STRING));
    return &evp->base;
}
