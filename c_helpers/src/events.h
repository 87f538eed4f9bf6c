/* SPDX-License-Identifier: MIT */
/* Events of a worker for the supervisor.  A full ring loses the event, counts it and sets
   `overflow`: the supervisor then asks for a dump.  The bell is rung once a duty cycle. */
#ifndef VC_EVENTS_H
#define VC_EVENTS_H

#include "node.h"

/* 0, or -1 when the ring was full. */
int vc_event_push(struct vc_worker *w, struct vc_event *event);
void vc_event_applied(struct vc_worker *w, uint64_t command, enum vc_status status);
void vc_event_bound(struct vc_worker *w, enum vc_evt_type type, const struct vc_source *source);
void vc_event_active(struct vc_worker *w, const struct vc_source *source);
/* Rings the supervisor when something was pushed. */
void vc_event_ring(struct vc_worker *w);

#endif
