/* SPDX-License-Identifier: MIT */
#include "events.h"

#include <unistd.h>

int vc_event_push(struct vc_worker *w, struct vc_event *event)
{
    event->worker = w->id;
    event->now_ns = w->now_ns;
    if (vc_ring_push(&w->events, event)) {
        w->c.events_lost++;
        __atomic_store_n(&w->shm->overflow, 1, __ATOMIC_RELEASE);
        w->events_pushed = 1;
        return -1;
    }
    w->events_pushed = 1;
    return 0;
}

void vc_event_applied(struct vc_worker *w, uint64_t command, enum vc_status status)
{
    struct vc_event event = { .type = VC_EVT_APPLIED };

    event.u.applied.id = command;
    event.u.applied.status = status;
    vc_event_push(w, &event);
}

void vc_event_bound(struct vc_worker *w, enum vc_evt_type type, const struct vc_source *source)
{
    struct vc_event event = { .type = type };

    event.u.bound.leg = source->leg;
    event.u.bound.source = source->id;
    event.u.bound.ssrc = source->ssrc;
    vc_event_push(w, &event);
}

void vc_event_active(struct vc_worker *w, const struct vc_source *source)
{
    struct vc_event event = { .type = VC_EVT_ACTIVE };

    event.u.object.object = source->id;
    event.u.object.digest = source->digest;
    vc_event_push(w, &event);
}

void vc_event_ring(struct vc_worker *w)
{
    const uint64_t one = 1;
    int bell = w->node->config.evt_bell[w->id];

    if (!w->events_pushed)
        return;
    w->events_pushed = 0;
    if (bell >= 0 && write(bell, &one, sizeof one) < 0)
        return; /* the counter is at its end, so it rings already */
}
