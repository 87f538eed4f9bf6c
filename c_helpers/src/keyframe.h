/* SPDX-License-Identifier: MIT */
/* Where a key frame starts, read from the first bytes of a clear payload.

   Pure.  H.264: a NAL unit, STAP-A or first FU-A fragment that carries an SPS or an IDR slice
   with first_mb_in_slice 0 (RFC 6184; a later slice of the picture is no place to start).  VP8:
   start of partition 0 with the P bit clear (RFC 7741).  VP9: B and not P, spatial level 0 (RFC 9628).  AV1: N bit of
   the aggregation header (AV1 RTP section 4.4).  Never reads past sz. */
#ifndef VC_KEYFRAME_H
#define VC_KEYFRAME_H

#include <stdint.h>

#include "vcfwd/abi.h"

/* 1: a decoder can start with this packet. */
int vc_keyframe_starts(enum vc_codec codec, const uint8_t *payload, uint32_t sz);

#endif
