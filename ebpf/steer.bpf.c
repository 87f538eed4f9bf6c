/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The steering program: parse, verdict, count, redirect or pass.

   frame -> UDP to a `listen` entry? --no--> PASS (untouched, as if we were absent)
              | yes
              v first byte
           media --> in `flows`? --no--> DROP        control --> guard --over--> DROP
              | yes                                     | within
              v within the flow's rate? --no--> DROP    v
           AF_XDP socket there? --no--> PASS          PASS (slow socket)
              | yes                (media socket)
              v
           REDIRECT

   It never writes to a packet.  README.md has the kernel floor and the reasons. */
#define VC_STEER

#include "parse.h"

#include "guard.h"
#include "maps.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

static __always_inline int vc_is_ours(const struct vc_flow_key *key)
{
    struct vc_listen_key local = {.local_port_be = key->local_port_be};

    __builtin_memcpy(local.local_ip, key->local_ip, sizeof(local.local_ip));
    return bpf_map_lookup_elem(&listen, &local) != NULL;
}

/* On REDIRECT_MEDIA, *index is the socket.  The lookup is for the counter, and for the queue: a
   socket bound to another queue would swallow the packet. */
static __always_inline enum vc_verdict vc_steer_media(const struct xdp_md *ctx,
                                                      const struct vc_packet *pkt, __u32 *index)
{
    struct vc_flow *flow = bpf_map_lookup_elem(&flows, &pkt->key);
    __u32 ifindex = ctx->ingress_ifindex;
    const struct bpf_xdp_sock *xsk;
    const __u32 *base;

    if (!flow)
        return VC_VERDICT_DROP_UNKNOWN_FLOW;
    if (!vc_guard_media(flow, pkt->payload_sz, VC_PATH_XDP))
        return VC_VERDICT_DROP_FLOW_RATE;
    base = bpf_map_lookup_elem(&port_base, &ifindex);
    if (!base)
        return VC_VERDICT_PASS_NO_XSK;
    *index = *base + ctx->rx_queue_index;
    xsk = bpf_map_lookup_elem(&xsks, index);
    if (!xsk || xsk->queue_id != ctx->rx_queue_index)
        return VC_VERDICT_PASS_NO_XSK;
    return VC_VERDICT_REDIRECT_MEDIA;
}

static __always_inline enum vc_verdict vc_steer_verdict(const struct xdp_md *ctx, __u32 *index)
{
    struct vc_packet pkt = {};
    enum vc_class packet_class;
    int verdict = vc_parse(ctx, &pkt);

    if (verdict != VC_PARSE_ON)
        return verdict;
    if (!vc_is_ours(&pkt.key))
        return VC_VERDICT_PASS_NOT_OURS;
    packet_class = pkt.payload_sz ? vc_classify(pkt.first_byte) : VC_CLASS_NONE;
    if (packet_class == VC_CLASS_NONE)
        return VC_VERDICT_DROP_BAD_CLASS;
    if (packet_class == VC_CLASS_MEDIA)
        return vc_steer_media(ctx, &pkt, index);
    return vc_guard_control(&pkt.key, packet_class, VC_PATH_XDP);
}

static __always_inline int vc_is_drop(enum vc_verdict verdict)
{
    return verdict == VC_VERDICT_DROP_UNKNOWN_FLOW || verdict == VC_VERDICT_DROP_FLOW_RATE ||
           verdict == VC_VERDICT_DROP_CONTROL_RATE || verdict == VC_VERDICT_DROP_PREFIX_RATE ||
           verdict == VC_VERDICT_DROP_BAD_CLASS;
}

SEC("xdp")
int vc_steer(struct xdp_md *ctx)
{
    __u32 index = 0;
    __u32 verdict = vc_steer_verdict(ctx, &index);
    __u64 *counter = bpf_map_lookup_elem(&verdicts, &verdict);

    if (counter)
        *counter += 1;
    if (verdict == VC_VERDICT_REDIRECT_MEDIA)
        return (int)bpf_redirect_map(&xsks, index, XDP_PASS);
    return vc_is_drop(verdict) ? XDP_DROP : XDP_PASS;
}
