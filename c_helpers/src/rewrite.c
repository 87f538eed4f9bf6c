/* SPDX-License-Identifier: MIT */
#include "rewrite.h"

#include "base.h"

#define KNOWN (VC_ID_PICTURE | VC_ID_TL0 | VC_ID_KEY | VC_ID_FRAME)

void vc_rewrite_begin(struct vc_rewrite *rewrite, uint64_t out)
{
    if (rewrite->cnt == VC_REWRITE_STRETCHES) {
        rewrite->cnt--;
        memmove(&rewrite->stretches[0], &rewrite->stretches[1],
                rewrite->cnt * sizeof rewrite->stretches[0]);
    }
    memset(&rewrite->stretches[rewrite->cnt], 0, sizeof rewrite->stretches[0]);
    rewrite->stretches[rewrite->cnt++].from = out;
    rewrite->changed = 1;
}

void vc_rewrite_switch(struct vc_rewrite *rewrite, uint64_t out)
{
    rewrite->cnt = 0;
    vc_rewrite_begin(rewrite, out);
}

void vc_rewrite_renumber(struct vc_rewrite *rewrite, uint64_t out)
{
    struct vc_ids offset = vc_rewrite_offset(rewrite);

    vc_rewrite_switch(rewrite, out);
    rewrite->stretches[0].offset = offset;
}

struct vc_ids vc_rewrite_offset(const struct vc_rewrite *rewrite)
{
    return rewrite->cnt ? rewrite->stretches[rewrite->cnt - 1].offset : (struct vc_ids){ 0 };
}

void vc_rewrite_restore(struct vc_rewrite *rewrite, const struct vc_ids *highest,
                        const struct vc_ids *offset)
{
    memset(rewrite, 0, sizeof *rewrite);
    rewrite->highest = *highest;
    rewrite->highest.has &= KNOWN;
    vc_rewrite_begin(rewrite, 0);
    if (offset)
        rewrite->stretches[0].offset = *offset;
    rewrite->stretches[0].offset.has &= KNOWN;
}

/* The first frame of a stretch follows the highest; what never left before stays as it is. */
static void fix_offset(struct vc_rewrite *rewrite, struct vc_ids *offset, const struct vc_ids *ids)
{
    const struct vc_ids *highest = &rewrite->highest;
    uint8_t fresh = ids->has & KNOWN & (uint8_t)~offset->has;
    uint8_t follow = fresh & highest->has;

    if (follow & VC_ID_PICTURE)
        offset->picture = (uint16_t)(highest->picture + 1 - ids->picture);
    if (follow & VC_ID_TL0)
        offset->tl0 = (uint8_t)(highest->tl0 + 1 - ids->tl0);
    if (follow & VC_ID_KEY)
        offset->key = (uint8_t)(highest->key + 1 - ids->key);
    if (follow & VC_ID_FRAME)
        offset->frame = (uint16_t)(highest->frame + 1 - ids->frame);
    if (fresh) {
        offset->has |= fresh;
        rewrite->changed = 1;
    }
}

/* The higher one of two, where `id` has so many bits and `highest` at least as many. */
static uint32_t higher(uint32_t highest, uint32_t id, uint32_t bits, int known)
{
    uint32_t ahead = (id - highest) & ((1u << bits) - 1);

    if (!known)
        return id;
    return ahead < 1u << (bits - 1) ? highest + ahead : highest;
}

static void raise_highest(struct vc_ids *highest, const struct vc_ids *ids)
{
    uint32_t bits = ids->has & VC_ID_SHORT ? 7 : 15;

    if (ids->has & VC_ID_PICTURE)
        highest->picture = higher(highest->picture, ids->picture, bits,
                                  highest->has & VC_ID_PICTURE) & 0x7fff;
    if (ids->has & VC_ID_TL0)
        highest->tl0 = (uint8_t)higher(highest->tl0, ids->tl0, 8, highest->has & VC_ID_TL0);
    if (ids->has & VC_ID_KEY)
        highest->key = higher(highest->key, ids->key, 5, highest->has & VC_ID_KEY) & 0x1f;
    if (ids->has & VC_ID_FRAME)
        highest->frame = (uint16_t)higher(highest->frame, ids->frame, 16,
                                          highest->has & VC_ID_FRAME);
    highest->has |= ids->has & KNOWN;
}

int vc_rewrite_map(struct vc_rewrite *rewrite, uint64_t out, struct vc_ids *ids, int first)
{
    struct vc_ids *offset, was = *ids;
    int at = (int)rewrite->cnt - 1;

    while (at >= 0 && rewrite->stretches[at].from > out)
        at--;
    if (at < 0)
        return -1;
    offset = &rewrite->stretches[at].offset;
    if (first)
        fix_offset(rewrite, offset, ids);
    if (ids->has & VC_ID_PICTURE)
        ids->picture = (uint16_t)(ids->picture + offset->picture) &
                       (ids->has & VC_ID_SHORT ? 0x7f : 0x7fff);
    if (ids->has & VC_ID_TL0)
        ids->tl0 = (uint8_t)(ids->tl0 + offset->tl0);
    if (ids->has & VC_ID_KEY)
        ids->key = (uint8_t)(ids->key + offset->key) & 0x1f;
    if (ids->has & VC_ID_FRAME)
        ids->frame = (uint16_t)(ids->frame + offset->frame);
    if (first)
        raise_highest(&rewrite->highest, ids);
    return ids->picture != was.picture || ids->tl0 != was.tl0 || ids->key != was.key ||
           ids->frame != was.frame;
}
