/* SPDX-License-Identifier: MIT */
#include "descriptor.h"

#include "base.h"

#define DEPENDENCY_SZ 3u

struct places { /* byte offsets; 0: absent, for none lies in the first byte */
    uint32_t picture, tl0, key;
    int is_short;
};

/* The PictureID at `off`; returns how many bytes it takes. */
static uint32_t find_picture(const uint8_t *p, uint32_t sz, uint32_t off, struct places *at)
{
    at->picture = off;
    if (off >= sz)
        return 1;
    at->is_short = !(p[off] & 0x80);
    return at->is_short ? 1 : 2;
}

static int find_vp8(const uint8_t *p, uint32_t sz, struct places *at)
{
    uint32_t off = 2;
    uint8_t has;

    if (sz < 2 || !(p[0] & 0x80)) /* X */
        return 0;
    has = p[1];
    if (has & 0x80) /* I */
        off += find_picture(p, sz, off, at);
    if (has & 0x40) /* L */
        at->tl0 = off++;
    if (has & 0x30) { /* T, K: one byte for both */
        at->key = has & 0x10 ? off : 0;
        off++;
    }
    return off <= sz;
}

static int find_vp9(const uint8_t *p, uint32_t sz, struct places *at)
{
    uint32_t off = 1;

    if (sz < 1)
        return 0;
    if (p[0] & 0x80) /* I */
        off += find_picture(p, sz, off, at);
    if (p[0] & 0x20) { /* L */
        off++;
        if (!(p[0] & 0x10)) /* F: with it there is no TL0PICIDX */
            at->tl0 = off++;
    }
    return off <= sz;
}

static int find(enum vc_codec codec, const uint8_t *p, uint32_t sz, struct places *at)
{
    *at = (struct places){ 0 };
    if (codec == VC_CODEC_VP8)
        return find_vp8(p, sz, at);
    return codec == VC_CODEC_VP9 && find_vp9(p, sz, at);
}

void vc_descriptor_read(enum vc_codec codec, const uint8_t *payload, uint32_t sz,
                        struct vc_ids *ids)
{
    struct places at;

    if (!find(codec, payload, sz, &at))
        return;
    if (at.picture && at.is_short) {
        ids->picture = payload[at.picture];
        ids->has |= VC_ID_PICTURE | VC_ID_SHORT;
    } else if (at.picture) {
        ids->picture = vc_load_be16(payload + at.picture) & 0x7fff;
        ids->has |= VC_ID_PICTURE;
    }
    if (at.tl0) {
        ids->tl0 = payload[at.tl0];
        ids->has |= VC_ID_TL0;
    }
    if (at.key) {
        ids->key = payload[at.key] & 0x1f;
        ids->has |= VC_ID_KEY;
    }
}

void vc_descriptor_write(enum vc_codec codec, uint8_t *payload, uint32_t sz,
                         const struct vc_ids *ids)
{
    struct places at;

    if (!find(codec, payload, sz, &at))
        return;
    if (at.picture && ids->has & VC_ID_PICTURE) {
        if (at.is_short)
            payload[at.picture] = ids->picture & 0x7f;
        else
            vc_store_be16(payload + at.picture, 0x8000 | ids->picture);
    }
    if (at.tl0 && ids->has & VC_ID_TL0)
        payload[at.tl0] = ids->tl0;
    if (at.key && ids->has & VC_ID_KEY)
        payload[at.key] = (uint8_t)((payload[at.key] & 0xe0) | (ids->key & 0x1f));
}

void vc_dependency_read(const uint8_t *data, uint32_t sz, struct vc_ids *ids)
{
    if (sz < DEPENDENCY_SZ)
        return;
    ids->frame = vc_load_be16(data + 1);
    ids->has |= VC_ID_FRAME;
}

void vc_dependency_write(uint8_t *data, uint32_t sz, const struct vc_ids *ids)
{
    if (sz >= DEPENDENCY_SZ && ids->has & VC_ID_FRAME)
        vc_store_be16(data + 1, ids->frame);
}
