/* SPDX-License-Identifier: MIT */
/* keyframe.h: payloads of each codec, also cut at every length. */
#include "keyframe.h"

#include "check.h"

struct payload_case {
    const char *what;
    enum vc_codec codec;
    uint32_t sz;
    const char *bytes;
    uint32_t need; /* bytes it takes to know that it is a start; 0: it is none */
};

static const struct payload_case cases[] = {
    { "IDR slice", VC_CODEC_H264, 3, "\x65\x88\x84", 2 },
    { "IDR slice, not the first", VC_CODEC_H264, 3, "\x65\x0d\x84", 0 },
    { "SPS", VC_CODEC_H264, 4, "\x67\x42\xe0\x1f", 1 },
    { "PPS", VC_CODEC_H264, 4, "\x68\xce\x3c\x80", 0 },
    { "SEI", VC_CODEC_H264, 3, "\x06\x05\x10", 0 },
    { "slice of another picture", VC_CODEC_H264, 3, "\x41\x9a\x24", 0 },
    { "other importance bits", VC_CODEC_H264, 2, "\x27\x42", 1 },
    { "STAP-A, SPS first", VC_CODEC_H264, 10, "\x78\0\2\x67\x42\0\3\x68\xce\x3c", 5 },
    { "STAP-A, delimiter and SPS", VC_CODEC_H264, 9, "\x78\0\2\x09\x10\0\2\x67\x42", 9 },
    { "STAP-A, IDR last", VC_CODEC_H264, 9, "\x78\0\2\x06\x05\0\2\x65\x88", 9 },
    { "STAP-A, only others", VC_CODEC_H264, 9, "\x78\0\2\x68\xce\0\2\x41\x9a", 0 },
    { "STAP-A, size runs out", VC_CODEC_H264, 5, "\x78\0\3\x67\x42", 0 },
    { "STAP-A, size 0", VC_CODEC_H264, 8, "\x78\0\0\0\2\x67\x42\0", 0 },
    { "FU-A, first, IDR", VC_CODEC_H264, 4, "\x7c\x85\x88\x84", 3 },
    { "FU-A, first, IDR, later slice", VC_CODEC_H264, 4, "\x7c\x85\x08\x84", 0 },
    { "FU-A, middle, IDR", VC_CODEC_H264, 4, "\x7c\x05\x88\x84", 0 },
    { "FU-A, last, IDR", VC_CODEC_H264, 4, "\x7c\x45\x88\x84", 0 },
    { "FU-A, first, other slice", VC_CODEC_H264, 4, "\x7c\x81\x9a\x24", 0 },
    { "FU-A, first, SPS", VC_CODEC_H264, 4, "\x7c\x87\x42\xe0", 2 },

    { "VP8 key", VC_CODEC_VP8, 4, "\x10\x50\x9d\x01", 2 },
    { "VP8 inter", VC_CODEC_VP8, 4, "\x10\x51\x9d\x01", 0 },
    { "VP8 going on", VC_CODEC_VP8, 4, "\x00\x50\x9d\x01", 0 },
    { "VP8 partition 1", VC_CODEC_VP8, 4, "\x11\x50\x9d\x01", 0 },
    { "VP8 partition 4", VC_CODEC_VP8, 4, "\x14\x50\x9d\x01", 0 },
    { "VP8 reserved bit", VC_CODEC_VP8, 2, "\x18\x50", 2 },
    { "VP8 non-reference", VC_CODEC_VP8, 2, "\x30\x50", 2 },
    { "VP8 X without any", VC_CODEC_VP8, 3, "\x90\x00\x50", 3 },
    { "VP8 7-bit picture id", VC_CODEC_VP8, 4, "\x90\x80\x11\x50", 4 },
    { "VP8 15-bit picture id", VC_CODEC_VP8, 5, "\x90\x80\x91\x11\x50", 5 },
    { "VP8 15-bit picture id, inter", VC_CODEC_VP8, 5, "\x90\x80\x91\x11\x51", 0 },
    { "VP8 picture id, TL0, T", VC_CODEC_VP8, 7, "\x90\xe0\x91\x11\x22\x33\x50", 7 },
    { "VP8 picture id, TL0, T and K", VC_CODEC_VP8, 7, "\x90\xf0\x91\x11\x23\x33\x50", 7 },
    { "VP8 K alone", VC_CODEC_VP8, 4, "\x90\x10\x33\x50", 4 },

    { "VP9 key", VC_CODEC_VP9, 2, "\x08\x82", 2 },
    { "VP9 inter", VC_CODEC_VP9, 2, "\x48\x82", 0 },
    { "VP9 not the beginning", VC_CODEC_VP9, 2, "\x04\x82", 0 },
    { "VP9 7-bit picture id", VC_CODEC_VP9, 3, "\x88\x11\x82", 3 },
    { "VP9 15-bit picture id", VC_CODEC_VP9, 4, "\x88\x91\x11\x82", 4 },
    { "VP9 level 0", VC_CODEC_VP9, 5, "\xa8\x91\x11\x00\x82", 5 },
    { "VP9 level 0, temporal bits", VC_CODEC_VP9, 5, "\xa8\x91\x11\xf1\x82", 5 },
    { "VP9 level 1", VC_CODEC_VP9, 5, "\xa8\x91\x11\x02\x82", 0 },
    { "VP9 level 0 without id", VC_CODEC_VP9, 3, "\x28\x00\x82", 3 },

    { "AV1 new sequence", VC_CODEC_AV1, 3, "\x18\x0a\x0b", 2 },
    { "AV1 old sequence", VC_CODEC_AV1, 3, "\x10\x32\x0b", 0 },
    { "AV1 fragment goes on", VC_CODEC_AV1, 3, "\x98\x0a\x0b", 0 },

    { "opaque", VC_CODEC_OPAQUE, 3, "\x65\x88\x84", 0 },
    { "no codec", (enum vc_codec)99, 3, "\x65\x88\x84", 0 },
};

int main(void)
{
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t cut = 0; cut <= cases[i].sz; cut++) {
            const struct payload_case *c = &cases[i];
            uint8_t *p = exact(c->bytes, cut);
            int want = c->need && cut >= c->need, got = vc_keyframe_starts(c->codec, p, cut);

            if (got != want)
                fprintf(stderr, "%s, %u bytes:\n", c->what, cut);
            CHECK_EQ(got, want);
            free(p);
        }
    return check_report();
}
