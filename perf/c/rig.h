/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the generator, the receiver and the receiver's XDP program agree on.

   Times file: the generator maps it and writes an entry for each packet before it sends it; the
   receiver reads it to match a stamp, whose payload may be sealed, with its send time.  One ring
   of `slots` entries for each flow, by the low bits of the packet's SRTP index.  An entry that
   does not name the stamp's packet was overtaken: the stamp is counted as unmatched.

   All flows of a generator have SSRC base + flow; relays leave SSRC, sequence number and RTP
   timestamp as they are (the routes of the rig's tables are set so). */
#ifndef VC_PERF_RIG_H
#define VC_PERF_RIG_H

#include <linux/types.h>

#define TIMES_MAGIC 0x74666376u /* "vcft" */
#define SAMPLE_MAX 1536u

struct times_header { /* 64 bytes */
    __u32 magic, flows, slots, ssrc_base;
    __u64 reserved[6];
};

struct times_entry { /* 32 bytes */
    __u64 send_ns;  /* CLOCK_MONOTONIC just before the send call */
    __u64 frame_ns; /* send_ns of the first packet with this RTP timestamp */
    __u64 index;    /* SRTP index, ROC||SEQ */
    __u32 rtp_time;
    __u16 frame_packets; /* packets with this RTP timestamp */
    __u16 pad;
};

struct stamp { /* 32 bytes */
    __u64 arrival_ns; /* bpf_ktime_get_ns: CLOCK_MONOTONIC */
    __u32 ssrc;
    __u32 rtp_time;
    __u16 port; /* destination port */
    __u16 sequence;
    __u16 length; /* UDP payload bytes */
    __u16 type;   /* second RTP byte: marker bit and payload type */
    __u64 pad;
};

struct sample { /* a whole datagram, to be opened and compared */
    __u32 length;
    __u16 port, pad;
    __u8 data[SAMPLE_MAX];
};

struct port_count {
    __u64 packets;
    __u64 bytes; /* UDP payload */
};

/* Behind the RTP header of every packet, in clear before sealing; little endian.  After it,
   byte j of the packet is j & 0xff. */
struct probe {
    __u64 send_ns;
    __u64 sequence; /* the packet's SRTP index */
} __attribute__((packed));

#endif
