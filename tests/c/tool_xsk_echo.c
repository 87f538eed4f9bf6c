/* SPDX-License-Identifier: MIT */
/* A loop over io_xsk for tests/netns/test_io_xsk.py: what comes in goes back to its sender.

     tool_xsk_echo FRAMES[b] IF,MAC,PEER_MAC,VLAN,LOCAL4,LOCAL6 [IF,...]

   (b: busy polling) attaches a program that redirects every frame (native mode), prints "ready", then reads lines:
     counts      one JSON object with all counts of the backend
     send N      N datagrams to the last sender, through the last sender's interface
     attach      the program again, to interfaces that were made anew
   Ends at the end of its input. */
#include "io_xsk.h"

#include "base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct face {
    uint8_t mac[6], peer_mac[6], local4[16], local6[16];
    int vlan;
};

static struct face faces[VC_INTERFACES_MAX];
static struct vc_ctl_setup setup;
static struct vc_io *io;
static struct vc_tuple last;
static uint64_t committed, refused;
static int map_fd, prog_fd, links[VC_INTERFACES_MAX];

static void die(const char *what)
{
    fprintf(stderr, "tool_xsk_echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int bpf(int cmd, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, cmd, attr, sizeof *attr);
}

/* return bpf_redirect_map(&xsks, base of the interface + rx_queue_index, XDP_PASS) */
static void load_program(void)
{
    union bpf_attr map = {
        .map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 64
    };
    struct bpf_insn code[16];
    uint32_t n = 0;

    map_fd = bpf(BPF_MAP_CREATE, &map);
    if (map_fd < 0)
        die("XSKMAP");
    /* r2 = ingress_ifindex & 15, r2 *= 4, r2 += rx_queue_index */
    code[n++] = (struct bpf_insn){ BPF_LDX | BPF_MEM | BPF_W, 2, 1,
                                    offsetof(struct xdp_md, ingress_ifindex), 0 };
    code[n++] = (struct bpf_insn){ BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 15 };
    code[n++] = (struct bpf_insn){ BPF_ALU64 | BPF_LSH | BPF_K, 2, 0, 0, 2 };
    code[n++] = (struct bpf_insn){ BPF_LDX | BPF_MEM | BPF_W, 3, 1,
                                    offsetof(struct xdp_md, rx_queue_index), 0 };
    code[n++] = (struct bpf_insn){ BPF_ALU64 | BPF_ADD | BPF_X, 2, 3, 0, 0 };
    code[n++] = (struct bpf_insn){ BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map_fd };
    code[n++] = (struct bpf_insn){ 0 };
    code[n++] = (struct bpf_insn){ BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, XDP_PASS };
    code[n++] = (struct bpf_insn){ BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map };
    code[n++] = (struct bpf_insn){ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 };
    union bpf_attr prog = {
        .prog_type = BPF_PROG_TYPE_XDP,
        .insn_cnt = n,
        .insns = (uintptr_t)code,
        .license = (uintptr_t) "GPL",
    };
    prog_fd = bpf(BPF_PROG_LOAD, &prog);
    if (prog_fd < 0)
        die("program");
}

static void attach(void)
{
    for (uint32_t i = 0; i < setup.interface_cnt; i++) {
        uint32_t ifindex = if_nametoindex(setup.interfaces[i].name);
        union bpf_attr link = { .link_create = { .prog_fd = (uint32_t)prog_fd,
                                                 .target_ifindex = ifindex,
                                                 .attach_type = BPF_XDP,
                                                 .flags = XDP_FLAGS_DRV_MODE } };
        close(links[i]);
        links[i] = bpf(BPF_LINK_CREATE, &link);
        if (links[i] < 0)
            die("attach");
    }
}

static void read_mac(const char *text, uint8_t *mac)
{
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4,
               mac + 5) != 6)
        die(text);
}

static void add_face(char *text)
{
    struct face *face = &faces[setup.interface_cnt];
    const char *part[6];

    for (int i = 0; i < 6; i++) {
        part[i] = strsep(&text, ",");
        if (!part[i])
            die("an interface has six parts");
    }
    setup.interfaces[setup.interface_cnt].ifindex = if_nametoindex(part[0]);
    setup.interfaces[setup.interface_cnt].xsk_base = (if_nametoindex(part[0]) & 15) * 4;
    snprintf(setup.interfaces[setup.interface_cnt++].name, 16, "%s", part[0]);
    read_mac(part[1], face->mac);
    read_mac(part[2], face->peer_mac);
    face->vlan = atoi(part[3]);
    face->local4[10] = face->local4[11] = 0xff;
    if (inet_pton(AF_INET, part[4], face->local4 + 12) != 1 ||
        inet_pton(AF_INET6, part[5], face->local6) != 1)
        die("address");
}

static uint32_t face_of(const struct vc_tuple *tuple)
{
    for (uint32_t i = 0; i < setup.interface_cnt; i++)
        if (!memcmp(tuple->local_ip, faces[i].local4, 16) ||
            !memcmp(tuple->local_ip, faces[i].local6, 16))
            return i;
    return VC_NONE;
}

/* What the supervisor prebuilds: lengths and checksums 0. */
static uint16_t header_for(const struct vc_tuple *tuple, const struct face *face, uint8_t *h,
                           uint16_t *l3_off)
{
    int v6 = memcmp(tuple->local_ip, face->local4, 16) != 0;
    uint8_t *p = h;

    memset(h, 0, VC_HEADER_MAX);
    memcpy(p, face->peer_mac, 6);
    memcpy(p + 6, face->mac, 6);
    p += 12;
    if (face->vlan) {
        vc_store_be16(p, 0x8100);
        vc_store_be16(p + 2, (uint16_t)face->vlan);
        p += 4;
    }
    vc_store_be16(p, v6 ? 0x86dd : 0x0800);
    p += 2;
    *l3_off = (uint16_t)(p - h);
    memcpy(p, v6 ? "\x60\0\0\0\0\0\x11\x40" : "\x45\0\0\0\0\0\0\0\x40\x11\0\0", v6 ? 8 : 12);
    memcpy(p + (v6 ? 8 : 12), tuple->local_ip + (v6 ? 0 : 12), v6 ? 16 : 4);
    memcpy(p + (v6 ? 24 : 16), tuple->remote_ip + (v6 ? 0 : 12), v6 ? 16 : 4);
    p += v6 ? 40 : 20;
    memcpy(p, &tuple->local_port_be, 2);
    memcpy(p + 2, &tuple->remote_port_be, 2);
    return (uint16_t)(p + 8 - h);
}

static void answer(const struct vc_tuple *tuple, const uint8_t *data, uint32_t sz)
{
    uint8_t header[VC_HEADER_MAX];
    struct vc_io_dst dst = { .tuple = tuple, .header = header, .port = face_of(tuple), .dscp = 46 };
    struct vc_io_tx tx;

    if (dst.port == VC_NONE || sz > VC_TX_ROOM)
        return;
    dst.header_sz = header_for(tuple, &faces[dst.port], header, &dst.l3_off);
    if (io->ops->tx_reserve(io, &dst, &tx)) {
        refused++;
        return;
    }
    memcpy(tx.payload, data, sz);
    io->ops->tx_commit(io, &tx, sz);
    committed++;
}

static void print_counts(void)
{
    const struct vc_io_counts *c = &io->counts;

#define COUNT(name) printf("\"" #name "\":%llu,", (unsigned long long)c->name)
    printf("{");
    COUNT(malformed);
    COUNT(rx_packets);
    COUNT(tx_sent);
    COUNT(tx_errors);
    COUNT(tx_bytes);
    COUNT(tx_kicks);
    COUNT(tx_again);
    COUNT(xsk_rx_dropped);
    COUNT(xsk_rx_ring_full);
    COUNT(xsk_fill_empty);
    COUNT(xsk_tx_invalid);
    COUNT(frames_total);
    COUNT(frames_free);
    COUNT(frames_rx);
    COUNT(frames_tx);
    printf("\"zerocopy\":%d,\"refused\":%llu,\"committed\":%llu}\n", vc_io_xsk_zerocopy(io, 0),
           (unsigned long long)refused, (unsigned long long)committed);
    fflush(stdout);
}

static uint64_t clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void send_some(int n)
{
    static const uint8_t payload[900];

    for (int i = 0; i < n; i++) {
        answer(&last, payload, sizeof payload);
        if (i % 16 == 15 || i + 1 == n)
            io->ops->tx_flush(io);
    }
}

/* Returns 0 at the end of input. */
static int obey(void)
{
    static char text[256];
    static size_t sz;
    ssize_t got = read(0, text + sz, sizeof text - 1 - sz);
    char *end;

    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    sz += (size_t)got;
    text[sz] = 0;
    while ((end = strchr(text, '\n'))) {
        *end++ = 0;
        if (!strcmp(text, "counts"))
            print_counts();
        else if (!strcmp(text, "attach"))
            attach();
        else if (!strncmp(text, "send ", 5))
            send_some(atoi(text + 5));
        sz -= (size_t)(end - text);
        memmove(text, end, sz + 1);
    }
    return 1;
}

static void echo(void)
{
    struct vc_io_rx pkts[VC_IO_BURST];
    uint32_t n = io->ops->rx(io, pkts, 16, clock_ns());

    for (uint32_t i = 0; i < n; i++) {
        answer(&pkts[i].tuple, pkts[i].data, pkts[i].sz);
        last = pkts[i].tuple;
    }
    io->ops->rx_done(io);
    if (n)
        io->ops->tx_flush(io);
}

static void wait_for_work(void)
{
    struct pollfd polls[VC_INTERFACES_MAX + 1] = { { .fd = 0, .events = POLLIN } };
    int fds[VC_INTERFACES_MAX], n = io->ops->sleep_fds(io, fds, VC_INTERFACES_MAX);

    for (int i = 0; i < n; i++)
        polls[i + 1] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
    poll(polls, n < 0 ? 1 : (nfds_t)n + 1, n < 0 ? 0 : 20);
}

int main(int argc, char **argv)
{
    const char *why;

    if (argc < 3 || argc > 2 + (int)VC_INTERFACES_MAX)
        die("usage");
    setup.worker_cnt = 1;
    setup.frames = (uint32_t)atoi(argv[1]);
    setup.busy_poll = strchr(argv[1], 'b') != NULL;
    for (int i = 2; i < argc; i++)
        add_face(argv[i]);
    memset(links, 0xff, sizeof links);
    load_program();
    io = vc_io_xsk_new(&setup, 0, map_fd, &why);
    if (!io) {
        printf("%s\n", why);
        return 1;
    }
    attach();
    fcntl(0, F_SETFL, O_NONBLOCK);
    printf("ready\n");
    fflush(stdout);
    while (obey()) {
        echo();
        io->ops->housekeeping(io, clock_ns());
        wait_for_work();
    }
    io->ops->delete (io);
    return 0;
}
