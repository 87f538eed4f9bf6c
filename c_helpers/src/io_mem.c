/* SPDX-License-Identifier: MIT */
#include "io_mem.h"

#include "base.h"

struct mem_ring {
    struct vc_io_mem_packet *packets;
    uint64_t head, tail;
};

struct vc_io_mem {
    struct vc_io io;
    uint32_t mask, refuse;
    uint64_t now_ns;
    struct mem_ring rx, tx;
    uint64_t rx_given;   /* rx.tail + packets handed to the core */
    uint64_t tx_written; /* tx.head + places reserved and not flushed */
    uint8_t *committed;  /* by place: 1 committed, 0 cancelled */
};

static struct vc_io_mem *mem_of(struct vc_io *io)
{
    return (struct vc_io_mem *)io;
}

static uint32_t mem_rx(struct vc_io *io, struct vc_io_rx *pkts, uint32_t n, uint64_t now_ns)
{
    struct vc_io_mem *mem = mem_of(io);
    uint32_t cnt = 0;

    (void)now_ns;
    for (; cnt < n && mem->rx_given < mem->rx.head; cnt++) {
        struct vc_io_mem_packet *packet = &mem->rx.packets[mem->rx_given++ & mem->mask];

        pkts[cnt] = (struct vc_io_rx){ packet->data, packet->sz, packet->tuple };
    }
    io->counts.rx_packets += cnt;
    return cnt;
}

static void mem_rx_done(struct vc_io *io)
{
    mem_of(io)->rx.tail = mem_of(io)->rx_given;
}

static int mem_tx_reserve(struct vc_io *io, const struct vc_io_dst *dst, struct vc_io_tx *tx)
{
    struct vc_io_mem *mem = mem_of(io);
    uint64_t place = mem->tx_written;
    struct vc_io_mem_packet *packet = &mem->tx.packets[place & mem->mask];

    if (place - mem->tx.tail > mem->mask || place - mem->tx.head >= VC_IO_BURST)
        return -1;
    mem->tx_written++;
    mem->committed[place & mem->mask] = 0;
    packet->tuple = *dst->tuple;
    packet->local = dst->local;
    packet->dscp = dst->dscp;
    packet->depart_ns = dst->depart_ns;
    packet->sz = 0;
    *tx = (struct vc_io_tx){ .payload = packet->data, .cookie = place };
    return 0;
}

static void mem_tx_commit(struct vc_io *io, const struct vc_io_tx *tx, uint32_t payload_sz)
{
    struct vc_io_mem *mem = mem_of(io);

    VC_ASSERT(payload_sz <= VC_TX_ROOM);
    mem->tx.packets[tx->cookie & mem->mask].sz = payload_sz;
    mem->committed[tx->cookie & mem->mask] = 1;
}

static void mem_tx_cancel(struct vc_io *io, const struct vc_io_tx *tx)
{
    struct vc_io_mem *mem = mem_of(io);

    if (tx->cookie + 1 == mem->tx_written)
        mem->tx_written--;
}

static uint64_t mem_tx_flush(struct vc_io *io)
{
    struct vc_io_mem *mem = mem_of(io);

    for (uint64_t place = mem->tx.head; place < mem->tx_written; place++) {
        const struct vc_io_mem_packet *packet = &mem->tx.packets[place & mem->mask];

        if (!mem->committed[place & mem->mask])
            continue;
        if (mem->refuse) {
            mem->refuse--;
            io->counts.tx_errors++;
            continue;
        }
        io->counts.tx_sent++;
        io->counts.tx_bytes += packet->sz;
        if (mem->tx.head != place)
            mem->tx.packets[mem->tx.head & mem->mask] = *packet;
        mem->tx.head++;
    }
    mem->tx_written = mem->tx.head;
    io->counts.tx_kicks++;
    return mem->now_ns;
}

static void mem_housekeeping(struct vc_io *io, uint64_t now_ns)
{
    (void)io;
    (void)now_ns;
}

static int mem_sleep_fds(struct vc_io *io, int *fds, uint32_t n)
{
    (void)fds;
    (void)n;
    return mem_of(io)->rx_given < mem_of(io)->rx.head ? -1 : 0;
}

static void mem_delete(struct vc_io *io)
{
    struct vc_io_mem *mem = mem_of(io);

    free(mem->rx.packets);
    free(mem->tx.packets);
    free(mem->committed);
    free(mem);
}

static const struct vc_io_ops mem_ops = {
    .name = "mem",
    .rx = mem_rx,
    .rx_done = mem_rx_done,
    .tx_reserve = mem_tx_reserve,
    .tx_commit = mem_tx_commit,
    .tx_cancel = mem_tx_cancel,
    .tx_flush = mem_tx_flush,
    .housekeeping = mem_housekeeping,
    .sleep_fds = mem_sleep_fds,
    .delete = mem_delete,
};

struct vc_io *vc_io_mem_new(uint32_t capacity)
{
    struct vc_io_mem *mem = calloc(1, sizeof *mem);

    if (!mem)
        return NULL;
    mem->io.ops = &mem_ops;
    mem->mask = capacity - 1;
    mem->rx.packets = calloc(capacity, sizeof *mem->rx.packets);
    mem->tx.packets = calloc(capacity, sizeof *mem->tx.packets);
    mem->committed = calloc(capacity, 1);
    if (!mem->rx.packets || !mem->tx.packets || !mem->committed) {
        mem_delete(&mem->io);
        return NULL;
    }
    return &mem->io;
}

int vc_io_mem_put(struct vc_io *io, const struct vc_tuple *tuple, const void *data, uint32_t sz)
{
    struct vc_io_mem *mem = mem_of(io);
    struct vc_io_mem_packet *packet = &mem->rx.packets[mem->rx.head & mem->mask];

    if (sz > VC_IO_MEM_SZ || mem->rx.head - mem->rx.tail > mem->mask)
        return -1;
    packet->tuple = *tuple;
    packet->sz = sz;
    if (sz)
        memcpy(packet->data, data, sz);
    mem->rx.head++;
    return 0;
}

const struct vc_io_mem_packet *vc_io_mem_take(struct vc_io *io)
{
    struct vc_io_mem *mem = mem_of(io);

    if (mem->tx.tail == mem->tx.head)
        return NULL;
    return &mem->tx.packets[mem->tx.tail++ & mem->mask];
}

void vc_io_mem_refuse(struct vc_io *io, uint32_t n)
{
    mem_of(io)->refuse = n;
}

void vc_io_mem_clock(struct vc_io *io, uint64_t now_ns)
{
    mem_of(io)->now_ns = now_ns;
}
