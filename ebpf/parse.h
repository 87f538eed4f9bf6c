/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A bounds-checked cursor: Ethernet, up to two VLAN tags, IPv4 without options or fragments,
   IPv6 without extension headers, UDP.  Each step answers VC_PARSE_ON, or the verdict that
   ends the way of this packet.  Whatever is not understood is passed to the kernel, which knows
   better; nothing here ever writes to the packet. */
#ifndef VC_EBPF_PARSE_H
#define VC_EBPF_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define VC_PARSE_ON (-1)
#define VC_VLAN_TAGS_MAX 2
#define VC_IP_FRAGMENT 0x3fff /* more fragments, or an offset */

struct vc_cursor {
    const void *at;
    const void *end;
};

/* What the rest of the program needs to know of a packet. */
struct vc_packet {
    struct vc_flow_key key;
    __u32 payload_sz; /* UDP payload in bytes, by the UDP header */
    __u8 first_byte;  /* 0 when payload_sz is 0 */
};

struct vc_vlan_hdr {
    __be16 tci;
    __be16 eth_proto;
};

static __always_inline void vc_map_ipv4(__u8 ip[16], __be32 addr)
{
    __u32 *word = (__u32 *)ip;

    word[0] = 0;
    word[1] = 0;
    word[2] = bpf_htonl(0xffff);
    word[3] = addr;
}

/* An IPv4-mapped address in an IPv6 header would alias an IPv4 flow. */
static __always_inline int vc_is_mapped(const struct in6_addr *addr)
{
    return !addr->in6_u.u6_addr32[0] && !addr->in6_u.u6_addr32[1] &&
           addr->in6_u.u6_addr32[2] == bpf_htonl(0xffff);
}

static __always_inline int vc_parse_eth(struct vc_cursor *cur, __be16 *eth_proto)
{
    const struct ethhdr *eth = cur->at;
    __be16 proto;

    if ((const void *)(eth + 1) > cur->end)
        return VC_VERDICT_PASS_TRUNCATED;
    proto = eth->h_proto;
    cur->at = eth + 1;
#pragma unroll
    for (int i = 0; i < VC_VLAN_TAGS_MAX; i++) {
        const struct vc_vlan_hdr *tag = cur->at;

        if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
            break;
        if ((const void *)(tag + 1) > cur->end)
            return VC_VERDICT_PASS_TRUNCATED;
        proto = tag->eth_proto;
        cur->at = tag + 1;
    }
    *eth_proto = proto;
    return VC_PARSE_ON;
}

static __always_inline int vc_parse_ipv4(struct vc_cursor *cur, struct vc_packet *pkt,
                                         __u32 *l4_sz)
{
    const struct iphdr *ip = cur->at;
    __u32 total_sz;

    if ((const void *)(ip + 1) > cur->end)
        return VC_VERDICT_PASS_TRUNCATED;
    if (ip->version != 4)
        return VC_VERDICT_PASS_NOT_IP;
    if (ip->protocol != IPPROTO_UDP)
        return VC_VERDICT_PASS_NOT_UDP;
    if (ip->ihl != 5 || (ip->frag_off & bpf_htons(VC_IP_FRAGMENT)))
        return VC_VERDICT_PASS_COMPLEX;
    total_sz = bpf_ntohs(ip->tot_len);
    if (total_sz < sizeof(*ip))
        return VC_VERDICT_PASS_TRUNCATED;
    *l4_sz = total_sz - sizeof(*ip);
    vc_map_ipv4(pkt->key.remote_ip, ip->saddr);
    vc_map_ipv4(pkt->key.local_ip, ip->daddr);
    cur->at = ip + 1;
    return VC_PARSE_ON;
}

static __always_inline int vc_is_ipv6_extension(__u8 next_header)
{
    return next_header == IPPROTO_HOPOPTS || next_header == IPPROTO_ROUTING ||
           next_header == IPPROTO_FRAGMENT || next_header == IPPROTO_ESP ||
           next_header == IPPROTO_AH || next_header == IPPROTO_DSTOPTS ||
           next_header == IPPROTO_MH || next_header == 139 /* HIP */ ||
           next_header == 140 /* Shim6 */;
}

static __always_inline int vc_parse_ipv6(struct vc_cursor *cur, struct vc_packet *pkt,
                                         __u32 *l4_sz)
{
    const struct ipv6hdr *ip = cur->at;

    if ((const void *)(ip + 1) > cur->end)
        return VC_VERDICT_PASS_TRUNCATED;
    if (ip->version != 6)
        return VC_VERDICT_PASS_NOT_IP;
    if (vc_is_ipv6_extension(ip->nexthdr))
        return VC_VERDICT_PASS_COMPLEX;
    if (ip->nexthdr != IPPROTO_UDP)
        return VC_VERDICT_PASS_NOT_UDP;
    if (vc_is_mapped(&ip->saddr) || vc_is_mapped(&ip->daddr))
        return VC_VERDICT_PASS_NOT_OURS;
    *l4_sz = bpf_ntohs(ip->payload_len);
    __builtin_memcpy(pkt->key.remote_ip, &ip->saddr, 16);
    __builtin_memcpy(pkt->key.local_ip, &ip->daddr, 16);
    cur->at = ip + 1;
    return VC_PARSE_ON;
}

/* The frame may be longer than the datagram (Ethernet pads), never shorter. */
static __always_inline int vc_parse_udp(struct vc_cursor *cur, struct vc_packet *pkt, __u32 l4_sz)
{
    const struct udphdr *udp = cur->at;
    const __u8 *payload = (const __u8 *)(udp + 1);
    __u32 frame_sz, udp_sz;

    if ((const void *)payload > cur->end)
        return VC_VERDICT_PASS_TRUNCATED;
    frame_sz = (__u32)(cur->end - (const void *)udp);
    udp_sz = bpf_ntohs(udp->len);
    if (udp_sz < sizeof(*udp) || udp_sz > l4_sz || l4_sz > frame_sz)
        return VC_VERDICT_PASS_TRUNCATED;
    pkt->key.remote_port_be = udp->source;
    pkt->key.local_port_be = udp->dest;
    pkt->payload_sz = udp_sz - sizeof(*udp);
    pkt->first_byte = 0;
    if (!pkt->payload_sz)
        return VC_PARSE_ON;
    if ((const void *)(payload + 1) > cur->end)
        return VC_VERDICT_PASS_TRUNCATED;
    pkt->first_byte = *payload;
    return VC_PARSE_ON;
}

static __always_inline int vc_parse(const struct xdp_md *ctx, struct vc_packet *pkt)
{
    struct vc_cursor cur = {(const void *)(long)ctx->data, (const void *)(long)ctx->data_end};
    __be16 eth_proto = 0;
    __u32 l4_sz = 0;
    int verdict = vc_parse_eth(&cur, &eth_proto);

    if (verdict != VC_PARSE_ON)
        return verdict;
    if (eth_proto == bpf_htons(ETH_P_IP))
        verdict = vc_parse_ipv4(&cur, pkt, &l4_sz);
    else if (eth_proto == bpf_htons(ETH_P_IPV6))
        verdict = vc_parse_ipv6(&cur, pkt, &l4_sz);
    else
        return VC_VERDICT_PASS_NOT_IP;
    if (verdict != VC_PARSE_ON)
        return verdict;
    return vc_parse_udp(&cur, pkt, l4_sz);
}

#endif
