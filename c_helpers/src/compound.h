/* SPDX-License-Identifier: MIT */
/* RTCP of the node's own on its way out: a compound, sealed under the leg's next SRTCP index. */
#ifndef VC_COMPOUND_H
#define VC_COMPOUND_H

#include "node.h"

/* Begins one on this leg: an empty report and the name. */
void vc_compound_begin(struct vc_rtcp_writer *writer, const struct vc_leg *leg);
/* Seals and commits one, or counts it as dropped; vc_flush sends it. */
void vc_compound_send(struct vc_worker *w, struct vc_leg *leg, const uint8_t *data, uint32_t sz);

#endif
