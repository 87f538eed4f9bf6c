/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The SO_REUSEPORT selector: the same table of first bytes and the same guard, on the socket
   path.  One instance for each local address, with a `select_group` of its own.

   datagram -> media --> in `flows`? --no--> DROP; over its rate? --> DROP; else socket 1 + worker
            -> control --> guard --over--> DROP; else socket 0

   What the steering program passed comes by here too (control, and media with no AF_XDP socket);
   it is charged to this path's own buckets, so nothing is charged twice, and what the steering
   program does not parse (reassembled fragments, IP options) does not go round the guard. */
#define VC_SELECT

#include <stddef.h>

#include "parse.h"

#include "guard.h"
#include "maps.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

static __always_inline int vc_read_addresses(struct sk_reuseport_md *md, struct vc_flow_key *key)
{
    __be32 ipv4[2]; /* source, destination */

    if (md->eth_protocol == bpf_htons(ETH_P_IPV6))
        return bpf_skb_load_bytes_relative(md, offsetof(struct ipv6hdr, saddr), key->remote_ip, 32,
                                           BPF_HDR_START_NET);
    if (bpf_skb_load_bytes_relative(md, offsetof(struct iphdr, saddr), ipv4, sizeof(ipv4),
                                    BPF_HDR_START_NET))
        return -1;
    vc_map_ipv4(key->remote_ip, ipv4[0]);
    vc_map_ipv4(key->local_ip, ipv4[1]);
    return 0;
}

static __always_inline enum vc_verdict vc_select_verdict(struct sk_reuseport_md *md, __u32 *index)
{
    enum vc_class packet_class = VC_CLASS_NONE;
    struct vc_flow_key key = {};
    struct vc_flow *flow;
    struct udphdr udp;
    __u8 first_byte;

    if (bpf_skb_load_bytes(md, 0, &udp, sizeof(udp)) || vc_read_addresses(md, &key))
        return VC_VERDICT_DROP_BAD_CLASS;
    key.remote_port_be = udp.source;
    key.local_port_be = udp.dest;
    if (!bpf_skb_load_bytes(md, sizeof(udp), &first_byte, 1))
        packet_class = vc_classify(first_byte);
    if (packet_class == VC_CLASS_NONE)
        return VC_VERDICT_DROP_BAD_CLASS;
    if (packet_class != VC_CLASS_MEDIA)
        return vc_guard_control(&key, packet_class, VC_PATH_SOCKET);
    flow = bpf_map_lookup_elem(&flows, &key);
    if (!flow)
        return VC_VERDICT_DROP_UNKNOWN_FLOW;
    if (!vc_guard_media(flow, md->len - sizeof(udp), VC_PATH_SOCKET))
        return VC_VERDICT_DROP_FLOW_RATE;
    *index = 1 + flow->worker;
    return VC_VERDICT_SELECT_MEDIA;
}

static __always_inline int vc_is_selected(enum vc_verdict verdict)
{
    return verdict == VC_VERDICT_SELECT_MEDIA || verdict == VC_VERDICT_PASS_STUN ||
           verdict == VC_VERDICT_PASS_DTLS || verdict == VC_VERDICT_PASS_QUIC;
}

SEC("sk_reuseport")
int vc_select(struct sk_reuseport_md *md)
{
    __u32 index = 0;
    __u32 verdict = vc_select_verdict(md, &index);
    int answer = SK_DROP;
    __u64 *counter;

    if (vc_is_selected(verdict)) {
        if (bpf_sk_select_reuseport(md, &select_group, &index, 0))
            verdict = VC_VERDICT_DROP_NO_SOCKET;
        else
            answer = SK_PASS;
    }
    counter = bpf_map_lookup_elem(&select_verdicts, &verdict);
    if (counter)
        *counter += 1;
    return answer;
}
