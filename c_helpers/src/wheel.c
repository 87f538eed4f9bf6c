/* SPDX-License-Identifier: MIT */
#include "wheel.h"

#include "base.h"

#define MASK (VC_WHEEL_SLOTS - 1)
#define READY VC_WHEEL_SLOTS
#define WORDS (VC_WHEEL_SLOTS / 64)

int vc_wheel_init(struct vc_wheel *wheel, uint32_t ids_max)
{
    *wheel = (struct vc_wheel){ .ids_max = ids_max };
    wheel->lists = malloc((VC_WHEEL_SLOTS + 1) * sizeof *wheel->lists);
    wheel->entries = malloc((ids_max + 1ull) * sizeof *wheel->entries);
    if (!wheel->lists || !wheel->entries)
        return -1;
    for (uint32_t i = 0; i <= VC_WHEEL_SLOTS; i++)
        wheel->lists[i] = (struct vc_wheel_list){ VC_NONE, VC_NONE, 0 };
    for (uint32_t i = 0; i < ids_max; i++)
        wheel->entries[i] = (struct vc_wheel_entry){ .list = VC_NONE };
    return 0;
}

void vc_wheel_fini(struct vc_wheel *wheel)
{
    free(wheel->lists);
    free(wheel->entries);
}

static void append(struct vc_wheel *wheel, uint32_t at, uint32_t id, uint64_t due_ns)
{
    struct vc_wheel_list *list = &wheel->lists[at];

    wheel->entries[id] = (struct vc_wheel_entry){ due_ns, VC_NONE, list->tail, at, 0 };
    if (list->tail != VC_NONE)
        wheel->entries[list->tail].next = id;
    else
        list->head = id;
    list->tail = id;
    list->cnt++;
    if (at != READY)
        wheel->occupied[at / 64] |= UINT64_C(1) << (at % 64);
}

void vc_wheel_cancel(struct vc_wheel *wheel, uint32_t id)
{
    struct vc_wheel_entry *entry = &wheel->entries[id];
    struct vc_wheel_list *list;

    if (entry->list == VC_NONE)
        return;
    list = &wheel->lists[entry->list];
    if (entry->prev != VC_NONE)
        wheel->entries[entry->prev].next = entry->next;
    else
        list->head = entry->next;
    if (entry->next != VC_NONE)
        wheel->entries[entry->next].prev = entry->prev;
    else
        list->tail = entry->prev;
    if (!--list->cnt && entry->list != READY)
        wheel->occupied[entry->list / 64] &= ~(UINT64_C(1) << (entry->list % 64));
    entry->list = VC_NONE;
    wheel->cnt--;
}

/* The slot for what is due at `tick`: the first within reach that has company and room, else the
   first that has room, else its own. */
static uint64_t choose(const struct vc_wheel *wheel, uint64_t tick, uint32_t slack)
{
    uint64_t last = tick + slack, empty = UINT64_MAX;

    if (last - wheel->tick >= VC_WHEEL_SLOTS)
        last = wheel->tick + VC_WHEEL_SLOTS - 1;
    for (uint64_t at = tick; at <= last; at++) {
        uint32_t cnt = wheel->lists[at & MASK].cnt;

        if (cnt && cnt < VC_WHEEL_GROUP)
            return at;
        if (!cnt && empty == UINT64_MAX)
            empty = at;
    }
    return empty != UINT64_MAX ? empty : tick;
}

void vc_wheel_schedule(struct vc_wheel *wheel, uint32_t id, uint64_t due_ns, uint32_t slack)
{
    uint64_t tick = (due_ns >> VC_SLOT_SHIFT) + (due_ns % VC_SLOT_NS != 0);

    VC_ASSERT(id < wheel->ids_max && slack <= VC_WHEEL_SLACK_MAX);
    vc_wheel_cancel(wheel, id);
    wheel->cnt++;
    if (due_ns <= wheel->now_ns) {
        append(wheel, READY, id, due_ns);
    } else if (tick - wheel->tick >= VC_WHEEL_SLOTS) {
        append(wheel, (wheel->tick + VC_WHEEL_SLOTS - 1) & MASK, id, tick << VC_SLOT_SHIFT);
    } else {
        tick = choose(wheel, tick, slack);
        append(wheel, tick & MASK, id, tick << VC_SLOT_SHIFT);
    }
}

void vc_wheel_hasten(struct vc_wheel *wheel, uint32_t id, uint64_t due_ns)
{
    if (!vc_wheel_scheduled(wheel, id) || due_ns < wheel->entries[id].due_ns)
        vc_wheel_schedule(wheel, id, due_ns, 0);
}

/* The first occupied slot's tick in (wheel->tick, wheel->tick + VC_WHEEL_SLOTS], or UINT64_MAX.
   The furthest, one turn ahead, is never occupied. */
static uint64_t next_occupied(const struct vc_wheel *wheel, uint64_t after)
{
    uint64_t first = after + 1;
    uint32_t at = first & MASK, word = at / 64;
    uint64_t bits = wheel->occupied[word] & (~UINT64_C(0) << (at % 64));

    for (uint32_t n = 0; n <= WORDS; n++) {
        if (bits) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);

            return first + ((slot - at) & MASK);
        }
        word = (word + 1) % WORDS;
        bits = wheel->occupied[word];
    }
    return UINT64_MAX;
}

/* Empties a slot: what is due becomes ready, what only waited here is put again. */
static void come_out(struct vc_wheel *wheel, uint32_t slot)
{
    uint32_t id = wheel->lists[slot].head;

    wheel->lists[slot] = (struct vc_wheel_list){ VC_NONE, VC_NONE, 0 };
    wheel->occupied[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    while (id != VC_NONE) {
        struct vc_wheel_entry entry = wheel->entries[id];

        if (entry.due_ns <= wheel->now_ns) {
            append(wheel, READY, id, entry.due_ns);
        } else {
            wheel->entries[id].list = VC_NONE;
            wheel->cnt--;
            vc_wheel_schedule(wheel, id, entry.due_ns, 0);
        }
        id = entry.next;
    }
}

void vc_wheel_advance(struct vc_wheel *wheel, uint64_t now_ns)
{
    uint64_t from = wheel->tick, to, last;

    now_ns += wheel->ahead_ns;
    to = now_ns >> VC_SLOT_SHIFT;
    if (now_ns < wheel->now_ns)
        return;
    wheel->now_ns = now_ns;
    if (to == from)
        return;
    last = to - from < VC_WHEEL_SLOTS ? to : from + VC_WHEEL_SLOTS - 1;
    wheel->tick = to;
    while (from < last && wheel->lists[READY].cnt < wheel->cnt) {
        from = next_occupied(wheel, from);
        if (from <= last)
            come_out(wheel, from & MASK);
    }
}

uint64_t vc_wheel_next_due(const struct vc_wheel *wheel)
{
    if (wheel->lists[READY].cnt)
        return wheel->entries[wheel->lists[READY].head].due_ns;
    return wheel->cnt ? (next_occupied(wheel, wheel->tick) << VC_SLOT_SHIFT) - wheel->ahead_ns / 4 :
                        UINT64_MAX;
}

uint32_t vc_wheel_pop(struct vc_wheel *wheel, uint64_t *due_ns)
{
    uint32_t id = wheel->lists[READY].head;

    if (id == VC_NONE)
        return VC_NONE;
    *due_ns = wheel->entries[id].due_ns;
    vc_wheel_cancel(wheel, id);
    return id;
}
