/* SPDX-License-Identifier: MIT */
/* RTP: the first bytes choose ids and a label, the rest is the packet.  What is accepted stays
   inside; what is written from it is accepted and says what was asked for. */
#include "rtp.h"

#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

static void rewrite(const uint8_t *pkt, const struct vc_rtp *rtp, const uint8_t *knobs)
{
    struct vc_rtp_identity as = { 0x11223344,
                                  0x55667788,
                                  0x99aa,
                                  111,
                                  0,
                                  knobs,
                                  knobs + VC_EXT_COUNT,
                                  knobs + 2 * VC_EXT_COUNT,
                                  0x7a7b7c,
                                  0x6a6b };
    uint8_t *dst = malloc(VC_RTP_HEADER_MAX);
    struct vc_rtp again;
    uint32_t hdr_sz = vc_rtp_write(dst, pkt, rtp, &as);

    VC_ASSERT(hdr_sz <= VC_RTP_HEADER_MAX && vc_rtp_parse(dst, hdr_sz, &again) == VC_RTP_OK);
    VC_ASSERT(again.header_sz == hdr_sz && again.ssrc == as.ssrc && again.seq == as.seq &&
              again.timestamp == as.timestamp && again.pt == as.pt);
    VC_ASSERT(again.marker == rtp->marker && again.csrc_cnt == rtp->csrc_cnt &&
              again.padding == rtp->padding);
    VC_ASSERT(!memcmp(dst + 12, pkt + 12, 4u * rtp->csrc_cnt));
    if (as.tx_ext[VC_EXT_MID] && as.mid[0]) {
        uint32_t sz = 0;
        const uint8_t *mid = vc_rtp_ext(dst, &again, as.tx_ext[VC_EXT_MID], &sz);

        VC_ASSERT(mid && sz <= VC_LABEL_SZ && !memcmp(mid, as.mid, sz));
    }
    free(dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    enum { KNOBS = 2 * VC_EXT_COUNT + VC_LABEL_SZ };
    const uint8_t *pkt = data + KNOBS;
    struct vc_rtp rtp;
    int padding;

    if (sz < KNOBS || vc_rtp_parse(pkt, (uint32_t)(sz -= KNOBS), &rtp) != VC_RTP_OK)
        return 0;
    VC_ASSERT(rtp.header_sz >= 12 && rtp.header_sz <= sz && rtp.csrc_cnt <= 15);
    VC_ASSERT(!rtp.ext_off || rtp.ext_off + rtp.ext_sz == rtp.header_sz);
    for (uint32_t id = 0; id < 256; id++) {
        uint32_t ext_sz = 0;
        const uint8_t *ext = vc_rtp_ext(pkt, &rtp, (uint8_t)id, &ext_sz);

        VC_ASSERT(!ext || (ext > pkt + rtp.ext_off && ext + ext_sz <= pkt + rtp.header_sz));
    }
    padding = vc_rtp_padding(pkt, (uint32_t)sz, &rtp);
    VC_ASSERT(padding <= (int)(sz - rtp.header_sz) && (padding >= 0 || rtp.padding));
    rewrite(pkt, &rtp, data);
    return 0;
}
