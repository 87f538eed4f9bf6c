/* SPDX-License-Identifier: MIT */
/* The contract between the supervisor and vcfwd-dataplane.

   Shared memory.  For each worker one sealed memfd: vc_shm_header, a command ring
   (supervisor -> worker), an event ring (worker -> supervisor), a counters block and statistics
   tables (single writer: the worker).  For the node one more memfd, the *index store*: SRTP send
   indices, receive indices and replay windows, which must outlive the data plane process.

   Rings.  Fixed-size records, capacity a power of two, single producer, single consumer; heads
   and tails are free-running u64, stored with release and loaded with acquire.  An eventfd on
   each side wakes the other: the supervisor rings cmd_bell after publishing when `sleeping` is
   set (fence, then recheck on both sides); a worker rings evt_bell when it published events.
   A full event ring never blocks a worker: it sets `overflow` and the supervisor asks for a dump.

   Commands carry an id and are answered by VC_EVT_APPLIED(id, status).  A refused command
   changes nothing.  Ids of legs, sources and routes are indices below the *_max of the header,
   chosen by the supervisor, unique on the node; an id may be used again once its remove was
   answered (the answer comes after every worker has let go).

   Fixed-width fields only, no implicit padding, little or big endian as the host.
   tests/contract/test_abi.py holds that C and Python agree on each size and offset. */
#ifndef VCFWD_ABI_H
#define VCFWD_ABI_H

#include <stdint.h>

#include "vcfwd/drop.h"

#define VC_ABI_VERSION 4u
#define VC_SHM_MAGIC 0x64776356u    /* "Vcwd" */
#define VC_INDEX_MAGIC 0x78646956u  /* "Vidx" */

#define VC_WORKERS_MAX 16u
#define VC_INTERFACES_MAX 8u  /* interfaces with AF_XDP sockets */
#define VC_LOCALS_MAX 8u      /* configured local addresses */
#define VC_LEG_TUPLES 4u      /* validated 5-tuples of a leg */
#define VC_LEG_BINDINGS 8u    /* SSRCs bound by label, of a leg, over the life of its sources */
#define VC_SOURCE_MOVES 5u    /* times that a source bound by label goes to another SSRC */
#define VC_LABEL_SZ 16u       /* mid and rid: opaque labels, zero padded */
#define VC_HEADER_MAX 96u     /* prebuilt L2-L4 header: 14 + 8 (VLAN) + 40 + 8, rounded up */
#define VC_PORT_SOCKET 0xffffffffu /* leg_header.port: send through the media socket */
#define VC_NONE 0xffffffffu
#define VC_LEVEL_SILENT 127u               /* RFC 6464 */
#define VC_LEVEL_WINDOW_NS 100000000ull    /* an audio level is the mean over so long */

/* Extension kinds (RFC 8285); a leg maps each to the id that its peer uses, 0: not used. */
enum vc_ext {
    VC_EXT_MID,           /* RFC 9143 */
    VC_EXT_RID,           /* RFC 8852 */
    VC_EXT_RRID,          /* RFC 8852 repaired-rid */
    VC_EXT_AUDIO_LEVEL,   /* RFC 6464 */
    VC_EXT_ABS_SEND_TIME,
    VC_EXT_TRANSPORT_CC,
    VC_EXT_DEPENDENCY,    /* AV1 dependency descriptor */
    VC_EXT_PLAYOUT_DELAY,
    VC_EXT_COUNT
};

enum vc_codec { /* what the worker must know to find key frames in clear payloads */
    VC_CODEC_OPAQUE = 0, /* never a key frame: audio, or end-to-end encrypted without descriptor */
    VC_CODEC_H264,
    VC_CODEC_VP8,
    VC_CODEC_VP9,
    VC_CODEC_AV1,
};

/* Queue classes of a leg, highest first. */
enum vc_queue { VC_QUEUE_AUDIO, VC_QUEUE_RESEND, VC_QUEUE_VIDEO, VC_QUEUE_REPAIR, VC_QUEUE_PADDING, VC_QUEUE_COUNT };

/* A 5-tuple as the node sees it; same layout as struct vc_flow_key of ebpf/abi.h.
   IPv4 addresses are mapped (::ffff:a.b.c.d). */
struct vc_tuple {
    uint8_t remote_ip[16];
    uint8_t local_ip[16];
    uint16_t remote_port_be;
    uint16_t local_port_be;
};

/* ---- commands ---------------------------------------------------------------------------- */

enum vc_cmd_type {
    VC_CMD_NOP,          /* to every worker, after a replay: ends VC_SETUP_HOLD */
    VC_CMD_LEG_SET,      /* to every worker: the owner holds it, the others learn its tuples */
    VC_CMD_LEG_HEADER,   /* to the owner */
    VC_CMD_LEG_RATE,     /* to the owner */
    VC_CMD_LEG_REMOVE,   /* to every worker; refused while it has sources or routes */
    VC_CMD_SOURCE_SET,   /* to the owner of its leg */
    VC_CMD_SOURCE_REMOVE,/* to the owner; refused while routes read it (on any worker) */
    VC_CMD_ROUTE_SET,    /* to the owner of its leg, after source_set was applied */
    VC_CMD_ROUTE_FILTER, /* to the owner */
    VC_CMD_ROUTE_REMOVE, /* to the owner */
    VC_CMD_KEYFRAME_REQUEST, /* to the owner of the source */
    VC_CMD_DUMP,         /* to each worker: VC_EVT_DUMP_* for all it owns, then VC_EVT_APPLIED */
    VC_CMD_COUNT
};

/* leg_set.flags: what the peer has agreed to receive. */
#define VC_LEG_NACK 1u       /* generic NACK (RFC 4585) for lost video */
#define VC_LEG_NACK_AUDIO 2u /* and for lost audio */
#define VC_LEG_FEEDBACK 4u   /* transport-wide feedback; needs rx_ext of VC_EXT_TRANSPORT_CC */
#define VC_LEG_FLAGS 7u

/* leg_set creates or changes a leg.  With the same key_id as before, keys, indices and replay
   windows stay as they are.  digest: opaque to the worker, returned by dump. */
struct vc_cmd_leg_set {
    uint32_t leg;
    uint32_t owner;     /* worker index */
    uint64_t digest;
    uint64_t key_id;    /* names this pair of master keys on this node for ever; never 0 */
    uint32_t suite;     /* enum vc_srtp_suite; VC_SRTP_NONE: no keys yet, nothing passes */
    uint32_t local;     /* index of the local address: which media socket sends */
    uint8_t rx_key[16]; /* peer -> node */
    uint8_t tx_key[16]; /* node -> peer */
    uint8_t rx_salt[14];
    uint8_t tx_salt[14];
    uint32_t tuple_cnt; /* 0: known, not yet reachable */
    uint32_t nominated; /* index into tuples, or VC_NONE */
    struct vc_tuple tuples[VC_LEG_TUPLES];
    uint32_t flags;     /* VC_LEG_* */
    uint64_t rate_bps;  /* pacing rate, bits a second; 0: not paced */
    uint32_t rtcp_ssrc; /* sender SSRC of the RTCP that the node itself originates on this leg */
    uint8_t dscp_audio; /* RFC 4594: 46 (EF) by default */
    uint8_t dscp_video; /* 34 (AF41) by default */
    uint8_t pad1[2];
    uint8_t rx_ext[VC_EXT_COUNT];
    uint8_t tx_ext[VC_EXT_COUNT];
    uint8_t cname[VC_LABEL_SZ]; /* RTCP SDES CNAME (RFC 7022) */
};

/* The prebuilt header: Ethernet .. UDP, as it goes on the wire except lengths and checksums. */
struct vc_cmd_leg_header {
    uint32_t leg;
    uint32_t generation; /* of the netlink mirror; informational */
    uint32_t port;       /* interface index in the set-up list, or VC_PORT_SOCKET */
    uint16_t l3_off;     /* bytes before the IP header: 14, 18 or 22 */
    uint16_t header_sz;  /* bytes in all; 0 with VC_PORT_SOCKET */
    uint8_t header[VC_HEADER_MAX];
};

struct vc_cmd_leg_rate {
    uint32_t leg;
    uint32_t pad;
    uint64_t rate_bps;
};

struct vc_cmd_id { /* leg_remove, source_remove, route_remove, keyframe_request */
    uint32_t id;
    uint32_t pad;
};

#define VC_SOURCE_BY_SSRC 1u  /* ssrc is signalled */
#define VC_SOURCE_BY_LABEL 2u /* bound at the first authenticated packet with this (mid, rid) */
#define VC_SOURCE_BY_PT 4u    /* bound at the first authenticated packet of this payload type that has no
                                 labels, if that can mean no other source */

struct vc_cmd_source_set {
    uint32_t source;
    uint32_t leg;
    uint64_t digest;
    uint32_t flags; /* VC_SOURCE_BY_* */
    uint32_t ssrc;
    uint8_t mid[VC_LABEL_SZ];
    uint8_t rid[VC_LABEL_SZ];
    uint32_t clock_hz;
    uint8_t pt;
    uint8_t queue; /* VC_QUEUE_AUDIO or VC_QUEUE_VIDEO: class and history size class */
    uint8_t codec; /* enum vc_codec */
    uint8_t rtx_pt; /* 0: its sender has no RTX stream (RFC 4588) */
    uint32_t rtx_ssrc; /* of that stream; 0: bound at its first authentic packet by rtx_pt and, where
                          the source has labels, (mid, repaired-rid) */
    uint8_t red_pt; /* 0: none; packets of this payload type are RED (RFC 2198) */
    uint8_t resume; /* 1: the id had this very stream before (its leg moves to another worker): what was
                       bound by label stays bound, and its receive indices go on */
    uint8_t pad[2];
};

#define VC_ROUTE_GATED 1u /* opens at a key frame (video) */

/* route_set creates a route, or changes its source (then the old one goes on, with its payload types,
   until the new one gives a key frame, when gated; the latest choice counts; see src/switch.h).
   The identity (leg, out_ssrc, seq_start, ts_offset) of a living route never changes, nor does its
   RTX stream's (rtx_ssrc, rtx_seq_start).  Without one a lost packet is sent again only as the very
   bytes that left before. */
struct vc_cmd_route_set {
    uint32_t route;
    uint32_t leg;
    uint64_t digest;
    uint32_t source;
    uint32_t source_owner; /* worker */
    uint32_t out_ssrc;     /* never used before with this leg's key_id */
    uint32_t ts_offset;    /* out timestamp = in timestamp + ts_offset */
    uint16_t seq_start;    /* first outgoing sequence number, below 2^15 */
    uint8_t pt;
    uint8_t flags;         /* VC_ROUTE_* */
    uint32_t rtx_ssrc;     /* as out_ssrc; 0: no RTX stream (RFC 4588) */
    uint8_t mid[VC_LABEL_SZ]; /* sent when the leg has a tx_ext id for it and mid[0] != 0 */
    uint16_t rtx_seq_start; /* below 2^15 */
    uint8_t rtx_pt;
    uint8_t red_pt; /* 0: its receiver takes no RED (RFC 2198), it gets the plain sound in it */
    uint32_t pad1;
};

struct vc_cmd_route_filter {
    uint32_t route;
    uint32_t paused; /* 1: drop everything; on resume the gate closes until a key frame */
    uint32_t max_spatial;
    uint32_t max_temporal;
};

struct vc_command { /* 512 bytes */
    uint64_t id;    /* the supervisor's; echoed */
    uint32_t type;  /* enum vc_cmd_type */
    uint32_t pad;
    union {
        struct vc_cmd_leg_set leg_set;
        struct vc_cmd_leg_header leg_header;
        struct vc_cmd_leg_rate leg_rate;
        struct vc_cmd_source_set source_set;
        struct vc_cmd_route_set route_set;
        struct vc_cmd_route_filter route_filter;
        struct vc_cmd_id id;
        uint8_t bytes[496];
    } u;
};

/* Why a command was refused.  X(NAME, label, sentence) */
#define VC_STATUSES(X)                                                                             \
    X(OK, "ok", "applied")                                                                         \
    X(BAD_TYPE, "bad_type", "unknown command type")                                                \
    X(BAD_ID, "bad_id", "an id is not below the table's size")                                     \
    X(NO_LEG, "no_leg", "there is no such leg")                                                    \
    X(NO_SOURCE, "no_source", "there is no such source")                                           \
    X(NO_ROUTE, "no_route", "there is no such route")                                              \
    X(NOT_OWNER, "not_owner", "another worker owns it")                                            \
    X(IN_USE, "in_use", "sources or routes still refer to it")                                     \
    X(BAD_VALUE, "bad_value", "a field is out of range")                                           \
    X(BAD_SUITE, "bad_suite", "unknown SRTP suite")                                                \
    X(IDENTITY, "identity", "the identity of a living route or source cannot change")              \
    X(DUPLICATE_SSRC, "duplicate_ssrc", "the leg has another source or route with this SSRC")      \
    X(DUPLICATE_TUPLE, "duplicate_tuple", "another leg has this 5-tuple")                          \
    X(FLOWS_FULL, "flows_full", "the table of 5-tuples is full")                                   \
    X(HISTORY_FULL, "history_full", "no history of this size class is free")                       \
    X(INDEX_LOST, "index_lost", "the send index of this (key, SSRC) is lost: new keys are needed")

enum vc_status {
#define VC_X(name, label, what) VC_STATUS_##name,
    VC_STATUSES(VC_X)
#undef VC_X
    VC_STATUS_COUNT
};

/* ---- events ------------------------------------------------------------------------------ */

enum vc_evt_type {
    VC_EVT_NONE,
    VC_EVT_APPLIED,     /* applied */
    VC_EVT_BOUND,       /* bound: an SSRC was bound to a source by its label, or it moved there */
    VC_EVT_ACTIVE,      /* object: first authentic packet of a source */
    VC_EVT_BYE,         /* bound: RTCP BYE for a source */
    VC_EVT_FEEDBACK,    /* feedback: a receiver report about a route */
    VC_EVT_DUMP_LEG,    /* object, digest, key_id */
    VC_EVT_DUMP_SOURCE, /* object, digest; of one that was bound by label, BOUND follows */
    VC_EVT_DUMP_ROUTE,  /* object, digest */
    VC_EVT_ESTIMATE,    /* estimate: the peer of a leg says what it can receive (REMB) */
    VC_EVT_COUNT
};

struct vc_event { /* 64 bytes */
    uint32_t type;   /* enum vc_evt_type */
    uint32_t worker;
    uint64_t now_ns; /* CLOCK_MONOTONIC */
    union {
        struct {
            uint64_t id;
            uint32_t status; /* enum vc_status */
            uint32_t pad;
        } applied;
        struct {
            uint32_t leg;
            uint32_t source;
            uint32_t ssrc;
            uint32_t pad;
        } bound;
        struct {
            uint32_t object;
            uint32_t pad;
            uint64_t digest;
            uint64_t key_id; /* legs */
        } object;
        struct {
            uint32_t route;
            uint32_t fraction_lost;   /* 1/256 */
            int32_t cumulative_lost;  /* packets */
            uint32_t jitter;          /* RTP clock units */
            uint32_t highest_seq;     /* extended */
            uint32_t rtt_us;          /* 0: not known */
        } feedback;
        struct {
            uint32_t leg;
            uint32_t pad;
            uint64_t bitrate_bps;
        } estimate;
        uint8_t bytes[48];
    } u;
};

/* ---- counters and statistics ------------------------------------------------------------- */

/* Counters of one worker, besides the drops.  X(name, what) */
#define VC_COUNTERS(X)                                                                             \
    X(rx, "datagrams this worker took charge of")                                                  \
    X(rx_bytes, "their UDP payload bytes")                                                         \
    X(rx_xsk, "of rx: read from AF_XDP sockets")                                                   \
    X(rx_socket, "of rx: read from media sockets")                                                 \
    X(rx_wrong_queue, "datagrams handed to the worker that holds their leg (counted in rx there)") \
    X(routed, "RTP packets accepted into a history")                                               \
    X(consumed, "accepted and not forwarded: RTCP, RTX that brought nothing new")                  \
    X(copies, "copies due: one for each routed packet and route, one for each resend")             \
    X(transmitted, "copies handed to the kernel or the NIC")                                       \
    X(queued, "gauge: copies waiting")                                                             \
    X(tx_bytes, "UDP payload bytes transmitted, RTCP included")                                    \
    X(tx_xsk, "copies and RTCP sent by AF_XDP")                                                    \
    X(tx_socket, "copies and RTCP sent by media sockets")                                          \
    X(rtcp_tx, "RTCP packets sent")                                                                \
    X(rtcp_tx_dropped, "RTCP packets that could not be sent")                                      \
    X(tx_kicks, "transmit system calls")                                                           \
    X(tx_again, "of them: told to call again")                                                     \
    X(keyframe_requests, "PLI sent upstream")                                                      \
    X(keyframe_merged, "requests merged into one already on its way")                              \
    X(nacked, "lost packets that senders were asked for, repeats included")                        \
    X(nack_repaired, "of these packets: came afterwards")                                          \
    X(nack_lost, "of these packets: given up, or too many at once to ask for")                     \
    X(rtx_rx, "RTX packets received, padding included")                                            \
    X(rtx_repaired, "of them: brought a packet that was missing")                                  \
    X(nack_rx, "packets that receivers asked for")                                                 \
    X(resent_rtx, "of them: sent again on an RTX stream")                                          \
    X(resent_plain, "of them: sent again byte for byte")                                           \
    X(resend_unknown, "of them refused: no route has this SSRC")                                   \
    X(resend_gone, "of them refused: not in the history, or sent before a switch")                 \
    X(resend_recent, "of them refused: sent again within the round trip")                          \
    X(resend_budget, "of them refused: the route's share of the leg's rate is spent")              \
    X(resend_full, "of them refused: the leg's queue of resends is full")                          \
    X(resend_changed, "of them refused: no RTX stream, and the bytes cannot be made again")        \
    X(rtcp_unknown, "RTCP about an SSRC that is not the leg's, feedback not asked for: ignored")   \
    X(rtcp_absurd, "reports in RTCP that cannot be true: ignored, an estimate bounded")            \
    X(feedback_tx, "transport-wide feedback sent")                                                 \
    X(mesh_full, "messages between workers that found the ring full (recovered)")                  \
    X(commands, "commands applied")                                                                \
    X(commands_refused, "commands refused")                                                        \
    X(events_lost, "events that found the ring full")                                              \
    X(departures, "copies tallied in lateness")                                                    \
    X(lateness_ns, "sum of: the clock after a copy's kick less its due time")                      \
    X(worked_ns, "time in duty cycles that found work")                                            \
    X(spun_ns, "time awake without work")                                                          \
    X(blocked_ns, "time asleep")                                                                   \
    X(wakeups, "times the worker slept")                                                           \
    X(loops, "duty cycles")                                                                        \
    X(xsk_rx_dropped, "AF_XDP: dropped by the kernel, all reasons (XDP_STATISTICS)")               \
    X(xsk_rx_ring_full, "of them: receive ring full")                                              \
    X(xsk_fill_empty, "AF_XDP: fill ring empty")                                                   \
    X(xsk_tx_invalid, "AF_XDP: invalid descriptors")                                               \
    X(frames_total, "UMEM frames")                                                                 \
    X(frames_free, "gauge: free")                                                                  \
    X(frames_rx, "gauge: in the fill and receive rings")                                           \
    X(frames_tx, "gauge: in the transmit and completion rings, or being written")                  \
    X(legs, "gauge: legs owned")                                                                   \
    X(sources, "gauge: sources owned")                                                             \
    X(routes, "gauge: routes owned")                                                               \
    X(leg_bytes, "gauge: pool bytes in use by legs, keys included")                                \
    X(source_bytes, "gauge: pool bytes in use by sources without their history")                   \
    X(history_bytes, "gauge: pool bytes in use by histories")                                      \
    X(route_bytes, "gauge: pool bytes in use by routes")

#define VC_LATENESS_COUNT 72u

struct vc_counters {
#define VC_X(name, what) uint64_t name;
    VC_COUNTERS(VC_X)
#undef VC_X
    uint64_t drops[VC_DROP_COUNT];
    uint64_t copy_drops[VC_COPY_DROP_COUNT];
    uint64_t lateness[VC_LATENESS_COUNT]; /* departures by bucket of vc_lateness_bucket */
};

/* Bucket of a lateness: four for each power of two from 1.024 us on, below it four equal ones; the
   last takes all from 117 ms on. */
static inline uint32_t vc_lateness_bucket(uint64_t ns)
{
    uint32_t power, bucket;

    if (ns < 1024)
        return (uint32_t)(ns >> 8);
    power = 63u - (uint32_t)__builtin_clzll(ns);
    bucket = 4u * (power - 9u) + (uint32_t)(ns >> (power - 2u) & 3u);
    return bucket < VC_LATENESS_COUNT ? bucket : VC_LATENESS_COUNT - 1u;
}

/* What a lateness in the bucket is below, in ns; UINT64_MAX: the last has no bound. */
static inline uint64_t vc_lateness_bound(uint32_t bucket)
{
    if (bucket < 4)
        return (bucket + 1ull) << 8;
    if (bucket >= VC_LATENESS_COUNT - 1u)
        return UINT64_MAX;
    return (5ull + bucket % 4) << (bucket / 4 + 7);
}

struct vc_leg_stats { /* 64 bytes; indexed by leg */
    uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, last_rx_ns, auth_failed, rtcp_rx, queue_delay_ns;
};

struct vc_source_stats { /* 64 bytes; indexed by source */
    uint64_t packets, bytes, keyframes, last_rx_ns;
    uint32_t ssrc, highest_seq; /* extended, low 32 bits */
    int32_t lost;               /* RFC 3550 appendix A.3 */
    uint32_t jitter;            /* RTP clock units, RFC 3550 section 6.4.1 */
    uint32_t plis;
    uint32_t level;    /* audio level of the last whole window (VC_LEVEL_WINDOW_NS), mean of its
                          packets: 0 to 127 for 0 to -127 dBov (RFC 6464), 127: silent */
    uint64_t level_ns; /* when that window ended, CLOCK_MONOTONIC; 0: its sender never told */
};

struct vc_route_stats { /* 64 bytes; indexed by route */
    uint64_t packets, bytes, dropped;
    uint32_t out_ssrc, fraction_lost;
    int32_t cumulative_lost;
    uint32_t jitter, rtt_us, plis, gate_open, pad[3];
};

/* ---- shared memory of one worker --------------------------------------------------------- */

struct vc_shm_header {
    uint32_t magic, abi_version;
    uint64_t layout_hash; /* FNV-1a of the sizes of all records; vc_layout_hash() */
    uint32_t worker, worker_cnt;
    uint32_t legs_max, sources_max, routes_max;
    uint32_t cmd_cap, evt_cap, pad0; /* records */
    uint64_t cmd_off, evt_off, counters_off, leg_stats_off, source_stats_off, route_stats_off; /* bytes */
    uint64_t total_sz;
    _Alignas(64) uint64_t epoch; /* start of the data plane that serves it, CLOCK_MONOTONIC ns; 0: none */
    uint64_t beat_ns;            /* last beat of the worker */
    uint64_t sleep_until_ns;     /* announced wake-up while it sleeps, at most 100 ms ahead */
    uint32_t sleeping;           /* 1: ring cmd_bell after publishing */
    uint32_t overflow;           /* set by the worker, cleared by the supervisor before its dump */
    _Alignas(64) uint64_t cmd_head; /* written by the supervisor */
    _Alignas(64) uint64_t cmd_tail; /* written by the worker */
    _Alignas(64) uint64_t evt_head; /* written by the worker */
    _Alignas(64) uint64_t evt_tail; /* written by the supervisor */
    _Alignas(64) uint8_t end[64];
};

/* ---- index store ------------------------------------------------------------------------- */

/* Ids of a frame, by which decoders see order and loss; see src/descriptor.h. */
#define VC_ID_PICTURE 1u
#define VC_ID_TL0 2u
#define VC_ID_KEY 4u
#define VC_ID_FRAME 8u
#define VC_ID_SHORT 16u /* the picture id has 7 bits, not 15 */

struct vc_ids { /* 8 bytes */
    uint16_t picture; /* VP8, VP9 */
    uint16_t frame;   /* Dependency Descriptor */
    uint8_t tl0;      /* VP8, VP9: TL0PICIDX */
    uint8_t key;      /* VP8: KEYIDX, 5 bits */
    uint8_t has;      /* VC_ID_* */
    uint8_t pad;
};

/* Everything written here is written before the packet it speaks of can leave. */
struct vc_tx_index { /* a route's send state; 128 bytes; indexed by route */
    uint64_t key_id;    /* of the leg; 0: empty */
    uint32_t out_ssrc;
    uint32_t source;    /* VC_NONE: what depends on it is being written */
    uint64_t highest;   /* highest SRTP index (ROC||SEQ) that may have left */
    int64_t offset;     /* out index = in index + offset, for `source` */
    uint32_t ts_offset;
    uint32_t started;   /* 1: highest and offset are valid */
    uint64_t packets, octets; /* for sender reports */
    struct vc_ids ids;  /* the highest that may have left */
    uint64_t rtx_highest; /* highest index of its RTX stream that may have left */
    uint32_t rtx_ssrc;
    uint32_t rtx_started; /* 1: rtx_highest is valid */
    struct vc_ids id_offset; /* out id = in id + offset, for `source` */
    uint64_t last_ns;   /* arrival of a packet that left with last_ts, CLOCK_MONOTONIC; 0: none */
    uint32_t last_ts;
    uint32_t in_ssrc;   /* of the stream that offset is of */
    uint64_t rtx_reserved[3];
};

/* Receive state of one SRTP stream: roll-over counter and replay window; see src/srtp_index.h. */
struct vc_rx_index { /* 144 bytes */
    uint32_t ssrc;
    uint32_t flags;      /* bit 0: started */
    uint64_t highest;    /* highest authenticated index, ROC||SEQ */
    uint64_t window[16]; /* the 1024 indices up to it */
};

struct vc_rtcp_index { /* 24 bytes */
    uint32_t highest; /* highest authenticated SRTCP index, 31 bits */
    uint32_t flags;   /* bit 0: started */
    uint64_t window[2];
};

/* SRTCP indices count for each sender's SSRC (RFC 3711 section 3.2.3), and a receiver may report
   from several: a browser from one for each m-line that it receives (25 pairs and 3 sounds are 53)
   and from each that it sends.  When these places are taken, see src/senders.h. */
#define VC_LEG_SENDERS 64u

struct vc_rtcp_sender { /* 32 bytes */
    uint32_t ssrc; /* valid when rx.flags says started */
    uint32_t used; /* rtcp_uses of the leg when it was used last */
    struct vc_rtcp_index rx;
};

/* SSRCs whose indices a leg remembers when they have no source any more; see src/left.h. */
#define VC_LEG_LEFT 64u

struct vc_left { /* 16 bytes */
    uint64_t highest; /* index, ROC||SEQ, as of vc_rx_index */
    uint32_t ssrc;
    uint32_t used; /* left_uses of the leg when it was let go of; 0: a free place */
};

struct vc_leg_index { /* 3136 bytes; indexed by leg */
    uint64_t key_id;
    uint32_t rtcp_tx; /* next SRTCP index to use */
    uint32_t rtcp_floor; /* a sender without a place comes with this index at least */
    uint32_t rtcp_uses;
    uint32_t left_uses;
    uint32_t pad[10];
    struct vc_rtcp_sender senders[VC_LEG_SENDERS];
    struct vc_left left[VC_LEG_LEFT];
};

struct vc_source_index { /* 384 bytes; indexed by source */
    uint64_t key_id;
    struct vc_rx_index rx;
    uint32_t leg, pad;
    uint64_t reserved[4];
    struct vc_rx_index rtx; /* of its RTX stream */
    struct {
        uint32_t ssrc, rtx_ssrc;
    } moved[VC_SOURCE_MOVES]; /* what it had before, never to be had again */
    uint32_t moved_cnt;
    uint32_t left; /* 1: its source was removed; what counts is with the leg */
};

struct vc_index_header { /* 64 bytes; followed by tx[routes_max], legs[legs_max], sources[sources_max] */
    uint32_t magic, abi_version;
    uint32_t legs_max, sources_max, routes_max, pad;
    uint64_t tx_off, leg_off, source_off, total_sz;
    uint64_t reserved;
};

/* ---- the control socket ------------------------------------------------------------------ */

/* Unix SOCK_SEQPACKET at <run_dir>/dataplane.sock, the data plane listens, one supervisor at a
   time (a new connection replaces the old).  Each message: vc_ctl_header, body; descriptors by
   SCM_RIGHTS in the order of the vc_ctl_fd labels at the end of the body. */
enum vc_ctl_type {
    VC_CTL_SETUP = 1, /* supervisor ->: vc_ctl_setup + labels + fds; once in a process's life */
    VC_CTL_READY,     /* -> supervisor: vc_ctl_ready (after SETUP) */
    VC_CTL_GET,       /* supervisor ->: no body */
    VC_CTL_STATE,     /* -> supervisor: vc_ctl_setup + labels + fds as they were set up, then READY again
                         (fd_cnt 0: not set up, and no READY) */
    VC_CTL_SHUTDOWN,  /* supervisor ->: end now, exit status 0 */
    VC_CTL_ERROR,     /* -> supervisor: a sentence; set-up failed, the process ends with status 1 */
};

enum vc_fd_kind {
    VC_FD_WORKER_SHM = 1, /* a = worker */
    VC_FD_CMD_BELL,       /* a = worker; eventfd */
    VC_FD_EVT_BELL,       /* a = worker; eventfd (may be one for all workers) */
    VC_FD_INDEX_STORE,
    VC_FD_SLOW_SOCKET,    /* a = local; held only, never read by the data plane */
    VC_FD_MEDIA_SOCKET,   /* a = local, b = worker */
    VC_FD_XSKS_MAP,       /* BPF XSKMAP */
    VC_FD_OTHER,          /* held only */
};

struct vc_ctl_header {
    uint32_t magic; /* VC_SHM_MAGIC */
    uint16_t type;  /* enum vc_ctl_type */
    uint16_t fd_cnt;
    uint32_t body_sz;
    uint32_t abi_version;
};

struct vc_ctl_fd {
    uint32_t kind, a, b, pad;
};

struct vc_ctl_interface {
    char name[16];
    uint32_t ifindex;
    uint32_t xsk_base; /* XSKMAP index of its queue 0 */
    uint32_t zerocopy; /* 1: bind XDP_ZEROCOPY, 0: XDP_COPY */
    uint32_t worker_first; /* the worker of its queue 0 */
    uint32_t worker_cnt;   /* workers that serve it, one queue each; 0: all from worker_first on */
};

/* 1: the worker has a port on this interface, queue worker - worker_first. */
static inline int vc_serves(const struct vc_ctl_interface *interface, uint32_t worker)
{
    return worker >= interface->worker_first &&
           (!interface->worker_cnt || worker - interface->worker_first < interface->worker_cnt);
}

enum vc_scheduler { VC_SCHEDULER_OTHER, VC_SCHEDULER_FIFO };

/* setup.flags: a worker that follows a dead one receives nothing until the first VC_CMD_NOP, or
   VC_HOLD_MS at most: what waits in sockets and rings meets the whole table, not an empty one. */
#define VC_SETUP_HOLD 2u
#define VC_HOLD_MS 1000u

struct vc_ctl_setup {
    uint32_t worker_cnt, interface_cnt, local_cnt, crypto_backend; /* enum vc_crypto_backend */
    uint32_t legs_max, sources_max, routes_max;
    uint32_t history_audio, history_video;       /* histories of each size class, for the node */
    uint32_t audio_slots, video_slots;           /* slots of a history; powers of two */
    uint32_t frames;                             /* UMEM frames of a worker; power of two */
    uint32_t queue_limit_ms;                     /* age at which a queued copy is dropped */
    uint32_t idle_spin_us;                       /* time without work before a worker sleeps */
    uint32_t busy_poll;                          /* 1: SO_PREFER_BUSY_POLL, never sleep */
    uint32_t rtcp_interval_ms;                   /* receiver and sender reports */
    uint32_t orphan_s;                           /* without a supervisor for so long: end */
    uint32_t flags;
    uint32_t scheduler;                          /* enum vc_scheduler: class of the worker threads */
    uint32_t priority;                           /* of VC_SCHEDULER_FIFO, 1 to 99 */
    int32_t cpus[VC_WORKERS_MAX];                /* -1: not pinned */
    struct vc_ctl_interface interfaces[VC_INTERFACES_MAX];
    struct vc_tuple locals[VC_LOCALS_MAX];       /* local_ip, local_port_be */
};

struct vc_ctl_ready {
    uint32_t status; /* 0 */
    uint32_t pad;
    uint64_t epoch;
    char crypto[64]; /* engine's name */
    uint32_t zerocopy[VC_INTERFACES_MAX]; /* what the kernel gave */
    char memory[160]; /* why a worker's memory is not on its CPU's node; empty: no fault is known */
};

/* Same value in every build that agrees on the layout. */
static inline uint64_t vc_layout_hash(void)
{
    const uint64_t sizes[] = {
        VC_ABI_VERSION, sizeof(struct vc_command), sizeof(struct vc_event), sizeof(struct vc_counters),
        sizeof(struct vc_shm_header), sizeof(struct vc_leg_stats), sizeof(struct vc_source_stats),
        sizeof(struct vc_route_stats), sizeof(struct vc_tx_index), sizeof(struct vc_leg_index),
        sizeof(struct vc_source_index), sizeof(struct vc_ctl_setup), VC_DROP_COUNT, VC_COPY_DROP_COUNT,
        VC_STATUS_COUNT, VC_CMD_COUNT, VC_EVT_COUNT, VC_EXT_COUNT,
    };
    uint64_t h = 14695981039346656037ull;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned b = 0; b < 8; b++)
            h = (h ^ (uint8_t)(sizes[i] >> (8 * b))) * 1099511628211ull;
    return h;
}

_Static_assert(sizeof(struct vc_tuple) == 36, "vc_tuple");
_Static_assert(sizeof(struct vc_command) == 512, "vc_command");
_Static_assert(sizeof(struct vc_event) == 64, "vc_event");
_Static_assert(sizeof(struct vc_leg_stats) == 64, "vc_leg_stats");
_Static_assert(sizeof(struct vc_source_stats) == 64, "vc_source_stats");
_Static_assert(sizeof(struct vc_route_stats) == 64, "vc_route_stats");
_Static_assert(sizeof(struct vc_ids) == 8, "vc_ids");
_Static_assert(sizeof(struct vc_tx_index) == 128, "vc_tx_index");
_Static_assert(sizeof(struct vc_leg_index) == 3136, "vc_leg_index");
_Static_assert(sizeof(struct vc_source_index) == 384, "vc_source_index");
_Static_assert(sizeof(struct vc_index_header) == 64, "vc_index_header");

#endif
