/* SPDX-License-Identifier: MIT */
#include "crypto_packet.h"

static bool seal_layout(const struct vc_crypto_item *item, bool rtcp, struct layout *at)
{
    at->hdr_sz = rtcp ? RTCP_HDR_SZ : item->hdr_sz;
    if (vc_srtp_tag_sz(vc_crypto_key_suite(item->key)) == 0)
        return false;
    if (item->src_sz > VC_CRYPTO_MAX_SZ || at->hdr_sz > VC_CRYPTO_MAX_SZ)
        return false;
    if (!rtcp && at->hdr_sz < RTP_HDR_MIN)
        return false;
    if (item->index >= (rtcp ? RTCP_INDEX_END : RTP_INDEX_END))
        return false;
    if (item->hdr != NULL) {
        at->hdr = item->hdr;
        at->body = item->src;
        at->body_sz = item->src_sz;
        return at->hdr_sz + at->body_sz <= VC_CRYPTO_MAX_SZ;
    }
    if (item->src_sz < at->hdr_sz)
        return false;
    at->hdr = item->src;
    at->body = item->src + at->hdr_sz;
    at->body_sz = item->src_sz - at->hdr_sz;
    return true;
}

static void seal_prepare(struct vc_crypto_item *item, const struct layout *at, struct vc_xform *x)
{
    uint32_t clear_sz = at->hdr_sz + at->body_sz;
    uint8_t *end = item->dst + clear_sz;

    if (item->dst != at->hdr)
        memcpy(item->dst, at->hdr, at->hdr_sz);
    x->in = at->body;
    x->out = item->dst + at->hdr_sz;
    x->sz = at->body_sz;
    set_iv(x, item->dst + (x->rtcp ? 4 : 8), item->index);
    if (is_gcm(x)) {
        x->aad = item->dst;
        x->aad_sz = at->hdr_sz;
        x->tag_out = end;
        if (x->rtcp) { /* header, ciphertext, tag, E||index: RFC 7714 figure 3 */
            memcpy(x->esrtcp_aad, item->dst, RTCP_HDR_SZ);
            vc_store_be32(x->esrtcp_aad + RTCP_HDR_SZ, RTCP_E_FLAG | (uint32_t)item->index);
            x->aad = x->esrtcp_aad;
            x->aad_sz = sizeof(x->esrtcp_aad);
        }
        item->dst_sz = clear_sz + (x->rtcp ? VC_GCM_TAG_SZ + WORD_SZ : VC_GCM_TAG_SZ);
        return;
    }
    /* Both hash the ciphertext and one word; SRTP overwrites the word (the ROC) with the tag. */
    x->mac_in = item->dst;
    x->mac_sz = clear_sz + WORD_SZ;
    x->tag_out = x->rtcp ? end + WORD_SZ : end;
    item->dst_sz = clear_sz + (x->rtcp ? CM_TAG_SZ + WORD_SZ : CM_TAG_SZ);
}

static uint32_t seal(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n, bool rtcp)
{
    uint32_t cnt[2] = {0, 0};

    VC_ASSERT(n <= VC_CRYPTO_BURST);
    for (uint32_t i = 0; i < n; i++) {
        struct layout at;

        items[i].ok = seal_layout(&items[i], rtcp, &at);
        items[i].dst_sz = 0;
        if (items[i].ok)
            seal_prepare(&items[i], &at, next_xform(crypto, &items[i], cnt, i, rtcp));
    }
    if (cnt[0] != 0) {
        crypto->ops->gcm_seal(crypto, crypto->gcm, cnt[0]);
        for (uint32_t i = 0; rtcp && i < cnt[0]; i++)
            memcpy(crypto->gcm[i].tag_out + VC_GCM_TAG_SZ, crypto->gcm[i].esrtcp_aad + RTCP_HDR_SZ,
                   WORD_SZ);
    }
    if (cnt[1] != 0) {
        crypto->ops->ctr(crypto, crypto->cm, cnt[1]);
        for (uint32_t i = 0; i < cnt[1]; i++) {
            const struct vc_crypto_item *item = &items[crypto->cm[i].item];
            uint32_t word =
                rtcp ? RTCP_E_FLAG | (uint32_t)item->index : (uint32_t)(item->index >> 16);

            vc_store_be32(item->dst + crypto->cm[i].mac_sz - WORD_SZ, word);
        }
        crypto->ops->hmac(crypto, crypto->cm, cnt[1]);
        for (uint32_t i = 0; i < cnt[1]; i++)
            memcpy(crypto->cm[i].tag_out, crypto->cm[i].mac, CM_TAG_SZ);
    }
    return cnt[0] + cnt[1];
}

uint32_t vc_crypto_seal_rtp(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n)
{
    return seal(crypto, items, n, false);
}

uint32_t vc_crypto_seal_rtcp(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n)
{
    return seal(crypto, items, n, true);
}
