/* SPDX-License-Identifier: MIT */
/* Memory on the NUMA node of the CPU that uses it: the building thread goes to a worker's CPU while
   it maps and touches what is that worker's, and comes back.

   A call each at start, on the calling thread alone.  Everything is best effort: where the kernel
   refuses, memory lies elsewhere and the reason is told; nothing fails for it. */
#ifndef VC_NUMA_H
#define VC_NUMA_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

struct vc_numa {
    cpu_set_t cpus; /* where the thread was allowed before */
    int moved, local;
};

/* vc_numa_enter puts the calling thread on the CPU (-1: stays where it is) and has the kernel take
   memory from the node it runs on, whatever policy it inherited.  NULL, or what was refused. */
const char *vc_numa_enter(struct vc_numa *numa, int cpu);

/* vc_numa_leave undoes it; the policy is then the kernel's default. */
void vc_numa_leave(const struct vc_numa *numa);

/* The node that the calling thread runs on; -1: the kernel does not tell. */
int vc_numa_node(void);

/* vc_numa_elsewhere: how many of the pages looked at, at most 4096 evenly over the memory, lie on
   another node than this one.  Pages not touched yet, and all where the kernel does not tell, count
   as being there. */
uint32_t vc_numa_elsewhere(const void *mem, size_t sz, int node);

#endif
