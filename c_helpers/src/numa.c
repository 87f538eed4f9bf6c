/* SPDX-License-Identifier: MIT */
#include "numa.h"

#include <linux/mempolicy.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    PAGE_SZ = 4096,
    LOOKED_AT_MAX = 4096,
    AT_ONCE = 64,
};

const char *vc_numa_enter(struct vc_numa *numa, int cpu)
{
    cpu_set_t one;

    *numa = (struct vc_numa){ 0 };
    if (cpu < 0)
        return NULL;
    if (cpu >= CPU_SETSIZE)
        return "there is no such CPU";
    if (sched_getaffinity(0, sizeof numa->cpus, &numa->cpus))
        return "the kernel does not tell the allowed CPUs";
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one))
        return "the kernel does not let the process run on its CPU";
    numa->moved = 1;
    if (syscall(SYS_set_mempolicy, MPOL_LOCAL, NULL, 0))
        return "the kernel refuses a memory policy";
    numa->local = 1;
    return NULL;
}

void vc_numa_leave(const struct vc_numa *numa)
{
    if (numa->local)
        syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
    if (numa->moved)
        sched_setaffinity(0, sizeof numa->cpus, &numa->cpus);
}

int vc_numa_node(void)
{
    unsigned cpu, node;

    return syscall(SYS_getcpu, &cpu, &node, NULL) ? -1 : (int)node;
}

uint32_t vc_numa_elsewhere(const void *mem, size_t sz, int node)
{
    size_t pages = sz / PAGE_SZ, step = pages / LOOKED_AT_MAX + 1;
    uint32_t elsewhere = 0;

    for (size_t at = 0; node >= 0 && at < pages;) {
        const void *addresses[AT_ONCE];
        int nodes[AT_ONCE];
        unsigned long cnt = 0;

        for (; cnt < AT_ONCE && at < pages; at += step)
            addresses[cnt++] = (const uint8_t *)mem + at * PAGE_SZ;
        memset(nodes, -1, sizeof nodes);
        if (syscall(SYS_move_pages, 0, cnt, addresses, NULL, nodes, 0)) /* moves nothing: asks */
            return 0;
        for (unsigned long i = 0; i < cnt; i++)
            elsewhere += nodes[i] >= 0 && nodes[i] != node;
    }
    return elsewhere;
}
