/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A NAT that gives a browser another port, and later yet another: IPv4, UDP, both ways.
 *
 * A tc classifier for a browser's interface.  `inbound` 0 (egress): the source port of datagrams to
 * the node is XORed with the map's value; `inbound` 1 (ingress): the destination port of those from
 * it, so that the browser notices nothing.  Changing the value is a rebinding. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 port; /* the node's */
const volatile __u32 inbound;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} masks SEC(".maps");

SEC("tc")
int rebind(struct __sk_buff *skb)
{
    const __u32 at = ETH_HLEN + sizeof(struct iphdr);
    struct iphdr ip;
    struct udphdr udp;
    __u32 zero = 0;
    __u64 *mask = bpf_map_lookup_elem(&masks, &zero);

    if (!mask || !*mask || skb->protocol != bpf_htons(ETH_P_IP) ||
        bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP ||
        ip.ihl != 5 || bpf_skb_load_bytes(skb, at, &udp, sizeof(udp))) {
        return TC_ACT_OK;
    }
    __u32 where = at + offsetof(struct udphdr, source);
    __be16 theirs = udp.dest, old = udp.source;
    if (inbound) {
        where = at + offsetof(struct udphdr, dest);
        theirs = udp.source;
        old = udp.dest;
    }
    if (theirs != bpf_htons((__u16)port)) {
        return TC_ACT_OK;
    }
    __be16 new = old ^ bpf_htons((__u16)*mask);
    bpf_l4_csum_replace(skb, at + offsetof(struct udphdr, check), old, new, sizeof(new));
    bpf_skb_store_bytes(skb, where, &new, sizeof(new), 0);
    return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
