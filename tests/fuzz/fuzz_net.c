/* SPDX-License-Identifier: MIT */
/* Frames: what vc_net_parse accepts lies inside the frame; completed as a header, it is accepted
   again. */
#include "net.h"

#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    static uint8_t copy[4096];
    uint32_t off, payload_sz, off2, payload_sz2, l3_off;
    struct vc_tuple tuple, tuple2;

    if (sz > sizeof copy || vc_net_parse(data, (uint32_t)sz, &off, &payload_sz, &tuple))
        return 0;
    VC_ASSERT(off >= 42 && off <= 70 && (size_t)off + payload_sz <= sz);
    memcpy(copy, data, sz);
    l3_off = off - 8 - 40;
    if (off < 14 + 40 + 8 || copy[l3_off] >> 4 != 6 || vc_load_be16(copy + l3_off - 2) != 0x86dd)
        l3_off = off - 8 - 20;
    vc_net_finish(copy, off, l3_off, payload_sz, 46);
    VC_ASSERT(!vc_net_parse(copy, off + payload_sz, &off2, &payload_sz2, &tuple2));
    VC_ASSERT(off2 == off && payload_sz2 == payload_sz && !memcmp(&tuple, &tuple2, sizeof tuple));
    VC_ASSERT(copy[off - 2] || copy[off - 1]);
    return 0;
}
