/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Loses UDP datagrams of one port on one direction of a link, by a seeded coin.
 *
 * A tc classifier for a browser's interface (its host, not the node's).  Whatever the datagram
 * carries, STUN, DTLS, QUIC, RTP, RTCP: the n-th one of a run is lost or kept by (seed, n) alone.
 * Frames with VLAN tags, IP options or extension headers are kept and not counted. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { OFFERED, DROPPED, COUNTERS };

const volatile __u32 port;
const volatile __u32 seed;
const volatile __u32 threshold; /* of 2^32: what the coin must stay below to lose */

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

/* splitmix64's finisher. */
static __u64 mix(__u64 x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static int ours(struct __sk_buff *skb)
{
    struct udphdr udp;
    __u32 at = ETH_HLEN;
    if (skb->protocol == bpf_htons(ETH_P_IP)) {
        struct iphdr ip;
        if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP ||
            ip.ihl != 5) {
            return 0;
        }
        at += sizeof(ip);
    } else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
        struct ipv6hdr ip;
        if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_UDP) {
            return 0;
        }
        at += sizeof(ip);
    } else {
        return 0;
    }
    if (bpf_skb_load_bytes(skb, at, &udp, sizeof(udp))) {
        return 0;
    }
    return udp.source == bpf_htons((__u16)port) || udp.dest == bpf_htons((__u16)port);
}

SEC("tc")
int lose(struct __sk_buff *skb)
{
    if (!ours(skb)) {
        return TC_ACT_OK;
    }
    __u32 at = OFFERED;
    __u64 *offered = bpf_map_lookup_elem(&counters, &at);
    at = DROPPED;
    __u64 *dropped = bpf_map_lookup_elem(&counters, &at);
    if (!offered || !dropped) {
        return TC_ACT_OK;
    }
    __u64 number = __sync_fetch_and_add(offered, 1);
    __u32 coin = (__u32)mix(((__u64)seed << 40) ^ number);
    if (coin >= threshold) {
        return TC_ACT_OK;
    }
    __sync_fetch_and_add(dropped, 1);
    return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
