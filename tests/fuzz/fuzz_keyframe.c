/* SPDX-License-Identifier: MIT */
/* Payloads: every codec reads within the bytes it was given and says yes or no. */
#include "keyframe.h"

#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    for (int codec = VC_CODEC_OPAQUE; codec <= VC_CODEC_AV1 + 1; codec++) {
        int start = vc_keyframe_starts((enum vc_codec)codec, data, (uint32_t)sz);

        VC_ASSERT(start == 0 || start == 1);
        VC_ASSERT(!start || (codec >= VC_CODEC_H264 && codec <= VC_CODEC_AV1));
    }
    return 0;
}
