/* SPDX-License-Identifier: MIT */
#include "numbering.h"

#include "base.h"

#define INDEX_END (1ull << 48)
#define OFFSET_NONE INT64_MIN /* a suspended stretch */
#define SENT_BITS 128u

static void remove_record(struct vc_numbering *numbering, uint32_t at)
{
    numbering->cnt--;
    memmove(&numbering->records[at], &numbering->records[at + 1],
            (numbering->cnt - at) * sizeof numbering->records[0]);
}

static void insert_record(struct vc_numbering *numbering, uint32_t at, uint64_t from,
                          int64_t offset)
{
    if (numbering->cnt == VC_NUMBERING_RECORDS) {
        remove_record(numbering, 0);
        at--;
    }
    memmove(&numbering->records[at + 1], &numbering->records[at],
            (numbering->cnt - at) * sizeof numbering->records[0]);
    numbering->records[at].from = from;
    numbering->records[at].offset = offset;
    numbering->cnt++;
}

/* The last record with from <= in, or -1. */
static int find_record(const struct vc_numbering *numbering, uint64_t in)
{
    int at = (int)numbering->cnt - 1;

    while (at >= 0 && numbering->records[at].from > in)
        at--;
    return at;
}

void vc_numbering_start(struct vc_numbering *numbering, uint64_t in, uint64_t out)
{
    numbering->cnt = 0;
    insert_record(numbering, 0, in, (int64_t)(out - in));
    numbering->highest_in = in;
    if (!numbering->started) {
        numbering->highest_out = out - 1;
        numbering->sent[0] = numbering->sent[1] = 0;
    }
    numbering->started = 1;
    numbering->suspended = 0;
}

void vc_numbering_restore(struct vc_numbering *numbering, uint64_t highest_out, int64_t offset)
{
    memset(numbering, 0, sizeof *numbering);
    insert_record(numbering, 0, 0, offset);
    numbering->highest_out = highest_out;
    numbering->highest_in = highest_out - (uint64_t)offset;
    numbering->floor = highest_out + 1;
    numbering->started = 1;
}

static void mark_sent(struct vc_numbering *numbering, uint64_t out)
{
    if ((int64_t)(out - numbering->highest_out) > 0) {
        uint64_t ahead = out - numbering->highest_out;

        for (uint64_t i = 1; i <= ahead && i <= SENT_BITS; i++)
            numbering->sent[(out - i + 1) / 64 & 1] &= ~(1ull << ((out - i + 1) & 63));
        numbering->highest_out = out;
    } else if (numbering->highest_out - out >= SENT_BITS) {
        return;
    }
    VC_ASSERT(!(numbering->sent[out / 64 & 1] >> (out & 63) & 1));
    numbering->sent[out / 64 & 1] |= 1ull << (out & 63);
}

static void resume(struct vc_numbering *numbering, uint64_t in)
{
    if (in > numbering->highest_in + 1)
        insert_record(numbering, numbering->cnt, numbering->highest_in + 1, OFFSET_NONE);
    insert_record(numbering, numbering->cnt, in, (int64_t)(numbering->highest_out + 1 - in));
    numbering->suspended = 0;
}

/* Records above the highest taken in index name packets of which none has left. */
static void forget_unused(struct vc_numbering *numbering)
{
    while (numbering->cnt > 0 &&
           numbering->records[numbering->cnt - 1].from > numbering->highest_in)
        numbering->cnt--;
}

enum vc_number vc_numbering_find(const struct vc_numbering *numbering, uint64_t in, uint64_t *out)
{
    int at = find_record(numbering, in);
    int64_t mapped;

    if (at < 0 || numbering->records[at].offset == OFFSET_NONE)
        return VC_NUMBER_NONE;
    mapped = (int64_t)in + numbering->records[at].offset;
    if (mapped < 0 || mapped >= (int64_t)INDEX_END)
        return VC_NUMBER_NONE;
    if ((uint64_t)mapped < numbering->floor)
        return VC_NUMBER_USED;
    *out = (uint64_t)mapped;
    return VC_NUMBER_OK;
}

enum vc_number vc_numbering_take(struct vc_numbering *numbering, uint64_t in, uint64_t *out)
{
    enum vc_number number;

    if (numbering->suspended && in > numbering->highest_in)
        resume(numbering, in);
    number = vc_numbering_find(numbering, in, out);
    if (number != VC_NUMBER_OK)
        return number;
    if (in > numbering->highest_in)
        numbering->highest_in = in;
    mark_sent(numbering, *out);
    return VC_NUMBER_OK;
}

void vc_numbering_skip(struct vc_numbering *numbering, uint64_t in)
{
    int at;
    int64_t offset;

    if (!numbering->started || numbering->suspended || in <= numbering->highest_in)
        return; /* what may have left around it keeps its number: a hole stays */
    at = find_record(numbering, in);
    if (at < 0)
        return; /* older than the records: it has no number to give back */
    offset = numbering->records[at].offset;
    for (uint32_t i = (uint32_t)at + 1; i < numbering->cnt; i++)
        numbering->records[i].offset--;
    if ((uint32_t)at + 1 < numbering->cnt && numbering->records[at + 1].from == in + 1) {
        if (numbering->records[at].from == in && at > 0)
            remove_record(numbering, (uint32_t)at); /* its stretch is empty now */
        return;
    }
    if (numbering->records[at].from == in && at > 0) {
        numbering->records[at].from = in + 1;
        numbering->records[at].offset = offset - 1;
        return;
    }
    insert_record(numbering, (uint32_t)at + 1, in + 1, offset - 1);
}

void vc_numbering_suspend(struct vc_numbering *numbering)
{
    if (!numbering->started || numbering->suspended)
        return;
    forget_unused(numbering);
    numbering->suspended = 1;
}

int64_t vc_numbering_offset(const struct vc_numbering *numbering)
{
    return numbering->cnt ? numbering->records[numbering->cnt - 1].offset : 0;
}
