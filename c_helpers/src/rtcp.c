/* SPDX-License-Identifier: MIT */
#include "rtcp.h"

#include "base.h"

enum {
    HEAD_SZ = 4,
    SSRC_SZ = 4,
    SENDER_INFO_SZ = 20,
    BLOCK_SZ = 24,
    FEEDBACK_SZ = 8, /* sender and media SSRC */
    FIR_SZ = 8,
    NACK_SZ = 4,
    PT_SR = 200,
    PT_RR = 201,
    PT_SDES = 202,
    PT_BYE = 203,
    PT_RTPFB = 205,
    PT_PSFB = 206,
    FMT_NACK = 1,
    FMT_PLI = 1,
    FMT_FIR = 4,
    FMT_AFB = 15,
    SDES_CNAME = 1,
};

/* ---- reading ----------------------------------------------------------------------------- */

struct reader {
    struct vc_rtcp_item *items;
    uint32_t cnt, max;
    struct vc_rtcp_item overflow; /* where items beyond the limit go */
};

static struct vc_rtcp_item *next_item(struct reader *r, enum vc_rtcp_kind kind, uint32_t ssrc,
                                      uint32_t media_ssrc)
{
    struct vc_rtcp_item *item = r->cnt < r->max ? &r->items[r->cnt++] : &r->overflow;

    *item = (struct vc_rtcp_item){ .kind = kind, .ssrc = ssrc, .media_ssrc = media_ssrc };
    return item;
}

static void read_block(struct vc_rtcp_block *block, const uint8_t *p)
{
    uint32_t lost = vc_load_be32(p + 4);

    *block = (struct vc_rtcp_block){
        .ssrc = vc_load_be32(p),
        .fraction_lost = (uint8_t)(lost >> 24),
        .cumulative_lost = (int32_t)(lost << 8) >> 8,
        .highest_seq = vc_load_be32(p + 8),
        .jitter = vc_load_be32(p + 12),
        .lsr = vc_load_be32(p + 16),
        .dlsr = vc_load_be32(p + 20),
    };
}

static int read_report(struct reader *r, uint8_t pt, uint8_t cnt, const uint8_t *body, uint32_t sz)
{
    uint32_t off = SSRC_SZ + (pt == PT_SR ? SENDER_INFO_SZ : 0u), ssrc;

    if (sz < off + cnt * (uint32_t)BLOCK_SZ)
        return -1;
    ssrc = vc_load_be32(body);
    if (pt == PT_SR)
        next_item(r, VC_RTCP_SR, ssrc, 0)->u.sr = (struct vc_rtcp_sr){
            .ntp = vc_load_be64(body + 4),
            .rtp_timestamp = vc_load_be32(body + 12),
            .packets = vc_load_be32(body + 16),
            .octets = vc_load_be32(body + 20),
        };
    for (uint32_t i = 0; i < cnt; i++, off += BLOCK_SZ)
        read_block(&next_item(r, VC_RTCP_REPORT, ssrc, vc_load_be32(body + off))->u.block,
                   body + off);
    return 0;
}

static int read_bye(struct reader *r, uint8_t cnt, const uint8_t *body, uint32_t sz)
{
    if (sz < cnt * (uint32_t)SSRC_SZ)
        return -1;
    for (uint32_t i = 0; i < cnt; i++)
        next_item(r, VC_RTCP_BYE, vc_load_be32(body + 4 * i), 0);
    return 0;
}

static int read_other(struct reader *r, const uint8_t *body, uint32_t sz)
{
    if (sz < FEEDBACK_SZ)
        return -1;
    next_item(r, VC_RTCP_OTHER, vc_load_be32(body), vc_load_be32(body + 4));
    return 0;
}

static int read_rtpfb(struct reader *r, uint8_t fmt, const uint8_t *body, uint32_t sz)
{
    if (fmt != FMT_NACK)
        return read_other(r, body, sz);
    if (sz < FEEDBACK_SZ + NACK_SZ)
        return -1;
    for (uint32_t off = FEEDBACK_SZ; off < sz; off += NACK_SZ) {
        struct vc_rtcp_item *item =
            next_item(r, VC_RTCP_NACK, vc_load_be32(body), vc_load_be32(body + 4));

        item->u.nack.pid = vc_load_be16(body + off);
        item->u.nack.blp = vc_load_be16(body + off + 2);
    }
    return 0;
}

/* draft-alvestrand-rmcat-remb-03 section 2.2. */
static int read_remb(struct reader *r, const uint8_t *body, uint32_t sz)
{
    uint64_t mantissa;
    uint32_t exponent;

    if (sz < FEEDBACK_SZ + 4 || memcmp(body + FEEDBACK_SZ, "REMB", 4))
        return read_other(r, body, sz);
    if (sz < FEEDBACK_SZ + 8 || sz - FEEDBACK_SZ - 8 < body[12] * (uint32_t)SSRC_SZ)
        return -1;
    exponent = body[13] >> 2;
    mantissa = (body[13] & 3ull) << 16 | vc_load_be16(body + 14);
    next_item(r, VC_RTCP_REMB, vc_load_be32(body), vc_load_be32(body + 4))->u.remb =
        (struct vc_rtcp_remb){
            .bitrate_bps = mantissa > UINT64_MAX >> exponent ? UINT64_MAX : mantissa << exponent,
            .ssrcs = body + FEEDBACK_SZ + 8,
            .ssrc_cnt = body[12],
        };
    return 0;
}

static int read_psfb(struct reader *r, uint8_t fmt, const uint8_t *body, uint32_t sz)
{
    if (fmt != FMT_PLI && fmt != FMT_FIR && fmt != FMT_AFB)
        return read_other(r, body, sz);
    if (sz < FEEDBACK_SZ)
        return -1;
    if (fmt == FMT_PLI) {
        next_item(r, VC_RTCP_PLI, vc_load_be32(body), vc_load_be32(body + 4));
        return 0;
    }
    if (fmt == FMT_AFB)
        return read_remb(r, body, sz);
    if (sz < FEEDBACK_SZ + FIR_SZ || (sz - FEEDBACK_SZ) % FIR_SZ)
        return -1;
    /* RFC 5104 section 4.3.1.1: the media SSRC of the head is 0, each entry names its own */
    for (uint32_t off = FEEDBACK_SZ; off < sz; off += FIR_SZ)
        next_item(r, VC_RTCP_FIR, vc_load_be32(body), vc_load_be32(body + off))->u.fir_seq =
            body[off + 4];
    return 0;
}

static int read_body(struct reader *r, uint8_t pt, uint8_t cnt, const uint8_t *body, uint32_t sz)
{
    switch (pt) {
    case PT_SR:
    case PT_RR:
        return read_report(r, pt, cnt, body, sz);
    case PT_BYE:
        return read_bye(r, cnt, body, sz);
    case PT_RTPFB:
        return read_rtpfb(r, cnt, body, sz);
    case PT_PSFB:
        return read_psfb(r, cnt, body, sz);
    default:
        return 0;
    }
}

int vc_rtcp_parse(const uint8_t *pkt, uint32_t sz, struct vc_rtcp_item *items, uint32_t items_max)
{
    struct reader r = {
        items, 0, items_max < VC_RTCP_ITEMS_MAX ? items_max : VC_RTCP_ITEMS_MAX, { 0 }
    };
    uint32_t off = 0;

    if (sz < HEAD_SZ)
        return -1;
    while (off < sz) {
        const uint8_t *p = pkt + off;
        uint32_t pkt_sz, body_sz;

        if (sz - off < HEAD_SZ || p[0] >> 6 != 2)
            return -1;
        pkt_sz = 4u * (vc_load_be16(p + 2) + 1u);
        if (pkt_sz > sz - off)
            return -1;
        body_sz = pkt_sz - HEAD_SZ;
        if (p[0] & 0x20) { /* padding: its size is in the last byte (RFC 3550 section 6.4.1) */
            uint8_t padding = p[pkt_sz - 1];

            if (body_sz == 0 || padding == 0 || padding % 4 || padding > body_sz)
                return -1;
            body_sz -= padding;
        }
        if (read_body(&r, p[1], p[0] & 0x1f, p + HEAD_SZ, body_sz))
            return -1;
        off += pkt_sz;
    }
    return (int)r.cnt;
}

/* ---- writing ----------------------------------------------------------------------------- */

/* Takes sz bytes (a multiple of 4) and writes the head; returns where the body goes, or NULL. */
static uint8_t *append(struct vc_rtcp_writer *w, uint8_t pt, uint32_t cnt, uint32_t sz)
{
    uint8_t *p = w->buf + w->sz;

    if (w->room - w->sz < sz)
        return NULL;
    p[0] = (uint8_t)(0x80 | cnt);
    p[1] = pt;
    vc_store_be16(p + 2, (uint16_t)(sz / 4 - 1));
    w->sz += sz;
    return p + HEAD_SZ;
}

static void write_blocks(uint8_t *p, const struct vc_rtcp_block *blocks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, p += BLOCK_SZ) {
        const struct vc_rtcp_block *b = &blocks[i];

        vc_store_be32(p, b->ssrc);
        vc_store_be32(p + 4,
                      (uint32_t)b->fraction_lost << 24 | ((uint32_t)b->cumulative_lost & 0xffffff));
        vc_store_be32(p + 8, b->highest_seq);
        vc_store_be32(p + 12, b->jitter);
        vc_store_be32(p + 16, b->lsr);
        vc_store_be32(p + 20, b->dlsr);
    }
}

int vc_rtcp_write_sr(struct vc_rtcp_writer *w, uint32_t ssrc, const struct vc_rtcp_sr *sr,
                     const struct vc_rtcp_block *blocks, uint32_t n)
{
    uint8_t *p;

    if (n > VC_RTCP_BLOCKS_MAX)
        return -1;
    p = append(w, PT_SR, n, HEAD_SZ + SSRC_SZ + SENDER_INFO_SZ + n * BLOCK_SZ);
    if (!p)
        return -1;
    vc_store_be32(p, ssrc);
    vc_store_be64(p + 4, sr->ntp);
    vc_store_be32(p + 12, sr->rtp_timestamp);
    vc_store_be32(p + 16, sr->packets);
    vc_store_be32(p + 20, sr->octets);
    write_blocks(p + SSRC_SZ + SENDER_INFO_SZ, blocks, n);
    return 0;
}

int vc_rtcp_write_rr(struct vc_rtcp_writer *w, uint32_t ssrc, const struct vc_rtcp_block *blocks,
                     uint32_t n)
{
    uint8_t *p;

    if (n > VC_RTCP_BLOCKS_MAX)
        return -1;
    p = append(w, PT_RR, n, HEAD_SZ + SSRC_SZ + n * BLOCK_SZ);
    if (!p)
        return -1;
    vc_store_be32(p, ssrc);
    write_blocks(p + SSRC_SZ, blocks, n);
    return 0;
}

int vc_rtcp_write_sdes(struct vc_rtcp_writer *w, uint32_t ssrc, const uint8_t *cname,
                       uint32_t cname_sz)
{
    /* SSRC, item type, item length, text, at least one zero byte up to a multiple of 4 */
    uint32_t chunk_sz = (SSRC_SZ + 2 + cname_sz + 1 + 3) & ~3u;
    uint8_t *p;

    if (cname_sz > 255)
        return -1;
    p = append(w, PT_SDES, 1, HEAD_SZ + chunk_sz);
    if (!p)
        return -1;
    memset(p, 0, chunk_sz);
    vc_store_be32(p, ssrc);
    p[4] = SDES_CNAME;
    p[5] = (uint8_t)cname_sz;
    memcpy(p + 6, cname, cname_sz);
    return 0;
}

int vc_rtcp_write_pli(struct vc_rtcp_writer *w, uint32_t ssrc, uint32_t media_ssrc)
{
    uint8_t *p = append(w, PT_PSFB, FMT_PLI, HEAD_SZ + FEEDBACK_SZ);

    if (!p)
        return -1;
    vc_store_be32(p, ssrc);
    vc_store_be32(p + 4, media_ssrc);
    return 0;
}

int vc_rtcp_write_nack(struct vc_rtcp_writer *w, uint32_t ssrc, uint32_t media_ssrc,
                       const struct vc_rtcp_nack *nacks, uint32_t n)
{
    uint8_t *p = append(w, PT_RTPFB, FMT_NACK, HEAD_SZ + FEEDBACK_SZ + n * NACK_SZ);

    if (!p)
        return -1;
    vc_store_be32(p, ssrc);
    vc_store_be32(p + 4, media_ssrc);
    for (uint32_t i = 0; i < n; i++) {
        vc_store_be16(p + FEEDBACK_SZ + i * NACK_SZ, nacks[i].pid);
        vc_store_be16(p + FEEDBACK_SZ + i * NACK_SZ + 2, nacks[i].blp);
    }
    return 0;
}

int vc_rtcp_write_bye(struct vc_rtcp_writer *w, uint32_t ssrc)
{
    uint8_t *p = append(w, PT_BYE, 1, HEAD_SZ + SSRC_SZ);

    if (!p)
        return -1;
    vc_store_be32(p, ssrc);
    return 0;
}
