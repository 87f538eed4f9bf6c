/* SPDX-License-Identifier: MIT */
/* Layout of the memory that outlives the process: worker segments and the index store. */
#include <stddef.h>
#include <string.h>

#include "vcfwd/worker.h"

#define CMD_CAP 1024u
#define EVT_CAP 4096u
#define LINE 64u

static uint64_t place(uint64_t *end, uint64_t sz)
{
    uint64_t at = *end;

    *end += (sz + LINE - 1) / LINE * LINE;
    return at;
}

static struct vc_shm_header shm_layout(const struct vc_ctl_setup *setup, uint32_t worker)
{
    uint64_t end = 0;
    struct vc_shm_header h = {
        .magic = VC_SHM_MAGIC,
        .abi_version = VC_ABI_VERSION,
        .layout_hash = vc_layout_hash(),
        .worker = worker,
        .worker_cnt = setup->worker_cnt,
        .legs_max = setup->legs_max,
        .sources_max = setup->sources_max,
        .routes_max = setup->routes_max,
        .cmd_cap = CMD_CAP,
        .evt_cap = EVT_CAP,
    };

    place(&end, sizeof h);
    h.cmd_off = place(&end, CMD_CAP * sizeof(struct vc_command));
    h.evt_off = place(&end, EVT_CAP * sizeof(struct vc_event));
    h.counters_off = place(&end, sizeof(struct vc_counters));
    h.leg_stats_off = place(&end, setup->legs_max * sizeof(struct vc_leg_stats));
    h.source_stats_off = place(&end, setup->sources_max * sizeof(struct vc_source_stats));
    h.route_stats_off = place(&end, setup->routes_max * sizeof(struct vc_route_stats));
    h.total_sz = end;
    return h;
}

static struct vc_index_header index_layout(const struct vc_ctl_setup *setup)
{
    uint64_t end = 0;
    struct vc_index_header h = {
        .magic = VC_INDEX_MAGIC,
        .abi_version = VC_ABI_VERSION,
        .legs_max = setup->legs_max,
        .sources_max = setup->sources_max,
        .routes_max = setup->routes_max,
    };

    place(&end, sizeof h);
    h.tx_off = place(&end, setup->routes_max * sizeof(struct vc_tx_index));
    h.leg_off = place(&end, setup->legs_max * sizeof(struct vc_leg_index));
    h.source_off = place(&end, setup->sources_max * sizeof(struct vc_source_index));
    h.total_sz = end;
    return h;
}

uint64_t vc_shm_format(void *mem, uint64_t sz, const struct vc_ctl_setup *setup, uint32_t worker)
{
    struct vc_shm_header h = shm_layout(setup, worker);

    if (!mem)
        return h.total_sz;
    if (sz < h.total_sz)
        return 0;
    memcpy(mem, &h, sizeof h);
    return h.total_sz;
}

uint64_t vc_index_format(void *mem, uint64_t sz, const struct vc_ctl_setup *setup)
{
    struct vc_index_header h = index_layout(setup);

    if (!mem)
        return h.total_sz;
    if (sz < h.total_sz)
        return 0;
    memcpy(mem, &h, sizeof h);
    return h.total_sz;
}

const char *vc_shm_check(const void *mem, uint64_t sz, const struct vc_ctl_setup *setup,
                         uint32_t worker)
{
    struct vc_shm_header want = shm_layout(setup, worker), h;

    if (sz < sizeof h)
        return "worker segment: too small for its header";
    memcpy(&h, mem, sizeof h);
    if (h.magic != VC_SHM_MAGIC)
        return "worker segment: not formatted (magic)";
    if (h.abi_version != VC_ABI_VERSION || h.layout_hash != want.layout_hash)
        return "worker segment: made for another version of vcfwd (layout hash)";
    if (h.worker != worker || h.worker_cnt != setup->worker_cnt)
        return "worker segment: belongs to another worker";
    if (memcmp(&h, &want, offsetof(struct vc_shm_header, total_sz) + sizeof h.total_sz))
        return "worker segment: its tables have other sizes than the set-up says";
    return sz < want.total_sz ? "worker segment: shorter than its tables" : NULL;
}

const char *vc_index_check(const void *mem, uint64_t sz, const struct vc_ctl_setup *setup)
{
    struct vc_index_header want = index_layout(setup), h;

    if (sz < sizeof h)
        return "index store: too small for its header";
    memcpy(&h, mem, sizeof h);
    if (h.magic != VC_INDEX_MAGIC)
        return "index store: not formatted (magic)";
    if (h.abi_version != VC_ABI_VERSION)
        return "index store: made for another version of vcfwd";
    if (memcmp(&h, &want, sizeof h))
        return "index store: its tables have other sizes than the set-up says";
    return sz < want.total_sz ? "index store: shorter than its tables" : NULL;
}
