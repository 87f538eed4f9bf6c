/* SPDX-License-Identifier: MIT */
/* Memory is taken on the node of the CPU that it is for: affinity and policy while it is touched,
   as before afterwards; histories come from the share of who takes them. */
#include "numa.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "history.h"

#define AREA_SZ (64u * 4096)

static int policy(void)
{
    int mode = -1;

    return syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) ? -1 : mode;
}

static int highest(const cpu_set_t *cpus)
{
    int last = -1;

    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, cpus))
            last = cpu;
    return last;
}

static void test_there_and_back(void)
{
    cpu_set_t before, now;
    struct vc_numa numa;
    int cpu, here;
    uint8_t *area;

    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    cpu = highest(&before);
    CHECK_EQ(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &(unsigned long){ 1 }, 64), 0);
    CHECK(!vc_numa_enter(&numa, cpu));
    CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    CHECK_EQ(CPU_COUNT(&now), 1);
    CHECK_EQ(sched_getcpu(), cpu);
    CHECK_EQ(policy(), MPOL_LOCAL);
    here = vc_numa_node();
    CHECK(here >= 0);
    area = mmap(NULL, AREA_SZ, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    CHECK_EQ(vc_numa_elsewhere(area, AREA_SZ, here + 1), 0); /* nobody touched it */
    memset(area, 1, AREA_SZ);
    vc_numa_leave(&numa);
    CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    CHECK(CPU_EQUAL(&now, &before));
    CHECK_EQ(policy(), MPOL_DEFAULT);
    CHECK_EQ(vc_numa_elsewhere(area, AREA_SZ, here), 0);
    CHECK_EQ(vc_numa_elsewhere(area, AREA_SZ, here + 1), 64); /* as it is for another's */
    CHECK_EQ(vc_numa_elsewhere(area, AREA_SZ, -1), 0);
    munmap(area, AREA_SZ);
}

static void test_refusals(void)
{
    cpu_set_t before, now;
    struct vc_numa numa;

    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    CHECK(!vc_numa_enter(&numa, -1)); /* not pinned: as it is */
    CHECK_EQ(policy(), MPOL_DEFAULT);
    vc_numa_leave(&numa);
    CHECK(vc_numa_enter(&numa, CPU_SETSIZE));
    vc_numa_leave(&numa);
    CHECK(vc_numa_enter(&numa, CPU_SETSIZE - 1)); /* no machine here has it */
    vc_numa_leave(&numa);
    CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    CHECK(CPU_EQUAL(&now, &before));
}

/* One's own share first, then whatever is left; what is given back is found again. */
static void test_shares(void)
{
    struct vc_history_pool pool = { .cnt = 5, .slots = 2, .stride = 128, .data_sz = 64 };
    static const uint32_t order[] = { 2, 3, 4, 0, 1 }; /* the second of two workers */
    struct vc_history taken[5], one;

    pool.memory = calloc(5, vc_history_bytes(&pool));
    pool.taken = calloc(5, 1);
    for (uint32_t i = 0; i < 5; i++) {
        CHECK_EQ(vc_history_take(&pool, 1, 2, &taken[i]), 0);
        CHECK_EQ(taken[i].pool_index, order[i]);
    }
    CHECK_EQ(vc_history_take(&pool, 0, 2, &one), -1);
    vc_history_give(&pool, &taken[2]);
    CHECK_EQ(vc_history_take(&pool, 0, 2, &one), 0);
    CHECK_EQ(one.pool_index, 4);
    vc_history_give(&pool, &taken[3]);
    vc_history_give(&pool, &one);
    CHECK_EQ(vc_history_take(&pool, 0, 2, &one), 0);
    CHECK_EQ(one.pool_index, 0);
    free(pool.memory);
    free(pool.taken);
}

int main(void)
{
    test_there_and_back();
    test_refusals();
    test_shares();
    return check_report();
}
