/* SPDX-License-Identifier: MIT */
#include "node.h"

#include "left.h"

#include <sys/mman.h>

/* Zero pages that cost nothing until they are written to. */
static void *map(uint64_t sz)
{
    void *mem = mmap(NULL, sz, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);

    return mem == MAP_FAILED ? NULL : mem;
}

static void unmap(void *mem, uint64_t sz)
{
    if (mem)
        munmap(mem, sz);
}

static uint32_t power_of_two(uint32_t n, uint32_t least)
{
    uint32_t power = least;

    while (power < n)
        power *= 2;
    return power;
}

static int new_pool(struct vc_history_pool *pool, uint32_t cnt, uint32_t slots, uint32_t data_sz)
{
    *pool = (struct vc_history_pool){
        .cnt = cnt,
        .slots = power_of_two(slots, 2),
        .stride = (uint32_t)sizeof(struct vc_slot) + data_sz,
        .data_sz = data_sz,
    };
    pool->memory = map(cnt * vc_history_bytes(pool) + 1);
    pool->taken = map(cnt + 1);
    return pool->memory && pool->taken ? 0 : -1;
}

static int new_mesh(struct vc_node *node)
{
    uint32_t cnt = node->config.setup.worker_cnt * node->config.setup.worker_cnt;

    node->mesh = map(cnt * sizeof *node->mesh);
    if (!node->mesh)
        return -1;
    for (uint32_t i = 0; i < cnt; i++) {
        node->mesh[i].messages = map(VC_MESH_CAP * sizeof(struct vc_mesh_message));
        node->mesh[i].handoffs = map(VC_HANDOFF_CAP * sizeof(struct vc_handoff));
        if (!node->mesh[i].messages || !node->mesh[i].handoffs)
            return -1;
    }
    return 0;
}

static int new_tables(struct vc_node *node)
{
    const struct vc_ctl_setup *setup = &node->config.setup;

    node->legs = map((setup->legs_max + 1ull) * sizeof *node->legs);
    node->sources = map((setup->sources_max + 1ull) * sizeof *node->sources);
    node->routes = map((setup->routes_max + 1ull) * sizeof *node->routes);
    return node->legs && node->sources && node->routes ? 0 : -1;
}

/* After the death of a process: legs remember what its sources had, whether those come back or not,
   and under whichever id. */
static void gather(struct vc_node *node)
{
    for (uint32_t i = 0; i < node->config.setup.sources_max; i++) {
        const struct vc_source_index *source = &node->source_store[i];
        struct vc_leg_index *leg;

        if (!source->key_id || source->leg >= node->config.setup.legs_max)
            continue;
        leg = &node->leg_store[source->leg];
        if (source->key_id != leg->key_id)
            continue;
        vc_left_put(leg, &source->rx);
        vc_left_put(leg, &source->rtx);
    }
}

struct vc_node *vc_node_new(const struct vc_node_config *config, const char **why)
{
    const struct vc_ctl_setup *setup = &config->setup;
    const struct vc_index_header *store = config->index_store;
    struct vc_node *node = calloc(1, sizeof *node);

    *why = "node: no memory";
    if (!node)
        return NULL;
    node->config = *config;
    node->queue_limit_ns = setup->queue_limit_ms * 1000000ull;
    node->slot_age_ns = node->queue_limit_ns + VC_RESEND_AGE_NS;
    node->rtcp_interval_ns = (setup->rtcp_interval_ms ? setup->rtcp_interval_ms : 1000) * 1000000ull;
    node->tx_store = (struct vc_tx_index *)((uint8_t *)config->index_store + store->tx_off);
    node->leg_store = (struct vc_leg_index *)((uint8_t *)config->index_store + store->leg_off);
    node->source_store =
        (struct vc_source_index *)((uint8_t *)config->index_store + store->source_off);
    if (!setup->worker_cnt || setup->worker_cnt > VC_WORKERS_MAX)
        *why = "node: the number of workers is out of range";
    else if (new_tables(node))
        *why = "node: no memory for the tables of legs, sources and routes";
    else if (new_pool(&node->pools[0], setup->history_audio, setup->audio_slots,
                      VC_SLOT_AUDIO_SZ) ||
             new_pool(&node->pools[1], setup->history_video, setup->video_slots,
                      VC_SLOT_VIDEO_SZ))
        *why = "node: no memory for histories";
    else if (new_mesh(node))
        *why = "node: no memory for the rings between workers";
    else {
        if (setup->flags & VC_SETUP_HOLD)
            gather(node);
        return node;
    }
    vc_node_delete(node);
    return NULL;
}

void vc_node_delete(struct vc_node *node)
{
    const struct vc_ctl_setup *setup = &node->config.setup;
    uint32_t pairs = setup->worker_cnt * setup->worker_cnt;

    unmap(node->legs, (setup->legs_max + 1ull) * sizeof *node->legs);
    unmap(node->sources, (setup->sources_max + 1ull) * sizeof *node->sources);
    unmap(node->routes, (setup->routes_max + 1ull) * sizeof *node->routes);
    for (int i = 0; i < 2; i++) {
        struct vc_history_pool *pool = &node->pools[i];

        unmap(pool->memory, pool->cnt * vc_history_bytes(pool) + 1);
        unmap(pool->taken, pool->cnt + 1);
    }
    for (uint32_t i = 0; node->mesh && i < pairs; i++) {
        unmap(node->mesh[i].messages, VC_MESH_CAP * sizeof(struct vc_mesh_message));
        unmap(node->mesh[i].handoffs, VC_HANDOFF_CAP * sizeof(struct vc_handoff));
    }
    unmap(node->mesh, pairs * sizeof *node->mesh);
    free(node);
}
