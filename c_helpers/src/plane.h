/* SPDX-License-Identifier: MIT */
/* vc_plane turns a SETUP into running workers: it maps the memory, builds the backends, the node
   and the workers, gives up privileges and starts the threads.

   Owned by the main thread.  It borrows the descriptors of vc_held, which stay open for the life
   of the process.  Nothing is undone when a step fails: the process ends with the sentence. */
#ifndef VC_PLANE_H
#define VC_PLANE_H

#include "control.h"
#include "threads.h"

struct vc_plane {
    struct vc_node_config config;
    struct vc_node *node;
    int cmd_bell[VC_WORKERS_MAX];
    int media[VC_WORKERS_MAX][VC_LOCALS_MAX];
    int index_store, shm[VC_WORKERS_MAX], xsks_map;
    struct vc_thread threads[VC_WORKERS_MAX];
    struct vc_ctl_ready ready;
    char why[256];
};

/* vc_plane_start returns NULL and fills plane->ready, or a sentence. */
const char *vc_plane_start(struct vc_plane *plane, const struct vc_held *held);

/* vc_plane_stop ends the workers and frees all; with a hung one it frees nothing and returns -1. */
int vc_plane_stop(struct vc_plane *plane);

#endif
