/* SPDX-License-Identifier: MIT */
/* io_udp on real sockets over loopback: who sent it, what was sent, what was refused, and the law
   committed = tx_sent + tx_errors + still pending.  A full send buffer is made by a slow queue in a
   network namespace of its own (needs root). */
#include "io_udp.h"

#include "check.h"

#include <arpa/inet.h>
#include <linux/net_tstamp.h>
#include <time.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

struct end { /* a socket and where it is */
    int fd;
    struct vc_tuple tuple; /* as the remote side of the worker */
};

struct got {
    uint8_t data[65536];
    int sz, tos, segment;
};

static struct end open_end(int family, const char *ip, uint16_t port)
{
    struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct timeval limit = { .tv_sec = 5 };
    struct end end = { .fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0) };
    socklen_t sz = family == AF_INET ? sizeof a4 : sizeof a6;
    struct sockaddr *a = family == AF_INET ? (struct sockaddr *)&a4 : (struct sockaddr *)&a6;
    int on = 1, buffer = 4 << 20;

    inet_pton(family, ip, family == AF_INET ? (void *)&a4.sin_addr : (void *)&a6.sin6_addr);
    setsockopt(end.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(end.fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    setsockopt(end.fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof on);
    if (family == AF_INET6)
        setsockopt(end.fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on);
    CHECK_EQ(bind(end.fd, a, sz), 0);
    CHECK_EQ(getsockname(end.fd, a, &sz), 0);
    if (family == AF_INET) {
        memcpy(end.tuple.remote_ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
        memcpy(end.tuple.remote_ip + 12, &a4.sin_addr, 4);
        end.tuple.remote_port_be = a4.sin_port;
    } else {
        memcpy(end.tuple.remote_ip, &a6.sin6_addr, 16);
        end.tuple.remote_port_be = a6.sin6_port;
    }
    return end;
}

static struct vc_io *open_io(const struct end *ends, uint32_t n, uint32_t flags)
{
    struct vc_ctl_setup setup = { .worker_cnt = 1, .local_cnt = n, .flags = flags };
    int fds[VC_LOCALS_MAX];
    const char *why = "?";
    struct vc_io *io;

    for (uint32_t i = 0; i < n; i++) {
        fds[i] = ends[i].fd;
        memcpy(setup.locals[i].local_ip, ends[i].tuple.remote_ip, 16);
        setup.locals[i].local_port_be = ends[i].tuple.remote_port_be;
    }
    io = vc_io_udp_new(&setup, 0, fds, n, &why);
    CHECK(io && !why);
    return io;
}

static void send_to(const struct end *from, const struct end *to, const void *data, size_t sz)
{
    struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = to->tuple.remote_port_be };
    struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = to->tuple.remote_port_be };
    struct sockaddr_in6 self;
    socklen_t self_sz = sizeof self;
    int v4;

    getsockname(from->fd, (struct sockaddr *)&self, &self_sz);
    v4 = self.sin6_family == AF_INET;
    memcpy(&a4.sin_addr, to->tuple.remote_ip + 12, 4);
    memcpy(&a6.sin6_addr, to->tuple.remote_ip, 16);
    CHECK_EQ(sendto(from->fd, data, sz, 0, v4 ? (struct sockaddr *)&a4 : (struct sockaddr *)&a6,
                    v4 ? sizeof a4 : sizeof a6),
             sz);
}

static int commit_at(struct vc_io *io, const struct end *to, uint32_t local, uint8_t dscp,
                     uint64_t depart_ns, const void *data, uint32_t sz)
{
    struct vc_io_dst dst = { .tuple = &to->tuple, .port = VC_PORT_SOCKET, .local = local,
                             .dscp = dscp, .depart_ns = depart_ns };
    struct vc_io_tx tx;

    if (io->ops->tx_reserve(io, &dst, &tx))
        return -1;
    if (sz)
        memcpy(tx.payload, data, sz);
    io->ops->tx_commit(io, &tx, sz);
    return 0;
}

static int commit(struct vc_io *io, const struct end *to, uint32_t local, uint8_t dscp,
                  const void *data, uint32_t sz)
{
    return commit_at(io, to, local, dscp, 0, data, sz);
}

static void receive(const struct end *end, struct got *got)
{
    uint8_t control[256];
    struct iovec iov = { got->data, sizeof got->data };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };

    got->tos = got->segment = 0;
    got->sz = (int)recvmsg(end->fd, &msg, 0);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS)
            got->tos = *CMSG_DATA(c);
        else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS)
            memcpy(&got->tos, CMSG_DATA(c), sizeof got->tos);
        else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
            memcpy(&got->segment, CMSG_DATA(c), sizeof got->segment);
    }
}

/* Calls rx until `want` packets came; loopback has delivered when send returns. */
static uint32_t rx(struct vc_io *io, struct vc_io_rx *pkts, uint32_t want)
{
    uint32_t n = 0;

    for (int tries = 0; n < want && tries < 100; tries++)
        n += io->ops->rx(io, pkts + n, want - n, 0);
    return n;
}

static void test_receive(void)
{
    struct end locals[3] = { open_end(AF_INET, "127.0.0.1", 0), open_end(AF_INET6, "::1", 0),
                             open_end(AF_INET6, "::", 0) };
    struct end v4 = open_end(AF_INET, "127.0.0.1", 0), v6 = open_end(AF_INET6, "::1", 0);
    struct vc_io *io = open_io(locals, 3, 0);
    struct vc_io_rx pkts[VC_IO_BURST];
    static uint8_t long_one[2049];
    struct end dual = locals[2];
    int fds[VC_LOCALS_MAX];

    CHECK_EQ(io->ops->rx(io, pkts, VC_IO_BURST, 0), 0);
    io->ops->rx_done(io);
    for (int i = 0; i < 2; i++) {
        const struct end *from = i ? &v6 : &v4;

        send_to(from, &locals[i], "hello", 5);
        CHECK_EQ(rx(io, pkts, 1), 1);
        CHECK(pkts[0].sz == 5 && !memcmp(pkts[0].data, "hello", 5));
        CHECK(!memcmp(pkts[0].tuple.remote_ip, from->tuple.remote_ip, 16));
        CHECK_EQ(pkts[0].tuple.remote_port_be, from->tuple.remote_port_be);
        CHECK(!memcmp(pkts[0].tuple.local_ip, locals[i].tuple.remote_ip, 16));
        CHECK_EQ(pkts[0].tuple.local_port_be, locals[i].tuple.remote_port_be);
        pkts[0].data[0] = 0x55; /* the core may write */
        io->ops->rx_done(io);
    }
    memcpy(dual.tuple.remote_ip, v4.tuple.remote_ip,
           16); /* a dual-stack socket, spoken to by IPv4 */
    send_to(&v4, &dual, "four", 4);
    CHECK_EQ(rx(io, pkts, 1), 1);
    CHECK(!memcmp(pkts[0].tuple.remote_ip, v4.tuple.remote_ip, 16));
    io->ops->rx_done(io);

    /* empty, longest, one too long, and the one after it */
    send_to(&v4, &locals[0], "", 0);
    send_to(&v4, &locals[0], long_one, 2048);
    send_to(&v4, &locals[0], long_one, 2049);
    send_to(&v4, &locals[0], "after", 5);
    CHECK_EQ(rx(io, pkts, 3), 3);
    CHECK(pkts[0].sz == 0 && pkts[1].sz == 2048 && pkts[2].sz == 5 &&
          !memcmp(pkts[2].data, "after", 5));
    io->ops->rx_done(io);
    CHECK_EQ(io->counts.malformed, 1);
    CHECK_EQ(io->counts.rx_packets, 6);
    CHECK_EQ(io->ops->sleep_fds(io, fds, VC_LOCALS_MAX), 3);
    CHECK(fds[0] == locals[0].fd && fds[1] == locals[1].fd && fds[2] == locals[2].fd);
    CHECK_EQ(io->ops->sleep_fds(io, fds, 2), 2);
    io->ops->delete (io);
    for (int i = 0; i < 3; i++)
        close(locals[i].fd);
    close(v4.fd);
    close(v6.fd);
}

/* Nobody is starved by a socket that always has more; each datagram comes once, in order. */
static void test_receive_bursts(void)
{
    enum { EACH = 150 };
    struct end locals[2] = { open_end(AF_INET, "127.0.0.1", 0), open_end(AF_INET6, "::1", 0) };
    struct end from[2] = { open_end(AF_INET, "127.0.0.1", 0), open_end(AF_INET6, "::1", 0) };
    struct vc_io *io = open_io(locals, 2, 0);
    struct vc_io_rx pkts[VC_IO_BURST];
    uint32_t seen[2] = { 0 }, wrong = 0, bursts = 0, second_at = 0;

    for (uint32_t i = 0; i < 2 * EACH; i++)
        send_to(&from[i % 2], &locals[i % 2], &(uint32_t) { i / 2 }, 4);
    for (uint32_t n; (n = io->ops->rx(io, pkts, VC_IO_BURST, 0)) > 0; bursts++) {
        for (uint32_t i = 0; i < n; i++) {
            uint32_t which = memcmp(pkts[i].tuple.remote_ip, from[0].tuple.remote_ip, 16) ? 1 : 0;

            wrong += memcmp(pkts[i].data, &seen[which], 4) != 0;
            seen[which]++;
            if (which && !second_at)
                second_at = bursts;
        }
        io->ops->rx_done(io);
    }
    CHECK_EQ(wrong, 0);
    CHECK(seen[0] == EACH && seen[1] == EACH);
    CHECK(second_at <= 1);
    io->ops->delete (io);
    for (int i = 0; i < 2; i++) {
        close(locals[i].fd);
        close(from[i].fd);
    }
}

static void test_send(void)
{
    struct end locals[3] = { open_end(AF_INET, "127.0.0.1", 0), open_end(AF_INET6, "::1", 0),
                             open_end(AF_INET6, "::", 0) };
    struct end v4 = open_end(AF_INET, "127.0.0.1", 0), v6 = open_end(AF_INET6, "::1", 0);
    struct vc_io *io = open_io(locals, 3, 0);
    static struct got got;
    uint8_t payload[VC_TX_ROOM];
    uint64_t bytes = 0;
    int fds[VC_LOCALS_MAX];

    for (uint32_t i = 0; i < 24; i++) {
        uint32_t sz = i == 5 ? 0 : i == 6 ? VC_TX_ROOM : 100 + i;

        memset(payload, (int)i, sizeof payload);
        CHECK_EQ(commit(io, i % 2 ? &v6 : &v4, i % 2, (uint8_t)(i * 2), payload, sz), 0);
        bytes += sz;
    }
    CHECK_EQ(commit(io, &v4, 2, 46, "dual4", 5), 0); /* one socket for both families */
    CHECK_EQ(commit(io, &v6, 2, 34, "dual6", 5), 0);
    CHECK_EQ(commit(io, &v6, 0, 0, "x", 1), -1); /* no way from an IPv4 socket */
    CHECK_EQ(commit(io, &v4, 3, 0, "x", 1), -1);
    CHECK_EQ(recv(v4.fd, payload, 1, MSG_DONTWAIT), -1); /* nothing leaves before the flush */
    CHECK_EQ(io->ops->sleep_fds(io, fds, VC_LOCALS_MAX), -1);
    CHECK(io->ops->tx_flush(io) > 0);
    for (uint32_t i = 0; i < 24; i++) {
        receive(i % 2 ? &v6 : &v4, &got);
        CHECK_EQ(got.sz, i == 5 ? 0 : i == 6 ? VC_TX_ROOM : 100 + (int)i);
        CHECK_EQ(got.tos, i * 2 << 2);
        CHECK(got.sz == 0 || (got.data[0] == i && got.data[got.sz - 1] == i));
    }
    receive(&v4, &got);
    CHECK(got.sz == 5 && got.tos == 46 << 2 && !memcmp(got.data, "dual4", 5));
    receive(&v6, &got);
    CHECK(got.sz == 5 && got.tos == 34 << 2 && !memcmp(got.data, "dual6", 5));
    CHECK_EQ(io->counts.tx_sent, 26);
    CHECK_EQ(io->counts.tx_errors, 0);
    CHECK_EQ(io->counts.tx_bytes, bytes + 10);
    CHECK_EQ(io->counts.tx_kicks, 3); /* one call a socket */
    io->ops->tx_flush(io);
    CHECK_EQ(io->counts.tx_kicks, 3);
    io->ops->delete (io);
    for (int i = 0; i < 3; i++)
        close(locals[i].fd);
    close(v4.fd);
    close(v6.fd);
}

static void test_reservations(void)
{
    struct end local = open_end(AF_INET, "127.0.0.1", 0), peer = open_end(AF_INET, "127.0.0.1", 0);
    struct vc_io *io = open_io(&local, 1, 0);
    struct vc_io_dst dst = { .tuple = &peer.tuple };
    struct vc_io_tx txs[300];
    static struct got got;
    uint32_t n = 0;

    while (n < 300 && !io->ops->tx_reserve(io, &dst, &txs[n]))
        memset(txs[n].payload, (int)n, VC_TX_ROOM), n++; /* each has a place of its own */
    CHECK_EQ(n, 256);
    for (uint32_t i = 0; i < n; i++) {
        CHECK(txs[i].payload[0] == (uint8_t)i && txs[i].payload[VC_TX_ROOM - 1] == (uint8_t)i);
        if (i % 5 == 3)
            io->ops->tx_cancel(io, &txs[i]);
        else
            io->ops->tx_commit(io, &txs[i], 10);
    }
    io->ops->tx_flush(io);
    for (uint32_t i = 0; i < n; i++) {
        if (i % 5 == 3)
            continue;
        receive(&peer, &got);
        CHECK(got.sz == 10 && got.data[0] == (uint8_t)i);
    }
    CHECK_EQ(io->counts.tx_sent, 256 - 51);
    for (n = 0; n < 300 && !io->ops->tx_reserve(io, &dst, &txs[n]); n++)
        ;
    CHECK_EQ(n, 256); /* all places came back */
    io->ops->delete (io);
    close(local.fd);
    close(peer.fd);
}

/* A datagram that the kernel refuses costs itself alone. */
static void test_refused(void)
{
    struct end local = open_end(AF_INET, "127.0.0.1", 0), peer = open_end(AF_INET, "127.0.0.1", 0);
    struct end port_0 = peer, broadcast = peer;
    struct vc_io *io = open_io(&local, 1, 0);
    static struct got got;

    port_0.tuple.remote_port_be = 0;                /* EINVAL */
    memset(broadcast.tuple.remote_ip + 12, 255, 4); /* EACCES, or no route */
    for (uint32_t i = 0; i < 30; i++)
        CHECK_EQ(commit(io,
                        i % 3 == 0 ? &peer :
                        i % 3 == 1 ? &port_0 :
                                     &broadcast,
                        0, 0, &i, 4),
                 0);
    io->ops->tx_flush(io);
    CHECK_EQ(io->counts.tx_sent, 10);
    CHECK_EQ(io->counts.tx_errors, 20);
    CHECK_EQ(io->counts.tx_bytes, 40);
    for (uint32_t i = 0; i < 30; i += 3) {
        receive(&peer, &got);
        CHECK(got.sz == 4 && !memcmp(got.data, &i, 4));
    }
    io->ops->delete (io);
    close(local.fd);
    close(peer.fd);
}

/* Runs for two peers, mixed, one datagram of another size among the first peer's. */
static void test_gso(int refuse)
{
    struct end local = open_end(AF_INET, "127.0.0.1", 0);
    struct end peers[2] = { open_end(AF_INET, "127.0.0.1", 0), open_end(AF_INET, "127.0.0.1", 0) };
    struct vc_io *io = open_io(&local, 1, VC_IO_UDP_GSO);
    static struct got got;
    uint8_t payload[1200] = { 0 };
    int on = 1, coalesced = 0;

    setsockopt(peers[1].fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on); /* shows how they travelled */
    if (refuse) /* without checksums there is no segmentation: EINVAL */
        setsockopt(local.fd, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on);
    for (uint32_t i = 0; i < 80; i++) {
        memcpy(payload, &i, 4);
        CHECK_EQ(commit(io, &peers[i % 2], 0, 46, payload, i == 40 ? 700 : 1200), 0);
    }
    io->ops->tx_flush(io);
    CHECK_EQ(io->counts.tx_sent, 80);
    CHECK_EQ(io->counts.tx_errors, 0);
    CHECK_EQ(io->counts.tx_bytes, 79 * 1200 + 700);
    for (uint32_t i = 0; i < 80; i += 2) {
        receive(&peers[0], &got);
        CHECK_EQ(got.sz, i == 40 ? 700 : 1200);
        CHECK(!memcmp(got.data, &i, 4) && got.tos == 46 << 2);
    }
    for (uint32_t i = 1; i < 80;) {
        receive(&peers[1], &got);
        CHECK(got.sz > 0 && got.sz % 1200 == 0 && got.tos == 46 << 2);
        coalesced += got.segment == 1200 && got.sz > 1200;
        for (int off = 0; off < got.sz; off += 1200, i += 2)
            CHECK(!memcmp(got.data + off, &i, 4));
        if (got.sz <= 0)
            break;
    }
    CHECK(refuse ? !coalesced : coalesced > 0);
    io->ops->delete (io);
    close(local.fd);
    close(peers[0].fd);
    close(peers[1].fd);
}

/* Departure times go along with each datagram (loopback has no fq: it does not hold them). */
static void test_departure_times(int gso)
{
    struct end local = open_end(AF_INET, "127.0.0.1", 0), far = open_end(AF_INET, "127.0.0.1", 0);
    struct vc_io *io = open_io(&local, 1, VC_IO_UDP_TXTIME | (gso ? VC_IO_UDP_GSO : 0));
    struct sock_txtime clock = { .clockid = -1 };
    socklen_t sz = sizeof clock;
    static struct got got;
    uint64_t now_ns;

    CHECK_EQ(io->ahead_ns, VC_IO_UDP_AHEAD_NS);
    CHECK_EQ(getsockopt(local.fd, SOL_SOCKET, SO_TXTIME, &clock, &sz), 0);
    CHECK_EQ(clock.clockid, CLOCK_MONOTONIC);
    now_ns = io->ops->tx_flush(io);
    for (int i = 0; i < 6; i++) /* at once, twice at one time, three at another */
        CHECK_EQ(commit_at(io, &far, 0, 34, i ? now_ns + (i > 2 ? 200000 : 100000) : 0,
                           "twelve bytes", 12), 0);
    io->ops->tx_flush(io);
    for (int i = 0; i < 6; i++) {
        receive(&far, &got);
        CHECK(got.sz == 12 && got.tos == 34 << 2);
    }
    CHECK_EQ(io->counts.tx_sent, 6);
    CHECK_EQ(io->counts.tx_errors, 0);
    io->ops->delete (io);
    close(local.fd);
    close(far.fd);
}

static void test_bad_set_up(void)
{
    struct vc_ctl_setup setup = { 0 };
    int fds[VC_LOCALS_MAX + 1] = { 0 }, pair[2];
    const char *why = NULL;

    CHECK(!vc_io_udp_new(&setup, 0, fds, 0, &why) && why);
    why = NULL;
    CHECK(!vc_io_udp_new(&setup, 0, fds, VC_LOCALS_MAX + 1, &why) && why);
    why = NULL;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    CHECK(!vc_io_udp_new(&setup, 0, pair, 1, &why) && why);
    close(pair[0]);
    close(pair[1]);
}

/* Child in its own namespace: the queue sends 8 kb/s, the socket may hold a few datagrams. */
static int full_buffer(void)
{
    struct end local, peer = { 0 };
    uint8_t payload[1200] = { 0 };
    int buffer = 8000;
    struct vc_io *io;
    uint64_t committed = 0;

    CHECK_EQ(
        system("ip link add vcud0 type veth peer name vcud1 && ip addr add 10.78.0.1/24 dev vcud0"
               " && ip link set vcud0 up && ip link set vcud1 up"
               " && ip neigh add 10.78.0.2 lladdr 02:00:00:00:00:02 dev vcud0"
               " && tc qdisc add dev vcud0 root tbf rate 8kbit burst 1600 limit 1000000"
               /* until the link carries, its queue throws everything away */
               " && for i in $(seq 1000); do"
               "  ip link show vcud0 | grep -q 'qdisc tbf.*state UP' && exit 0; done; exit 1"),
        0);
    local = open_end(AF_INET, "10.78.0.1", 0);
    memcpy(peer.tuple.remote_ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x4e\x00\x02", 16);
    peer.tuple.remote_port_be = htons(9);
    setsockopt(local.fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    io = open_io(&local, 1, 0);
    for (int flush = 0; flush < 3; flush++) {
        for (int i = 0; i < 40; i++, committed++)
            CHECK_EQ(commit(io, &peer, 0, 0, payload, sizeof payload), 0);
        io->ops->tx_flush(io);
        CHECK_EQ(io->counts.tx_sent + io->counts.tx_errors, committed);
    }
    CHECK(io->counts.tx_sent > 0 && io->counts.tx_errors > 0);
    CHECK(io->counts.tx_again >= 2 && io->counts.tx_again <= 3 * 2 * 40);
    CHECK_EQ(io->counts.tx_bytes, io->counts.tx_sent * sizeof payload);
    io->ops->delete (io);
    return check_failed != 0;
}

static void test_full_buffer(void)
{
    pid_t pid;
    int status = 0;

    if (geteuid()) {
        check_skip("a full send buffer", "a network namespace needs root");
        return;
    }
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        CHECK_EQ(unshare(CLONE_NEWNET), 0);
        _exit(full_buffer());
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
}

int main(void)
{
    test_receive();
    test_receive_bursts();
    test_send();
    test_reservations();
    test_refused();
    test_gso(0);
    test_gso(1);
    test_departure_times(0);
    test_departure_times(1);
    test_bad_set_up();
    test_full_buffer();
    return check_report();
}
