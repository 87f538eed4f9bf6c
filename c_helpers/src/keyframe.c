/* SPDX-License-Identifier: MIT */
#include "keyframe.h"

#include "base.h"

enum {
    H264_IDR = 5,
    H264_SPS = 7,
    H264_STAP_A = 24,
    H264_FU_A = 28,
};

/* A slice header begins with first_mb_in_slice as Exp-Golomb code, of which 0 is the single bit 1:
   a later slice of the same picture is no place to start. */
static int h264_nal(uint8_t type, const uint8_t *body, uint32_t sz)
{
    return type == H264_SPS || (type == H264_IDR && sz && body[0] & 0x80);
}

static int h264(const uint8_t *p, uint32_t sz)
{
    uint8_t type;

    if (sz < 1)
        return 0;
    type = p[0] & 0x1f;
    if (type == H264_FU_A)
        return sz >= 2 && p[1] & 0x80 && h264_nal(p[1] & 0x1f, p + 2, sz - 2);
    if (type != H264_STAP_A)
        return h264_nal(type, p + 1, sz - 1);
    for (p++, sz--; sz >= 3;) {
        uint32_t nal_sz = vc_load_be16(p);

        if (nal_sz == 0 || nal_sz > sz - 2)
            return 0;
        if (h264_nal(p[2] & 0x1f, p + 3, nal_sz - 1))
            return 1;
        p += 2 + nal_sz;
        sz -= 2 + nal_sz;
    }
    return 0;
}

static int vp8(const uint8_t *p, uint32_t sz)
{
    uint32_t off = 1;

    if (sz < 2 || (p[0] & 0x17) != 0x10) /* S set, partition 0 */
        return 0;
    if (p[0] & 0x80) { /* X */
        uint8_t has = p[off++];

        if (has & 0x80) { /* I: 7 bits, or 15 with M */
            if (sz <= off)
                return 0;
            off += p[off] & 0x80 ? 2 : 1;
        }
        off += !!(has & 0x40); /* L */
        off += !!(has & 0x30); /* T, K */
    }
    return sz > off && !(p[off] & 1); /* P: inter-predicted */
}

static int vp9(const uint8_t *p, uint32_t sz)
{
    uint32_t off = 1;

    if (sz < 2 || (p[0] & 0x48) != 0x08) /* not P, B */
        return 0;
    if (p[0] & 0x80) /* I: 7 bits, or 15 with M */
        off += p[off] & 0x80 ? 2 : 1;
    if (p[0] & 0x20) { /* L: TID 3, U 1, SID 3, D 1 */
        if (sz <= off || p[off] & 0x0e)
            return 0;
        off++;
    }
    return sz > off;
}

static int av1(const uint8_t *p, uint32_t sz)
{
    return sz >= 2 && (p[0] & 0x88) == 0x08; /* N, and not Z: no fragment goes on here */
}

int vc_keyframe_starts(enum vc_codec codec, const uint8_t *payload, uint32_t sz)
{
    switch (codec) {
    case VC_CODEC_H264:
        return h264(payload, sz);
    case VC_CODEC_VP8:
        return vp8(payload, sz);
    case VC_CODEC_VP9:
        return vp9(payload, sz);
    case VC_CODEC_AV1:
        return av1(payload, sz);
    case VC_CODEC_OPAQUE:
        break;
    }
    return 0;
}
