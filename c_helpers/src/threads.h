/* SPDX-License-Identifier: MIT */
/* The thread around a worker: the loop of do_work, and when and how it sleeps.

   Idle is adaptive.  After idle_spin_us without work the thread announces its sleep in shared
   memory and polls its backends, its command bell and the clock; it wakes VC_WAKE_MARGIN_NS
   before the next departure and spins the rest, because a timer is later than that.  A wake-up
   that finds nothing goes back to sleep at once.  busy_poll never sleeps.

   vc_threads_start and vc_threads_stop are called by the main thread; all else runs in the
   worker's own.  A thread that hangs is not waited for: vc_threads_stop says so. */
#ifndef VC_THREADS_H
#define VC_THREADS_H

#include <pthread.h>
#include <stdint.h>

#include "vcfwd/worker.h"

#define VC_WAKE_MARGIN_NS UINT64_C(60000)
#define VC_SLEEP_MAX_NS UINT64_C(100000000)
#define VC_SLEEP_FDS_MAX 64

struct vc_thread {
    struct vc_worker *worker;
    struct vc_io *io_socket, *io_xsk; /* io_xsk: or NULL */
    int cmd_bell;
    int cpu; /* -1: not pinned */
    uint32_t index;
    uint64_t idle_spin_ns;
    int busy_poll;
    int stop; /* atomic */
    int started;
    pthread_t thread;
};

uint64_t vc_clock_ns(void);

/* 0, or -1 with a sentence (static; main thread only). */
int vc_threads_start(struct vc_thread *threads, uint32_t cnt, const char **why);

/* vc_threads_stop returns 0 when all have ended within a second, else -1. */
int vc_threads_stop(struct vc_thread *threads, uint32_t cnt);

#endif
