/* SPDX-License-Identifier: MIT */
#include "compound.h"

#include "forward.h"

void vc_compound_begin(struct vc_rtcp_writer *writer, const struct vc_leg *leg)
{
    vc_rtcp_write_rr(writer, leg->rtcp_ssrc, NULL, 0);
    vc_rtcp_write_sdes(writer, leg->rtcp_ssrc, leg->cname, vc_cname_sz(leg));
}

void vc_compound_send(struct vc_worker *w, struct vc_leg *leg, const uint8_t *data, uint32_t sz)
{
    int which = vc_leg_backend(w, leg);
    struct vc_io *io = vc_worker_io(w, which);
    struct vc_crypto_item item = { .key = &leg->tx, .src = data, .src_sz = sz };
    struct vc_io_dst dst;
    struct vc_io_tx tx;

    if (!leg->sendable || !sz || leg->store->rtcp_tx >> 31) {
        w->c.rtcp_tx_dropped++;
        return;
    }
    if (w->rtcp_pending[which] + w->copies_pending[which] >= VC_IO_BURST / 2)
        vc_flush(w);
    dst = vc_leg_dst(leg, leg->dscp_audio);
    if (io->ops->tx_reserve(io, &dst, &tx)) {
        w->c.rtcp_tx_dropped++;
        return;
    }
    item.dst = tx.payload;
    item.index = leg->store->rtcp_tx;
    __atomic_store_n(&leg->store->rtcp_tx, (uint32_t)item.index + 1, __ATOMIC_RELEASE);
    if (vc_crypto_seal_rtcp(w->crypto, &item, 1) != 1) {
        io->ops->tx_cancel(io, &tx);
        w->c.rtcp_tx_dropped++;
        return;
    }
    io->ops->tx_commit(io, &tx, item.dst_sz);
    w->rtcp_pending[which]++;
    w->c.tx_bytes += item.dst_sz;
}
