/* SPDX-License-Identifier: MIT */
/* The thread around a worker: the loop of do_work, and when and how it sleeps.

   When to rest and how is idle.h's; this file makes the calls.  To sleep is to announce it in
   shared memory and to poll the backends, the command bell and the clock.

   A real-time class is inherited: the main thread takes it (vc_threads_real_time), starts the
   workers and leaves it again, so that no capability for it has to be kept.

   vc_threads_start and vc_threads_stop are called by the main thread; all else runs in the
   worker's own.  A thread that hangs is not waited for: vc_threads_stop says so. */
#ifndef VC_THREADS_H
#define VC_THREADS_H

#include <pthread.h>
#include <stdint.h>

#include "idle.h"
#include "vcfwd/worker.h"

#define VC_SLEEP_FDS_MAX 64

struct vc_thread {
    struct vc_worker *worker;
    struct vc_io *io_socket, *io_xsk; /* io_xsk: or NULL */
    int cmd_bell;
    int cpu; /* -1: not pinned */
    uint32_t index;
    uint64_t idle_spin_ns;
    int busy_poll, real_time;
    struct vc_idle idle; /* the thread's own */
    int stop; /* atomic */
    int started;
    pthread_t thread;
};

uint64_t vc_clock_ns(void);

/* Puts the calling thread under SCHED_FIFO with this priority; 0: back to the usual class.
   0, or -1 with errno. */
int vc_threads_real_time(int priority);

/* 0, or -1 with a sentence (static; main thread only). */
int vc_threads_start(struct vc_thread *threads, uint32_t cnt, const char **why);

/* vc_threads_stop returns 0 when all have ended within a second, else -1. */
int vc_threads_stop(struct vc_thread *threads, uint32_t cnt);

#endif
