/* SPDX-License-Identifier: MIT */
#include "ring_user.h"

#include <stddef.h>

#include "ring.h"

static struct vc_ring ring_of(struct vc_shm_header *h, int commands)
{
    struct vc_ring ring;

    if (commands)
        vc_ring_init(&ring, &h->cmd_head, &h->cmd_tail, (uint8_t *)h + h->cmd_off,
                     sizeof(struct vc_command), h->cmd_cap);
    else
        vc_ring_init(&ring, &h->evt_head, &h->evt_tail, (uint8_t *)h + h->evt_off,
                     sizeof(struct vc_event), h->evt_cap);
    return ring;
}

int vc_user_push(void *shm, const struct vc_command *command)
{
    const struct vc_ring ring = ring_of(shm, 1);

    return vc_ring_push(&ring, command);
}

int vc_user_must_ring(void *shm)
{
    struct vc_shm_header *h = shm;

    /* Pairs with the worker's, between `sleeping` and its recheck. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&h->sleeping, __ATOMIC_RELAXED) != 0;
}

int vc_user_pop(void *shm, struct vc_event *event)
{
    const struct vc_ring ring = ring_of(shm, 0);
    const void *front = vc_ring_front(&ring);

    if (!front)
        return 0;
    memcpy(event, front, sizeof *event);
    vc_ring_pop(&ring);
    return 1;
}

uint32_t vc_user_cmd_free(void *shm)
{
    const struct vc_ring ring = ring_of(shm, 1);

    return (uint32_t)(ring.mask + 1 - vc_ring_used(&ring));
}

int vc_user_take_overflow(void *shm)
{
    struct vc_shm_header *h = shm;

    return __atomic_exchange_n(&h->overflow, 0, __ATOMIC_ACQ_REL) != 0;
}

uint64_t vc_user_alive_until(void *shm)
{
    const struct vc_shm_header *h = shm;
    uint32_t sleeping = __atomic_load_n(&h->sleeping, __ATOMIC_ACQUIRE);
    uint64_t beat = __atomic_load_n(&h->beat_ns, __ATOMIC_ACQUIRE);
    uint64_t until = __atomic_load_n(&h->sleep_until_ns, __ATOMIC_ACQUIRE);

    return sleeping && until > beat ? until : beat;
}

uint64_t vc_user_epoch(void *shm)
{
    const struct vc_shm_header *h = shm;

    return __atomic_load_n(&h->epoch, __ATOMIC_ACQUIRE);
}

#define PICK(function, table)                                                                      \
    const char *function(uint32_t i)                                                               \
    {                                                                                              \
        return i < sizeof table / sizeof *table ? table[i] : NULL;                                 \
    }

#define VC_X(name, label, what) label,
static const char *const status_labels[] = { VC_STATUSES(VC_X) };
static const char *const drop_labels[] = { VC_DROPS(VC_X) };
static const char *const copy_drop_labels[] = { VC_COPY_DROPS(VC_X) };
#undef VC_X
#define VC_X(name, label, what) what,
static const char *const status_sentences[] = { VC_STATUSES(VC_X) };
static const char *const drop_whats[] = { VC_DROPS(VC_X) };
static const char *const copy_drop_whats[] = { VC_COPY_DROPS(VC_X) };
#undef VC_X
#define VC_X(name, what) #name,
static const char *const counter_names[] = { VC_COUNTERS(VC_X) };
#undef VC_X
#define VC_X(name, what) what,
static const char *const counter_whats[] = { VC_COUNTERS(VC_X) };
#undef VC_X

PICK(vc_user_status_label, status_labels)
PICK(vc_user_status_sentence, status_sentences)
PICK(vc_user_counter_name, counter_names)
PICK(vc_user_counter_what, counter_whats)
PICK(vc_user_drop_label, drop_labels)
PICK(vc_user_drop_what, drop_whats)
PICK(vc_user_copy_drop_label, copy_drop_labels)
PICK(vc_user_copy_drop_what, copy_drop_whats)

uint64_t vc_user_lateness_bound(uint32_t bucket)
{
    return vc_lateness_bound(bucket);
}

uint64_t vc_user_layout_hash(void)
{
    return vc_layout_hash();
}
