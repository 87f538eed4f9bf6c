/* SPDX-License-Identifier: MIT */
#include "pacer.h"

#include "base.h"

int vc_pacer_init(struct vc_pacer *pacer, uint32_t ids_max)
{
    *pacer = (struct vc_pacer){ .ids_max = ids_max };
    pacer->heap = calloc(ids_max + 1, sizeof *pacer->heap);
    pacer->place = malloc((ids_max + 1) * sizeof *pacer->place);
    if (!pacer->heap || !pacer->place)
        return -1;
    for (uint32_t i = 0; i < ids_max; i++)
        pacer->place[i] = VC_NONE;
    return 0;
}

void vc_pacer_fini(struct vc_pacer *pacer)
{
    free(pacer->heap);
    free(pacer->place);
}

static int before(const struct vc_pacer_entry *a, const struct vc_pacer_entry *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void put(struct vc_pacer *pacer, uint32_t at, const struct vc_pacer_entry *entry)
{
    pacer->heap[at] = *entry;
    pacer->place[entry->id] = at;
}

static void sift(struct vc_pacer *pacer, uint32_t at, struct vc_pacer_entry entry)
{
    while (at > 0 && before(&entry, &pacer->heap[(at - 1) / 2])) {
        put(pacer, at, &pacer->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= pacer->cnt)
            break;
        if (child + 1 < pacer->cnt && before(&pacer->heap[child + 1], &pacer->heap[child]))
            child++;
        if (!before(&pacer->heap[child], &entry))
            break;
        put(pacer, at, &pacer->heap[child]);
        at = child;
    }
    put(pacer, at, &entry);
}

void vc_pacer_schedule(struct vc_pacer *pacer, uint32_t id, uint64_t due_ns)
{
    struct vc_pacer_entry entry = { due_ns, pacer->order++, id, 0 };
    uint32_t at;

    VC_ASSERT(id < pacer->ids_max);
    at = pacer->place[id];
    if (at == VC_NONE)
        at = pacer->cnt++;
    sift(pacer, at, entry);
}

void vc_pacer_hasten(struct vc_pacer *pacer, uint32_t id, uint64_t due_ns)
{
    uint32_t at = pacer->place[id];

    if (at == VC_NONE || due_ns < pacer->heap[at].due_ns)
        vc_pacer_schedule(pacer, id, due_ns);
}

void vc_pacer_cancel(struct vc_pacer *pacer, uint32_t id)
{
    uint32_t at = pacer->place[id];

    if (at == VC_NONE)
        return;
    pacer->place[id] = VC_NONE;
    pacer->cnt--;
    if (at < pacer->cnt)
        sift(pacer, at, pacer->heap[pacer->cnt]);
}

uint64_t vc_pacer_next_due(const struct vc_pacer *pacer)
{
    return pacer->cnt ? pacer->heap[0].due_ns : UINT64_MAX;
}

uint32_t vc_pacer_pop_due(struct vc_pacer *pacer, uint64_t now_ns)
{
    uint32_t id;

    if (!pacer->cnt || pacer->heap[0].due_ns > now_ns)
        return VC_NONE;
    id = pacer->heap[0].id;
    vc_pacer_cancel(pacer, id);
    return id;
}
