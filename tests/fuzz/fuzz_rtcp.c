/* SPDX-License-Identifier: MIT */
/* RTCP: any bytes give at most the items there is room for; what can be written again reads the
   same. */
#include "rtcp.h"

#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

static int write_item(struct vc_rtcp_writer *w, const struct vc_rtcp_item *item)
{
    switch (item->kind) {
    case VC_RTCP_SR:
        return vc_rtcp_write_sr(w, item->ssrc, &item->u.sr, NULL, 0);
    case VC_RTCP_REPORT:
        return vc_rtcp_write_rr(w, item->ssrc, &item->u.block, 1);
    case VC_RTCP_PLI:
        return vc_rtcp_write_pli(w, item->ssrc, item->media_ssrc);
    case VC_RTCP_BYE:
        return vc_rtcp_write_bye(w, item->ssrc);
    default:
        return -1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    static struct vc_rtcp_item items[VC_RTCP_ITEMS_MAX], few[3];
    int n = vc_rtcp_parse(data, (uint32_t)sz, items, VC_RTCP_ITEMS_MAX);
    int n_few = vc_rtcp_parse(data, (uint32_t)sz, few, 3);

    VC_ASSERT(n >= -1 && n <= VC_RTCP_ITEMS_MAX);
    VC_ASSERT(n_few == (n > 3 ? 3 : n));
    for (int i = 0; i < n; i++) {
        uint8_t buf[64], buf2[64];
        struct vc_rtcp_writer w = { buf, 0, sizeof buf }, w2 = { buf2, 0, sizeof buf2 };
        struct vc_rtcp_item again;

        if (i < n_few)
            VC_ASSERT(items[i].kind == few[i].kind && items[i].ssrc == few[i].ssrc);
        if (write_item(&w, &items[i]))
            continue;
        VC_ASSERT(vc_rtcp_parse(buf, w.sz, &again, 1) == 1);
        VC_ASSERT(!write_item(&w2, &again) && w2.sz == w.sz && !memcmp(buf, buf2, w.sz));
    }
    return 0;
}
