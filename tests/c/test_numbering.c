/* SPDX-License-Identifier: MIT */
/* Numbering against a naive model that remembers every packet, over wrap points, with loss,
   reordering and deliberate drops. */
#include "numbering.h"

#include "check.h"

#define N 3000

static const uint64_t starts[] = { 0, 1, 127, 128, 32767, 32768, 65534, 65535 };

struct model {
    uint64_t base; /* in index of the first */
    int64_t offset[N + 1]; /* of packet i, as long as it was not taken */
    uint8_t gone[N + 1];   /* dropped on purpose, or inside a suspended stretch */
    uint64_t taken[N + 1]; /* out index + 1; 0: not taken */
    int highest;           /* last packet taken */
    uint64_t highest_out;
    int suspended;
};

static void model_start(struct model *m, uint64_t in, uint64_t out)
{
    memset(m, 0, sizeof *m);
    m->base = in;
    for (int i = 0; i <= N; i++)
        m->offset[i] = (int64_t)(out - in);
    m->highest_out = out - 1;
}

static void model_skip(struct model *m, int i)
{
    if (m->suspended || i <= m->highest)
        return;
    m->gone[i] = 1;
    for (int j = i + 1; j <= N; j++)
        m->offset[j]--;
}

/* 1 and the number, or 0. */
static int model_take(struct model *m, int i, uint64_t *out)
{
    if (m->suspended && i > m->highest) {
        for (int j = m->highest + 1; j < i; j++)
            m->gone[j] = 2;
        for (int j = i; j <= N; j++)
            m->offset[j] = (int64_t)(m->highest_out + 1 - (m->base + (uint64_t)i));
        m->suspended = 0;
    }
    if (m->gone[i] == 2)
        return 0;
    *out = m->base + (uint64_t)i + (uint64_t)m->offset[i];
    m->taken[i] = *out + 1;
    if (i > m->highest)
        m->highest = i;
    if ((int64_t)(*out - m->highest_out) > 0)
        m->highest_out = *out;
    return 1;
}

/* Some arrival order of packets 0..n: neighbours swapped up to 12 places. */
static void shuffle(int *order, int n, uint64_t *seed)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = 1; i + 12 < n; i++) { /* the first one is the first */
        int j = i + (int)(check_random(seed) % 100 < 20 ? check_random(seed) % 12 : 0), t = order[i];

        order[i] = order[j];
        order[j] = t;
    }
}

static void no_number_twice(const struct model *m)
{
    static uint8_t used[2 * N];
    uint64_t first = m->taken[0];

    memset(used, 0, sizeof used);
    for (int i = 0; i <= N; i++) {
        uint64_t at = m->taken[i] - first;

        if (!m->taken[i])
            continue;
        CHECK(at < sizeof used && !used[at]);
        if (at < sizeof used)
            used[at] = 1;
    }
}

/* After the last stretch: what is missing in the outgoing numbers was missing in the incoming. */
static void holes_match(const struct model *m)
{
    uint64_t outs = m->highest_out - (m->taken[0] - 1) + 1, ins = 0, taken = 0;

    for (int i = 0; i <= m->highest; i++) {
        taken += m->taken[i] != 0;
        ins += !m->taken[i] && !m->gone[i];
    }
    CHECK_EQ(outs - taken, ins);
}

static void sweep(uint64_t in0, uint64_t out0, int drop, int suspend, uint64_t seed)
{
    static struct model m;
    static int order[N];
    struct vc_numbering n = { 0 };
    int evicted = 0;

    model_start(&m, in0, out0);
    vc_numbering_start(&n, in0, out0);
    shuffle(order, N, &seed);
    for (int k = 0; k < N; k++) {
        uint64_t in = in0 + (uint64_t)order[k], out = 0, want = 0;
        uint32_t dice = check_random(&seed) % 1000;
        enum vc_number number;

        if (k && dice < 50)
            continue; /* lost upstream */
        if (k && (int)dice < 50 + drop) {
            model_skip(&m, order[k]);
            vc_numbering_skip(&n, in);
            continue;
        }
        if (k && (int)dice >= 1000 - suspend) {
            m.suspended = 1;
            vc_numbering_suspend(&n);
            k += (int)(check_random(&seed) % 30);
            continue;
        }
        if (n.cnt == VC_NUMBERING_RECORDS)
            evicted = 1; /* what is older than the records has no number: allowed from now on */
        number = vc_numbering_take(&n, in, &out);
        if (number == VC_NUMBER_NONE && (evicted || m.gone[order[k]]))
            continue;
        CHECK_EQ(model_take(&m, order[k], &want), number == VC_NUMBER_OK);
        CHECK_EQ(out, want);
    }
    no_number_twice(&m);
    if (!suspend && !evicted)
        holes_match(&m);
}

static void test_restore(void)
{
    struct vc_numbering n;
    uint64_t out = 0;

    vc_numbering_restore(&n, 1000, -500);
    CHECK_EQ(vc_numbering_take(&n, 1500, &out), VC_NUMBER_USED);
    CHECK_EQ(vc_numbering_take(&n, 3, &out), VC_NUMBER_NONE);
    CHECK_EQ(vc_numbering_take(&n, 1502, &out), VC_NUMBER_OK);
    CHECK_EQ(out, 1002);
    CHECK_EQ(vc_numbering_take(&n, 1501, &out), VC_NUMBER_OK);
    CHECK_EQ(out, 1001);
    vc_numbering_restore(&n, 0, 0);
    CHECK_EQ(vc_numbering_take(&n, 0, &out), VC_NUMBER_USED);
    vc_numbering_restore(&n, (1ull << 48) - 2, 0);
    CHECK_EQ(vc_numbering_take(&n, (1ull << 48) - 1, &out), VC_NUMBER_OK);
    CHECK_EQ(vc_numbering_take(&n, 1ull << 48, &out), VC_NUMBER_NONE);
}

static void test_by_hand(void)
{
    struct vc_numbering n = { 0 };
    uint64_t out = 0;

    vc_numbering_start(&n, 10, 100);
    CHECK(!vc_numbering_take(&n, 10, &out) && out == 100);
    CHECK_EQ(vc_numbering_take(&n, 9, &out), VC_NUMBER_NONE); /* before the start */
    vc_numbering_skip(&n, 12);                                /* 11 is still on its way */
    vc_numbering_skip(&n, 13);
    CHECK(!vc_numbering_take(&n, 14, &out) && out == 102);
    CHECK(!vc_numbering_take(&n, 11, &out) && out == 101);
    vc_numbering_suspend(&n);
    CHECK(!vc_numbering_take(&n, 50, &out) && out == 103);
    CHECK_EQ(vc_numbering_take(&n, 40, &out), VC_NUMBER_NONE);
    vc_numbering_start(&n, 7, n.highest_out + 1); /* another source */
    CHECK(!vc_numbering_take(&n, 7, &out) && out == 104);
}

int main(void)
{
    test_by_hand();
    test_restore();
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned o = 0; o < 8; o++) {
            uint64_t seed = i * 8 + o + 1;

            sweep(starts[i], starts[o], 0, 0, seed);
            sweep(starts[i], starts[o], 5, 0, seed);
            sweep(starts[i], starts[o], 100, 0, seed);
            sweep(starts[i], starts[o], 30, 10, seed);
        }
    }
    return check_report();
}
