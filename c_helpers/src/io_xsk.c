/* SPDX-License-Identifier: MIT */
#include "xsk_io.h"

#include "net.h"
#include "numa.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum {
    RING_MIN = 64,
    RING_MAX = 4096,
    HUGE_PAGE_SZ = 2 << 20,
};
#define STATISTICS_NS    UINT64_C(10000000)
#define BUSY_POLL_GAP_NS UINT64_C(5000) /* more often, and polling for packets starves sending */

/* ---- receive ----------------------------------------------------------------------------- */

static void refill(struct vc_xsk_io *xsk, uint32_t slot, uint32_t frame)
{
    struct vc_xsk_ring *fill = &xsk->slots[slot].port.fill;

    vc_umem_move(&xsk->umem, frame, VC_FRAME_HELD, VC_FRAME_RX, slot);
    *vc_xsk_addr(fill, fill->cached++) = vc_umem_addr(&xsk->umem, frame);
}

/* Publishes what was refilled; zero-copy drivers may have stopped for want of frames. */
static void refilled(struct vc_xsk_io *xsk)
{
    for (uint32_t i = 0; i < xsk->slot_cnt; i++) {
        struct vc_xsk_port *port = &xsk->slots[i].port;

        if (port->fd < 0)
            continue;
        vc_xsk_publish(&port->fill);
        if (port->zerocopy && vc_xsk_needs_wakeup(&port->fill))
            recvfrom(port->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
    }
}

static uint32_t rx_slot(struct vc_xsk_io *xsk, uint32_t slot, struct vc_io_rx *pkts, uint32_t n)
{
    struct vc_xsk_ring *ring = &xsk->slots[slot].port.rx;
    uint32_t ready = vc_xsk_ready(ring), cnt = 0;

    if (ready > n)
        ready = n;
    for (uint32_t i = 0; i < ready; i++, ring->cached++) {
        const struct xdp_desc *desc = vc_xsk_desc(ring, ring->cached);
        uint32_t frame = vc_umem_number(&xsk->umem, desc->addr), off;
        uint8_t *data = xsk->umem.area + desc->addr;

        if (i + 1 < ready)
            __builtin_prefetch(xsk->umem.area + vc_xsk_desc(ring, ring->cached + 1)->addr);
        vc_umem_move(&xsk->umem, frame, VC_FRAME_RX, VC_FRAME_HELD, slot);
        VC_ASSERT(vc_umem_number(&xsk->umem, desc->addr + desc->len - 1) == frame);
        if (vc_net_parse(data, desc->len, &off, &pkts[cnt].sz, &pkts[cnt].tuple)) {
            xsk->io.counts.malformed++;
            refill(xsk, slot, frame);
            continue;
        }
        pkts[cnt++].data = data + off;
        xsk->held[xsk->held_cnt++] = frame;
    }
    if (ready)
        vc_xsk_release(ring);
    if (ready != cnt)
        refilled(xsk);
    return cnt;
}

static void busy_poll(struct vc_xsk_io *xsk, uint64_t now_ns)
{
    if (now_ns - xsk->polled_ns < BUSY_POLL_GAP_NS)
        return;
    xsk->polled_ns = now_ns;
    for (uint32_t i = 0; i < xsk->slot_cnt; i++)
        if (xsk->slots[i].link == VC_LINK_UP)
            recvfrom(xsk->slots[i].port.fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static uint32_t xsk_rx(struct vc_io *io, struct vc_io_rx *pkts, uint32_t n, uint64_t now_ns)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);
    uint32_t cnt = 0, slot = xsk->rx_first;

    if (n > VC_IO_BURST - xsk->held_cnt)
        n = VC_IO_BURST - xsk->held_cnt;
    for (uint32_t i = 0; i < xsk->slot_cnt && cnt < n; i++) {
        if (xsk->slots[slot].port.fd >= 0)
            cnt += rx_slot(xsk, slot, pkts + cnt, n - cnt);
        slot = slot + 1 == xsk->slot_cnt ? 0 : slot + 1;
    }
    xsk->rx_first = xsk->rx_first + 1 == xsk->slot_cnt ? 0 : xsk->rx_first + 1;
    if (!cnt && xsk->busy_poll)
        busy_poll(xsk, now_ns);
    io->counts.rx_packets += cnt;
    return cnt;
}

static void xsk_rx_done(struct vc_io *io)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);

    if (!xsk->held_cnt)
        return;
    for (uint32_t i = 0; i < xsk->held_cnt; i++)
        refill(xsk, xsk->umem.owner[xsk->held[i]] & 0xf, xsk->held[i]);
    xsk->held_cnt = 0;
    refilled(xsk);
}

static int xsk_sleep_fds(struct vc_io *io, int *fds, uint32_t n)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);
    uint32_t cnt = 0;

    for (uint32_t i = 0; i < xsk->slot_cnt; i++) {
        struct vc_xsk_slot *s = &xsk->slots[i];

        if (s->port.fd < 0)
            continue;
        if (vc_xsk_ready(&s->port.rx) || !s->published)
            return -1;
        /* copy mode sends in our calls alone */
        if (s->link == VC_LINK_UP && !s->port.zerocopy && vc_xsk_unread(&s->port.tx))
            return -1;
        if (cnt < n && s->link != VC_LINK_GONE)
            fds[cnt++] = s->port.fd;
    }
    return (int)cnt;
}

/* ---- housekeeping ------------------------------------------------------------------------ */

static void gauges(struct vc_xsk_io *xsk)
{
    const struct vc_umem *umem = &xsk->umem;

    VC_ASSERT(umem->free_cnt + umem->rx_cnt + umem->tx_cnt == umem->total);
    xsk->io.counts.frames_total = umem->total;
    xsk->io.counts.frames_free = umem->free_cnt;
    xsk->io.counts.frames_rx = umem->rx_cnt;
    xsk->io.counts.frames_tx = umem->tx_cnt;
}

static void xsk_housekeeping(struct vc_io *io, uint64_t now_ns)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);

    vc_xsk_reap(xsk);
    for (uint32_t i = 0; i < xsk->slot_cnt; i++)
        vc_xsk_revive(xsk, i, now_ns);
    if (now_ns - xsk->statistics_ns >= STATISTICS_NS) {
        xsk->statistics_ns = now_ns;
        vc_xsk_statistics(xsk);
    }
    gauges(xsk);
}

/* ---- life -------------------------------------------------------------------------------- */

static void xsk_delete(struct vc_io *io)
{
    struct vc_xsk_io *xsk = vc_xsk_io_of(io);

    vc_xsk_close_slots(xsk);
    if (xsk->umem.area)
        munmap(xsk->umem.area, xsk->area_sz);
    free(xsk->umem.owner);
    free(xsk->umem.payload_sz);
    free(xsk->umem.free);
    free(xsk);
}

static const struct vc_io_ops xsk_ops = {
    .name = "xsk",
    .rx = xsk_rx,
    .rx_done = xsk_rx_done,
    .tx_reserve = vc_xsk_tx_reserve,
    .tx_commit = vc_xsk_tx_commit,
    .tx_cancel = vc_xsk_tx_cancel,
    .tx_flush = vc_xsk_tx_flush,
    .housekeeping = xsk_housekeeping,
    .sleep_fds = xsk_sleep_fds,
    .delete = xsk_delete,
};

static uint32_t power_of_two_below(uint32_t n)
{
    return n ? UINT32_C(1) << (31 - __builtin_clz(n)) : 0;
}

static int take_memory(struct vc_xsk_io *xsk, uint32_t frames)
{
    struct vc_umem *umem = &xsk->umem;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    void *area;

    umem->shift = xsk->zerocopy ? VC_FRAME_SHIFT_ZEROCOPY : VC_FRAME_SHIFT;
    xsk->area_sz =
        ((size_t)vc_umem_addr(umem, frames) + HUGE_PAGE_SZ - 1) & ~(size_t)(HUGE_PAGE_SZ - 1);
    area = mmap(NULL, xsk->area_sz, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);
    /* Where this node has none left the kernel gives another's: small near ones are better. */
    if (area != MAP_FAILED && xsk->pinned &&
        vc_numa_elsewhere(area, xsk->area_sz, vc_numa_node())) {
        munmap(area, xsk->area_sz);
        area = MAP_FAILED;
    }
    if (area == MAP_FAILED) {
        xsk->area_sz = (size_t)vc_umem_addr(umem, frames);
        area = mmap(NULL, xsk->area_sz, PROT_READ | PROT_WRITE, flags, -1, 0);
    }
    if (area == MAP_FAILED)
        return -1;
    umem->area = area;
    madvise(area, xsk->area_sz, MADV_DONTDUMP); /* clear media passes through */
    umem->owner = calloc(frames, sizeof *umem->owner);
    umem->payload_sz = calloc(frames, sizeof *umem->payload_sz);
    umem->free = calloc(frames, sizeof *umem->free);
    if (!umem->owner || !umem->payload_sz || !umem->free)
        return -1;
    umem->total = frames;
    for (uint32_t i = 0; i < frames; i++)
        umem->free[umem->free_cnt++] = frames - 1 - i;
    umem->tx_max = frames - xsk->port_cnt * xsk->rx_quota;
    return 0;
}

static struct vc_io *refuse(struct vc_xsk_io *xsk, const char *interface, const char *what,
                            int error, const char **why)
{
    static _Thread_local char sentence[256];

    snprintf(sentence, sizeof sentence, "AF_XDP on %.16s: %s%s%s", interface, what,
             error ? ": " : "", error ? strerror(error) : "");
    *why = sentence;
    if (xsk)
        xsk_delete(&xsk->io);
    return NULL;
}

struct vc_io *vc_io_xsk_new(const struct vc_ctl_setup *setup, uint32_t worker, int xsks_map_fd,
                            const char **why)
{
    uint32_t ports = setup->interface_cnt, half = power_of_two_below(setup->frames / 2), failed = 0;
    uint32_t own = 0;
    struct vc_xsk_io *xsk = calloc(1, sizeof *xsk);
    const char *what = NULL;
    int err;

    if (!xsk)
        return refuse(NULL, "all interfaces", "no memory", 0, why);
    xsk->io.ops = &xsk_ops;
    for (uint32_t i = 0; i < VC_INTERFACES_MAX; i++)
        xsk->slots[i].port.fd = -1;
    if (!ports || ports > VC_INTERFACES_MAX)
        return refuse(xsk, "no interface", "the set-up names none, or more than 8", 0, why);
    xsk->slot_cnt = ports;
    xsk->worker = worker;
    xsk->zerocopy = true;
    memcpy(xsk->interfaces, setup->interfaces, sizeof xsk->interfaces);
    for (uint32_t i = 0; i < ports; i++) {
        xsk->slots[i].published = true;
        if (vc_xsk_serves(xsk, i)) {
            own++;
            xsk->zerocopy = xsk->zerocopy && setup->interfaces[i].zerocopy;
        } else {
            xsk->slots[i].link = VC_LINK_GONE;
        }
    }
    xsk->pinned = setup->cpus[worker] >= 0;
    if (!own)
        return refuse(xsk, "no interface", "none of the set-up is served by this worker", 0, why);
    xsk->port_cnt = own;
    xsk->ring_sz = half < RING_MAX ? half : RING_MAX;
    xsk->rx_quota = power_of_two_below(setup->frames / 2 / own);
    if (xsk->rx_quota > xsk->ring_sz)
        xsk->rx_quota = xsk->ring_sz;
    if (xsk->rx_quota < RING_MIN)
        return refuse(xsk, "all interfaces", "frames is too small: at least 128 for each interface",
                      0, why);
    xsk->map_fd = xsks_map_fd;
    xsk->busy_poll = setup->busy_poll;
    if (take_memory(xsk, setup->frames))
        return refuse(xsk, "all interfaces", "no memory for the frames", 0, why);
    err = vc_xsk_open_slots(xsk, &what, &failed);
    if (err)
        return refuse(xsk, setup->interfaces[failed].name, what, -err, why);
    gauges(xsk);
    *why = NULL;
    return &xsk->io;
}

int vc_io_xsk_zerocopy(const struct vc_io *io, uint32_t interface)
{
    const struct vc_xsk_io *xsk = (const struct vc_xsk_io *)io;

    return interface < xsk->slot_cnt && xsk->slots[interface].port.zerocopy;
}

uint32_t vc_io_xsk_elsewhere(const struct vc_io *io)
{
    const struct vc_xsk_io *xsk = (const struct vc_xsk_io *)io;

    return vc_numa_elsewhere(xsk->umem.area, xsk->area_sz, vc_numa_node());
}
