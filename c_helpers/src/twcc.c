/* SPDX-License-Identifier: MIT */
#include "twcc.h"

#include "compound.h"

#define NEARLY_FULL (VC_TWCC_WINDOW * 3 / 4)

enum {
    HEAD_SZ = 20,
    PT_RTPFB = 205,
    FMT_TRANSPORT = 15,
    LOST = 0,
    SMALL = 1, /* delta of one byte */
    LARGE = 2, /* of two, signed */
    RUN_MAX = 0x1fff,
    ONE_BIT_CNT = 14,
    TWO_BIT_CNT = 7,
};

static int is_got(const struct vc_twcc *twcc, uint64_t number)
{
    return twcc->got[number % VC_TWCC_WINDOW / 64] >> (number % 64) & 1;
}

static void set_got(struct vc_twcc *twcc, uint64_t number, int got)
{
    uint64_t bit = 1ull << (number % 64), *word = &twcc->got[number % VC_TWCC_WINDOW / 64];

    *word = got ? *word | bit : *word & ~bit;
}

int vc_twcc_put(struct vc_twcc *twcc, uint16_t number, uint64_t now_ns)
{
    uint64_t at;

    if (!twcc->started) {
        twcc->next = twcc->top = (1ull << 32) + number; /* what came before it has a place */
        memset(twcc->got, 0, sizeof twcc->got);
        twcc->started = 1;
    }
    at = twcc->top + (uint64_t)(int64_t)(int16_t)(number - (uint16_t)twcc->top);
    if (at < twcc->top) {
        if (twcc->top - at > VC_TWCC_WINDOW || is_got(twcc, at))
            return 0;
        if (at < twcc->next)
            twcc->next = at;
    } else {
        if (at - twcc->next >= VC_TWCC_WINDOW) {
            twcc->next = at;
            memset(twcc->got, 0, sizeof twcc->got);
        } else {
            for (uint64_t n = twcc->top; n < at; n++)
                set_got(twcc, n, 0);
        }
        twcc->top = at + 1;
    }
    set_got(twcc, at, 1);
    twcc->ticks[at % VC_TWCC_WINDOW] = (uint32_t)(now_ns / VC_TWCC_TICK_NS);
    return twcc->top - twcc->next >= NEARLY_FULL;
}

/* Section 3.1.2: a run of the same symbol, or a vector of one or two bits each. */
static uint32_t put_chunks(uint8_t *p, const uint8_t *symbols, uint32_t cnt)
{
    uint32_t sz = 0;

    for (uint32_t at = 0; at < cnt; sz += 2) {
        uint32_t run = 1, bits = 0, chunk;

        while (at + run < cnt && symbols[at + run] == symbols[at] && run < RUN_MAX)
            run++;
        if (run >= ONE_BIT_CNT || at + run == cnt) {
            vc_store_be16(p + sz, (uint16_t)((uint32_t)symbols[at] << 13 | run));
            at += run;
            continue;
        }
        while (at + bits < cnt && bits < ONE_BIT_CNT && symbols[at + bits] <= SMALL)
            bits++;
        if (bits == ONE_BIT_CNT || at + bits == cnt) {
            chunk = 0x8000;
            for (uint32_t i = 0; i < bits; i++)
                chunk |= (uint32_t)symbols[at + i] << (ONE_BIT_CNT - 1 - i);
            at += bits;
        } else {
            chunk = 0xc000;
            for (uint32_t i = 0; i < TWO_BIT_CNT && at < cnt; i++, at++)
                chunk |= (uint32_t)symbols[at] << 2 * (TWO_BIT_CNT - 1 - i);
        }
        vc_store_be16(p + sz, (uint16_t)chunk);
    }
    return sz;
}

uint32_t vc_twcc_build(struct vc_twcc *twcc, uint32_t sender_ssrc, uint8_t data[VC_TWCC_MAX])
{
    uint8_t symbols[VC_TWCC_WINDOW], deltas[2 * VC_TWCC_WINDOW];
    uint32_t cnt = 0, deltas_sz = 0, reference = 0, last = 0, sz;
    int any = 0;

    for (; twcc->next + cnt < twcc->top; cnt++) {
        uint32_t tick = twcc->ticks[(twcc->next + cnt) % VC_TWCC_WINDOW];
        int32_t delta;

        symbols[cnt] = LOST;
        if (!is_got(twcc, twcc->next + cnt))
            continue;
        if (!any)
            reference = last = tick & ~0xffu;
        any = 1;
        delta = (int32_t)(tick - last);
        if (delta > INT16_MAX || delta < INT16_MIN)
            break; /* the next message goes on with a reference time of its own */
        last = tick;
        symbols[cnt] = delta >= 0 && delta <= UINT8_MAX ? SMALL : LARGE;
        if (symbols[cnt] == LARGE)
            deltas[deltas_sz++] = (uint8_t)((uint32_t)delta >> 8);
        deltas[deltas_sz++] = (uint8_t)delta;
    }
    if (!any)
        return 0;
    data[0] = 0x80 | FMT_TRANSPORT;
    data[1] = PT_RTPFB;
    vc_store_be32(data + 4, sender_ssrc);
    vc_store_be32(data + 8, twcc->media_ssrc);
    vc_store_be16(data + 12, (uint16_t)twcc->next);
    vc_store_be16(data + 14, (uint16_t)cnt);
    vc_store_be32(data + 16, reference | twcc->message_cnt++); /* 24 bits of 64 ms, and a counter */
    sz = HEAD_SZ + put_chunks(data + HEAD_SZ, symbols, cnt);
    memcpy(data + sz, deltas, deltas_sz);
    for (sz += deltas_sz; sz % 4; sz++)
        data[sz] = 0;
    vc_store_be16(data + 2, (uint16_t)(sz / 4 - 1));
    twcc->next += cnt;
    return sz;
}

/* ---- of a worker ------------------------------------------------------------------------- */

static uint32_t send_messages(struct vc_worker *w, struct vc_leg *leg)
{
    uint32_t sent = 0, sz;

    for (;;) {
        uint8_t data[VC_RTCP_MAX];
        struct vc_rtcp_writer writer = { data, 0, sizeof data };

        vc_compound_begin(&writer, leg);
        VC_ASSERT(writer.room - writer.sz >= VC_TWCC_MAX);
        sz = vc_twcc_build(&leg->twcc, leg->rtcp_ssrc, data + writer.sz);
        if (!sz)
            return sent;
        vc_compound_send(w, leg, data, writer.sz + sz);
        w->c.feedback_tx++;
        sent++;
    }
}

void vc_twcc_note(struct vc_worker *w, struct vc_leg *leg, uint32_t ssrc, const uint8_t *pkt,
                  const struct vc_rtp *rtp)
{
    const uint8_t *number;
    uint32_t sz;

    if (!(leg->flags & VC_LEG_FEEDBACK))
        return;
    number = vc_rtp_ext(pkt, rtp, leg->rx_ext[VC_EXT_TRANSPORT_CC], &sz);
    if (!number || sz < 2)
        return;
    leg->twcc.media_ssrc = ssrc;
    if (vc_twcc_put(&leg->twcc, vc_load_be16(number), w->now_ns))
        vc_pacer_hasten(&w->feedbacks, leg->id, w->now_ns);
    else if (w->feedbacks.place[leg->id] == VC_NONE)
        vc_pacer_schedule(&w->feedbacks, leg->id, w->now_ns + VC_TWCC_INTERVAL_NS);
}

uint32_t vc_twcc_timers(struct vc_worker *w)
{
    uint32_t cnt = 0, id;

    while ((id = vc_pacer_pop_due(&w->feedbacks, w->now_ns)) != VC_NONE) {
        struct vc_leg *leg = &w->node->legs[id];

        if (leg->sendable && (leg->flags & VC_LEG_FEEDBACK))
            cnt += send_messages(w, leg);
        else
            leg->twcc.started = 0;
    }
    return cnt;
}
