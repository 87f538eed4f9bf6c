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
        wheel->lists[i] = (struct vc_wheel_list){ VC_NONE, VC_NONE, 0, VC_WHEEL_SLACK_MAX };
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
    if (!--list->cnt && entry->list != READY) {
        wheel->occupied[entry->list / 64] &= ~(UINT64_C(1) << (entry->list % 64));
        list->slack = VC_WHEEL_SLACK_MAX;
    }
    entry->list = VC_NONE;
    wheel->cnt--;
}

/* The slot that begins at due_ns or next after it. */
static uint64_t tick_of(uint64_t due_ns)
{
    return (due_ns >> VC_SLOT_SHIFT) + (due_ns % VC_SLOT_NS != 0);
}

/* The slot for what is due at `tick`: the first within reach that has room, else its own. */
static uint64_t choose(const struct vc_wheel *wheel, uint64_t tick, uint32_t slack)
{
    uint64_t last = tick + slack;

    if (last - wheel->tick >= VC_WHEEL_SLOTS)
        last = wheel->tick + VC_WHEEL_SLOTS - 1;
    for (uint64_t at = tick; at <= last; at++)
        if (wheel->lists[at & MASK].cnt < VC_WHEEL_GROUP)
            return at;
    return tick;
}

static void enter(struct vc_wheel *wheel, uint32_t id, uint64_t tick, uint32_t slack)
{
    uint64_t at = choose(wheel, tick, slack);
    struct vc_wheel_list *list = &wheel->lists[at & MASK];
    uint32_t left = at - tick < slack ? slack - (uint32_t)(at - tick) : 0;

    append(wheel, at & MASK, id, at << VC_SLOT_SHIFT);
    if (left < list->slack)
        list->slack = left;
}

void vc_wheel_schedule(struct vc_wheel *wheel, uint32_t id, uint64_t due_ns, uint32_t slack)
{
    uint64_t tick = tick_of(due_ns);

    VC_ASSERT(id < wheel->ids_max && slack <= VC_WHEEL_SLACK_MAX);
    vc_wheel_cancel(wheel, id);
    wheel->cnt++;
    if (due_ns <= wheel->now_ns) {
        append(wheel, READY, id, due_ns);
    } else if (tick - wheel->tick >= VC_WHEEL_SLOTS) {
        uint32_t furthest = (wheel->tick + VC_WHEEL_SLOTS - 1) & MASK;

        append(wheel, furthest, id, tick << VC_SLOT_SHIFT);
        wheel->lists[furthest].slack = 0;
    } else {
        enter(wheel, id, tick, wheel->ahead_ns ? 0 : slack);
    }
}

void vc_wheel_hasten(struct vc_wheel *wheel, uint32_t id, uint64_t due_ns)
{
    uint64_t slot_ns = due_ns <= wheel->now_ns ? due_ns : tick_of(due_ns) << VC_SLOT_SHIFT;

    if (!vc_wheel_scheduled(wheel, id) || slot_ns < wheel->entries[id].due_ns)
        vc_wheel_schedule(wheel, id, due_ns, 0);
}

/* The first occupied slot's tick in (after, after + slots], or beyond it, or UINT64_MAX.  What is
   one turn ahead of wheel->tick is never occupied. */
static uint64_t next_occupied(const struct vc_wheel *wheel, uint64_t after, uint32_t slots)
{
    uint64_t first = after + 1;
    uint32_t at = first & MASK, word = at / 64;
    uint64_t bits = wheel->occupied[word] & (~UINT64_C(0) << (at % 64));

    for (uint32_t n = 0; n <= slots / 64 + 1 && n <= WORDS; n++) {
        if (bits) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);

            return first + ((slot - at) & MASK);
        }
        word = (word + 1) % WORDS;
        bits = wheel->occupied[word];
    }
    return UINT64_MAX;
}

/* The tick at which the next ids come out together, the first of them due at `first`. */
static uint64_t group_of(const struct vc_wheel *wheel, uint64_t first)
{
    uint64_t group = first, last = first + VC_WHEEL_SLACK_MAX;
    uint32_t cnt = 0;

    for (uint64_t at = first; at <= last;
         at = next_occupied(wheel, at, (uint32_t)(last - at))) {
        const struct vc_wheel_list *list = &wheel->lists[at & MASK];

        group = at;
        cnt += list->cnt;
        if (at + list->slack < last)
            last = at + list->slack;
        if (cnt >= VC_WHEEL_GROUP || at == last)
            break;
    }
    return group;
}

/* Empties a slot: what is due becomes ready, as due with its group; what only waited here is put
   again. */
static void come_out(struct vc_wheel *wheel, uint32_t slot, uint64_t group)
{
    uint32_t id = wheel->lists[slot].head;
    uint64_t group_ns = group << VC_SLOT_SHIFT;

    wheel->lists[slot] = (struct vc_wheel_list){ VC_NONE, VC_NONE, 0, VC_WHEEL_SLACK_MAX };
    wheel->occupied[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    while (id != VC_NONE) {
        struct vc_wheel_entry entry = wheel->entries[id];

        if (entry.due_ns <= wheel->now_ns) {
            append(wheel, READY, id, entry.due_ns > group_ns ? entry.due_ns : group_ns);
        } else {
            wheel->entries[id].list = VC_NONE;
            wheel->cnt--;
            vc_wheel_schedule(wheel, id, entry.due_ns, 0);
        }
        id = entry.next;
    }
}

/* After more than a turn everything has come due. */
static void empty_all(struct vc_wheel *wheel, uint64_t to)
{
    uint64_t from = wheel->tick, end = from + VC_WHEEL_SLOTS - 1;

    wheel->tick = to;
    while ((from = next_occupied(wheel, from, VC_WHEEL_SLOTS)) <= end)
        come_out(wheel, from & MASK, from);
}

void vc_wheel_advance(struct vc_wheel *wheel, uint64_t now_ns)
{
    uint64_t to, first, group;

    now_ns += wheel->ahead_ns;
    to = now_ns >> VC_SLOT_SHIFT;
    if (now_ns < wheel->now_ns)
        return;
    wheel->now_ns = now_ns;
    if (to - wheel->tick >= VC_WHEEL_SLOTS)
        empty_all(wheel, to);
    while (wheel->tick < to && wheel->lists[READY].cnt < wheel->cnt) {
        first = next_occupied(wheel, wheel->tick, VC_WHEEL_SLOTS);
        group = first <= to ? group_of(wheel, first) : first;
        if (group > to) {
            wheel->tick = first <= to ? first - 1 : to;
            return;
        }
        wheel->tick = group;
        while (first <= group) {
            come_out(wheel, first & MASK, group);
            first = next_occupied(wheel, first, VC_WHEEL_SLACK_MAX);
        }
    }
    if (wheel->tick < to)
        wheel->tick = to;
}

uint64_t vc_wheel_next_due(const struct vc_wheel *wheel)
{
    uint64_t first;

    if (wheel->lists[READY].cnt)
        return wheel->entries[wheel->lists[READY].head].due_ns;
    if (!wheel->cnt)
        return UINT64_MAX;
    first = next_occupied(wheel, wheel->tick, VC_WHEEL_SLOTS);
    return (group_of(wheel, first) << VC_SLOT_SHIFT) - wheel->ahead_ns / 4;
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
