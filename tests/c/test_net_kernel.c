/* SPDX-License-Identifier: MIT */
/* A frame completed by vc_net_finish goes over a veth to a UDP socket: what the kernel takes is
   right, and what it does not shows in InCsumErrors.  Needs root (a network namespace of its
   own). */
#include "net.h"

#include "check.h"
#include "frames.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int shell(const char *line)
{
    int status = system(line);

    if (status)
        fprintf(stderr, "failed: %s\n", line);
    return status;
}

static int build(void)
{
    return shell("ip link set lo up && ip link add vcnk0 type veth peer name vcnk1"
                 " && sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.vcnk1.rp_filter=0"
                 " && ip link set vcnk1 address 02:00:00:00:00:01"
                 " && ip addr add 10.77.0.1/24 dev vcnk1"
                 " && ip addr add 2001:db8:77::1/64 dev vcnk1 nodad"
                 " && ip link set vcnk0 up && ip link set vcnk1 up"
                 /* until then its queue throws everything away */
                 " && for i in $(seq 1000); do"
                 "  ip link show vcnk0 | grep -q 'qdisc noqueue.*state UP' && exit 0; done; exit 1");
}

/* The value of `name` in snmp6, or of the Udp line's `name` in snmp. */
static long counter(const char *name)
{
    char head[1024], line[1024];
    FILE *f = fopen("/proc/self/net/snmp6", "r");
    long value = -1;

    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name)))
            value = atol(line + strlen(name));
    if (f)
        fclose(f);
    if (value >= 0)
        return value;
    f = fopen("/proc/self/net/snmp", "r");
    while (f && fgets(head, sizeof head, f) && fgets(line, sizeof line, f)) {
        char *h, *v, *hs, *vs;

        if (strncmp(head, "Udp:", 4))
            continue;
        for (h = strtok_r(head, " \n", &hs), v = strtok_r(line, " \n", &vs); h && v;
             h = strtok_r(NULL, " \n", &hs), v = strtok_r(NULL, " \n", &vs))
            if (!strcmp(h, name))
                value = atol(v);
    }
    if (f)
        fclose(f);
    return value;
}

static int receiver(int family)
{
    struct sockaddr_in6 any6 = { .sin6_family = AF_INET6, .sin6_port = htons(40000) };
    struct sockaddr_in any4 = { .sin_family = AF_INET, .sin_port = htons(40000) };
    struct timeval limit = { .tv_sec = 2 };
    int fd = socket(family, SOCK_DGRAM, 0), on = 1;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (family == AF_INET ? bind(fd, (struct sockaddr *)&any4, sizeof any4) :
                            bind(fd, (struct sockaddr *)&any6, sizeof any6))
        return -1;
    return fd;
}

static void test_family(int wire, uint32_t v6)
{
    static const uint32_t sizes[] = { 0,  1,   2,   3,   17,   18,   63,   64,
                                      65, 171, 500, 999, 1200, 1201, 1451, 1452 };
    const char *errors = v6 ? "Udp6InCsumErrors" : "InCsumErrors";
    struct sockaddr_ll to = { .sll_family = AF_PACKET,
                              .sll_ifindex = (int)if_nametoindex("vcnk0"),
                              .sll_halen = 6 };
    long before = counter(errors);
    uint64_t seed = 7 + v6;
    int fd = receiver(v6 ? AF_INET6 : AF_INET);
    uint8_t frame[1600], got[1600];
    uint32_t header_sz = make_header(frame, v6, 0);

    CHECK(fd >= 0 && before >= 0);
    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t sz = sizes[i];

        for (uint32_t k = 0; k < sz; k++)
            frame[header_sz + k] = (uint8_t)check_random(&seed);
        vc_net_finish(frame, header_sz, 14, sz, (uint8_t)(i * 4));
        CHECK_EQ(sendto(wire, frame, header_sz + sz, 0, (struct sockaddr *)&to, sizeof to),
                 header_sz + sz);
        CHECK_EQ(recv(fd, got, sizeof got, 0), sz);
        CHECK(!memcmp(got, frame + header_sz, sz));
    }
    CHECK_EQ(counter(errors), before);

    /* the proof that a wrong one would have been seen */
    frame[header_sz] ^= 1;
    CHECK(sendto(wire, frame, header_sz + 1452, 0, (struct sockaddr *)&to, sizeof to) > 0);
    frame[header_sz] ^= 1;
    CHECK(sendto(wire, frame, header_sz + 1452, 0, (struct sockaddr *)&to, sizeof to) > 0);
    CHECK_EQ(recv(fd, got, sizeof got, 0), 1452);
    CHECK_EQ(counter(errors), before + 1);
    close(fd);
}

int main(void)
{
    int wire;

    if (unshare(CLONE_NEWNET)) {
        check_skip("the kernel's opinion", "a network namespace needs root");
        return check_report();
    }
    CHECK_EQ(build(), 0);
    wire = socket(AF_PACKET, SOCK_RAW, 0);
    CHECK(wire >= 0);
    test_family(wire, 0);
    test_family(wire, 1);
    close(wire);
    return check_report();
}
