/* SPDX-License-Identifier: MIT */
/* The timing wheel of departures: which leg is due in which slot.

   Time is cut into slots of 32.768 us; an id (of a leg) lies in the slot that begins at its due
   time or next after it, so that it never comes out early and all of one slot come out together.
   What is due already lies in the ready list, in the order in which it became so.  The wheel
   reaches 268 ms ahead; what is due later waits in the furthest slot and is put again from there.

   With slack an id may come out up to so many slots later, to come out with others: fewer
   wake-ups, for a delay that does not add up (its owner accounts in exact times).  What is due
   waits for the last slot that is occupied within everybody's slack, or for VC_WHEEL_GROUP ids, and
   comes out as due then; so ids of one slot and nothing near it do not wait at all.  A slot takes
   VC_WHEEL_GROUP ids; the next one takes a later slot within its slack, or the same when all within
   reach are full, so that nothing ever waits for room.

   Where the kernel holds packets until their time (ahead_ns), ids come out so long before it,
   and those of three quarters of that span with one wake-up; there nothing waits for others.

   One thread, no clock but vc_wheel_advance, no allocation after init. */
#ifndef VC_WHEEL_H
#define VC_WHEEL_H

#include <stdint.h>

#include "vcfwd/abi.h"

#define VC_SLOT_SHIFT 15u /* 2^15 ns = 32.768 us */
#define VC_SLOT_NS (UINT64_C(1) << VC_SLOT_SHIFT)
#define VC_WHEEL_SLOTS 8192u /* a horizon of 268 ms */
#define VC_WHEEL_GROUP 16u   /* ids of one slot: one wake-up, one kick */
#define VC_WHEEL_SLACK_MAX 31u /* 1 ms */

struct vc_wheel_list {
    uint32_t head, tail, cnt; /* ids, or VC_NONE */
    uint32_t slack;           /* at most the least of its ids, slots */
};

struct vc_wheel_entry {
    uint64_t due_ns;     /* when it comes out */
    uint32_t next, prev; /* in its list */
    uint32_t list;       /* slot, VC_WHEEL_SLOTS: ready, or VC_NONE: not scheduled */
    uint32_t pad;
};

struct vc_wheel {
    struct vc_wheel_list *lists; /* slots, then ready */
    struct vc_wheel_entry *entries;
    uint64_t occupied[VC_WHEEL_SLOTS / 64];
    uint64_t ahead_ns;     /* its owner's to set, when empty */
    uint64_t now_ns, tick; /* the clock + ahead_ns; slots up to tick have come out */
    uint32_t ids_max, cnt;
};

/* 0, or -1 on lack of memory. */
int vc_wheel_init(struct vc_wheel *wheel, uint32_t ids_max);
void vc_wheel_fini(struct vc_wheel *wheel);

/* The time is now_ns: what has come due goes to the ready list.  An earlier one changes nothing. */
void vc_wheel_advance(struct vc_wheel *wheel, uint64_t now_ns);

/* Puts the id at due_ns, or moves it there; slack: slots, at most VC_WHEEL_SLACK_MAX. */
void vc_wheel_schedule(struct vc_wheel *wheel, uint32_t id, uint64_t due_ns, uint32_t slack);
/* Moves the id only when that is earlier than it would come out. */
void vc_wheel_hasten(struct vc_wheel *wheel, uint32_t id, uint64_t due_ns);
void vc_wheel_cancel(struct vc_wheel *wheel, uint32_t id);
/* When to call vc_wheel_advance, so that the next id comes out in time; at the latest at the
   horizon; UINT64_MAX when nothing is scheduled. */
uint64_t vc_wheel_next_due(const struct vc_wheel *wheel);
/* Takes out the first ready id, or VC_NONE; due_ns: when it was to come out. */
uint32_t vc_wheel_pop(struct vc_wheel *wheel, uint64_t *due_ns);

static inline int vc_wheel_scheduled(const struct vc_wheel *wheel, uint32_t id)
{
    return wheel->entries[id].list != VC_NONE;
}

#endif
