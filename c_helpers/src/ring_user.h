/* SPDX-License-Identifier: MIT */
/* The supervisor's end of a worker segment: what Python cannot do by itself, because it needs
   loads and stores with an order, or the lists that are macros.

   shm points at a mapped worker segment (struct vc_shm_header first).  One thread of one process
   is the supervisor's end; nothing here blocks, allocates or makes a system call. */
#ifndef VC_RING_USER_H
#define VC_RING_USER_H

#include "vcfwd/abi.h"

/* vc_user_push returns 0, or -1 when the command ring is full. */
int vc_user_push(void *shm, const struct vc_command *command);
/* vc_user_must_ring: after pushes, is the worker asleep, so that its bell must be rung? */
int vc_user_must_ring(void *shm);
/* vc_user_pop returns 1 and fills event, or 0 when there is none. */
int vc_user_pop(void *shm, struct vc_event *event);
uint32_t vc_user_cmd_free(void *shm);
/* vc_user_take_overflow returns whether events were lost, and clears the mark. */
int vc_user_take_overflow(void *shm);
/* vc_user_alive_until: the later of the last beat and, while asleep, the announced wake-up. */
uint64_t vc_user_alive_until(void *shm);
uint64_t vc_user_epoch(void *shm);

/* Names and sentences of the lists in abi.h and drop.h; NULL past their end. */
const char *vc_user_status_label(uint32_t status);
const char *vc_user_status_sentence(uint32_t status);
const char *vc_user_counter_name(uint32_t i);
const char *vc_user_counter_what(uint32_t i);
const char *vc_user_drop_label(uint32_t i);
const char *vc_user_drop_what(uint32_t i);
const char *vc_user_copy_drop_label(uint32_t i);
const char *vc_user_copy_drop_what(uint32_t i);
/* What a lateness in this bucket is below, in ns (vc_lateness_bound). */
uint64_t vc_user_lateness_bound(uint32_t bucket);
uint64_t vc_user_layout_hash(void);

#endif
