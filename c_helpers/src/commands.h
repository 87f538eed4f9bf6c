/* SPDX-License-Identifier: MIT */
/* Commands of the supervisor: drained at most VC_COMMANDS_CYCLE a duty cycle, each validated whole
   before it changes anything, each answered by VC_EVT_APPLIED.

   A dump goes on over as many cycles as the event ring needs; commands behind it wait. */
#ifndef VC_COMMANDS_H
#define VC_COMMANDS_H

#include "node.h"

#define VC_COMMANDS_CYCLE 32u

uint32_t vc_commands_drain(struct vc_worker *w);
/* Carries out one command and returns its status; a dump is only begun. */
enum vc_status vc_command_apply(struct vc_worker *w, const struct vc_command *command);

/* By object; used by vc_command_apply. */
enum vc_status vc_command_leg_set(struct vc_worker *w, const struct vc_cmd_leg_set *set);
enum vc_status vc_command_leg_header(struct vc_worker *w, const struct vc_cmd_leg_header *set);
enum vc_status vc_command_leg_rate(struct vc_worker *w, const struct vc_cmd_leg_rate *set);
enum vc_status vc_command_leg_remove(struct vc_worker *w, uint32_t id);
enum vc_status vc_command_source_set(struct vc_worker *w, const struct vc_cmd_source_set *set);
enum vc_status vc_command_source_remove(struct vc_worker *w, uint32_t id);
enum vc_status vc_command_route_set(struct vc_worker *w, const struct vc_cmd_route_set *set);
enum vc_status vc_command_route_filter(struct vc_worker *w,
                                       const struct vc_cmd_route_filter *set);
enum vc_status vc_command_route_remove(struct vc_worker *w, uint32_t id);
/* The leg has other keys now: indices begin anew. */
void vc_command_rekey_route(struct vc_worker *w, struct vc_route *route);

#endif
