/* SPDX-License-Identifier: MIT */
#include "threads.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "io.h"

#define STACK_SZ (512u << 10)
#define STOP_WAIT_S 1

uint64_t vc_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Adds a backend's descriptors; -1 when the backend has work already. */
static int add_fds(struct vc_io *io, struct pollfd *polls, int n)
{
    int fds[VC_SLEEP_FDS_MAX], cnt;

    if (!io)
        return n;
    cnt = io->ops->sleep_fds(io, fds, (uint32_t)(VC_SLEEP_FDS_MAX - n));
    if (cnt < 0)
        return -1;
    for (int i = 0; i < cnt; i++)
        polls[n++] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
    return n;
}

/* Blocks until until_ns, a packet or a bell, and says for how long; the caller has no work. */
static uint64_t sleep_until(struct vc_thread *t, uint64_t until_ns)
{
    struct pollfd polls[VC_SLEEP_FDS_MAX + 1];
    uint64_t from_ns, now_ns, rings;
    int n = 0, got = -1;

    if (!vc_worker_sleep_begin(t->worker, until_ns))
        return 0;
    polls[n++] = (struct pollfd){ .fd = t->cmd_bell, .events = POLLIN };
    n = add_fds(t->io_socket, polls, n);
    if (n > 0)
        n = add_fds(t->io_xsk, polls, n);
    from_ns = now_ns = vc_clock_ns();
    if (n > 0 && until_ns > now_ns && !__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE)) {
        uint64_t left = until_ns - now_ns;
        struct timespec timeout = { (time_t)(left / 1000000000u), (long)(left % 1000000000u) };

        got = ppoll(polls, (nfds_t)n, &timeout, NULL);
        now_ns = vc_clock_ns();
    }
    if (got == 0)
        vc_idle_woke(&t->idle, until_ns, now_ns);
    vc_worker_sleep_end(t->worker, now_ns);
    /* The bell is an eventfd in non-blocking mode: one read empties it. */
    if (got > 0 && polls[0].revents & POLLIN && read(t->cmd_bell, &rings, sizeof rings) < 0)
        relax(); /* somebody else emptied it: nothing to do */
    return now_ns - from_ns;
}

/* Lets others have the core for a moment, work or not. */
static uint64_t yield_core(uint64_t ns)
{
    struct timespec pause = { 0, (long)ns };
    uint64_t from_ns = vc_clock_ns();

    nanosleep(&pause, NULL);
    return vc_clock_ns() - from_ns;
}

/* One turn's rest, by the policy of idle.h.  Returns the time blocked. */
static uint64_t rest(struct vc_thread *t, uint64_t now_ns, uint32_t work)
{
    struct vc_rest rest = vc_idle_rest(&t->idle, now_ns, work,
                                       work ? 0 : vc_worker_next_due_ns(t->worker, now_ns));

    switch (rest.kind) {
    case VC_REST_SLEEP:
        return sleep_until(t, rest.until_ns);
    case VC_REST_YIELD:
        return yield_core(VC_YIELD_NS);
    case VC_REST_SPIN:
        relax();
        return 0;
    case VC_REST_NONE:
        return 0;
    }
    return 0;
}

static void *run(void *arg)
{
    struct vc_thread *t = arg;
    uint64_t now_ns = vc_clock_ns();

    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    vc_idle_init(&t->idle, t->idle_spin_ns, t->busy_poll, t->real_time, now_ns);
    while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE)) {
        uint32_t work = vc_worker_do_work(t->worker, now_ns);
        uint64_t from_ns = now_ns, blocked_ns, awake_ns;

        vc_worker_beat(t->worker, now_ns);
        blocked_ns = rest(t, vc_clock_ns(), work);
        now_ns = vc_clock_ns();
        awake_ns = now_ns - from_ns - blocked_ns;
        vc_idle_spent(&t->idle, work ? awake_ns : 0, work ? 0 : awake_ns, blocked_ns);
        vc_worker_account(t->worker, work ? awake_ns : 0, work ? 0 : awake_ns, blocked_ns);
    }
    return NULL;
}

int vc_threads_real_time(int priority)
{
    const struct sched_param param = { .sched_priority = priority };

    return sched_setscheduler(0, priority ? SCHED_FIFO : SCHED_OTHER, &param);
}

static int start(struct vc_thread *t, const char **why)
{
    pthread_attr_t attr;
    cpu_set_t cpus;
    char name[16];
    int error = 0;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SZ);
    if (t->cpu >= 0) {
        CPU_ZERO(&cpus);
        if (t->cpu < CPU_SETSIZE)
            CPU_SET(t->cpu, &cpus);
        error = pthread_attr_setaffinity_np(&attr, sizeof cpus, &cpus);
    }
    if (!error)
        error = pthread_create(&t->thread, &attr, run, t);
    pthread_attr_destroy(&attr);
    if (error) {
        *why = "cannot start a worker thread: out of memory or of threads";
        if (t->cpu >= 0)
            *why = "cannot start a worker thread on its CPU: name CPUs that are online and allowed";
        return -1;
    }
    t->started = 1;
    snprintf(name, sizeof name, "vcfwd-w%u", t->index);
    pthread_setname_np(t->thread, name);
    return 0;
}

int vc_threads_start(struct vc_thread *threads, uint32_t cnt, const char **why)
{
    for (uint32_t i = 0; i < cnt; i++)
        if (start(&threads[i], why))
            return -1;
    return 0;
}

int vc_threads_stop(struct vc_thread *threads, uint32_t cnt)
{
    const uint64_t one = 1;
    struct timespec end;
    int hung = 0;

    for (uint32_t i = 0; i < cnt; i++) {
        __atomic_store_n(&threads[i].stop, 1, __ATOMIC_RELEASE);
        if (write(threads[i].cmd_bell, &one, sizeof one) < 0)
            continue; /* a full eventfd rings anyhow */
    }
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += STOP_WAIT_S;
    for (uint32_t i = 0; i < cnt; i++)
        if (threads[i].started && pthread_timedjoin_np(threads[i].thread, NULL, &end))
            hung = -1;
    return hung;
}
