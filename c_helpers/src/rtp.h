/* SPDX-License-Identifier: MIT */
/* The RTP header (RFC 3550 section 5.1) and its extensions (RFC 8285), read and rewritten.

   Pure functions over caller memory, no state, no allocation.  vc_rtp_parse is the only reader;
   what it accepts is safe for all others. */
#ifndef VC_RTP_H
#define VC_RTP_H

#include <stdint.h>

#include "vcfwd/abi.h"

#define VC_RTP_HEADER_MAX 256 /* bytes vc_rtp_write may write */

struct vc_rtp {
    uint16_t seq;
    uint8_t pt;
    uint8_t marker;
    uint32_t timestamp;
    uint32_t ssrc;
    uint32_t header_sz; /* with CSRCs and extension: where the payload starts */
    uint32_t ext_off;   /* of the extension's first element (after its 4-byte head); 0: none */
    uint32_t ext_sz;    /* bytes of elements */
    uint16_t ext_profile; /* 0xBEDE one-byte; 0x1000-0x100F two-byte; others opaque */
    uint8_t csrc_cnt;
    uint8_t padding;    /* the P bit; the padding length is inside the encrypted part */
};

enum vc_rtp_fault { VC_RTP_OK, VC_RTP_TRUNCATED, VC_RTP_VERSION };

/* vc_rtp_parse reads the clear header of an RTP or SRTP packet. */
enum vc_rtp_fault vc_rtp_parse(const uint8_t *pkt, uint32_t sz, struct vc_rtp *rtp);

/* vc_rtp_is_rtcp: by the second byte (RFC 5761 section 4: 192-223). */
static inline int vc_rtp_is_rtcp(const uint8_t *pkt)
{
    return pkt[1] >= 192 && pkt[1] <= 223;
}

/* vc_rtp_ext finds the element with this id (1..255); returns its data and size, or NULL. */
const uint8_t *vc_rtp_ext(const uint8_t *pkt, const struct vc_rtp *rtp, uint8_t id, uint32_t *sz);

/* vc_rtp_padding returns the number of padding bytes of a clear packet (0 without the P bit), or -1 when
   the count is 0 or runs past the payload. */
int vc_rtp_padding(const uint8_t *pkt, uint32_t sz, const struct vc_rtp *rtp);

struct vc_rtp_identity { /* how a packet leaves */
    uint32_t ssrc;
    uint32_t timestamp;
    uint16_t seq;
    uint8_t pt;
    uint8_t pad;
    const uint8_t *rx_ext; /* [VC_EXT_COUNT] ids in the incoming packet; NULL: no extensions are known */
    const uint8_t *tx_ext; /* [VC_EXT_COUNT] ids towards the receiver; 0: leave it out */
    const uint8_t *mid;    /* VC_LABEL_SZ bytes, zero padded, or NULL: the MID that the receiver expects */
    uint32_t send_time;    /* vc_rtp_send_time of the departure; written where tx_ext has its id */
    uint16_t transport_number; /* transport-wide; likewise */
};

/* The departure in the form of abs-send-time: seconds in 24-bit fixed point, 18 bits of them the
   fraction (webrtc.org/experiments/rtp-hdrext/abs-send-time).  Only differences mean anything. */
static inline uint32_t vc_rtp_send_time(uint64_t ns)
{
    uint64_t seconds = ns / 1000000000u, rest = ns % 1000000000u;

    return (uint32_t)(seconds << 18 | (rest << 18) / 1000000000u) & 0xffffffu;
}

/* vc_rtp_write writes the outgoing header to dst (VC_RTP_HEADER_MAX bytes): marker, P bit and CSRCs as they came,
   identity rewritten; extensions renumbered from rx_ext to tx_ext, the incoming mid, rid, repaired-rid,
   transport-cc and abs-send-time never copied; MID written when tx_ext[VC_EXT_MID] and mid are given, send time and
   transport-wide number when tx_ext has an id for them; one-byte form, or
   two-byte form when an id or length needs it.  Extensions that the maps do not name are dropped.  Returns its size. */
uint32_t vc_rtp_write(uint8_t *dst, const uint8_t *pkt, const struct vc_rtp *rtp, const struct vc_rtp_identity *as);

#endif
