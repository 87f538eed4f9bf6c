/* SPDX-License-Identifier: MIT */
/* Payloads that leave other than they came: with other ids of frames (descriptor.h, rewrite.h), or
   without what a receiver that takes no RED has no use for. */
#include "descriptor.h"
#include "forward.h"
#include "red.h"

/* The first bytes of the payload, its padding left out.  0, or -1: the slot was reused. */
static int copy_head(struct vc_departure *d)
{
    uint32_t sz = d->head.sz - d->head.rtp.header_sz;
    uint8_t padding = 0;

    if (sz && d->head.rtp.padding)
        vc_history_copy(d->history, d->position, d->head.sz - 1, &padding, 1);
    sz = padding < sz ? sz - padding : 0;
    d->ids_sz = (uint8_t)(sz < sizeof d->ids ? sz : sizeof d->ids);
    vc_history_copy(d->history, d->position, d->head.rtp.header_sz, d->ids, d->ids_sz);
    return vc_history_intact(d->history, d->position) ? 0 : -1;
}

int vc_depart_ids(const struct vc_leg *leg, struct vc_route *route, struct vc_departure *d,
                  const uint64_t *rx_ext)
{
    enum vc_codec codec = (enum vc_codec)route->rewrite.codec;
    const uint8_t *ext_ids = (const uint8_t *)rx_ext;
    uint32_t dependency_sz = 0;
    uint8_t *dependency = NULL;
    struct vc_ids ids = { 0 };
    int change;

    d->ids_sz = 0;
    if (vc_depart_has_ids(codec) && copy_head(d))
        return -1;
    vc_descriptor_read(codec, d->ids, d->ids_sz, &ids);
    if (leg->tx_ext[VC_EXT_DEPENDENCY])
        dependency = (uint8_t *)vc_rtp_ext(d->in_header, &d->head.rtp, ext_ids[VC_EXT_DEPENDENCY],
                                           &dependency_sz);
    if (dependency)
        vc_dependency_read(dependency, dependency_sz, &ids);
    change = ids.has ? vc_rewrite_map(&route->rewrite, d->out, &ids,
                                      d->how == VC_DEPARTURE_FIRST) : 0;
    if (change < 0)
        return 1;
    if (change && dependency)
        vc_dependency_write(dependency, dependency_sz, &ids);
    if (change && ids.has & (VC_ID_PICTURE | VC_ID_TL0 | VC_ID_KEY))
        vc_descriptor_write(codec, d->ids, d->ids_sz, &ids);
    else
        d->ids_sz = 0;
    return 0;
}

uint16_t vc_depart_newest(const struct vc_worker *w, const struct vc_route *route,
                          const struct vc_departure *d)
{
    const struct vc_source *source = &w->node->sources[route->feeds[0].source];
    uint32_t sz = d->head.sz - d->head.rtp.header_sz;
    uint8_t first[VC_RED_HEAD_MAX];

    if (vc_depart_has_ids(__atomic_load_n(&source->codec, __ATOMIC_RELAXED)))
        return 0;
    vc_history_copy(d->history, d->position, d->head.rtp.header_sz, first,
                    sz < sizeof(first) ? sz : (uint32_t)sizeof(first));
    return (uint16_t)vc_red_primary(first, sz,
                                    __atomic_load_n(&source->pt, __ATOMIC_RELAXED));
}

void vc_depart_place(struct vc_departure *d, struct vc_crypto_item *item, uint32_t gap)
{
    uint32_t from = d->head.rtp.header_sz + d->skip, payload_sz = d->head.sz - from;
    uint8_t *payload = d->tx.payload + item->hdr_sz + gap;

    memcpy(d->tx.payload, d->header, item->hdr_sz);
    vc_history_copy(d->history, d->position, from, payload, payload_sz);
    memcpy(payload, d->ids, d->ids_sz);
    item->src = d->tx.payload;
    item->src_sz = item->hdr_sz + gap + payload_sz;
    item->hdr = NULL;
}
