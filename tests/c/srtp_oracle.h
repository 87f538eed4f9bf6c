/* SPDX-License-Identifier: MIT */
/* libsrtp2 as the oracle of SRTP: what its policies are for our suites. */
#ifndef SRTP_ORACLE_H
#define SRTP_ORACLE_H

#include <srtp2/srtp.h>

/* RTP and RTCP by this suite, with the replay window of the node; `master` is key and salt. */
static inline srtp_policy_t oracle_policy(uint32_t suite, uint8_t *master)
{
    srtp_policy_t policy = { 0 };

    if (suite == VC_SRTP_AEAD_AES_128_GCM) {
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtp);
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtcp);
    } else {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtp);
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtcp);
    }
    policy.key = master;
    policy.window_size = 1024;
    return policy;
}

#endif
