/* SPDX-License-Identifier: MIT */
#include "counters.h"

static void add_backend(struct vc_counters *c, const struct vc_io *io)
{
    if (!io)
        return;
    c->rx += io->counts.malformed;
    c->drops[VC_DROP_MALFORMED] += io->counts.malformed;
    c->tx_kicks += io->counts.tx_kicks;
    c->tx_again += io->counts.tx_again;
    c->xsk_rx_dropped += io->counts.xsk_rx_dropped;
    c->xsk_rx_ring_full += io->counts.xsk_rx_ring_full;
    c->xsk_fill_empty += io->counts.xsk_fill_empty;
    c->xsk_tx_invalid += io->counts.xsk_tx_invalid;
    c->frames_total += io->counts.frames_total;
    c->frames_free += io->counts.frames_free;
    c->frames_rx += io->counts.frames_rx;
    c->frames_tx += io->counts.frames_tx;
}

void vc_counters_publish(struct vc_worker *w)
{
    struct vc_counters c = w->c;
    const uint64_t *from = (const uint64_t *)&c;
    uint64_t *to = (uint64_t *)w->published;

    add_backend(&c, w->io_socket);
    add_backend(&c, w->io_xsk);
    if (w->io_xsk)
        c.rx_xsk += w->io_xsk->counts.malformed;
    if (w->io_socket)
        c.rx_socket += w->io_socket->counts.malformed;
    c.leg_bytes = c.legs * (sizeof(struct vc_leg) + sizeof(struct vc_leg_peer));
    c.source_bytes = c.sources * (sizeof(struct vc_source) + sizeof(struct vc_watch));
    c.route_bytes = c.routes * sizeof(struct vc_route);
    for (uint32_t i = 0; i < sizeof c / sizeof *to; i++)
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
    w->published_ns = w->now_ns;
}
