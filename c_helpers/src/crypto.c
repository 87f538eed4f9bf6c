/* SPDX-License-Identifier: MIT */
#include "crypto_packet.h"

struct vc_crypto *vc_crypto_new(enum vc_crypto_backend backend)
{
    struct vc_crypto *crypto = NULL;

    if (backend == VC_CRYPTO_AUTO || backend == VC_CRYPTO_IMB)
        crypto = vc_crypto_imb_new();
    if (crypto == NULL && (backend == VC_CRYPTO_AUTO || backend == VC_CRYPTO_EVP))
        crypto = vc_crypto_evp_new();
    return crypto;
}

void vc_crypto_delete(struct vc_crypto *crypto)
{
    if (crypto != NULL)
        crypto->ops->destroy(crypto);
}

const char *vc_crypto_backend_name(const struct vc_crypto *crypto)
{
    return crypto->name;
}

int vc_crypto_key_set(struct vc_crypto *crypto, struct vc_crypto_key *key, enum vc_srtp_suite suite,
                      const struct vc_session_keys keys[2])
{
    struct vc_key_impl *impl = (struct vc_key_impl *)key->opaque;

    memset(key, 0, sizeof(*key));
    if (suite != VC_SRTP_AEAD_AES_128_GCM && suite != VC_SRTP_AES_CM_128_HMAC_SHA1_80)
        return -1;
    impl->suite = suite;
    memcpy(impl->salt[0], keys[0].salt, VC_SALT_SZ);
    memcpy(impl->salt[1], keys[1].salt, VC_SALT_SZ);
    memcpy(impl->rtcp_cipher, keys[1].cipher, VC_AES_KEY_SZ);
    crypto->ops->expand(crypto, impl, keys);
    return 0;
}

void vc_crypto_key_wipe(struct vc_crypto_key *key)
{
    explicit_bzero(key, sizeof(*key));
}

enum vc_srtp_suite vc_crypto_key_suite(const struct vc_crypto_key *key)
{
    return (enum vc_srtp_suite)((const struct vc_key_impl *)key->opaque)->suite;
}

uint32_t vc_srtp_tag_sz(enum vc_srtp_suite suite)
{
    switch (suite) {
    case VC_SRTP_AEAD_AES_128_GCM:
        return VC_GCM_TAG_SZ;
    case VC_SRTP_AES_CM_128_HMAC_SHA1_80:
        return CM_TAG_SZ;
    default:
        return 0;
    }
}

uint32_t vc_srtcp_grow_sz(enum vc_srtp_suite suite)
{
    uint32_t tag_sz = vc_srtp_tag_sz(suite);

    return tag_sz == 0 ? 0 : tag_sz + WORD_SZ;
}
