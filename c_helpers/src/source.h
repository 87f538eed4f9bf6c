/* SPDX-License-Identifier: MIT */
/* A source: one incoming RTP stream of a leg, its statistics and its history.

   The struct has three parts.  The first is read by every worker that has routes of this source:
   it is constant while the source lives, or atomic.  `state` holds LIVE and the number of feeds
   (of any worker) that read the source: a feed is added only to a living source, and a source
   dies only without feeds, by one compare-and-swap each.  `watchers` has a bit for each worker
   with feeds: it is told of new positions.
   The second part is the latest sender report, a seqlock of its own.
   The third belongs to the worker that owns the source.

   The index space of a source starts anew only with new keys, or where one that was bound by label
   goes to another SSRC (RFC 9143 section 9.2: the label says whose a packet is): `stream` tells.
   What an SSRC was left for is kept, so that nothing recorded of it can be played again. */
#ifndef VC_SOURCE_H
#define VC_SOURCE_H

#include <stdint.h>

#include "history.h"
#include "nack.h"
#include "rtcp.h"
#include "srtp_index.h"

#define VC_SOURCE_LIVE (1ull << 32) /* of state; the low half counts feeds */
/* Between two requests upstream; libwebrtc drops one that comes within 300 ms of another, and the
   way to it may be a little shorter the second time. */
#define VC_KEYFRAME_THROTTLE_NS 350000000ull

struct vc_sender_report {
    uint64_t ntp;
    uint64_t arrival_ns; /* 0: none yet */
    uint32_t rtp_timestamp;
    uint32_t pad;
};

struct vc_source {
    /* for every worker */
    _Alignas(64) uint64_t state;
    uint64_t position; /* of the next packet; release */
    uint64_t key_position, key_ns, key_index; /* of the newest key frame; key_ns 0: none */
    uint64_t highest;  /* in index */
    uint64_t rx_ext;   /* the leg's extension ids, VC_EXT_COUNT bytes in one word */
    uint32_t watchers;
    uint32_t resumed;  /* 1: its index space goes on from an earlier life */
    uint32_t owner, clock_hz;
    uint8_t queue, codec;
    struct vc_history history;

    _Alignas(64) uint64_t report_gen;
    uint64_t report[3]; /* struct vc_sender_report as words */

    /* for the owner */
    _Alignas(64) uint32_t id;
    uint32_t leg, next; /* next source of the leg, or VC_NONE */
    uint32_t flags;     /* VC_SOURCE_* */
    uint32_t ssrc;
    uint8_t bound, seen, touched, keyframe_wanted;
    uint8_t pt, known; /* known: this process has had this id before */
    uint8_t rtx_pt, rtx_bound; /* rtx_pt 0: no RTX stream */
    uint8_t red_pt; /* 0: none */
    uint8_t ended;  /* its BYE was told of, and nothing came since */
    uint32_t rtx_ssrc;
    uint16_t pending;  /* slots after position that wait for their tag */
    uint8_t mid[VC_LABEL_SZ], rid[VC_LABEL_SZ];
    uint64_t digest;
    struct vc_source_index *store;
    struct vc_source_stats *stats;
    uint64_t announced;
    uint32_t stream;
    uint32_t key_timestamp;
    uint64_t keyframe_ns; /* last request upstream */
    /* RFC 3550 appendix A */
    uint64_t base, received, expected_prior, received_prior;
    uint32_t transit, jitter16; /* jitter16: 16 times the jitter */
    uint8_t fir_seq;
    struct vc_nack nack;
    uint64_t passed_ns; /* its sender report was passed on last */
    uint64_t level_since_ns; /* audio level: the open window, 0: none */
    uint32_t level_sum, level_cnt;
};

_Static_assert(sizeof(struct vc_sender_report) == 3 * sizeof(uint64_t), "report words");
_Static_assert(VC_EXT_COUNT == sizeof(uint64_t), "extension ids fit one atomic word");

static inline int vc_source_live(const struct vc_source *source)
{
    return (__atomic_load_n(&source->state, __ATOMIC_ACQUIRE) & VC_SOURCE_LIVE) != 0;
}

/* 1: the source moved away from this SSRC, of its media or its RTX stream. */
static inline int vc_source_left(const struct vc_source *source, uint32_t ssrc)
{
    for (uint32_t i = 0; i < source->store->moved_cnt && i < VC_SOURCE_MOVES; i++)
        if (source->store->moved[i].ssrc == ssrc || source->store->moved[i].rtx_ssrc == ssrc)
            return 1;
    return 0;
}

/* Any worker: a feed begins or ends to read.  hold: 0, or -1 when the source is gone. */
int vc_source_hold(struct vc_source *source);
void vc_source_release(struct vc_source *source);
/* Owner: 0, or -1 while feeds read it. */
int vc_source_end(struct vc_source *source);

/* Owner: an authentic packet.  at: its slot's head. */
void vc_source_count(struct vc_source *source, const struct vc_slot_head *at,
                     uint64_t position);
/* Owner: an authentic packet told its audio level, the data of an RFC 6464 element of at least one
   byte.  The V bit is not looked at: senders set it by rules of their own. */
void vc_source_level(struct vc_source *source, const uint8_t *data, uint64_t now_ns);
/* Owner: a report block about this source for its sender (RFC 3550 section 6.4.1), from the
   packets since the last one. */
void vc_source_block(struct vc_source *source, struct vc_rtcp_block *block, uint64_t now_ns);

/* Owner writes, any worker reads; read returns 0, or -1 when there is none. */
void vc_source_report_write(struct vc_source *source, const struct vc_sender_report *report);
int vc_source_report_read(const struct vc_source *source, struct vc_sender_report *report);

#endif
