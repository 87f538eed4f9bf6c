/* SPDX-License-Identifier: MIT */
/* Counters: tallied in the worker, published into its segment with plain stores (one writer;
   a reader may see one counter a moment younger than another). */
#ifndef VC_COUNTERS_H
#define VC_COUNTERS_H

#include "node.h"

#define VC_PUBLISH_NS 1000000ull

void vc_counters_publish(struct vc_worker *w);

#endif
