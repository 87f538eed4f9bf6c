/* SPDX-License-Identifier: MIT */
/* RTCP (RFC 3550 section 6, RFC 4585, RFC 5104): a reader that visits what the core acts on, and
   writers that append to a buffer.  Pure functions, no state, no allocation.

   Limits: VC_RTCP_ITEMS_MAX items a compound; the rest of it is ignored. */
#ifndef VC_RTCP_H
#define VC_RTCP_H

#include <stdint.h>

#define VC_RTCP_MAX 1200       /* bytes of a compound that we build */
#define VC_RTCP_ITEMS_MAX 64
#define VC_RTCP_BLOCKS_MAX 31  /* report blocks of one report */

enum vc_rtcp_kind {
    VC_RTCP_SR,     /* ssrc, sr */
    VC_RTCP_REPORT, /* block: one report block of an SR or RR */
    VC_RTCP_PLI,    /* media_ssrc */
    VC_RTCP_FIR,    /* media_ssrc (one item for each entry), fir_seq */
    VC_RTCP_NACK,   /* media_ssrc, nack: one item for each FCI */
    VC_RTCP_BYE,    /* ssrc: one item for each */
    VC_RTCP_REMB,   /* remb */
    VC_RTCP_OTHER,  /* media_ssrc: feedback of a kind that nothing here reads */
};

struct vc_rtcp_sr {
    uint64_t ntp; /* 32.32 */
    uint32_t rtp_timestamp, packets, octets;
};

struct vc_rtcp_block {
    uint32_t ssrc;
    uint8_t fraction_lost;
    int32_t cumulative_lost; /* 24-bit, sign-extended */
    uint32_t highest_seq, jitter, lsr, dlsr;
};

struct vc_rtcp_nack { /* RFC 4585 section 6.2.1: pid, and the numbers after it whose bit is set */
    uint16_t pid, blp;
};

struct vc_rtcp_remb { /* draft-alvestrand-rmcat-remb-03 */
    uint64_t bitrate_bps;
    const uint8_t *ssrcs; /* ssrc_cnt of 4 bytes, in the compound: the streams that share it */
    uint32_t ssrc_cnt;
};

struct vc_rtcp_item {
    enum vc_rtcp_kind kind;
    uint32_t ssrc;       /* packet sender */
    uint32_t media_ssrc;
    union {
        struct vc_rtcp_sr sr;
        struct vc_rtcp_block block;
        struct vc_rtcp_nack nack;
        uint8_t fir_seq;
        struct vc_rtcp_remb remb;
    } u;
};

/* vc_rtcp_parse reads a clear compound (or a reduced-size packet, RFC 5506).  Returns the number
   of items, or -1 when a length lies or the version is wrong; then nothing is to be acted on.
   Unknown packet types are skipped. */
int vc_rtcp_parse(const uint8_t *pkt, uint32_t sz, struct vc_rtcp_item *items, uint32_t items_max);

struct vc_rtcp_writer {
    uint8_t *buf;
    uint32_t sz, room; /* bytes written, bytes in all */
};

/* Each appends one packet; returns 0, or -1 when there is no room (nothing appended). */
int vc_rtcp_write_sr(struct vc_rtcp_writer *w, uint32_t ssrc, const struct vc_rtcp_sr *sr,
                     const struct vc_rtcp_block *blocks, uint32_t n);
int vc_rtcp_write_rr(struct vc_rtcp_writer *w, uint32_t ssrc, const struct vc_rtcp_block *blocks, uint32_t n);
int vc_rtcp_write_sdes(struct vc_rtcp_writer *w, uint32_t ssrc, const uint8_t *cname, uint32_t cname_sz);
int vc_rtcp_write_pli(struct vc_rtcp_writer *w, uint32_t ssrc, uint32_t media_ssrc);
int vc_rtcp_write_nack(struct vc_rtcp_writer *w, uint32_t ssrc, uint32_t media_ssrc,
                       const struct vc_rtcp_nack *nacks, uint32_t n);
int vc_rtcp_write_bye(struct vc_rtcp_writer *w, uint32_t ssrc);

/* Middle 32 bits of an NTP time, for LSR and DLSR arithmetic (RFC 3550 section 4). */
static inline uint32_t vc_ntp_middle(uint64_t ntp)
{
    return (uint32_t)(ntp >> 16);
}

/* Nanoseconds in units of 1/65536 s. */
static inline uint32_t vc_ns_to_ntp_short(uint64_t ns)
{
    return (uint32_t)((ns << 16) / 1000000000u);
}

#endif
