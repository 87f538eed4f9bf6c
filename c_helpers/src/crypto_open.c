/* SPDX-License-Identifier: MIT */
#include "crypto_packet.h"

static bool open_layout(struct vc_crypto_item *item, bool rtcp, struct layout *at)
{
    enum vc_srtp_suite suite = vc_crypto_key_suite(item->key);
    uint32_t grow = rtcp ? vc_srtcp_grow_sz(suite) : vc_srtp_tag_sz(suite);

    at->hdr_sz = rtcp ? RTCP_HDR_SZ : item->hdr_sz;
    if (grow == 0 || item->src_sz > VC_CRYPTO_MAX_SZ || at->hdr_sz > VC_CRYPTO_MAX_SZ)
        return false;
    if (!rtcp && (at->hdr_sz < RTP_HDR_MIN || item->index >= RTP_INDEX_END))
        return false;
    if (item->src_sz < at->hdr_sz + grow)
        return false;
    at->hdr = item->src;
    at->body = item->src + at->hdr_sz;
    at->body_sz = item->src_sz - at->hdr_sz - grow;
    return true;
}

static void open_gcm_prepare(struct vc_crypto_item *item, const struct layout *at, uint32_t word,
                             struct vc_xform *x)
{
    memcpy(x->tag_in, at->body + at->body_sz, VC_GCM_TAG_SZ);
    x->aad = item->src;
    x->aad_sz = at->hdr_sz;
    if (!x->rtcp)
        return;
    if (x->encrypted) {
        memcpy(x->esrtcp_aad, item->src, RTCP_HDR_SZ);
        vc_store_be32(x->esrtcp_aad + RTCP_HDR_SZ, word);
        x->aad = x->esrtcp_aad;
        x->aad_sz = sizeof(x->esrtcp_aad);
        return;
    }
    /* RFC 7714 section 9.3: all of the packet is associated data, and nothing is ciphertext. */
    if (item->dst != item->src)
        memcpy(item->dst, item->src, RTCP_HDR_SZ + at->body_sz);
    vc_store_be32(item->dst + RTCP_HDR_SZ + at->body_sz, word);
    x->aad = item->dst;
    x->aad_sz = RTCP_HDR_SZ + at->body_sz + WORD_SZ;
    x->sz = 0;
}

static void open_cm_prepare(struct vc_crypto_item *item, const struct layout *at,
                            struct vc_xform *x)
{
    uint32_t clear_sz = at->hdr_sz + at->body_sz;

    memcpy(x->tag_in, item->src + item->src_sz - CM_TAG_SZ, CM_TAG_SZ);
    x->mac_in = item->src;
    x->mac_sz = clear_sz + WORD_SZ;
    if (x->rtcp) /* the hashed word is in the packet already */
        return;
    /* The ROC is hashed where the tag lies, and src is not ours to write: hash and decrypt in dst.
     */
    if (item->dst != item->src)
        memcpy(item->dst, item->src, clear_sz);
    vc_store_be32(item->dst + clear_sz, (uint32_t)(item->index >> 16));
    x->mac_in = item->dst;
    x->in = x->out;
}

static void open_prepare(struct vc_crypto_item *item, const struct layout *at, struct vc_xform *x)
{
    uint32_t word = 0;

    if (x->rtcp) {
        uint32_t tail = is_gcm(x) ? WORD_SZ : WORD_SZ + CM_TAG_SZ;

        word = vc_load_be32(item->src + item->src_sz - tail);
        item->index = word & ~RTCP_E_FLAG;
        x->encrypted = (word & RTCP_E_FLAG) != 0;
    }
    item->dst_sz = at->hdr_sz + at->body_sz;
    x->in = at->body;
    x->out = item->dst + at->hdr_sz;
    x->sz = at->body_sz;
    set_iv(x, item->src + (x->rtcp ? 4 : 8), item->index);
    if (is_gcm(x))
        open_gcm_prepare(item, at, word, x);
    else
        open_cm_prepare(item, at, x);
}

static void open_cm(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n)
{
    uint32_t kept = 0;

    crypto->ops->hmac(crypto, crypto->cm, n);
    for (uint32_t i = 0; i < n; i++) {
        struct vc_xform *x = &crypto->cm[i];
        struct vc_crypto_item *item = &items[x->item];

        item->ok = vc_same(x->mac, x->tag_in, CM_TAG_SZ);
        if (!item->ok)
            continue;
        if (item->dst != item->src && x->rtcp)
            memcpy(item->dst, item->src, RTCP_HDR_SZ);
        if (!x->encrypted) {
            if (x->out != x->in)
                memcpy(x->out, x->in, x->sz);
            continue;
        }
        if (kept != i)
            crypto->cm[kept] = *x;
        kept++;
    }
    if (kept != 0)
        crypto->ops->ctr(crypto, crypto->cm, kept);
}

static void open_gcm(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n)
{
    crypto->ops->gcm_open(crypto, crypto->gcm, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct vc_xform *x = &crypto->gcm[i];
        struct vc_crypto_item *item = &items[x->item];

        item->ok = x->ok;
        if (x->ok && x->encrypted && item->dst != item->src)
            memcpy(item->dst, item->src, x->rtcp ? RTCP_HDR_SZ : item->hdr_sz);
    }
}

static uint32_t open_burst(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n,
                           bool rtcp)
{
    uint32_t cnt[2] = {0, 0};
    uint32_t ok_cnt = 0;

    VC_ASSERT(n <= VC_CRYPTO_BURST);
    for (uint32_t i = 0; i < n; i++) {
        struct layout at;

        items[i].ok = 0;
        items[i].dst_sz = 0;
        if (rtcp)
            items[i].index = 0;
        if (open_layout(&items[i], rtcp, &at))
            open_prepare(&items[i], &at, next_xform(crypto, &items[i], cnt, i, rtcp));
    }
    if (cnt[0] != 0)
        open_gcm(crypto, items, cnt[0]);
    if (cnt[1] != 0)
        open_cm(crypto, items, cnt[1]);
    for (uint32_t i = 0; i < n; i++) {
        ok_cnt += items[i].ok;
        if (!items[i].ok)
            items[i].dst_sz = 0;
    }
    return ok_cnt;
}

uint32_t vc_crypto_open_rtp(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n)
{
    return open_burst(crypto, items, n, false);
}

uint32_t vc_crypto_open_rtcp(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n)
{
    return open_burst(crypto, items, n, true);
}
