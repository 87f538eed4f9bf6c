/* SPDX-License-Identifier: MIT */
#include "commands.h"

#include "events.h"
#include "request.h"

#define DUMP_IDS_CYCLE 4096u

static enum vc_status keyframe_request(struct vc_worker *w, uint32_t id)
{
    if (id >= w->node->config.setup.sources_max)
        return VC_STATUS_BAD_ID;
    if (!vc_source_live(&w->node->sources[id]))
        return VC_STATUS_NO_SOURCE;
    if (w->node->sources[id].owner != w->id)
        return VC_STATUS_NOT_OWNER;
    vc_request_keyframe(w, id);
    return VC_STATUS_OK;
}

enum vc_status vc_command_apply(struct vc_worker *w, const struct vc_command *command)
{
    switch (command->type) {
    case VC_CMD_NOP:
        w->hold = 0;
        return VC_STATUS_OK;
    case VC_CMD_LEG_SET:
        return vc_command_leg_set(w, &command->u.leg_set);
    case VC_CMD_LEG_HEADER:
        return vc_command_leg_header(w, &command->u.leg_header);
    case VC_CMD_LEG_RATE:
        return vc_command_leg_rate(w, &command->u.leg_rate);
    case VC_CMD_LEG_REMOVE:
        return vc_command_leg_remove(w, command->u.id.id);
    case VC_CMD_SOURCE_SET:
        return vc_command_source_set(w, &command->u.source_set);
    case VC_CMD_SOURCE_REMOVE:
        return vc_command_source_remove(w, command->u.id.id);
    case VC_CMD_ROUTE_SET:
        return vc_command_route_set(w, &command->u.route_set);
    case VC_CMD_ROUTE_FILTER:
        return vc_command_route_filter(w, &command->u.route_filter);
    case VC_CMD_ROUTE_REMOVE:
        return vc_command_route_remove(w, command->u.id.id);
    case VC_CMD_KEYFRAME_REQUEST:
        return keyframe_request(w, command->u.id.id);
    case VC_CMD_DUMP:
        w->dump = (struct vc_dump){ .command = command->id, .active = 1 };
        return VC_STATUS_OK;
    default:
        return VC_STATUS_BAD_TYPE;
    }
}

/* The next thing of the dump, as an event; 0: this id is not ours or not in use. */
static int dump_one(const struct vc_worker *w, struct vc_event *event)
{
    const struct vc_node *node = w->node;
    uint32_t at = w->dump.at;

    *event = (struct vc_event){ .type = VC_EVT_DUMP_LEG + w->dump.phase };
    event->u.object.object = at;
    if (w->dump.phase == 0) {
        if (w->peers[at].owner != w->id)
            return 0;
        event->u.object.digest = node->legs[at].digest;
        event->u.object.key_id = node->legs[at].key_id;
    } else if (w->dump.phase == 1) {
        if (!vc_source_live(&node->sources[at]) || node->sources[at].owner != w->id)
            return 0;
        event->u.object.digest = node->sources[at].digest;
    } else {
        if (!node->routes[at].live || w->peers[node->routes[at].leg].owner != w->id)
            return 0;
        event->u.object.digest = node->routes[at].digest;
    }
    return 1;
}

static int is_bound(const struct vc_source *source)
{
    return source->bound && !(source->flags & VC_SOURCE_BY_SSRC);
}

static uint32_t dump(struct vc_worker *w)
{
    const struct vc_ctl_setup *setup = &w->node->config.setup;
    const uint32_t max[3] = { setup->legs_max, setup->sources_max, setup->routes_max };
    struct vc_event event;
    uint32_t cnt = 0;

    for (; cnt < DUMP_IDS_CYCLE && w->dump.phase < 3; cnt++) {
        if (w->dump.at == max[w->dump.phase]) {
            w->dump.at = 0;
            w->dump.phase++;
            continue;
        }
        if (vc_ring_used(&w->events) + 2 > w->events.mask + 1)
            return cnt; /* goes on when the supervisor has read */
        if (dump_one(w, &event)) {
            vc_event_push(w, &event);
            if (w->dump.phase == 1 && is_bound(&w->node->sources[w->dump.at]))
                vc_event_bound(w, VC_EVT_BOUND, &w->node->sources[w->dump.at]);
        }
        w->dump.at++;
    }
    if (w->dump.phase == 3 && vc_ring_reserve(&w->events)) {
        w->dump.active = 0;
        vc_event_applied(w, w->dump.command, VC_STATUS_OK);
    }
    return cnt + 1;
}

uint32_t vc_commands_drain(struct vc_worker *w)
{
    uint32_t cnt = 0;

    while (cnt < VC_COMMANDS_CYCLE && !w->dump.active) {
        const struct vc_command *shared = vc_ring_front(&w->commands);
        struct vc_command command;
        enum vc_status status;

        if (!shared)
            break;
        command = *shared; /* validated and used from our own copy */
        vc_ring_pop(&w->commands);
        status = vc_command_apply(w, &command);
        if (status == VC_STATUS_OK)
            w->c.commands++;
        else
            w->c.commands_refused++;
        if (!w->dump.active)
            vc_event_applied(w, command.id, status);
        cnt++;
    }
    return w->dump.active ? cnt + dump(w) : cnt;
}
