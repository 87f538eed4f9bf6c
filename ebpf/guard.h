/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Token buckets: who may send how much, before it costs anybody a system call.

   media    of a known flow -> the flow's media bucket (bytes and packets)
   control  of a known flow -> the flow's control bucket
            of an admitted 5-tuple -> its own bucket
            of anybody else -> the bucket of its prefix and class

   Each program charges buckets of its own (struct vc_guard says why).  Those of the socket path
   are twice as deep: packets bunch between the two programs, and what one of them let through
   the other must not refuse.
   Rates are load-time constants; user space sets them before the verifier sees the program. */
#ifndef VC_EBPF_GUARD_H
#define VC_EBPF_GUARD_H

#include "maps.h"
#include "verdict.h"

/* Refills come in steps: a shorter step would lose its fraction of a token each time, and a
   flood of packets would starve the bucket of refills. */
#define VC_REFILL_STEP_US 1000
#define VC_REFILL_LONGEST_US 4000000 /* bounds the product of time and rate */


const volatile __u64 vc_flow_bytes_per_s = 12500000; /* 100 Mb/s */
const volatile __u64 vc_flow_burst_bytes = 524288;
const volatile __u32 vc_flow_packets_per_s = 20000;
const volatile __u32 vc_flow_burst_packets = 8192;
const volatile __u32 vc_control_packets_per_s = 2000;
const volatile __u32 vc_control_burst_packets = 4000;
const volatile __u32 vc_admitted_packets_per_s = 2000;
const volatile __u32 vc_admitted_burst_packets = 4000;
const volatile __u32 vc_prefix_packets_per_s = 2000;
const volatile __u32 vc_prefix_burst_packets = 4000;

enum vc_path { VC_PATH_XDP = 0, VC_PATH_SOCKET = 1 };

/* bytes_per_s 0: bytes are not limited. */
struct vc_limits {
    __u64 bytes_per_s;
    __u64 burst_bytes;
    __u32 packets_per_s;
    __u32 burst_packets;
};

static __always_inline void vc_bucket_fill(struct vc_bucket *bucket, const struct vc_limits *limits,
                                           __u64 now_ns)
{
    __u64 packets_most = (__u64)limits->burst_packets * 1000;
    __u64 elapsed_us, packets;

    if (!bucket->last_ns) {
        bucket->last_ns = now_ns;
        bucket->packet_tokens = (__u32)packets_most;
        bucket->byte_tokens = limits->burst_bytes;
        return;
    }
    if (now_ns <= bucket->last_ns) /* another CPU was here a moment ago */
        return;
    elapsed_us = (now_ns - bucket->last_ns) / 1000;
    if (elapsed_us < VC_REFILL_STEP_US)
        return;
    if (elapsed_us > VC_REFILL_LONGEST_US)
        elapsed_us = VC_REFILL_LONGEST_US;
    bucket->last_ns = now_ns;
    packets = bucket->packet_tokens + elapsed_us * limits->packets_per_s / 1000;
    bucket->packet_tokens = (__u32)(packets > packets_most ? packets_most : packets);
    bucket->byte_tokens += elapsed_us * limits->bytes_per_s / 1000000;
    if (bucket->byte_tokens > limits->burst_bytes)
        bucket->byte_tokens = limits->burst_bytes;
}

/* 1: within the limits, and charged.  0: over them, and nothing is charged. */
static __always_inline int vc_bucket_take(struct vc_bucket *bucket, struct vc_limits limits,
                                          __u32 bytes, enum vc_path path)
{
    if (path == VC_PATH_SOCKET) {
        limits.burst_packets *= 2;
        limits.burst_bytes *= 2;
    }
    vc_bucket_fill(bucket, &limits, bpf_ktime_get_ns());
    if (bucket->packet_tokens < 1000)
        return 0;
    if (limits.bytes_per_s) {
        if (bucket->byte_tokens < bytes)
            return 0;
        bucket->byte_tokens -= bytes;
    }
    bucket->packet_tokens -= 1000;
    return 1;
}

static __always_inline int vc_guard_media(struct vc_flow *flow, __u32 bytes, enum vc_path path)
{
    struct vc_limits limits = {
        .bytes_per_s = flow->bytes_per_s ? flow->bytes_per_s : vc_flow_bytes_per_s,
        .burst_bytes = vc_flow_burst_bytes,
        .packets_per_s = flow->packets_per_s ? flow->packets_per_s : vc_flow_packets_per_s,
        .burst_packets = vc_flow_burst_packets,
    };

    if (path == VC_PATH_SOCKET)
        return vc_bucket_take(&flow->socket_media, limits, bytes, path);
    return vc_bucket_take(&flow->media, limits, bytes, path);
}

static __always_inline int vc_guard_flow_control(struct vc_flow *flow, enum vc_path path)
{
    struct vc_limits limits = {
        .packets_per_s = vc_control_packets_per_s,
        .burst_packets = vc_control_burst_packets,
    };

    if (path == VC_PATH_SOCKET)
        return vc_bucket_take(&flow->socket_control, limits, 0, path);
    return vc_bucket_take(&flow->control, limits, 0, path);
}

static __always_inline int vc_guard_take(struct vc_guard *guard, struct vc_limits limits,
                                         enum vc_path path)
{
    if (path == VC_PATH_SOCKET)
        return vc_bucket_take(&guard->at_socket, limits, 0, path);
    return vc_bucket_take(&guard->at_xdp, limits, 0, path);
}

static __always_inline void vc_prefix_of(const __u8 ip[16], struct vc_prefix_key *key)
{
    const __u32 *from = (const __u32 *)ip;
    __u32 *to = (__u32 *)key->prefix;

    __builtin_memset(key, 0, sizeof(*key));
    to[0] = from[0];
    if (!from[0] && !from[1] && from[2] == bpf_htonl(0xffff)) {
        to[2] = from[2];
        to[3] = from[3] & bpf_htonl(0xffffff00);
        return;
    }
    to[1] = from[1] & bpf_htonl(0xffffff00);
}

static __always_inline int vc_guard_prefix(const __u8 ip[16], enum vc_class packet_class,
                                           enum vc_path path)
{
    static const struct vc_guard fresh;
    struct vc_limits limits = {
        .packets_per_s = vc_prefix_packets_per_s,
        .burst_packets = vc_prefix_burst_packets,
    };
    struct vc_prefix_key key;
    struct vc_guard *guard;

    vc_prefix_of(ip, &key);
    key.packet_class = packet_class;
    guard = bpf_map_lookup_elem(&prefixes, &key);
    if (!guard) {
        bpf_map_update_elem(&prefixes, &key, &fresh, BPF_NOEXIST);
        guard = bpf_map_lookup_elem(&prefixes, &key);
    }
    if (!guard) /* the map is full of busier prefixes: no bucket, no way in */
        return 0;
    return vc_guard_take(guard, limits, path);
}

/* Control (STUN, DTLS, QUIC): the verdict, with everything charged. */
static __always_inline enum vc_verdict vc_guard_control(const struct vc_flow_key *key,
                                                        enum vc_class packet_class,
                                                        enum vc_path path)
{
    struct vc_limits limits = {
        .packets_per_s = vc_admitted_packets_per_s,
        .burst_packets = vc_admitted_burst_packets,
    };
    struct vc_flow *flow = bpf_map_lookup_elem(&flows, key);
    struct vc_guard *guard;

    if (flow)
        return vc_guard_flow_control(flow, path) ? vc_pass_of(packet_class)
                                                 : VC_VERDICT_DROP_CONTROL_RATE;
    guard = bpf_map_lookup_elem(&admitted, key);
    if (guard)
        return vc_guard_take(guard, limits, path) ? vc_pass_of(packet_class)
                                                  : VC_VERDICT_DROP_CONTROL_RATE;
    return vc_guard_prefix(key->remote_ip, packet_class, path) ? vc_pass_of(packet_class)
                                                               : VC_VERDICT_DROP_PREFIX_RATE;
}

#endif
