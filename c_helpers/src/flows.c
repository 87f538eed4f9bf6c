/* SPDX-License-Identifier: MIT */
#include "flows.h"

#include "base.h"

static uint32_t hash_tuple(const struct vc_tuple *tuple)
{
    uint64_t words[4], h = 0x9e3779b97f4a7c15ull;
    uint32_t ports;

    memcpy(words, tuple, sizeof words);
    memcpy(&ports, (const uint8_t *)tuple + sizeof words, sizeof ports);
    for (int i = 0; i < 4; i++) {
        h = (h ^ words[i]) * 0xff51afd7ed558ccdull;
        h ^= h >> 32;
    }
    h = (h ^ ports) * 0xc4ceb9fe1a85ec53ull;
    return (uint32_t)(h >> 32);
}

int vc_flows_init(struct vc_flows *flows, uint32_t legs_max)
{
    uint32_t capacity = 16;

    while (capacity < 4 * legs_max)
        capacity *= 2;
    *flows = (struct vc_flows){ .mask = capacity - 1, .max = 2 * legs_max };
    flows->table = malloc(capacity * sizeof *flows->table);
    if (!flows->table)
        return -1;
    for (uint32_t i = 0; i < capacity; i++)
        flows->table[i].leg = VC_NONE;
    return 0;
}

void vc_flows_fini(struct vc_flows *flows)
{
    free(flows->table);
}

/* Where the tuple lies, or the empty place where it would. */
static uint32_t place(const struct vc_flows *flows, const struct vc_tuple *tuple)
{
    uint32_t at = hash_tuple(tuple) & flows->mask;

    while (flows->table[at].leg != VC_NONE &&
           memcmp(&flows->table[at].tuple, tuple, sizeof *tuple))
        at = (at + 1) & flows->mask;
    return at;
}

uint32_t vc_flows_find(const struct vc_flows *flows, const struct vc_tuple *tuple)
{
    return flows->table[place(flows, tuple)].leg;
}

void vc_flows_add(struct vc_flows *flows, const struct vc_tuple *tuple, uint32_t leg)
{
    uint32_t at = place(flows, tuple);

    VC_ASSERT(flows->cnt < flows->max && flows->table[at].leg == VC_NONE);
    flows->table[at] = (struct vc_flow){ *tuple, leg };
    flows->cnt++;
}

void vc_flows_remove(struct vc_flows *flows, const struct vc_tuple *tuple)
{
    uint32_t hole = place(flows, tuple);

    if (flows->table[hole].leg == VC_NONE)
        return;
    flows->cnt--;
    for (uint32_t at = hole;;) {
        uint32_t home;

        at = (at + 1) & flows->mask;
        if (flows->table[at].leg == VC_NONE)
            break;
        home = hash_tuple(&flows->table[at].tuple) & flows->mask;
        if (((at - home) & flows->mask) >= ((at - hole) & flows->mask)) {
            flows->table[hole] = flows->table[at];
            hole = at;
        }
    }
    flows->table[hole].leg = VC_NONE;
}
