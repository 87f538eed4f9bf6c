/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Counts and drops RTP-over-UDP of media size to a range of ports.  A packet is dropped if and
   only if it was counted; everything else goes to the kernel.  While `stamping` is on, each packet
   to the first `stamp_ports` ports leaves a stamp, or is counted in `lost`; one packet in `sample_every`
   leaves itself as a whole.  On veth this runs inside the sender's transmit call. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "rig.h"

const volatile __u32 port_base = 0;
const volatile __u32 port_count = 0;
const volatile __u32 stamp_ports = 0;
const volatile __u32 min_payload = 28;
const volatile __u32 sample_every = 0;
__u32 stamping = 0;

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct port_count);
} counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 2); /* stamps lost; packets seen by the sampler */
    __type(key, __u32);
    __type(value, __u64);
} lost SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} stamps SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} samples SEC(".maps");

struct rtp {
    __u8 version, type;
    __u16 sequence;
    __u32 time, ssrc;
} __attribute__((packed));

static __always_inline void leave_stamp(const struct rtp *rtp, __u16 port, __u16 length)
{
    struct stamp *s = bpf_ringbuf_reserve(&stamps, sizeof *s, 0);
    __u32 key = 0;
    __u64 *missed;

    if (!s) {
        missed = bpf_map_lookup_elem(&lost, &key);
        if (missed)
            ++*missed;
        return;
    }
    s->arrival_ns = bpf_ktime_get_ns();
    s->ssrc = bpf_ntohl(rtp->ssrc);
    s->rtp_time = bpf_ntohl(rtp->time);
    s->port = port;
    s->sequence = bpf_ntohs(rtp->sequence);
    s->length = length;
    s->type = rtp->type;
    bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP); /* the reader polls: no wake-up in the sender's path */
}

static __always_inline void leave_sample(struct xdp_md *ctx, __u32 at, __u16 port, __u32 length)
{
    __u32 key = 1;
    __u64 *seen = bpf_map_lookup_elem(&lost, &key);
    struct sample *s;

    if (!seen || ++*seen % sample_every || length < 1 || length > SAMPLE_MAX)
        return;
    s = bpf_ringbuf_reserve(&samples, sizeof *s, 0);
    if (!s)
        return;
    s->length = length;
    s->port = port;
    asm volatile("" : "+r"(length)); /* the verifier wants the check on the register that is passed */
    if (length < 1 || length > SAMPLE_MAX) {
        bpf_ringbuf_discard(s, BPF_RB_NO_WAKEUP);
        return;
    }
    if (bpf_xdp_load_bytes(ctx, at, s->data, length))
        bpf_ringbuf_discard(s, BPF_RB_NO_WAKEUP);
    else
        bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP);
}

SEC("xdp")
int receiver(struct xdp_md *ctx)
{
    void *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = (void *)(long)ctx->data;
    struct iphdr *ip = (void *)(eth + 1);
    struct udphdr *udp = (void *)(ip + 1);
    struct rtp *rtp = (void *)(udp + 1);
    struct port_count *count;
    __u32 key, length;
    __u16 port;

    if ((void *)(rtp + 1) > end)
        return XDP_PASS;
    if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_UDP)
        return XDP_PASS;
    if (ip->frag_off & bpf_htons(0x3fff))
        return XDP_PASS;
    port = bpf_ntohs(udp->dest);
    key = port - port_base;
    length = bpf_ntohs(udp->len) - sizeof *udp;
    /* 192..223 in the second byte is RTCP (RFC 5761) */
    if (key >= port_count || length > 0xffff - sizeof *udp || length < min_payload || rtp->version >> 6 != 2 ||
        (rtp->type >= 192 && rtp->type <= 223))
        return XDP_PASS;
    count = bpf_map_lookup_elem(&counts, &key);
    if (!count)
        return XDP_PASS;
    count->packets++;
    count->bytes += length;
    if (stamping && key < stamp_ports)
        leave_stamp(rtp, port, (__u16)length);
    if (sample_every)
        leave_sample(ctx, (__u32)((void *)rtp - (void *)eth), port, length);
    return XDP_DROP;
}

char gpl_license[] SEC("license") = "Dual MIT/GPL";
