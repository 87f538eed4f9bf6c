/* SPDX-License-Identifier: MIT */
/* The intel-ipsec-mb backend.  GCM goes packet by packet through the direct API, which is
   as fast as bursts; AES-CTR and HMAC-SHA1 go through the burst API, whose lanes make
   SHA-1 many times faster than one packet at a time.

   Lanes have a price: a lone packet takes as long as sixteen.  So where the CPU has the SHA
   instructions, what does not fill the lanes goes to a second manager that uses those.

   Only what versions 1.3 and 2.0 share is used. */
#include "base.h"
#include "crypto_impl.h"

#include <intel-ipsec-mb.h>

#define SHA1_BLOCK_SZ 64

/* Expanded forms.  GCM: the SRTP key alone; the SRTCP key is expanded at use. */
struct cm_half {
    _Alignas(16) uint8_t round_keys[11 * 16];
    uint8_t ipad[VC_SHA1_SZ];
    uint8_t opad[VC_SHA1_SZ];
};
struct cm_keys {
    struct cm_half half[2];
};
_Static_assert(sizeof(struct gcm_key_data) <= VC_KEY_EXPANDED_SZ, "the GCM key must fit");
_Static_assert(sizeof(struct cm_keys) <= VC_KEY_EXPANDED_SZ, "the CM keys must fit");

struct imb {
    struct vc_crypto base;
    IMB_MGR *mgr;
    IMB_MGR *few;      /* for at most few_max HMACs; NULL: mgr serves all */
    uint32_t lane_cnt; /* HMACs that mgr does in the time of one */
    uint32_t few_max;
    IMB_JOB cipher_jobs[VC_CRYPTO_BURST];
    IMB_JOB hash_jobs[VC_CRYPTO_BURST];
    _Alignas(64) uint8_t rtcp_gcm[VC_KEY_EXPANDED_SZ];
    _Alignas(16) uint8_t round_keys[11 * 16];
    _Alignas(16) uint8_t unused_dec[11 * 16]; /* the library always writes both schedules */
};

static struct imb *imb_of(struct vc_crypto *crypto)
{
    return (struct imb *)crypto;
}

static const struct cm_half *cm_half_of(const struct vc_xform *x)
{
    return &((const struct cm_keys *)x->key->expanded)->half[x->rtcp];
}

static void imb_destroy(struct vc_crypto *crypto)
{
    struct imb *imb = imb_of(crypto);

    free_mb_mgr(imb->mgr);
    if (imb->few != NULL)
        free_mb_mgr(imb->few);
    explicit_bzero(imb, sizeof(*imb));
    free(imb);
}

/* HMAC's two key blocks, hashed once for each key (RFC 2104). */
static void hmac_pads(struct imb *imb, const uint8_t key[VC_HMAC_KEY_SZ], struct cm_half *half)
{
    uint8_t block[SHA1_BLOCK_SZ];

    memset(block, 0x36, sizeof(block));
    for (uint32_t i = 0; i < VC_HMAC_KEY_SZ; i++)
        block[i] ^= key[i];
    IMB_SHA1_ONE_BLOCK(imb->mgr, block, half->ipad);
    for (uint32_t i = 0; i < SHA1_BLOCK_SZ; i++)
        block[i] ^= 0x36 ^ 0x5c;
    IMB_SHA1_ONE_BLOCK(imb->mgr, block, half->opad);
    explicit_bzero(block, sizeof(block));
}

static void imb_expand(struct vc_crypto *crypto, struct vc_key_impl *key,
                       const struct vc_session_keys keys[2])
{
    struct imb *imb = imb_of(crypto);
    struct cm_keys *cm = (struct cm_keys *)key->expanded;

    if (key->suite == VC_SRTP_AEAD_AES_128_GCM) {
        IMB_AES128_GCM_PRE(imb->mgr, keys[0].cipher, (struct gcm_key_data *)key->expanded);
        return;
    }
    for (uint32_t i = 0; i < 2; i++) {
        IMB_AES_KEYEXP_128(imb->mgr, keys[i].cipher, cm->half[i].round_keys, imb->unused_dec);
        hmac_pads(imb, keys[i].auth, &cm->half[i]);
    }
    explicit_bzero(imb->unused_dec, sizeof(imb->unused_dec));
}

static void imb_keystream(struct vc_crypto *crypto, const uint8_t key[16], const uint8_t iv[16],
                          uint8_t *out, uint32_t n)
{
    static const uint8_t zeros[32];
    struct imb *imb = imb_of(crypto);
    IMB_JOB *job = &imb->cipher_jobs[0];

    IMB_AES_KEYEXP_128(imb->mgr, key, imb->round_keys, imb->unused_dec);
    job->enc_keys = imb->round_keys;
    job->src = zeros;
    job->dst = out;
    job->iv = iv;
    job->msg_len_to_cipher_in_bytes = n;
    IMB_SUBMIT_CIPHER_BURST_NOCHECK(imb->mgr, job, 1, IMB_CIPHER_CNTR, IMB_DIR_ENCRYPT,
                                    IMB_KEY_128_BYTES);
    explicit_bzero(imb->round_keys, sizeof(imb->round_keys));
    explicit_bzero(imb->unused_dec, sizeof(imb->unused_dec));
}

static const struct gcm_key_data *gcm_key_of(struct imb *imb, const struct vc_xform *x)
{
    if (!x->rtcp)
        return (const struct gcm_key_data *)x->key->expanded;
    IMB_AES128_GCM_PRE(imb->mgr, x->key->rtcp_cipher, (struct gcm_key_data *)imb->rtcp_gcm);
    return (const struct gcm_key_data *)imb->rtcp_gcm;
}

static void imb_gcm_seal(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n)
{
    struct imb *imb = imb_of(crypto);
    struct gcm_context_data ctx;

    for (uint32_t i = 0; i < n; i++, x++)
        IMB_AES128_GCM_ENC(imb->mgr, gcm_key_of(imb, x), &ctx, x->out, x->in, x->sz, x->iv, x->aad,
                           x->aad_sz, x->tag_out, VC_GCM_TAG_SZ);
}

static void imb_gcm_open(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n)
{
    struct imb *imb = imb_of(crypto);
    struct gcm_context_data ctx;
    uint8_t tag[VC_GCM_TAG_SZ];

    for (uint32_t i = 0; i < n; i++, x++) {
        IMB_AES128_GCM_DEC(imb->mgr, gcm_key_of(imb, x), &ctx, x->out, x->in, x->sz, x->iv, x->aad,
                           x->aad_sz, tag, VC_GCM_TAG_SZ);
        x->ok = vc_same(tag, x->tag_in, VC_GCM_TAG_SZ);
    }
}

static void imb_ctr(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n)
{
    struct imb *imb = imb_of(crypto);
    uint32_t job_cnt = 0;
    uint32_t done;

    for (uint32_t i = 0; i < n; i++, x++) {
        IMB_JOB *job = &imb->cipher_jobs[job_cnt];

        if (x->sz == 0)
            continue;
        job->enc_keys = cm_half_of(x)->round_keys;
        job->src = x->in;
        job->dst = x->out;
        job->iv = x->iv;
        job->msg_len_to_cipher_in_bytes = x->sz;
        job_cnt++;
    }
    if (job_cnt == 0)
        return;
    done = IMB_SUBMIT_CIPHER_BURST_NOCHECK(imb->mgr, imb->cipher_jobs, job_cnt, IMB_CIPHER_CNTR,
                                           IMB_DIR_ENCRYPT, IMB_KEY_128_BYTES);
    VC_ASSERT(done == job_cnt);
}

static void hash_burst(IMB_MGR *mgr, IMB_JOB *jobs, uint32_t n)
{
    uint32_t done;

    if (n == 0)
        return;
    done = IMB_SUBMIT_HASH_BURST_NOCHECK(mgr, jobs, n, IMB_AUTH_HMAC_SHA_1);
    VC_ASSERT(done == n);
}

static void imb_hmac(struct vc_crypto *crypto, struct vc_xform *x, uint32_t n)
{
    struct imb *imb = imb_of(crypto);
    uint32_t few;

    for (uint32_t i = 0; i < n; i++, x++) {
        const struct cm_half *half = cm_half_of(x);
        IMB_JOB *job = &imb->hash_jobs[i];

        job->src = x->mac_in;
        job->msg_len_to_hash_in_bytes = x->mac_sz;
        job->auth_tag_output = x->mac;
        job->u.HMAC._hashed_auth_key_xor_ipad = half->ipad;
        job->u.HMAC._hashed_auth_key_xor_opad = half->opad;
    }
    few = imb->few != NULL && n % imb->lane_cnt <= imb->few_max ? n % imb->lane_cnt : 0;
    hash_burst(imb->mgr, imb->hash_jobs, n - few);
    hash_burst(imb->few, imb->hash_jobs + n - few, few);
}

static const struct vc_crypto_ops imb_ops = {
    .destroy = imb_destroy,
    .expand = imb_expand,
    .keystream = imb_keystream,
    .gcm_seal = imb_gcm_seal,
    .gcm_open = imb_gcm_open,
    .ctr = imb_ctr,
    .hmac = imb_hmac,
};

static void fill_job_constants(struct imb *imb)
{
    for (uint32_t i = 0; i < VC_CRYPTO_BURST; i++) {
        IMB_JOB *cipher = &imb->cipher_jobs[i];
        IMB_JOB *hash = &imb->hash_jobs[i];

        cipher->cipher_mode = IMB_CIPHER_CNTR;
        cipher->cipher_direction = IMB_DIR_ENCRYPT;
        cipher->hash_alg = IMB_AUTH_NULL;
        cipher->chain_order = IMB_ORDER_CIPHER_HASH;
        cipher->key_len_in_bytes = IMB_KEY_128_BYTES;
        cipher->iv_len_in_bytes = 16;
        hash->cipher_mode = IMB_CIPHER_NULL;
        hash->cipher_direction = IMB_DIR_ENCRYPT;
        hash->hash_alg = IMB_AUTH_HMAC_SHA_1;
        hash->chain_order = IMB_ORDER_HASH_CIPHER;
        hash->auth_tag_output_len_in_bytes = VC_SHA1_SZ;
    }
}

/* Measured where the curves cross (Zen 5): up to 4 with AVX-512's 16 lanes, and with AVX2 as long
   as its 8 lanes are not full. */
static void add_few(struct imb *imb, IMB_ARCH arch)
{
    if (!(imb->mgr->features & IMB_FEATURE_SHANI))
        return;
    if (arch != IMB_ARCH_AVX512 && arch != IMB_ARCH_AVX2)
        return;
    imb->lane_cnt = arch == IMB_ARCH_AVX512 ? 16 : 8;
    imb->few_max = arch == IMB_ARCH_AVX512 ? 4 : 7;
    imb->few = alloc_mb_mgr(0);
    if (imb->few != NULL)
        init_mb_mgr_sse(imb->few);
}

static const char *arch_name(IMB_ARCH arch)
{
    switch (arch) {
    case IMB_ARCH_SSE:
        return "sse";
#if IMB_VERSION_NUM < IMB_VERSION(2, 0, 0)
    case IMB_ARCH_AVX:
        return "avx";
#endif
    case IMB_ARCH_AVX2:
        return "avx2";
    case IMB_ARCH_AVX512:
        return "avx512";
    default:
        return "unknown";
    }
}

struct vc_crypto *vc_crypto_imb_new(void)
{
    const uint64_t needed = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ;
    IMB_ARCH arch = IMB_ARCH_NONE;
    struct imb *imb;
    IMB_MGR *mgr = alloc_mb_mgr(0);

    if (mgr == NULL)
        return NULL;
    init_mb_mgr_auto(mgr, &arch);
    if (imb_get_errno(mgr) != 0 || (mgr->features & needed) != needed) {
        free_mb_mgr(mgr);
        return NULL;
    }
    if (posix_memalign((void **)&imb, 64, sizeof(*imb)) != 0) {
        free_mb_mgr(mgr);
        return NULL;
    }
    memset(imb, 0, sizeof(*imb));
    imb->base.ops = &imb_ops;
    imb->mgr = mgr;
    fill_job_constants(imb);
    add_few(imb, arch);
    snprintf(imb->base.name, sizeof(imb->base.name), "ipsec-mb %s %s", arch_name(arch),
             imb_get_version_str());
    return &imb->base;
}
