/* SPDX-License-Identifier: MIT */
/* Who is due when: ids (of legs, sources) by their next time, earliest first.

   A binary heap with one place for each id; ids due at the same time come in the order in which
   they were scheduled.  Reports and delayed requests of a worker are few and exact; departures
   are many and have a wheel (wheel.h).

   One thread, no clock, no allocation after new. */
#ifndef VC_PACER_H
#define VC_PACER_H

#include <stdint.h>

#include "vcfwd/abi.h"

struct vc_pacer_entry {
    uint64_t due_ns;
    uint64_t order;
    uint32_t id, pad;
};

struct vc_pacer {
    struct vc_pacer_entry *heap;
    uint32_t *place; /* by id: index in heap, or VC_NONE */
    uint32_t cnt, ids_max;
    uint64_t order;
};

/* 0, or -1 on lack of memory. */
int vc_pacer_init(struct vc_pacer *pacer, uint32_t ids_max);
void vc_pacer_fini(struct vc_pacer *pacer);

/* Puts the id at due_ns, or moves it there. */
void vc_pacer_schedule(struct vc_pacer *pacer, uint32_t id, uint64_t due_ns);
/* Moves the id only when that is earlier. */
void vc_pacer_hasten(struct vc_pacer *pacer, uint32_t id, uint64_t due_ns);
void vc_pacer_cancel(struct vc_pacer *pacer, uint32_t id);
/* UINT64_MAX when nothing is scheduled. */
uint64_t vc_pacer_next_due(const struct vc_pacer *pacer);
/* Takes out and returns the earliest id due by now_ns, or VC_NONE. */
uint32_t vc_pacer_pop_due(struct vc_pacer *pacer, uint64_t now_ns);

#endif
