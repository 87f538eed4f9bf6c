/* SPDX-License-Identifier: MIT */
/* The ports of io_xsk over their life: opened, lost with their interface, opened again. */
#include "xsk_io.h"

#include <errno.h>
#include <net/if.h>
#include <sys/socket.h>

#ifndef SOL_XDP
#define SOL_XDP 283
#endif

#define BIND_WAIT_MS  1000
#define DOWN_RETRY_NS UINT64_C(50000000)
#define GONE_RETRY_NS UINT64_C(1000000000)

static struct vc_xsk_config config_of(struct vc_xsk_io *xsk, uint32_t slot, uint32_t bind_wait_ms)
{
    const struct vc_ctl_interface *interface = &xsk->interfaces[slot];
    struct vc_xsk_config config = {
        .umem = &xsk->umem,
        .ifindex = interface->ifindex,
        .queue = xsk->worker - interface->worker_first,
        .ring_sz = xsk->ring_sz,
        .zerocopy = xsk->zerocopy,
        .busy_poll = xsk->busy_poll,
        .share_fd = -1,
        .bind_wait_ms = bind_wait_ms,
    };

    for (uint32_t i = 0; i < xsk->slot_cnt; i++)
        if (i != slot && xsk->slots[i].port.fd >= 0 && xsk->slots[i].link != VC_LINK_GONE)
            config.share_fd = xsk->slots[i].port.fd;
    return config;
}

/* Gives a freshly opened port its frames and makes it reachable. */
static int start_port(struct vc_xsk_io *xsk, uint32_t slot)
{
    struct vc_xsk_slot *s = &xsk->slots[slot];
    struct vc_xsk_ring *fill = &s->port.fill;

    for (uint32_t i = 0; i < xsk->rx_quota; i++)
        *vc_xsk_addr(fill, fill->cached++) =
            vc_umem_addr(&xsk->umem, vc_umem_take(&xsk->umem, VC_FRAME_RX, slot));
    vc_xsk_publish(fill);
    s->seen = 0;
    s->ahead = 0;
    s->voided = 0;
    s->published = true;
    s->link = VC_LINK_UP;
    if (s->port.zerocopy && vc_xsk_needs_wakeup(fill))
        recvfrom(s->port.fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
    if (xsk->map_fd < 0)
        return 0;
    return vc_xsk_register(&s->port, xsk->map_fd,
                           xsk->interfaces[slot].xsk_base + xsk->worker -
                               xsk->interfaces[slot].worker_first);
}

void vc_xsk_close_slots(struct vc_xsk_io *xsk)
{
    for (uint32_t i = 0; i < xsk->slot_cnt; i++)
        vc_xsk_close(&xsk->slots[i].port);
}

static int open_ports(struct vc_xsk_io *xsk, const char **why, uint32_t *failed)
{
    for (uint32_t i = 0; i < xsk->slot_cnt; i++) {
        struct vc_xsk_config config = config_of(xsk, i, BIND_WAIT_MS);
        int err = vc_xsk_serves(xsk, i) ? vc_xsk_open(&xsk->slots[i].port, &config, why) : 0;

        if (err) {
            *failed = i;
            vc_xsk_close_slots(xsk);
            return err;
        }
    }
    return 0;
}

int vc_xsk_open_slots(struct vc_xsk_io *xsk, const char **why, uint32_t *failed)
{
    int err = open_ports(xsk, why, failed);

    if ((err == -EOPNOTSUPP || err == -EINVAL) && xsk->zerocopy) {
        xsk->zerocopy = false;
        err = open_ports(xsk, why, failed);
    }
    for (uint32_t i = 0; !err && i < xsk->slot_cnt; i++) {
        if (!vc_xsk_serves(xsk, i))
            continue;
        *failed = i;
        *why = "cannot register the socket in the XSKMAP";
        err = start_port(xsk, i);
    }
    return err;
}

/* ---- lost and opened again ---------------------------------------------------------------- */

static void add_statistics(struct xdp_statistics *to, const struct xdp_statistics *st)
{
    to->rx_dropped += st->rx_dropped;
    to->rx_ring_full += st->rx_ring_full;
    to->rx_fill_ring_empty_descs += st->rx_fill_ring_empty_descs;
    to->tx_invalid_descs += st->tx_invalid_descs;
}

void vc_xsk_statistics(struct vc_xsk_io *xsk)
{
    struct xdp_statistics sum = { 0 };

    for (uint32_t i = 0; i < xsk->slot_cnt; i++) {
        struct vc_xsk_slot *s = &xsk->slots[i];
        struct xdp_statistics st = { 0 };
        socklen_t sz = sizeof st;
        int error = 0;

        if (s->port.fd >= 0 && !getsockopt(s->port.fd, SOL_XDP, XDP_STATISTICS, &st, &sz)) {
            st.tx_invalid_descs -=
                st.tx_invalid_descs < s->voided ? st.tx_invalid_descs : s->voided;
            s->last = st;
        }
        add_statistics(&sum, &s->base);
        add_statistics(&sum, &s->last);
        sz = sizeof error;
        if (s->port.fd >= 0 && !getsockopt(s->port.fd, SOL_SOCKET, SO_ERROR, &error, &sz) && error)
            vc_xsk_fail(xsk, i, ENXIO); /* the interface was removed */
    }
    xsk->io.counts.xsk_rx_dropped = sum.rx_dropped + sum.rx_ring_full;
    xsk->io.counts.xsk_rx_ring_full = sum.rx_ring_full;
    xsk->io.counts.xsk_fill_empty = sum.rx_fill_ring_empty_descs;
    xsk->io.counts.xsk_tx_invalid = sum.tx_invalid_descs;
}

/* All frames that the old socket's rings held are ours again: the kernel let go of them when the
   interface went. */
static void reclaim(struct vc_xsk_io *xsk, uint32_t slot)
{
    struct vc_umem *umem = &xsk->umem;
    struct vc_xsk_slot *s = &xsk->slots[slot];

    add_statistics(&s->base, &s->last);
    s->last = (struct xdp_statistics){ 0 };
    xsk->io.counts.tx_errors += s->port.tx.cached - s->seen - s->ahead;
    for (uint32_t frame = 0; frame < umem->total; frame++)
        if (umem->owner[frame] == (VC_FRAME_RX | slot))
            vc_umem_give(umem, frame, VC_FRAME_RX, slot);
        else if (umem->owner[frame] == (VC_FRAME_TX | slot))
            vc_umem_give(umem, frame, VC_FRAME_TX, slot);
    s->published = true;
    s->seen = 0;
    s->ahead = 0;
}

static void reopen(struct vc_xsk_io *xsk, uint32_t slot)
{
    struct vc_xsk_slot *s = &xsk->slots[slot];
    unsigned ifindex = if_nametoindex(xsk->interfaces[slot].name);
    struct vc_xsk_config config;
    const char *why;

    if (xsk->held_cnt || s->reserved)
        return;
    if (s->port.fd >= 0) {
        reclaim(xsk, slot);
        vc_xsk_close(&s->port);
    }
    if (!ifindex)
        return;
    xsk->interfaces[slot].ifindex = ifindex;
    config = config_of(xsk, slot, 0);
    if (vc_xsk_open(&s->port, &config, &why))
        return;
    if (start_port(xsk, slot))
        vc_xsk_fail(xsk, slot, ENXIO);
}

void vc_xsk_revive(struct vc_xsk_io *xsk, uint32_t slot, uint64_t now_ns)
{
    struct vc_xsk_slot *s = &xsk->slots[slot];

    if (!vc_xsk_serves(xsk, slot))
        return;
    if (s->link == VC_LINK_UP) {
        if (s->published && !s->port.zerocopy && vc_xsk_unread(&s->port.tx))
            vc_xsk_kick(xsk, slot); /* what an earlier flush left */
        return;
    }
    if (now_ns < s->retry_ns)
        return;
    if (s->link == VC_LINK_DOWN)
        vc_xsk_probe(xsk, slot);
    else
        reopen(xsk, slot);
    s->retry_ns = now_ns + (s->link == VC_LINK_DOWN ? DOWN_RETRY_NS : GONE_RETRY_NS);
}
