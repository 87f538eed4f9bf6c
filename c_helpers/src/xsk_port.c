/* SPDX-License-Identifier: MIT */
#include "xsk_port.h"

#include <errno.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef SO_BUSY_POLL_BUDGET
#define SO_BUSY_POLL_BUDGET 70
#endif
#define XSK_MAX_TX_SKB_BUDGET \
    9 /* XDP_MAX_TX_SKB_BUDGET, Linux 6.17: descriptors one send call takes */

enum {
    TX_BUDGET = 256, /* without it a call takes 32 and answers EAGAIN */
    SEND_BUFFER =
        32 << 20, /* bytes; copy mode charges an skb for each packet, the default holds about 90 */
    BUSY_POLL_US = 64,
    BUSY_POLL_BUDGET = 64,
    BIND_RETRY_NS = 10000000,
};

static int map_ring(int fd, struct vc_xsk_ring *ring, const struct xdp_ring_offset *off,
                    uint32_t size, size_t entry_sz, uint64_t page_off)
{
    uint8_t *map;

    ring->map_sz = off->desc + size * entry_sz;
    map = mmap(NULL, ring->map_sz, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
               (off_t)page_off);
    if (map == MAP_FAILED) {
        ring->map_sz = 0;
        return -errno;
    }
    ring->map = map;
    ring->producer = (uint32_t *)(map + off->producer);
    ring->consumer = (uint32_t *)(map + off->consumer);
    ring->flags = (uint32_t *)(map + off->flags);
    ring->entries = map + off->desc;
    ring->size = size;
    ring->cached = 0;
    return 0;
}

static int map_rings(struct vc_xsk_port *port, uint32_t size)
{
    struct xdp_mmap_offsets off;
    socklen_t sz = sizeof off;
    int err;

    if (getsockopt(port->fd, SOL_XDP, XDP_MMAP_OFFSETS, &off, &sz))
        return -errno;
    if (sz != sizeof off)
        return -EPROTO; /* before Linux 5.4 there are no flags */
    err = map_ring(port->fd, &port->rx, &off.rx, size, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
    if (!err)
        err = map_ring(port->fd, &port->tx, &off.tx, size, sizeof(struct xdp_desc),
                       XDP_PGOFF_TX_RING);
    if (!err)
        err = map_ring(port->fd, &port->fill, &off.fr, size, sizeof(uint64_t),
                       XDP_UMEM_PGOFF_FILL_RING);
    if (!err)
        err = map_ring(port->fd, &port->completion, &off.cr, size, sizeof(uint64_t),
                       XDP_UMEM_PGOFF_COMPLETION_RING);
    return err;
}

static int set_rings(const struct vc_xsk_port *port, uint32_t size)
{
    static const int rings[] = { XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING,
                                 XDP_TX_RING };

    for (uint32_t i = 0; i < sizeof rings / sizeof *rings; i++)
        if (setsockopt(port->fd, SOL_XDP, rings[i], &size, sizeof size))
            return -errno;
    return 0;
}

static int register_memory(const struct vc_xsk_port *port, const struct vc_umem *umem)
{
    struct xdp_umem_reg reg = {
        .addr = (uintptr_t)umem->area,
        .len = vc_umem_addr(umem, umem->total),
        .chunk_size = 1u << umem->shift,
    };

    return setsockopt(port->fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof reg) ? -errno : 0;
}

/* The kernel frees a queue some time after its last owner has gone. */
static int bind_queue(const struct vc_xsk_port *port, const struct vc_xsk_config *config)
{
    struct sockaddr_xdp to = {
        .sxdp_family = AF_XDP,
        .sxdp_ifindex = config->ifindex,
        .sxdp_queue_id = config->queue,
    };
    uint64_t waited_ns = 0;

    if (config->share_fd >= 0) { /* mode and wake-up are the first socket's */
        to.sxdp_flags = XDP_SHARED_UMEM;
        to.sxdp_shared_umem_fd = (uint32_t)config->share_fd;
    } else {
        to.sxdp_flags = XDP_USE_NEED_WAKEUP | (config->zerocopy ? XDP_ZEROCOPY : XDP_COPY);
    }
    while (bind(port->fd, (struct sockaddr *)&to, sizeof to)) {
        if (errno != EBUSY || waited_ns >= config->bind_wait_ms * UINT64_C(1000000))
            return -errno;
        nanosleep(&(struct timespec){ .tv_nsec = BIND_RETRY_NS }, NULL);
        waited_ns += BIND_RETRY_NS;
    }
    return 0;
}

/* All of these may be refused: they make it faster, not right. */
static void tune(const struct vc_xsk_port *port, const struct vc_xsk_config *config)
{
    int buffer = SEND_BUFFER, on = 1, us = BUSY_POLL_US, budget = BUSY_POLL_BUDGET;
    uint32_t tx_budget = config->ring_sz < TX_BUDGET ? config->ring_sz : TX_BUDGET;

    if (setsockopt(port->fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer))
        setsockopt(port->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    setsockopt(port->fd, SOL_XDP, XSK_MAX_TX_SKB_BUDGET, &tx_budget, sizeof tx_budget);
    if (!config->busy_poll)
        return;
    setsockopt(port->fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, &on, sizeof on);
    setsockopt(port->fd, SOL_SOCKET, SO_BUSY_POLL, &us, sizeof us);
    setsockopt(port->fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget, sizeof budget);
}

/* What the kernel gave, and whether it can send at all: some driver and mode pairs bind and then
   refuse every call. */
static int verify(struct vc_xsk_port *port)
{
    struct xdp_options options = { 0 };
    socklen_t sz = sizeof options;

    if (getsockopt(port->fd, SOL_XDP, XDP_OPTIONS, &options, &sz))
        return -errno;
    port->zerocopy = options.flags & XDP_OPTIONS_ZEROCOPY;
    if (sendto(port->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 &&
        (errno == ENXIO || errno == EINVAL || errno == EOPNOTSUPP))
        return -errno;
    return 0;
}

int vc_xsk_open(struct vc_xsk_port *port, const struct vc_xsk_config *config, const char **why)
{
    int err = 0;

    *port = (struct vc_xsk_port){ .fd = -1 };
    *why = "cannot make an AF_XDP socket (CAP_NET_RAW is needed)";
    port->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (port->fd < 0)
        return -errno;
    if (config->share_fd < 0) {
        *why =
            "the kernel does not take the frame memory (raise the memlock limit, or lower frames)";
        err = register_memory(port, config->umem);
    }
    if (!err) {
        *why = "cannot make the rings";
        err = set_rings(port, config->ring_sz);
    }
    if (!err)
        err = map_rings(port, config->ring_sz);
    if (!err) {
        *why = "cannot bind to the queue (held by another program, or the mode is not supported)";
        tune(port, config);
        err = bind_queue(port, config);
    }
    if (!err) {
        *why = "the driver refuses to send in this mode";
        err = verify(port);
    }
    if (err)
        vc_xsk_close(port);
    else
        *why = NULL;
    return err;
}

int vc_xsk_register(const struct vc_xsk_port *port, int map_fd, uint32_t map_key)
{
    uint32_t fd = (uint32_t)port->fd;
    union bpf_attr attr = { .map_fd = (uint32_t)map_fd,
                            .key = (uintptr_t)&map_key,
                            .value = (uintptr_t)&fd };

    return syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof attr) ? -errno : 0;
}

void vc_xsk_close(struct vc_xsk_port *port)
{
    struct vc_xsk_ring *rings[] = { &port->rx, &port->tx, &port->fill, &port->completion };

    for (uint32_t i = 0; i < sizeof rings / sizeof *rings; i++)
        if (rings[i]->map)
            munmap(rings[i]->map, rings[i]->map_sz);
    if (port->fd >= 0)
        close(port->fd);
    *port = (struct vc_xsk_port){ .fd = -1 };
}
