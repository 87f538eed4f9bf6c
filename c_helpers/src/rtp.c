/* SPDX-License-Identifier: MIT */
#include "rtp.h"

#include "base.h"

#include <stdbool.h>

enum {
    HDR_SZ = 12,
    EXT_HEAD_SZ = 4,
    PROFILE_ONE_BYTE = 0xbede,
    PROFILE_TWO_BYTE = 0x1000, /* the low 4 bits are application bits */
    ID_STOP = 15,              /* one-byte form */
    ONE_BYTE_ID_MAX = 14,
    ONE_BYTE_SZ_MAX = 16,
    FLAG_EXT = 0x10,
    FLAG_PADDING = 0x20,
};

enum vc_rtp_fault vc_rtp_parse(const uint8_t *pkt, uint32_t sz, struct vc_rtp *rtp)
{
    uint32_t off;

    if (sz < HDR_SZ)
        return VC_RTP_TRUNCATED;
    if (pkt[0] >> 6 != 2)
        return VC_RTP_VERSION;
    *rtp = (struct vc_rtp){
        .seq = vc_load_be16(pkt + 2),
        .pt = pkt[1] & 0x7f,
        .marker = pkt[1] >> 7,
        .timestamp = vc_load_be32(pkt + 4),
        .ssrc = vc_load_be32(pkt + 8),
        .csrc_cnt = pkt[0] & 0xf,
        .padding = !!(pkt[0] & FLAG_PADDING),
    };
    off = HDR_SZ + 4u * rtp->csrc_cnt;
    if (pkt[0] & FLAG_EXT) {
        if (sz < off + EXT_HEAD_SZ)
            return VC_RTP_TRUNCATED;
        rtp->ext_profile = vc_load_be16(pkt + off);
        rtp->ext_sz = 4u * vc_load_be16(pkt + off + 2);
        off += EXT_HEAD_SZ;
        rtp->ext_off = off;
        off += rtp->ext_sz;
    }
    if (sz < off)
        return VC_RTP_TRUNCATED;
    rtp->header_sz = off;
    return VC_RTP_OK;
}

static const uint8_t *find_one_byte(const uint8_t *p, const uint8_t *end, uint8_t id, uint32_t *sz)
{
    while (p < end) {
        uint32_t element_sz = (*p & 0xfu) + 1;
        uint8_t element_id = *p >> 4;

        if (*p == 0) { /* padding */
            p++;
            continue;
        }
        /* RFC 8285 section 4.2: nothing after such an element is to be considered */
        if (element_id == ID_STOP || element_id == 0 || element_sz > (uint32_t)(end - p - 1))
            return NULL;
        if (element_id == id) {
            *sz = element_sz;
            return p + 1;
        }
        p += 1 + element_sz;
    }
    return NULL;
}

static const uint8_t *find_two_byte(const uint8_t *p, const uint8_t *end, uint8_t id, uint32_t *sz)
{
    while (p < end) {
        if (*p == 0) { /* padding */
            p++;
            continue;
        }
        if (end - p < 2 || p[1] > end - p - 2)
            return NULL;
        if (*p == id) {
            *sz = p[1];
            return p + 2;
        }
        p += 2 + p[1];
    }
    return NULL;
}

const uint8_t *vc_rtp_ext(const uint8_t *pkt, const struct vc_rtp *rtp, uint8_t id, uint32_t *sz)
{
    const uint8_t *p = pkt + rtp->ext_off, *end = p + rtp->ext_sz;

    if (!rtp->ext_off || !id)
        return NULL;
    if (rtp->ext_profile == PROFILE_ONE_BYTE)
        return find_one_byte(p, end, id, sz);
    if ((rtp->ext_profile & 0xfff0) == PROFILE_TWO_BYTE)
        return find_two_byte(p, end, id, sz);
    return NULL;
}

int vc_rtp_padding(const uint8_t *pkt, uint32_t sz, const struct vc_rtp *rtp)
{
    uint8_t n;

    if (!rtp->padding)
        return 0;
    if (sz <= rtp->header_sz)
        return -1;
    n = pkt[sz - 1];
    return n == 0 || n > sz - rtp->header_sz ? -1 : n;
}

/* ---- writing ----------------------------------------------------------------------------- */

struct element {
    const uint8_t *data;
    uint32_t sz;
    uint8_t id;
};

struct stamps { /* what the node itself says of a departure, as elements */
    uint8_t send_time[3], number[2];
};

/* These speak of one hop only; the sending side writes its own. */
static bool hop_by_hop(enum vc_ext kind)
{
    return kind == VC_EXT_MID || kind == VC_EXT_RID || kind == VC_EXT_RRID ||
           kind == VC_EXT_TRANSPORT_CC || kind == VC_EXT_ABS_SEND_TIME;
}

static uint32_t collect_stamps(struct element *elements, struct stamps *stamps,
                               const struct vc_rtp_identity *as)
{
    uint32_t n = 0;

    stamps->send_time[0] = (uint8_t)(as->send_time >> 16);
    vc_store_be16(stamps->send_time + 1, (uint16_t)as->send_time);
    vc_store_be16(stamps->number, as->transport_number);
    if (as->tx_ext[VC_EXT_ABS_SEND_TIME])
        elements[n++] = (struct element){ stamps->send_time, sizeof stamps->send_time,
                                          as->tx_ext[VC_EXT_ABS_SEND_TIME] };
    if (as->tx_ext[VC_EXT_TRANSPORT_CC])
        elements[n++] = (struct element){ stamps->number, sizeof stamps->number,
                                          as->tx_ext[VC_EXT_TRANSPORT_CC] };
    return n;
}

static uint32_t collect(struct element *elements, struct stamps *stamps, const uint8_t *pkt,
                        const struct vc_rtp *rtp, const struct vc_rtp_identity *as)
{
    uint32_t n = 0;

    if (!as->tx_ext)
        return 0;
    if (as->mid && as->tx_ext[VC_EXT_MID]) {
        uint32_t sz = (uint32_t)strnlen((const char *)as->mid, VC_LABEL_SZ);

        if (sz)
            elements[n++] = (struct element){ as->mid, sz, as->tx_ext[VC_EXT_MID] };
    }
    n += collect_stamps(elements + n, stamps, as);
    if (!as->rx_ext || !rtp->ext_sz)
        return n;
    for (uint32_t kind = 0; kind < VC_EXT_COUNT; kind++) {
        struct element e = { .id = as->tx_ext[kind] };

        if (hop_by_hop(kind) || !as->rx_ext[kind] || !e.id)
            continue;
        e.data = vc_rtp_ext(pkt, rtp, as->rx_ext[kind], &e.sz);
        if (e.data)
            elements[n++] = e;
    }
    return n;
}

/* Writes the extension, its head included; returns its size, 0 when there is nothing to write.
   An element that would run past `room` is left out. */
static uint32_t write_ext(uint8_t *dst, uint32_t room, const struct element *elements, uint32_t n)
{
    uint32_t off = EXT_HEAD_SZ, head_sz = 1;

    for (uint32_t i = 0; i < n; i++)
        if (elements[i].id > ONE_BYTE_ID_MAX || elements[i].sz == 0 ||
            elements[i].sz > ONE_BYTE_SZ_MAX)
            head_sz = 2;
    for (uint32_t i = 0; i < n; i++) {
        const struct element *e = &elements[i];

        if (e->sz + head_sz > room - off)
            continue;
        if (head_sz == 1) {
            dst[off] = (uint8_t)(e->id << 4 | (e->sz - 1));
        } else {
            dst[off] = e->id;
            dst[off + 1] = (uint8_t)e->sz;
        }
        memcpy(dst + off + head_sz, e->data, e->sz);
        off += head_sz + e->sz;
    }
    if (off == EXT_HEAD_SZ)
        return 0;
    for (; off % 4; off++)
        dst[off] = 0;
    vc_store_be16(dst, head_sz == 1 ? PROFILE_ONE_BYTE : PROFILE_TWO_BYTE);
    vc_store_be16(dst + 2, (uint16_t)(off / 4 - 1));
    return off;
}

uint32_t vc_rtp_write(uint8_t *dst, const uint8_t *pkt, const struct vc_rtp *rtp,
                      const struct vc_rtp_identity *as)
{
    struct element elements[VC_EXT_COUNT];
    struct stamps stamps;
    uint32_t off = HDR_SZ + 4u * rtp->csrc_cnt;
    uint32_t n = collect(elements, &stamps, pkt, rtp, as);
    uint32_t ext_sz = write_ext(dst + off, VC_RTP_HEADER_MAX - off, elements, n);

    dst[0] = (uint8_t)(0x80 | (rtp->padding ? FLAG_PADDING : 0) | (ext_sz ? FLAG_EXT : 0) |
                       rtp->csrc_cnt);
    dst[1] = (uint8_t)(rtp->marker << 7 | (as->pt & 0x7f));
    vc_store_be16(dst + 2, as->seq);
    vc_store_be32(dst + 4, as->timestamp);
    vc_store_be32(dst + 8, as->ssrc);
    memcpy(dst + HDR_SZ, pkt + HDR_SZ, 4u * rtp->csrc_cnt);
    return off + ext_sz;
}
