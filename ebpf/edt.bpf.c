/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Departure times for the socket path (tc egress classifier): each packet of a paced flow is
   stamped with the earliest time at which it may leave (skb->tstamp, CLOCK_MONOTONIC), and fq
   holds it until then.  Without fq nobody reads the stamp, so this is loaded only where the
   interface has it.

   A flow keeps one number, the time at which its next packet is due.  A packet leaves then, or at
   once when that time has passed; the number moves on by the packet's size at the flow's rate, and
   never lags more than the burst behind.  A time that the sender set itself (SO_TXTIME) is a lower
   bound.  A packet that would have to wait longer than fq's horizon is dropped here, where it is
   counted, and takes no room from those after it.

   Rates and times are separate maps: user space may change a rate without a race for the time.
   The time is not atomic: the packets of one flow come from one thread. */
#include <linux/pkt_cls.h>

#include "edt.h"
#include "parse.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define VC_NS_PER_S 1000000000ULL
#define VC_EDT_HEADERS (sizeof(struct ethhdr) + VC_VLAN_TAGS_MAX * sizeof(struct vc_vlan_hdr) + \
                        sizeof(struct ipv6hdr) + sizeof(struct udphdr))
#define VC_EDT_FRAME_MAX (1U << 18) /* bytes: a merged datagram and its headers, bounds a product */

const volatile __u64 vc_edt_horizon_ns = 250000000; /* well below fq's own, 10 s */

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, VC_EDT_FLOWS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct vc_edt_key);
    __type(value, struct vc_edt_rate);
} edt_rates SEC(".maps");

/* When the next packet of a flow is due, in ns.  Made with the rate, by user space. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, VC_EDT_FLOWS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct vc_edt_key);
    __type(value, __u64);
} edt_next SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, VC_EDT_OUTCOME_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} edt_outcomes SEC(".maps");

/* The flow of a frame on its way out; lengths do not matter here, the kernel made them. */
static __always_inline int vc_edt_flow(const struct __sk_buff *skb, struct vc_edt_key *key)
{
    struct vc_cursor cur = {(const void *)(long)skb->data, (const void *)(long)skb->data_end};
    struct vc_packet pkt = {0};
    const struct udphdr *udp;
    __be16 eth_proto = 0;
    __u32 l4_sz = 0;
    int verdict = vc_parse_eth(&cur, &eth_proto);

    if (verdict != VC_PARSE_ON)
        return 0;
    if (eth_proto == bpf_htons(ETH_P_IP))
        verdict = vc_parse_ipv4(&cur, &pkt, &l4_sz);
    else if (eth_proto == bpf_htons(ETH_P_IPV6))
        verdict = vc_parse_ipv6(&cur, &pkt, &l4_sz);
    else
        return 0;
    udp = cur.at;
    if (verdict != VC_PARSE_ON || (const void *)(udp + 1) > cur.end)
        return 0;
    __builtin_memcpy(key->remote_ip, pkt.key.local_ip, sizeof(key->remote_ip)); /* destination */
    key->remote_port_be = udp->dest;
    key->local_port_be = udp->source;
    return 1;
}

static __always_inline __u32 vc_edt_stamp(struct __sk_buff *skb, const struct vc_edt_rate *rate,
                                          __u64 *next_ns)
{
    __u64 now_ns = bpf_ktime_get_ns();
    __u64 wanted_ns = skb->tstamp > now_ns ? skb->tstamp : now_ns;
    __u64 frame_sz = skb->wire_len < VC_EDT_FRAME_MAX ? skb->wire_len : VC_EDT_FRAME_MAX;
    __u64 due_ns = *next_ns > wanted_ns ? *next_ns : wanted_ns;
    __u64 earliest_ns = wanted_ns > rate->burst_ns ? wanted_ns - rate->burst_ns : 0;

    if (due_ns - wanted_ns > vc_edt_horizon_ns)
        return VC_EDT_BEYOND;
    *next_ns = (*next_ns > earliest_ns ? *next_ns : earliest_ns) +
               frame_sz * VC_NS_PER_S / rate->bytes_per_s;
    if (due_ns == wanted_ns)
        return VC_EDT_AT_ONCE;
    skb->tstamp = due_ns;
    return VC_EDT_STAMPED;
}

static __always_inline __u32 vc_edt_outcome(struct __sk_buff *skb)
{
    struct vc_edt_key key = {0};
    struct vc_edt_rate *rate;
    __u64 *next_ns;

    /* Headers may lie in fragments; what is too short has none that we know. */
    if ((const void *)(long)skb->data + VC_EDT_HEADERS > (const void *)(long)skb->data_end &&
        bpf_skb_pull_data(skb, skb->len < VC_EDT_HEADERS ? skb->len : VC_EDT_HEADERS))
        return VC_EDT_PASSED;
    if (!vc_edt_flow(skb, &key))
        return VC_EDT_PASSED;
    rate = bpf_map_lookup_elem(&edt_rates, &key);
    next_ns = bpf_map_lookup_elem(&edt_next, &key);
    if (!rate || !next_ns || !rate->bytes_per_s)
        return VC_EDT_PASSED;
    return vc_edt_stamp(skb, rate, next_ns);
}

SEC("tc")
int vc_edt(struct __sk_buff *skb)
{
    __u32 outcome = vc_edt_outcome(skb);
    __u64 *counter = bpf_map_lookup_elem(&edt_outcomes, &outcome);

    if (counter)
        *counter += 1;
    return outcome == VC_EDT_BEYOND ? TC_ACT_SHOT : TC_ACT_OK;
}
