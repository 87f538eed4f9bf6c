/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the steering programs share with user space: map keys, map values, verdict reasons.
   No logic.  Addresses are 16 bytes: IPv6, or IPv4 mapped (::ffff:a.b.c.d), so that one table
   holds both.  Ports are in network byte order (`_be`).  tests/contract/test_abi.py holds that
   C, BPF and Python agree on each size and offset. */
#ifndef VC_EBPF_ABI_H
#define VC_EBPF_ABI_H

#include <linux/types.h>

#define VC_STEER_ABI_VERSION 1

#define VC_FLOWS_MAX 262144     /* flows: validated 5-tuples (legs x up to 4) */
#define VC_ADMITTED_MAX 65536   /* admitted: 5-tuples that the supervisor vouches for (LRU) */
#define VC_PREFIXES_MAX 65536   /* prefixes: guard buckets (LRU) */
#define VC_LISTEN_MAX 256       /* listen: local addresses x ports */
#define VC_PORTS_MAX 256        /* port_base: interfaces with AF_XDP sockets */
#define VC_XSKS_MAX 1024        /* xsks: AF_XDP sockets */
#define VC_GROUP_MAX 17         /* select: one slow socket and up to 16 media sockets an address */

/* A 5-tuple as received (protocol is always UDP): remote = sender. */
struct vc_flow_key {
    __u8 remote_ip[16];
    __u8 local_ip[16];
    __u16 remote_port_be;
    __u16 local_port_be;
}; /* 36 bytes */

/* A token bucket.  Rates are per second, burst is the depth.  Written by the program
   (tokens, last_ns); limits are set by user space.  last_ns 0: not used yet, starts full.
   Not atomic: one flow lands on one CPU. */
struct vc_bucket {
    __u64 last_ns;
    __u64 byte_tokens;
    __u32 packet_tokens; /* in 1/1000 packet */
    __u32 pad;
};

/* Value of `admitted` and `prefixes`: one bucket for each program that may see the packet, so
   that a packet which the steering program passed is never charged twice to one bucket. */
struct vc_guard {
    struct vc_bucket at_xdp;
    struct vc_bucket at_socket;
};

struct vc_flow {
    __u32 leg;            /* for diagnosis only */
    __u32 worker;         /* owner: the selector's choice on the socket path */
    __u64 bytes_per_s;    /* media policing; 0: the program's default */
    __u32 packets_per_s;  /* 0: the program's default */
    __u32 pad;
    struct vc_bucket media;   /* RTP and RTCP */
    struct vc_bucket control; /* STUN, DTLS, QUIC from a validated flow: charged here, never to its prefix */
    struct vc_bucket socket_media;   /* the same two at the socket selector (see vc_guard) */
    struct vc_bucket socket_control;
}; /* 120 bytes */

/* Key of `listen`: a configured local address and port. */
struct vc_listen_key {
    __u8 local_ip[16];
    __u16 local_port_be;
    __u16 pad;
};

/* Guard bucket key: source prefix (IPv4 /24 mapped, IPv6 /56; rest zero) and packet class. */
struct vc_prefix_key {
    __u8 prefix[16];
    __u32 packet_class; /* enum vc_class */
};

/* The one value of `meta`: what the pinned maps and programs were made from. */
struct vc_steer_meta {
    __u32 abi_version;
    __u32 pad;
    __u8 digest[32]; /* SHA-256 of the object and its load-time rates */
};

/* First payload byte (RFC 7983, RFC 9443). */
enum vc_class {
    VC_CLASS_NONE = 0, /* none of the ranges below, or an empty datagram */
    VC_CLASS_STUN,     /* 0-3 */
    VC_CLASS_DTLS,     /* 20-63 */
    VC_CLASS_QUIC,     /* 64-127 short header, 192-255 long header */
    VC_CLASS_MEDIA,    /* 128-191 RTP, RTCP */
    VC_CLASS_COUNT
};

/* Every verdict has a reason; one counter each, per CPU (map `verdicts`; the socket path's
   selector counts into `select_verdicts` with the same numbers).
   X(NAME, label, what) */
#define VC_VERDICTS(X)                                                                             \
    X(PASS_NOT_IP, "pass_not_ip", "not IPv4 or IPv6 (ARP, LLDP, more than two VLAN tags)")        \
    X(PASS_NOT_UDP, "pass_not_udp", "not UDP")                                                    \
    X(PASS_COMPLEX, "pass_complex", "fragment, IP options or IPv6 extension header")              \
    X(PASS_TRUNCATED, "pass_truncated", "shorter than its headers say")                           \
    X(PASS_NOT_OURS, "pass_not_ours", "UDP to another address or port")                           \
    X(PASS_STUN, "pass_stun", "STUN to the supervisor")                                           \
    X(PASS_DTLS, "pass_dtls", "DTLS to the supervisor")                                           \
    X(PASS_QUIC, "pass_quic", "QUIC to the supervisor")                                           \
    X(PASS_NO_XSK, "pass_no_xsk", "known media, but no AF_XDP socket: to the media socket")       \
    X(REDIRECT_MEDIA, "redirect_media", "known media to the worker")                              \
    X(SELECT_MEDIA, "select_media", "known media to a media socket (socket path)")                \
    X(DROP_UNKNOWN_FLOW, "drop_unknown_flow", "media from a 5-tuple that is not in the table")    \
    X(DROP_FLOW_RATE, "drop_flow_rate", "media above the flow's rate")                            \
    X(DROP_CONTROL_RATE, "drop_control_rate", "control from a known flow above its rate")         \
    X(DROP_PREFIX_RATE, "drop_prefix_rate", "control from an unknown flow above its prefix's rate") \
    X(DROP_BAD_CLASS, "drop_bad_class", "first byte in none of the ranges, or an empty datagram")    \
    X(DROP_NO_SOCKET, "drop_no_socket", "no socket at the group's index (socket path)")

enum vc_verdict {
#define VC_X(name, label, what) VC_VERDICT_##name,
    VC_VERDICTS(VC_X)
#undef VC_X
    VC_VERDICT_COUNT
};

#endif
