/* SPDX-License-Identifier: MIT */
/* Flows of a worker: 5-tuple -> leg.  Every worker knows the flows of all legs, so that it can
   hand over what lands on the wrong queue.

   Open addressing, at most half full; only validated tuples get in, so nobody outside chooses
   what is hashed into it.  One thread; no allocation after init. */
#ifndef VC_FLOWS_H
#define VC_FLOWS_H

#include <stdint.h>

#include "vcfwd/abi.h"

struct vc_flow {
    struct vc_tuple tuple;
    uint32_t leg; /* VC_NONE: empty */
};

struct vc_flows {
    struct vc_flow *table;
    uint32_t mask, cnt, max;
};

/* For legs_max legs: twice as many flows (a leg has one, and a second while its path changes). */
int vc_flows_init(struct vc_flows *flows, uint32_t legs_max);
void vc_flows_fini(struct vc_flows *flows);

/* The leg of this 5-tuple, or VC_NONE. */
uint32_t vc_flows_find(const struct vc_flows *flows, const struct vc_tuple *tuple);
/* The tuple must be new and cnt below max. */
void vc_flows_add(struct vc_flows *flows, const struct vc_tuple *tuple, uint32_t leg);
void vc_flows_remove(struct vc_flows *flows, const struct vc_tuple *tuple);

#endif
