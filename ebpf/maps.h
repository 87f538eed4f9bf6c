/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Maps and nothing else.  VC_STEER or VC_SELECT says which program includes it; the maps of the
   first part are the same kernel objects in both (pinned, reused by name). */
#ifndef VC_EBPF_MAPS_H
#define VC_EBPF_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Validated 5-tuples.  Only user space adds, so nothing is taken from memory in advance. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, VC_FLOWS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct vc_flow_key);
    __type(value, struct vc_flow);
} flows SEC(".maps");

/* 5-tuples that user space vouches for: charged to themselves.  The least recent give way. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, VC_ADMITTED_MAX);
    __type(key, struct vc_flow_key);
    __type(value, struct vc_guard);
} admitted SEC(".maps");

/* Guard buckets for everybody else, made by the programs on first sight. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, VC_PREFIXES_MAX);
    __type(key, struct vc_prefix_key);
    __type(value, struct vc_guard);
} prefixes SEC(".maps");

#ifdef VC_STEER
/* Local addresses and ports that are ours; the value is not used. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, VC_LISTEN_MAX);
    __type(key, struct vc_listen_key);
    __type(value, __u32);
} listen SEC(".maps");

/* ifindex -> first index of that interface in `xsks`. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, VC_PORTS_MAX);
    __type(key, __u32);
    __type(value, __u32);
} port_base SEC(".maps");

/* port_base + receive queue -> AF_XDP socket.  Filled by the data plane. */
struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, VC_XSKS_MAX);
    __type(key, __u32);
    __type(value, __u32);
} xsks SEC(".maps");

/* enum vc_verdict -> packets. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, VC_VERDICT_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} verdicts SEC(".maps");

/* What the pinned set was made from; read and written by user space only. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct vc_steer_meta);
} meta SEC(".maps");
#endif

#ifdef VC_SELECT
/* enum vc_verdict -> packets, on the socket path. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, VC_VERDICT_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} select_verdicts SEC(".maps");

/* 0: the slow socket; 1 + worker: its media socket.  One map for each local address. */
struct {
    __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
    __uint(max_entries, VC_GROUP_MAX);
    __type(key, __u32);
    __type(value, __u64);
} select_group SEC(".maps");
#endif

#endif
