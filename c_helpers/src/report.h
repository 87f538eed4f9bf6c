/* SPDX-License-Identifier: MIT */
/* RTCP of a worker: what comes in, what is passed on, what the node itself originates.

   In: sender reports go to all routes of their source (through the mesh where they are on other
   workers), report blocks become route statistics and events, PLI and FIR become requests to
   the owner of the source (request.h), NACK becomes resends (resend.h), BYE and REMB become events.
   Out: receiver reports each rtcp_interval_ms, sender reports mapped through the rewrite. */
#ifndef VC_REPORT_H
#define VC_REPORT_H

#include "node.h"

/* An SRTCP datagram of this leg; counts it as consumed or dropped. */
void vc_report_receive(struct vc_worker *w, struct vc_leg *leg, const struct vc_io_rx *pkt);
/* A sender report has come for this source: passes it to the routes here. */
void vc_report_pass(struct vc_worker *w, uint32_t source);
/* Sends the stored sender report of the route's source, if there is one. */
void vc_report_route(struct vc_worker *w, struct vc_route *route);
/* Receiver reports that are due; returns how many it sent. */
uint32_t vc_report_timers(struct vc_worker *w);

#endif
