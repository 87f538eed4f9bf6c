/* SPDX-License-Identifier: MIT */
#include "red.h"

#define MORE 0x80u /* a block header of 4 bytes, others follow */
#define PT 0x7fu

uint32_t vc_red_primary(const uint8_t *head, uint32_t sz, uint8_t pt)
{
    uint32_t limit = sz < VC_RED_HEAD_MAX ? sz : VC_RED_HEAD_MAX;
    uint32_t at = 0, blocks = 0;

    while (at + 4 < limit && head[at] & MORE) {
        blocks += (head[at + 2] & 3u) << 8 | head[at + 3]; /* 14 bits of offset, 10 of length */
        at += 4;
    }
    if (at >= limit || head[at] & MORE || (head[at] & PT) != pt)
        return 0;
    at += 1 + blocks;
    return at < sz ? at : 0;
}
