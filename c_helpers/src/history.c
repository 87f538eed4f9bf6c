/* SPDX-License-Identifier: MIT */
#include "history.h"

#define HEAD_WORDS (sizeof(struct vc_slot_head) / sizeof(uint64_t))

/* A reader's bytes may be torn by design: the generation says so afterwards. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RACY __attribute__((no_sanitize("thread"), noinline))
#endif
#endif

int vc_history_take(struct vc_history_pool *pool, uint32_t share, uint32_t shares,
                    struct vc_history *history)
{
    const uint32_t first = (uint32_t)((uint64_t)pool->cnt * share / shares);

    for (uint32_t n = 0; n < pool->cnt; n++) {
        uint32_t i = first + n < pool->cnt ? first + n : first + n - pool->cnt;
        uint8_t expected = 0;

        if (__atomic_load_n(&pool->taken[i], __ATOMIC_RELAXED))
            continue;
        if (!__atomic_compare_exchange_n(&pool->taken[i], &expected, 1, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED))
            continue;
        *history = (struct vc_history){
            .slots = pool->memory + (size_t)i * pool->slots * pool->stride,
            .mask = pool->slots - 1,
            .stride = pool->stride,
            .data_sz = pool->data_sz,
            .pool_index = i,
        };
        for (uint32_t slot = 0; slot < pool->slots; slot++)
            __atomic_store_n(&vc_history_slot(history, slot)->gen, 0, __ATOMIC_RELAXED);
        return 0;
    }
    return -1;
}

void vc_history_give(struct vc_history_pool *pool, struct vc_history *history)
{
    __atomic_store_n(&pool->taken[history->pool_index], 0, __ATOMIC_RELEASE);
    memset(history, 0, sizeof *history);
}

struct vc_slot *vc_history_begin(const struct vc_history *history, uint64_t position)
{
    struct vc_slot *slot = vc_history_slot(history, position);

    __atomic_store_n(&slot->gen, 2 * position + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return slot;
}

void vc_history_commit(const struct vc_history *history, uint64_t position,
                       const struct vc_slot_head *head)
{
    struct vc_slot *slot = vc_history_slot(history, position);
    uint64_t words[HEAD_WORDS];

    memcpy(words, head, sizeof words);
    for (uint32_t i = 0; i < HEAD_WORDS; i++)
        __atomic_store_n((uint64_t *)&slot->head + i, words[i], __ATOMIC_RELAXED);
    __atomic_store_n(&slot->gen, 2 * position + 2, __ATOMIC_RELEASE);
}

int vc_history_read(const struct vc_history *history, uint64_t position,
                    struct vc_slot_head *head)
{
    const struct vc_slot *slot = vc_history_slot(history, position);
    uint64_t words[HEAD_WORDS];

    if (__atomic_load_n(&slot->gen, __ATOMIC_ACQUIRE) != 2 * position + 2)
        return -1;
    for (uint32_t i = 0; i < HEAD_WORDS; i++)
        words[i] = __atomic_load_n((const uint64_t *)&slot->head + i, __ATOMIC_RELAXED);
    memcpy(head, words, sizeof words);
    return vc_history_intact(history, position) ? 0 : -1;
}

#ifdef RACY
RACY void vc_history_copy(const struct vc_history *history, uint64_t position, uint32_t from,
                          uint8_t *dst, uint32_t n)
{
    const volatile uint8_t *src = vc_history_slot(history, position)->data + from;

    for (uint32_t i = 0; i < n; i++)
        dst[i] = src[i];
}
#else
void vc_history_copy(const struct vc_history *history, uint64_t position, uint32_t from,
                     uint8_t *dst, uint32_t n)
{
    memcpy(dst, vc_history_slot(history, position)->data + from, n);
}
#endif

int vc_history_intact(const struct vc_history *history, uint64_t position)
{
    const struct vc_slot *slot = vc_history_slot(history, position);

    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&slot->gen, __ATOMIC_RELAXED) == 2 * position + 2;
}
