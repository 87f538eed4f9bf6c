/* SPDX-License-Identifier: MIT */
#include "crypto_impl.h"

#include <string.h>

void vc_srtp_derive(struct vc_crypto *crypto, const uint8_t master_key[16],
                    const uint8_t master_salt[VC_SALT_SZ], enum vc_srtp_label label, uint8_t *out,
                    uint32_t n)
{
    uint8_t iv[16] = {0};

    /* key_id = label || 48-bit (index DIV rate), which is 0: the label meets byte 7 of the salt. */
    memcpy(iv, master_salt, VC_SALT_SZ);
    iv[7] ^= (uint8_t)label;
    crypto->ops->keystream(crypto, master_key, iv, out, n);
}

static void derive_half(struct vc_crypto *crypto, struct vc_session_keys *keys,
                        enum vc_srtp_suite suite, const uint8_t master_key[16],
                        const uint8_t salt[VC_SALT_SZ], enum vc_srtp_label first)
{
    uint32_t salt_sz = suite == VC_SRTP_AEAD_AES_128_GCM ? 12 : VC_SALT_SZ;

    memset(keys, 0, sizeof(*keys));
    vc_srtp_derive(crypto, master_key, salt, first, keys->cipher, VC_AES_KEY_SZ);
    vc_srtp_derive(crypto, master_key, salt, first + 1, keys->auth, VC_HMAC_KEY_SZ);
    vc_srtp_derive(crypto, master_key, salt, first + 2, keys->salt, salt_sz);
}

int vc_crypto_key_init(struct vc_crypto *crypto, struct vc_crypto_key *key,
                       enum vc_srtp_suite suite, const uint8_t master_key[16],
                       const uint8_t master_salt[14])
{
    struct vc_session_keys keys[2];
    uint8_t salt[VC_SALT_SZ] = {0};
    int rc;

    /* RFC 7714 section 11: the 12-byte salt is padded on the right to AES-CM's 14. */
    memcpy(salt, master_salt, suite == VC_SRTP_AEAD_AES_128_GCM ? 12 : VC_SALT_SZ);
    derive_half(crypto, &keys[0], suite, master_key, salt, VC_LABEL_RTP_CIPHER);
    derive_half(crypto, &keys[1], suite, master_key, salt, VC_LABEL_RTCP_CIPHER);
    rc = vc_crypto_key_set(crypto, key, suite, keys);
    explicit_bzero(keys, sizeof(keys));
    explicit_bzero(salt, sizeof(salt));
    return rc;
}
