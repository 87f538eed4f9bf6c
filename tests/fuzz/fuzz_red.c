/* SPDX-License-Identifier: MIT */
/* RED: the first byte is the payload type, the rest a payload.  A newest block lies inside, behind a
   header that says this payload type and as many bytes as there are before it. */
#include "red.h"

#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    uint32_t at, blocks = 0, told = 0;

    if (!sz || sz > 65536)
        return 0;
    at = vc_red_primary(data + 1, (uint32_t)--sz, data[0] & 0x7f);
    if (!at)
        return 0;
    VC_ASSERT(at < sz);
    while (data[1 + 4 * blocks] & 0x80) {
        told += (uint32_t)(data[3 + 4 * blocks] & 3) << 8 | data[4 + 4 * blocks];
        blocks++;
    }
    VC_ASSERT(blocks <= VC_RED_BLOCKS_MAX);
    VC_ASSERT(data[1 + 4 * blocks] == (data[0] & 0x7f));
    VC_ASSERT(at == 4 * blocks + 1 + told);
    return 0;
}
