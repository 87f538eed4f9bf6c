/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* First payload byte -> class -> verdict (RFC 7983 section 7, RFC 9443 section 3).
   Pure: no maps, no clock, no packet access.  Both programs include it, and it compiles in user
   space too, so that there is one table of first bytes in the whole product. */
#ifndef VC_EBPF_VERDICT_H
#define VC_EBPF_VERDICT_H

#include "abi.h"

static inline __attribute__((always_inline)) enum vc_class vc_classify(__u8 first_byte)
{
    if (first_byte <= 3)
        return VC_CLASS_STUN;
    if (first_byte < 20)
        return VC_CLASS_NONE;
    if (first_byte <= 63)
        return VC_CLASS_DTLS;
    if (first_byte <= 127)
        return VC_CLASS_QUIC;
    if (first_byte <= 191)
        return VC_CLASS_MEDIA;
    return VC_CLASS_QUIC;
}

/* The verdict of control that the guard let through. */
static inline __attribute__((always_inline)) enum vc_verdict vc_pass_of(enum vc_class packet_class)
{
    if (packet_class == VC_CLASS_STUN)
        return VC_VERDICT_PASS_STUN;
    if (packet_class == VC_CLASS_DTLS)
        return VC_VERDICT_PASS_DTLS;
    return VC_VERDICT_PASS_QUIC;
}

#endif
