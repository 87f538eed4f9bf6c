/* SPDX-License-Identifier: MIT */
/* Redundant sound (RED, RFC 2198): where in a payload its newest block lies, for receivers that take
   none.  The redundant blocks come first, each as long as its header says; the newest one is the
   rest, and has the packet's own timestamp.

   Pure: no clock, no memory. */
#ifndef VC_RED_H
#define VC_RED_H

#include <stdint.h>

/* Bytes of a payload that vc_red_primary looks at: redundant headers of 4 each, and the last one. */
#define VC_RED_BLOCKS_MAX 8u
#define VC_RED_HEAD_MAX (4u * VC_RED_BLOCKS_MAX + 1u)

/* The offset of the newest block in a payload of sz bytes, of which head are the first
   VC_RED_HEAD_MAX (or all).  0: it is no RED, says that it is longer than it is, has more than
   VC_RED_BLOCKS_MAX redundant blocks, or its newest block is empty or not of this payload type. */
uint32_t vc_red_primary(const uint8_t *head, uint32_t sz, uint8_t pt);

#endif
