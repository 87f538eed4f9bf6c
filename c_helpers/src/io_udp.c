/* SPDX-License-Identifier: MIT */
#include "io_udp.h"

#include "base.h"
#include "udp_address.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <time.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    RX_SZ = 2048,
    TX_SLOTS = 256,
    RUN_MAX = 64, /* datagrams of one UDP_SEGMENT send (UDP_MAX_SEGMENTS of the older kernels) */
    RUN_BYTES = 65000,
};

union control { /* traffic class, departure time and segment size */
    char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint64_t)) +
               CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
};

struct tx_slot {
    _Alignas(64) uint8_t payload[VC_TX_ROOM];
    union vc_address to;
    uint64_t depart_ns;
    uint32_t sz;
    uint8_t local, dscp;
};

struct udp_io {
    struct vc_io io;
    int fds[VC_LOCALS_MAX];
    sa_family_t families[VC_LOCALS_MAX];
    struct vc_tuple locals[VC_LOCALS_MAX];
    uint32_t fd_cnt, rx_first;
    bool gso;

    uint32_t free_cnt, wait_cnt;
    uint16_t free[TX_SLOTS];
    uint16_t wait[TX_SLOTS]; /* committed, in order */

    /* built in a flush */
    struct mmsghdr tx_msgs[TX_SLOTS];
    struct iovec tx_iov[TX_SLOTS];
    union control tx_control[TX_SLOTS];

    struct mmsghdr rx_msgs[VC_IO_BURST];
    struct iovec rx_iov[VC_IO_BURST];
    union vc_address rx_from[VC_IO_BURST];
    _Alignas(64) uint8_t rx_data[VC_IO_BURST][RX_SZ];
    struct tx_slot slots[TX_SLOTS];
};

static struct udp_io *udp_of(struct vc_io *io)
{
    return (struct udp_io *)io;
}

/* ---- receive ----------------------------------------------------------------------------- */

/* Reads one socket into the message slots from `at` on; returns how many datagrams came out at
   pkts. */
static uint32_t rx_socket(struct udp_io *udp, uint32_t local, struct vc_io_rx *pkts, uint32_t at,
                          uint32_t n)
{
    uint32_t cnt = 0;
    int got;

    for (uint32_t i = at; i < at + n; i++) {
        udp->rx_msgs[i].msg_hdr.msg_namelen = sizeof udp->rx_from[i];
        udp->rx_msgs[i].msg_hdr.msg_flags = 0;
    }
    got = recvmmsg(udp->fds[local], udp->rx_msgs + at, n, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
        const struct mmsghdr *msg = &udp->rx_msgs[at + (uint32_t)i];
        struct vc_io_rx *pkt = &pkts[cnt];

        pkt->tuple = udp->locals[local];
        if (msg->msg_hdr.msg_flags & MSG_TRUNC ||
            !vc_address_read(&pkt->tuple, msg->msg_hdr.msg_name)) {
            udp->io.counts.malformed++;
            continue;
        }
        pkt->data = msg->msg_hdr.msg_iov->iov_base;
        pkt->sz = msg->msg_len;
        cnt++;
    }
    return cnt;
}

static uint32_t udp_rx(struct vc_io *io, struct vc_io_rx *pkts, uint32_t n, uint64_t now_ns)
{
    struct udp_io *udp = udp_of(io);
    uint32_t local = udp->rx_first, cnt = 0, used = 0;

    (void)now_ns;
    if (n > VC_IO_BURST)
        n = VC_IO_BURST;
    for (uint32_t i = 0; i < udp->fd_cnt && used < n; i++) {
        uint64_t malformed = io->counts.malformed;

        if (udp->fds[local] >= 0) {
            uint32_t got = rx_socket(udp, local, pkts + cnt, used, n - used);

            cnt += got;
            used += got + (uint32_t)(io->counts.malformed - malformed);
        }
        local = local + 1 == udp->fd_cnt ? 0 : local + 1;
    }
    udp->rx_first = udp->rx_first + 1 == udp->fd_cnt ? 0 : udp->rx_first + 1;
    io->counts.rx_packets += cnt;
    return cnt;
}

static void udp_rx_done(struct vc_io *io)
{
    (void)io; /* the buffers are read into again by the next rx */
}

/* ---- transmit ---------------------------------------------------------------------------- */

static int udp_tx_reserve(struct vc_io *io, const struct vc_io_dst *dst, struct vc_io_tx *tx)
{
    struct udp_io *udp = udp_of(io);
    struct tx_slot *slot;

    if (dst->local >= udp->fd_cnt || udp->fds[dst->local] < 0 || !udp->free_cnt)
        return -1;
    if (udp->families[dst->local] == AF_INET &&
        memcmp(dst->tuple->remote_ip, vc_mapped, sizeof vc_mapped))
        return -1; /* an IPv6 peer cannot be reached from here */
    tx->cookie = udp->free[--udp->free_cnt];
    slot = &udp->slots[tx->cookie];
    vc_address_set(&slot->to, dst->tuple, udp->families[dst->local]);
    slot->local = (uint8_t)dst->local;
    slot->dscp = dst->dscp;
    slot->depart_ns = udp->io.ahead_ns ? dst->depart_ns : 0;
    tx->payload = slot->payload;
    tx->port = VC_PORT_SOCKET;
    return 0;
}

static void udp_tx_commit(struct vc_io *io, const struct vc_io_tx *tx, uint32_t payload_sz)
{
    struct udp_io *udp = udp_of(io);

    VC_ASSERT(tx->cookie < TX_SLOTS && payload_sz <= VC_TX_ROOM && udp->wait_cnt < TX_SLOTS);
    udp->slots[tx->cookie].sz = payload_sz;
    udp->wait[udp->wait_cnt++] = (uint16_t)tx->cookie;
}

static void udp_tx_cancel(struct vc_io *io, const struct vc_io_tx *tx)
{
    struct udp_io *udp = udp_of(io);

    VC_ASSERT(tx->cookie < TX_SLOTS && udp->free_cnt < TX_SLOTS);
    udp->free[udp->free_cnt++] = (uint16_t)tx->cookie;
}

/* Appends to the control data of a message, whose buffer has a place for it. */
static void add_control(struct msghdr *msg, int level, int type, const void *data, size_t sz)
{
    struct cmsghdr *c = (struct cmsghdr *)((char *)msg->msg_control + msg->msg_controllen);

    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(sz);
    memcpy(CMSG_DATA(c), data, sz);
    msg->msg_controllen += CMSG_SPACE(sz);
}

/* Writes the head of a message for a run of datagrams like `slot`, whose vectors follow each
   other. */
static void set_message(struct udp_io *udp, uint32_t at, struct tx_slot *slot, uint32_t iov,
                        uint32_t n)
{
    struct msghdr *msg = &udp->tx_msgs[at].msg_hdr;
    bool v4 = vc_address_is_v4(&slot->to);
    int tos = slot->dscp << 2;

    *msg = (struct msghdr){
        .msg_name = &slot->to,
        .msg_namelen = slot->to.sa.sa_family == AF_INET ? sizeof slot->to.v4 : sizeof slot->to.v6,
        .msg_iov = &udp->tx_iov[iov],
        .msg_iovlen = n,
        .msg_control = udp->tx_control[at].bytes,
    };
    if (slot->depart_ns)
        add_control(msg, SOL_SOCKET, SCM_TXTIME, &slot->depart_ns, sizeof slot->depart_ns);
    add_control(msg, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &tos, sizeof tos);
    if (n > 1) { /* the last: send_apart leaves it out */
        uint16_t segment = (uint16_t)slot->sz;

        add_control(msg, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
    }
}

static bool same_run(const struct tx_slot *a, const struct tx_slot *b)
{
    return a->local == b->local && !memcmp(&a->to, &b->to, sizeof a->to);
}

/* Appends the vectors of the datagrams after wait[i] that may leave with it, and takes them out
   of wait. */
static uint32_t gather_run(struct udp_io *udp, uint32_t i, uint32_t iov)
{
    const struct tx_slot *first = &udp->slots[udp->wait[i]];
    uint32_t n = 1, bytes = first->sz;

    for (uint32_t k = i + 1; k < udp->wait_cnt && n < RUN_MAX && bytes + first->sz <= RUN_BYTES;
         k++) {
        struct tx_slot *slot;

        if (udp->wait[k] == TX_SLOTS)
            continue;
        slot = &udp->slots[udp->wait[k]];
        if (!same_run(first, slot))
            continue;
        if (slot->sz != first->sz || slot->dscp != first->dscp ||
            slot->depart_ns != first->depart_ns)
            break; /* what follows must not overtake this one */
        udp->tx_iov[iov + n++] = (struct iovec){ slot->payload, slot->sz };
        bytes += slot->sz;
        udp->wait[k] = TX_SLOTS;
    }
    return n;
}

/* Builds the messages of one local address; returns how many. */
static uint32_t build(struct udp_io *udp, uint32_t local)
{
    uint32_t msgs = 0, iov = 0;

    for (uint32_t i = 0; i < udp->wait_cnt; i++) {
        struct tx_slot *slot;
        uint32_t n = 1;

        if (udp->wait[i] == TX_SLOTS)
            continue;
        slot = &udp->slots[udp->wait[i]];
        if (slot->local != local)
            continue;
        udp->tx_iov[iov] = (struct iovec){ slot->payload, slot->sz };
        if (udp->gso && slot->sz)
            n = gather_run(udp, i, iov);
        set_message(udp, msgs++, slot, iov, n);
        iov += n;
    }
    return msgs;
}

static void count_sent(struct udp_io *udp, const struct msghdr *msg)
{
    udp->io.counts.tx_sent += msg->msg_iovlen;
    for (size_t i = 0; i < msg->msg_iovlen; i++)
        udp->io.counts.tx_bytes += msg->msg_iov[i].iov_len;
}

/* The kernel would not segment: each datagram of the run by itself. */
static void send_apart(struct udp_io *udp, uint32_t local, const struct msghdr *run)
{
    struct msghdr msg = *run;

    udp->gso = false;
    msg.msg_iovlen = 1;
    msg.msg_controllen -= CMSG_SPACE(sizeof(uint16_t));
    for (size_t i = 0; i < run->msg_iovlen; i++) {
        msg.msg_iov = &run->msg_iov[i];
        udp->io.counts.tx_kicks++;
        if (sendmsg(udp->fds[local], &msg, MSG_DONTWAIT) < 0)
            udp->io.counts.tx_errors++;
        else
            count_sent(udp, &msg);
    }
}

static void send_built(struct udp_io *udp, uint32_t local, uint32_t msgs)
{
    bool again = false;

    for (uint32_t at = 0; at < msgs;) {
        struct msghdr *first = &udp->tx_msgs[at].msg_hdr;
        int sent = sendmmsg(udp->fds[local], udp->tx_msgs + at, msgs - at, MSG_DONTWAIT);

        udp->io.counts.tx_kicks++;
        if (sent > 0) {
            for (; sent; sent--)
                count_sent(udp, &udp->tx_msgs[at++].msg_hdr);
            again = false;
        } else if (errno == EAGAIN || errno == ENOBUFS) {
            udp->io.counts.tx_again++;
            for (; again && at < msgs; at++)
                udp->io.counts.tx_errors += udp->tx_msgs[at].msg_hdr.msg_iovlen;
            again = true;
        } else if (first->msg_iovlen > 1 &&
                   (errno == EINVAL || errno == EIO || errno == EMSGSIZE || errno == EOPNOTSUPP)) {
            send_apart(udp, local, first);
            at++;
        } else if (errno != EINTR) {
            udp->io.counts.tx_errors += first->msg_iovlen;
            at++;
        }
    }
}

static uint64_t udp_tx_flush(struct vc_io *io)
{
    struct udp_io *udp = udp_of(io);
    uint16_t waiting[TX_SLOTS];
    struct timespec now;

    if (udp->wait_cnt) {
        memcpy(waiting, udp->wait, udp->wait_cnt * sizeof *waiting);
        for (uint32_t local = 0; local < udp->fd_cnt; local++) {
            uint32_t msgs = build(udp, local);

            if (msgs)
                send_built(udp, local, msgs);
        }
        memcpy(udp->free + udp->free_cnt, waiting, udp->wait_cnt * sizeof *waiting);
        udp->free_cnt += udp->wait_cnt;
        udp->wait_cnt = 0;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- the rest ---------------------------------------------------------------------------- */

static void udp_housekeeping(struct vc_io *io, uint64_t now_ns)
{
    (void)io;
    (void)now_ns;
}

static int udp_sleep_fds(struct vc_io *io, int *fds, uint32_t n)
{
    struct udp_io *udp = udp_of(io);
    uint32_t cnt = 0;

    if (udp->wait_cnt)
        return -1;
    for (uint32_t i = 0; i < udp->fd_cnt && cnt < n; i++)
        if (udp->fds[i] >= 0)
            fds[cnt++] = udp->fds[i];
    return (int)cnt;
}

static void udp_delete(struct vc_io *io)
{
    free(udp_of(io));
}

static const struct vc_io_ops udp_ops = {
    .name = "udp",
    .rx = udp_rx,
    .rx_done = udp_rx_done,
    .tx_reserve = udp_tx_reserve,
    .tx_commit = udp_tx_commit,
    .tx_cancel = udp_tx_cancel,
    .tx_flush = udp_tx_flush,
    .housekeeping = udp_housekeeping,
    .sleep_fds = udp_sleep_fds,
    .delete = udp_delete,
};

/* Packets of this socket may carry a departure time. */
static bool hold_until_time(int fd)
{
    const struct sock_txtime clock = { .clockid = CLOCK_MONOTONIC };

    return !setsockopt(fd, SOL_SOCKET, SO_TXTIME, &clock, sizeof clock);
}

static int add_socket(struct udp_io *udp, uint32_t i, int fd)
{
    union vc_address address;
    socklen_t sz = sizeof address;
    int off = 0;

    udp->fds[i] = fd;
    if (fd < 0)
        return 0;
    if (getsockname(fd, &address.sa, &sz) ||
        (address.sa.sa_family != AF_INET && address.sa.sa_family != AF_INET6))
        return -1;
    udp->families[i] = address.sa.sa_family;
    setsockopt(fd, SOL_UDP, UDP_GRO, &off, sizeof off); /* one datagram is one packet */
    if (udp->io.ahead_ns && !hold_until_time(fd))
        udp->io.ahead_ns = 0;
    return 0;
}

struct vc_io *vc_io_udp_new(const struct vc_ctl_setup *setup, uint32_t worker, const int *fds,
                            uint32_t fd_cnt, const char **why)
{
    struct udp_io *udp;

    (void)worker;
    *why = "media sockets: the set-up names no local address, or more than 8";
    if (!fd_cnt || fd_cnt > VC_LOCALS_MAX)
        return NULL;
    *why = "media sockets: no memory for the buffers";
    udp = aligned_alloc(64, (sizeof *udp + 63) & ~(size_t)63);
    if (!udp)
        return NULL;
    memset(udp, 0, sizeof *udp); /* every page now, none under load */
    udp->io.ops = &udp_ops;
    udp->fd_cnt = fd_cnt;
    udp->gso = setup->flags & VC_IO_UDP_GSO;
    udp->io.ahead_ns = setup->flags & VC_IO_UDP_TXTIME ? VC_IO_UDP_AHEAD_NS : 0;
    for (uint32_t i = 0; i < fd_cnt; i++) {
        udp->locals[i] = setup->locals[i];
        if (add_socket(udp, i, fds[i])) {
            *why = "media sockets: a descriptor is no bound IPv4 or IPv6 socket";
            free(udp);
            return NULL;
        }
    }
    for (uint32_t i = 0; i < TX_SLOTS; i++)
        udp->free[udp->free_cnt++] = (uint16_t)(TX_SLOTS - 1 - i);
    for (uint32_t i = 0; i < VC_IO_BURST; i++) {
        udp->rx_iov[i] = (struct iovec){ udp->rx_data[i], RX_SZ };
        udp->rx_msgs[i].msg_hdr = (struct msghdr){
            .msg_name = &udp->rx_from[i],
            .msg_iov = &udp->rx_iov[i],
            .msg_iovlen = 1,
        };
    }
    *why = NULL;
    return &udp->io;
}
