/* SPDX-License-Identifier: MIT */
/* The data plane's core as a library: what main.c runs in threads and what tests, the simulator,
   the fuzzers and the benchmarks call themselves.

   A vc_node is what the workers of one process share: the directory of sources (so that a
   worker can read another worker's histories), the rings of the mesh, the index store.
   A vc_worker is one run-to-completion loop; exactly one thread calls vc_worker_do_work on it.

   vc_node_new and vc_worker_new take all memory; nothing below do_work allocates, logs, locks or makes a system call
   except through the I/O backends and eventfd writes that wake a sleeping peer. */
#ifndef VCFWD_WORKER_H
#define VCFWD_WORKER_H

#include <stdint.h>

#include "vcfwd/abi.h"

struct vc_io;
struct vc_node;
struct vc_worker;

struct vc_node_config {
    struct vc_ctl_setup setup;            /* table and history sizes, limits */
    void *index_store;                    /* mapped; struct vc_index_header first */
    void *shm[VC_WORKERS_MAX];            /* mapped; struct vc_shm_header first */
    int evt_bell[VC_WORKERS_MAX];         /* eventfd or -1 */
    int wake_bell[VC_WORKERS_MAX];        /* eventfd that wakes a sleeping worker: cmd_bell, or -1 */
};

/* Sizes and initialises a fresh worker segment or index store at mem (zeroed, sz bytes); with mem NULL
   returns the size needed.  0 when sz is too small. */
uint64_t vc_shm_format(void *mem, uint64_t sz, const struct vc_ctl_setup *setup, uint32_t worker);
uint64_t vc_index_format(void *mem, uint64_t sz, const struct vc_ctl_setup *setup);
/* NULL, or a sentence that says what does not fit (magic, version, layout hash, sizes). */
const char *vc_shm_check(const void *mem, uint64_t sz, const struct vc_ctl_setup *setup, uint32_t worker);
const char *vc_index_check(const void *mem, uint64_t sz, const struct vc_ctl_setup *setup);

/* NULL on lack of memory; *why then says for what. */
struct vc_node *vc_node_new(const struct vc_node_config *config, const char **why);
void vc_node_delete(struct vc_node *node);

/* io_socket: media sockets; io_xsk: or NULL.  The worker does not own them. */
struct vc_worker *vc_worker_new(struct vc_node *node, uint32_t worker, struct vc_io *io_socket, struct vc_io *io_xsk,
                                const char **why);
void vc_worker_delete(struct vc_worker *worker);

/* One duty cycle: commands (at most 32), mesh, receive bursts, pacing, transmit, housekeeping.
   Returns the amount of work done; 0: nothing to do now. */
uint32_t vc_worker_do_work(struct vc_worker *worker, uint64_t now_ns);

/* When the worker next has something to do by the clock (paced departures, reports), at most 100 ms ahead. */
uint64_t vc_worker_next_due_ns(const struct vc_worker *worker, uint64_t now_ns);

/* Sleep protocol: announce (sets sleeping and sleep_until, fences, rechecks command ring and mesh; 0: do
   not sleep, there is work), then poll, then wake. */
int vc_worker_sleep_begin(struct vc_worker *worker, uint64_t until_ns);
void vc_worker_sleep_end(struct vc_worker *worker, uint64_t now_ns);
void vc_worker_beat(struct vc_worker *worker, uint64_t now_ns);
/* How the thread spent its time since the last call: counters worked_ns, spun_ns, blocked_ns. */
void vc_worker_account(struct vc_worker *worker, uint64_t worked_ns, uint64_t spun_ns, uint64_t blocked_ns);

const char *vc_worker_crypto_name(const struct vc_worker *worker);

#endif
