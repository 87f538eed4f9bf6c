/* SPDX-License-Identifier: MIT */
/* The duty cycle of a worker, its birth and its sleep. */
#include "commands.h"
#include "counters.h"
#include "events.h"
#include "forward.h"
#include "inbox.h"
#include "report.h"
#include "request.h"

#define HOUSEKEEPING_NS 500000ull
#define SOCKET_ASK_NS 100000ull
#define SLEEP_MAX_NS 100000000ull

#ifdef VC_FAULTS
volatile int vc_fault_hang_worker = -1; /* the worker of this index spins for ever */
#endif

static void open_segment(struct vc_worker *w)
{
    struct vc_shm_header *shm = w->node->config.shm[w->id];
    uint8_t *base = (uint8_t *)shm;

    w->shm = shm;
    vc_ring_init(&w->commands, &shm->cmd_head, &shm->cmd_tail, base + shm->cmd_off,
                 sizeof(struct vc_command), shm->cmd_cap);
    vc_ring_init(&w->events, &shm->evt_head, &shm->evt_tail, base + shm->evt_off,
                 sizeof(struct vc_event), shm->evt_cap);
    w->published = (struct vc_counters *)(base + shm->counters_off);
    w->leg_stats = (struct vc_leg_stats *)(base + shm->leg_stats_off);
    w->source_stats = (struct vc_source_stats *)(base + shm->source_stats_off);
    w->route_stats = (struct vc_route_stats *)(base + shm->route_stats_off);
}

static int new_tables(struct vc_worker *w)
{
    const struct vc_ctl_setup *setup = &w->node->config.setup;

    w->peers = calloc(setup->legs_max + 1, sizeof *w->peers);
    w->watches = calloc(setup->sources_max + 1, sizeof *w->watches);
    if (!w->peers || !w->watches || vc_flows_init(&w->flows, setup->legs_max) ||
        vc_wheel_init(&w->departures, setup->legs_max) ||
        vc_pacer_init(&w->reports, setup->legs_max) ||
        vc_pacer_init(&w->requests, setup->sources_max) ||
        vc_pacer_init(&w->nacks, setup->sources_max) ||
        vc_pacer_init(&w->feedbacks, setup->legs_max))
        return -1;
    for (uint32_t i = 0; i < setup->legs_max; i++)
        w->peers[i].owner = VC_NONE;
    for (uint32_t i = 0; i < setup->sources_max; i++)
        w->watches[i].first = VC_NONE;
    return 0;
}

struct vc_worker *vc_worker_new(struct vc_node *node, uint32_t worker, struct vc_io *io_socket,
                                struct vc_io *io_xsk, const char **why)
{
    struct vc_worker *w = calloc(1, sizeof *w);

    *why = "worker: no memory for its tables";
    if (!w)
        return NULL;
    w->node = node;
    w->id = worker;
    w->io_socket = io_socket;
    w->io_xsk = io_xsk;
    w->hold = (node->config.setup.flags & VC_SETUP_HOLD) != 0;
    if (new_tables(w)) {
        vc_worker_delete(w);
        return NULL;
    }
    if (io_socket && !io_xsk)
        w->departures.ahead_ns = io_socket->ahead_ns;
    w->crypto = vc_crypto_new((enum vc_crypto_backend)node->config.setup.crypto_backend);
    if (!w->crypto) {
        *why = "worker: the SRTP engine of the set-up is not available on this CPU";
        vc_worker_delete(w);
        return NULL;
    }
    open_segment(w);
    vc_counters_publish(w);
    return w;
}

void vc_worker_delete(struct vc_worker *w)
{
    if (w->crypto)
        vc_crypto_delete(w->crypto);
    free(w->peers);
    free(w->watches);
    vc_flows_fini(&w->flows);
    vc_wheel_fini(&w->departures);
    vc_pacer_fini(&w->reports);
    vc_pacer_fini(&w->requests);
    vc_pacer_fini(&w->nacks);
    vc_pacer_fini(&w->feedbacks);
    free(w);
}

static void housekeeping(struct vc_worker *w)
{
    if (w->now_ns - w->housekept_ns < HOUSEKEEPING_NS)
        return;
    w->housekept_ns = w->now_ns;
    if (w->io_socket)
        w->io_socket->ops->housekeeping(w->io_socket, w->now_ns);
    if (w->io_xsk)
        w->io_xsk->ops->housekeeping(w->io_xsk, w->now_ns);
}

/* Until the replayed table is complete (VC_SETUP_HOLD). */
static int holding(struct vc_worker *w)
{
    if (vc_likely(!w->hold))
        return 0;
    if (!w->hold_until_ns)
        w->hold_until_ns = w->now_ns + VC_HOLD_MS * 1000000ull;
    if (w->now_ns >= w->hold_until_ns)
        w->hold = 0;
    return w->hold;
}

/* Beside AF_XDP the media sockets bring strays, and asking them is a system call: while they had
   none they are asked once in SOCKET_ASK_NS.  What comes meanwhile ends a sleep all the same. */
static uint32_t receive(struct vc_worker *w)
{
    uint32_t work = vc_receive(w, VC_IO_XSK), n;

    if (w->io_xsk && !w->socket_had && w->now_ns - w->socket_asked_ns < SOCKET_ASK_NS)
        return work;
    w->socket_asked_ns = w->now_ns;
    n = vc_receive(w, VC_IO_SOCKET);
    w->socket_had = n > 0;
    return work + n;
}

uint32_t vc_worker_do_work(struct vc_worker *w, uint64_t now_ns)
{
    uint32_t work;

#ifdef VC_FAULTS
    while (vc_fault_hang_worker == (int)w->id)
        ;
#endif
    w->now_ns = now_ns;
    w->c.loops++;
    w->woken = 0;
    vc_wheel_advance(&w->departures, now_ns);
    work = vc_commands_drain(w);
    work += vc_inbox_drain(w);
    if (!holding(w)) {
        work += receive(w);
    }
    work += vc_depart(w);
    work += vc_request_timers(w);
    work += vc_report_timers(w);
    work += vc_nack_timers(w);
    work += vc_twcc_timers(w);
    vc_flush(w);
    vc_mesh_wake(w);
    vc_event_ring(w);
    housekeeping(w);
    if (work || now_ns - w->published_ns >= VC_PUBLISH_NS)
        vc_counters_publish(w);
    return work;
}

uint64_t vc_worker_next_due_ns(const struct vc_worker *w, uint64_t now_ns)
{
    uint64_t due_ns = now_ns + SLEEP_MAX_NS;
    const uint64_t dues[] = { vc_wheel_next_due(&w->departures), vc_pacer_next_due(&w->reports),
                              vc_pacer_next_due(&w->requests), vc_pacer_next_due(&w->nacks),
                              vc_pacer_next_due(&w->feedbacks),
                              w->dump.active ? now_ns : UINT64_MAX };

    for (unsigned i = 0; i < sizeof dues / sizeof *dues; i++)
        if (dues[i] < due_ns)
            due_ns = dues[i];
    return due_ns < now_ns ? now_ns : due_ns;
}

int vc_worker_sleep_begin(struct vc_worker *w, uint64_t until_ns)
{
    __atomic_store_n(&w->shm->sleep_until_ns, until_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&w->shm->sleeping, 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* pairs with the producers' fence */
    if (!vc_ring_front(&w->commands) && !vc_mesh_pending(w)) {
        w->c.wakeups++;
        return 1;
    }
    __atomic_store_n(&w->shm->sleeping, 0, __ATOMIC_RELAXED);
    return 0;
}

void vc_worker_sleep_end(struct vc_worker *w, uint64_t now_ns)
{
    vc_worker_beat(w, now_ns);
    __atomic_store_n(&w->shm->sleeping, 0, __ATOMIC_RELEASE);
}

void vc_worker_beat(struct vc_worker *w, uint64_t now_ns)
{
    __atomic_store_n(&w->shm->beat_ns, now_ns, __ATOMIC_RELEASE);
}

void vc_worker_account(struct vc_worker *w, uint64_t worked_ns, uint64_t spun_ns,
                       uint64_t blocked_ns)
{
    w->c.worked_ns += worked_ns;
    w->c.spun_ns += spun_ns;
    w->c.blocked_ns += blocked_ns;
}

const char *vc_worker_crypto_name(const struct vc_worker *w)
{
    return vc_crypto_backend_name(w->crypto);
}
