/* SPDX-License-Identifier: MIT */
/* To which SSRC a source is bound, and when its indices begin anew.

   An SSRC that nobody knows is bound at its first authentic packet, by the labels in its clear header
   or by its payload type; a source bound by label follows it to another SSRC (RFC 9143 section 9.2).
   Where the numbers of a source begin anew, by other keys or another SSRC, its record in the index
   store does too, and `stream` tells those who read it.

   All of it belongs to the worker that owns the leg. */
#ifndef VC_BIND_H
#define VC_BIND_H

#include "node.h"

/* The source that an unknown SSRC would belong to if the packet is authentic, or NULL.  The extensions
   are clear, so this is only a proposal; vc_receive_flush makes it a binding.  The payload type
   tells only of a packet without labels, and only where it can mean one source (RFC 9143
   section 9.2: else it is dropped). */
struct vc_source *vc_bind_propose(const struct vc_worker *w, const struct vc_leg *leg,
                                  const uint8_t *pkt, const struct vc_rtp *rtp);
/* 1: the packet's element with this id is the label; an empty label: there is none. */
int vc_bind_label(const uint8_t label[VC_LABEL_SZ], const uint8_t *pkt, const struct vc_rtp *rtp,
                  uint8_t id);
/* Binds a source to the SSRC. */
void vc_source_bind(struct vc_worker *w, struct vc_source *source, uint32_t ssrc);
/* A bound one goes to another SSRC, by an authentic packet: its indices begin anew. */
void vc_source_move(struct vc_worker *w, struct vc_source *source, uint32_t ssrc);
/* Its SSRCs have no source any more, by a move or its end: the leg remembers their indices. */
void vc_source_leave(struct vc_worker *w, struct vc_source *source);
/* The leg has other keys now: indices begin anew. */
void vc_source_rekey(struct vc_worker *w, struct vc_source *source);
/* The record in the store knows nothing but this, and is nobody's until it has a key_id. */
void vc_bind_reset(struct vc_source_index *store, uint32_t leg, uint64_t key_id, uint32_t ssrc);

#endif
