/* SPDX-License-Identifier: MIT */
/* What the other workers sent (mesh.h), acted on: datagrams of this worker's legs are received as if
   they had come here, positions are announced to routes, reports passed on, key frames asked for. */
#ifndef VC_INBOX_H
#define VC_INBOX_H

#include "node.h"

/* Empties the rings to this worker, of each at most what it holds; returns how much it was. */
uint32_t vc_inbox_drain(struct vc_worker *w);

#endif
