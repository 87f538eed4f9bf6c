/* SPDX-License-Identifier: MIT */
#include "forward.h"

static void flush_backend(struct vc_worker *w, int which)
{
    struct vc_io *io = vc_worker_io(w, which);
    uint64_t copies = w->copies_pending[which], rtcp = w->rtcp_pending[which], failed;

    if (!io || !(copies + rtcp))
        return;
    w->flushed_ns = io->ops->tx_flush(io);
    failed = io->counts.tx_errors - w->errors_seen[which];
    if (failed > copies + rtcp)
        failed = copies + rtcp;
    w->errors_seen[which] += failed;
    if (which == VC_IO_XSK)
        w->c.tx_xsk += copies + rtcp - failed;
    else
        w->c.tx_socket += copies + rtcp - failed;
    /* The backend does not say which failed: copies first. */
    if (failed > copies) {
        w->c.rtcp_tx_dropped += failed - copies;
        rtcp -= failed - copies;
        failed = copies;
    }
    w->c.copy_drops[VC_COPY_DROP_TX_ERROR] += failed;
    w->c.transmitted += copies - failed;
    w->c.rtcp_tx += rtcp;
    w->copies_pending[which] = w->rtcp_pending[which] = 0;
}

void vc_flush(struct vc_worker *w)
{
    flush_backend(w, VC_IO_SOCKET);
    flush_backend(w, VC_IO_XSK);
}
