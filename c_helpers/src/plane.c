/* SPDX-License-Identifier: MIT */
#include "plane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"
#include "io_udp.h"
#include "io_xsk.h"
#include "numa.h"
#include "privilege.h"

__attribute__((format(printf, 2, 3)))
static const char *fail(struct vc_plane *plane, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(plane->why, sizeof plane->why, format, args);
    va_end(args);
    return plane->why;
}

static const char *check_powers(struct vc_plane *plane, const struct vc_ctl_setup *s)
{
    const struct { const char *name; uint32_t value; } powers[] = {
        { "audio_slots", s->audio_slots },
        { "video_slots", s->video_slots },
        { "frames", s->frames },
    };

    for (size_t i = 0; i < sizeof powers / sizeof *powers; i++)
        if (!powers[i].value || (powers[i].value & (powers[i].value - 1)))
            return fail(plane, "set-up: %s is %u, but must be a power of two", powers[i].name,
                        powers[i].value);
    return NULL;
}

/* Each worker serves one, and each is served. */
static const char *check_interfaces(struct vc_plane *plane, const struct vc_ctl_setup *s)
{
    uint32_t served = 0;

    for (uint32_t i = 0; i < s->interface_cnt; i++) {
        const struct vc_ctl_interface *at = &s->interfaces[i];

        if (at->worker_first >= s->worker_cnt || at->worker_cnt > s->worker_cnt - at->worker_first)
            return fail(plane, "set-up: %.16s is served by %u workers from %u on, but there are "
                        "%u workers", at->name, at->worker_cnt, at->worker_first, s->worker_cnt);
        for (uint32_t w = 0; w < s->worker_cnt; w++)
            served |= vc_serves(at, w) ? UINT32_C(1) << w : 0;
    }
    for (uint32_t w = 0; s->interface_cnt && w < s->worker_cnt; w++)
        if (!(served >> w & 1))
            return fail(plane, "set-up: worker %u serves none of the interfaces: have fewer "
                        "workers, or pin it to a CPU on the NUMA node of an interface", w);
    return NULL;
}

static const char *check_setup(struct vc_plane *plane, const struct vc_ctl_setup *s)
{
    const struct { const char *name; uint32_t value, low, high; } limits[] = {
        { "worker_cnt", s->worker_cnt, 1, VC_WORKERS_MAX },
        { "local_cnt", s->local_cnt, 1, VC_LOCALS_MAX },
        { "interface_cnt", s->interface_cnt, 0, VC_INTERFACES_MAX },
        { "legs_max", s->legs_max, 1, 1u << 20 },
        { "sources_max", s->sources_max, 1, 1u << 20 },
        { "routes_max", s->routes_max, 1, 1u << 22 },
        { "idle_spin_us", s->idle_spin_us, 0, 1000000 },
        { "scheduler", s->scheduler, VC_SCHEDULER_OTHER, VC_SCHEDULER_FIFO },
        { "priority", s->priority, s->scheduler == VC_SCHEDULER_FIFO, 99 },
    };

    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].value < limits[i].low || limits[i].value > limits[i].high)
            return fail(plane, "set-up: %s is %u, but must be %u to %u", limits[i].name,
                        limits[i].value, limits[i].low, limits[i].high);
    const char *why = check_interfaces(plane, s);

    return why ? why : check_powers(plane, s);
}

/* Where a label's descriptor goes, or NULL: held only. */
static int *place(struct vc_plane *plane, const struct vc_ctl_fd *label)
{
    int worker = label->a < VC_WORKERS_MAX, slot = (int)label->a;

    switch (label->kind) {
    case VC_FD_WORKER_SHM:
        return worker ? &plane->shm[slot] : NULL;
    case VC_FD_CMD_BELL:
        return worker ? &plane->cmd_bell[slot] : NULL;
    case VC_FD_EVT_BELL:
        return worker ? &plane->config.evt_bell[slot] : NULL;
    case VC_FD_INDEX_STORE:
        return &plane->index_store;
    case VC_FD_MEDIA_SOCKET:
        return label->a < VC_LOCALS_MAX && label->b < VC_WORKERS_MAX ?
                   &plane->media[label->b][label->a] : NULL;
    case VC_FD_XSKS_MAP:
        return &plane->xsks_map;
    default:
        return NULL;
    }
}

static const char *sort_fds(struct vc_plane *plane, const struct vc_held *held)
{
    memset(plane->shm, -1, sizeof plane->shm);
    memset(plane->cmd_bell, -1, sizeof plane->cmd_bell);
    memset(plane->media, -1, sizeof plane->media);
    memset(plane->config.evt_bell, -1, sizeof plane->config.evt_bell);
    plane->index_store = plane->xsks_map = -1;
    for (uint32_t i = 0; i < held->fd_cnt; i++) {
        int *to = place(plane, &held->labels[i]);

        if (!to)
            continue;
        if (*to >= 0)
            return fail(plane, "set-up: two descriptors with the label (%u, %u, %u)",
                        held->labels[i].kind, held->labels[i].a, held->labels[i].b);
        *to = held->fds[i];
    }
    for (uint32_t w = 0; w < held->setup.worker_cnt; w++) {
        if (plane->shm[w] < 0 || plane->cmd_bell[w] < 0 || plane->config.evt_bell[w] < 0)
            return fail(plane, "set-up: worker %u lacks its shared memory or a bell", w);
        for (uint32_t l = 0; l < held->setup.local_cnt; l++)
            if (plane->media[w][l] < 0)
                return fail(plane, "set-up: worker %u lacks its media socket for address %u", w,
                            l);
    }
    if (plane->index_store < 0)
        return fail(plane, "set-up: the index store is missing");
    if (held->setup.interface_cnt && plane->xsks_map < 0)
        return fail(plane, "set-up: interfaces are named, but the XSKMAP is missing");
    return NULL;
}

/* A segment that could shrink would end this process by SIGBUS: it must be sealed. */
static const char *map(struct vc_plane *plane, int fd, const char *what, void **mem, uint64_t *sz)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return fail(plane, "set-up: the %s is not a memfd sealed against shrinking", what);
    if (fstat(fd, &st) || st.st_size <= 0)
        return fail(plane, "set-up: the %s has no size", what);
    *sz = (uint64_t)st.st_size;
    *mem = mmap(NULL, (size_t)*sz, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*mem == MAP_FAILED)
        return fail(plane, "set-up: cannot map the %s: %s", what, strerror(errno));
    madvise(*mem, (size_t)*sz, MADV_DONTDUMP);
    return NULL;
}

static const char *map_all(struct vc_plane *plane, const struct vc_ctl_setup *setup)
{
    const char *why;
    uint64_t sz;

    why = map(plane, plane->index_store, "index store", &plane->config.index_store, &sz);
    if (why)
        return why;
    why = vc_index_check(plane->config.index_store, sz, setup);
    if (why)
        return fail(plane, "set-up: index store: %s", why);
    for (uint32_t w = 0; w < setup->worker_cnt; w++) {
        why = map(plane, plane->shm[w], "worker segment", &plane->config.shm[w], &sz);
        if (why)
            return why;
        why = vc_shm_check(plane->config.shm[w], sz, setup, w);
        if (why)
            return fail(plane, "set-up: segment of worker %u: %s", w, why);
        plane->config.wake_bell[w] = plane->cmd_bell[w];
    }
    return NULL;
}

static void tell_zerocopy(struct vc_plane *plane, const struct vc_ctl_setup *setup, uint32_t w)
{
    for (uint32_t i = 0; i < setup->interface_cnt; i++)
        if (w == setup->interfaces[i].worker_first)
            plane->ready.zerocopy[i] =
                (uint32_t)vc_io_xsk_zerocopy(plane->threads[w].io_xsk, i);
}

static const char *build_parts(struct vc_plane *plane, const struct vc_ctl_setup *setup,
                               uint32_t w)
{
    struct vc_thread *t = &plane->threads[w];
    const char *why = "out of memory";

    *t = (struct vc_thread){ .cmd_bell = plane->cmd_bell[w], .cpu = setup->cpus[w], .index = w,
                             .idle_spin_ns = setup->idle_spin_us * UINT64_C(1000),
                             .busy_poll = setup->busy_poll != 0,
                             .real_time = setup->scheduler == VC_SCHEDULER_FIFO };
    t->io_socket = vc_io_udp_new(setup, w, plane->media[w], setup->local_cnt, &why);
    if (!t->io_socket)
        return fail(plane, "worker %u: media sockets: %s", w, why);
    if (setup->interface_cnt) {
        t->io_xsk = vc_io_xsk_new(setup, w, plane->xsks_map, &why);
        if (!t->io_xsk)
            return fail(plane, "worker %u: AF_XDP: %s", w, why);
        tell_zerocopy(plane, setup, w);
    }
    t->worker = vc_worker_new(plane->node, w, t->io_socket, t->io_xsk, &why);
    if (!t->worker)
        return fail(plane, "worker %u: %s", w, why);
    return NULL;
}

/* On the worker's CPU, so that what is its own is taken from its node.  The first thing that is
   wrong is told in READY; a fault of a thread's CPU has its own sentence when the thread starts. */
static const char *build_worker(struct vc_plane *plane, const struct vc_ctl_setup *setup,
                                uint32_t w)
{
    char *memory = plane->ready.memory;
    struct vc_numa numa;
    const char *refused = vc_numa_enter(&numa, setup->cpus[w]);
    const char *why = build_parts(plane, setup, w);
    uint32_t pages = 0;

    if (!why && !refused && setup->cpus[w] >= 0 && plane->threads[w].io_xsk)
        pages = vc_io_xsk_elsewhere(plane->threads[w].io_xsk);
    if (refused && !*memory)
        snprintf(memory, sizeof plane->ready.memory,
                 "memory of worker %u was taken on whatever node: %s %d", w, refused,
                 setup->cpus[w]);
    else if (pages && !*memory)
        snprintf(memory, sizeof plane->ready.memory,
                 "%u pages of the packet memory of worker %u are not on node %d, where CPU %d is",
                 pages, w, vc_numa_node(), setup->cpus[w]);
    vc_numa_leave(&numa);
    return why;
}

const char *vc_plane_start(struct vc_plane *plane, const struct vc_held *held)
{
    const struct vc_ctl_setup *setup = &held->setup;
    const char *why = check_setup(plane, setup);

    if (!why)
        why = sort_fds(plane, held);
    if (!why)
        why = map_all(plane, setup);
    if (why)
        return why;
    plane->config.setup = *setup;
    why = "out of memory";
    plane->node = vc_node_new(&plane->config, &why);
    if (!plane->node)
        return fail(plane, "set-up: %s", why);
    for (uint32_t w = 0; w < setup->worker_cnt; w++)
        if ((why = build_worker(plane, setup, w)))
            return why;
    /* Best effort: under a small RLIMIT_MEMLOCK the node runs, with page faults. */
    if (mlockall(MCL_CURRENT | MCL_ONFAULT))
        errno = 0;
    /* The workers inherit it; after the drop it could not be taken any more. */
    if (setup->scheduler == VC_SCHEDULER_FIFO && vc_threads_real_time((int)setup->priority))
        return fail(plane, "cannot take the real-time class with priority %u: %s. Give the data "
                    "plane CAP_SYS_NICE, or set dataplane.scheduler to \"other\"",
                    setup->priority, strerror(errno));
    if (vc_privilege_drop(setup->interface_cnt > 0))
        return fail(plane, "cannot drop capabilities: %s", strerror(errno));
    plane->ready.epoch = vc_clock_ns();
    for (uint32_t w = 0; w < setup->worker_cnt; w++) {
        struct vc_shm_header *header = plane->config.shm[w];

        vc_worker_beat(plane->threads[w].worker, plane->ready.epoch);
        __atomic_store_n(&header->epoch, plane->ready.epoch, __ATOMIC_RELEASE);
    }
    snprintf(plane->ready.crypto, sizeof plane->ready.crypto, "%s",
             vc_worker_crypto_name(plane->threads[0].worker));
    if (vc_threads_start(plane->threads, setup->worker_cnt, &why))
        return fail(plane, "%s", why);
    if (setup->scheduler == VC_SCHEDULER_FIFO && vc_threads_real_time(0))
        return fail(plane, "cannot leave the real-time class: %s", strerror(errno));
    return NULL;
}

int vc_plane_stop(struct vc_plane *plane)
{
    uint32_t cnt = plane->config.setup.worker_cnt;

    if (!plane->node)
        return 0;
    if (vc_threads_stop(plane->threads, cnt))
        return -1;
    for (uint32_t w = 0; w < cnt; w++) {
        struct vc_thread *t = &plane->threads[w];

        vc_worker_delete(t->worker);
        t->io_socket->ops->delete(t->io_socket);
        if (t->io_xsk)
            t->io_xsk->ops->delete(t->io_xsk);
    }
    vc_node_delete(plane->node);
    plane->node = NULL;
    return 0;
}
