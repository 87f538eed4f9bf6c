/* SPDX-License-Identifier: MIT */
/* RTX from a sender (RFC 4588): a packet that was lost comes again on a stream of its own, with
   the number that it had before its payload.  It goes into its source's history under that
   number, as if it had come late.  What brings nothing new (padding, a number that was here
   before) is consumed: it is told of in feedback, and no route sees it.

   The stream belongs to its source by SSRC, or is bound at its first authentic packet by payload
   type and, where the source has labels, (mid, repaired-rid).  Its indices have a replay window
   of their own in the index store. */
#ifndef VC_RTX_H
#define VC_RTX_H

#include "node.h"

#define VC_RTX_AHEAD_MAX 1024u /* a number further above the source's highest is not believed */

/* source_set was found valid: takes over the RTX stream that it names, or that the store knows. */
void vc_rtx_set(const struct vc_worker *w, struct vc_source *source,
                const struct vc_cmd_source_set *set);
/* A packet whose SSRC is no source's.  0: it is not RTX either; 1: dealt with and counted. */
int vc_rtx_receive(struct vc_worker *w, struct vc_leg *leg, const struct vc_io_rx *pkt,
                   const struct vc_rtp *rtp);

#endif
