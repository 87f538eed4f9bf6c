/* SPDX-License-Identifier: MIT */
/* Payloads and Dependency Descriptors through a route's rewriting: nothing outside the ids changes,
   what is written is what is read back, a resend comes out as the packet did, and over stretches no
   id moves but by its stretch's offset. */
#include "descriptor.h"
#include "rewrite.h"

#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

#define PACKETS 64u

static struct sent {
    uint64_t out;
    struct vc_ids in, ids;
} sent[PACKETS];

static struct vc_ids read_ids(enum vc_codec codec, const uint8_t *p, uint32_t sz)
{
    struct vc_ids ids = { 0 };

    vc_descriptor_read(codec, p, sz, &ids);
    vc_dependency_read(p, sz < 8 ? sz : 8, &ids); /* the same bytes, as if they were an element */
    return ids;
}

static void check_written(enum vc_codec codec, const uint8_t *data, uint32_t sz,
                          const struct vc_ids *ids)
{
    uint8_t *copy = malloc(sz);
    struct vc_ids got = { 0 }, was = { 0 };

    VC_ASSERT(copy);
    memcpy(copy, data, sz);
    vc_descriptor_read(codec, data, sz, &was);
    vc_descriptor_write(codec, copy, sz, ids);
    vc_descriptor_read(codec, copy, sz, &got);
    VC_ASSERT(got.has == was.has);
    VC_ASSERT(!(got.has & VC_ID_PICTURE) || got.picture == ids->picture);
    VC_ASSERT(!(got.has & VC_ID_TL0) || got.tl0 == ids->tl0);
    VC_ASSERT(!(got.has & VC_ID_KEY) || got.key == ids->key);
    VC_ASSERT(was.has || !memcmp(copy, data, sz));
    VC_ASSERT(sz <= VC_DESCRIPTOR_SZ ||
              !memcmp(copy + VC_DESCRIPTOR_SZ, data + VC_DESCRIPTOR_SZ, sz - VC_DESCRIPTOR_SZ));
    vc_descriptor_write(codec, copy, sz, &was); /* and back */
    VC_ASSERT(!memcmp(copy, data, sz));
    memcpy(copy, data, sz);
    vc_dependency_write(copy, sz, ids);
    VC_ASSERT(sz < 3 || (copy[0] == data[0] && !memcmp(copy + 3, data + 3, sz - 3)));
    free(copy);
}

static void check_resends(struct vc_rewrite *rewrite, uint32_t cnt)
{
    for (uint32_t i = 0; i < cnt && i < PACKETS; i++) {
        struct vc_ids ids = sent[i].in;

        if (vc_rewrite_map(rewrite, sent[i].out, &ids, 0) >= 0)
            VC_ASSERT(!memcmp(&ids, &sent[i].ids, sizeof ids));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    struct vc_rewrite rewrite = { 0 };
    uint64_t out = 100;
    uint32_t cnt = 0;

    vc_rewrite_switch(&rewrite, out);
    while (sz >= 2) {
        enum vc_codec codec = (enum vc_codec)(data[0] % 6);
        uint32_t n = data[1] % 16;
        struct vc_ids ids;
        int change;

        if (data[0] & 0x80 && data[0] & 0x40) {
            vc_rewrite_switch(&rewrite, out);
            cnt = 0;
        } else if (data[0] & 0x80) {
            vc_rewrite_begin(&rewrite, out);
        }
        data += 2;
        sz -= 2;
        if (n > sz)
            n = (uint32_t)sz;
        ids = read_ids(codec, data, n);
        sent[cnt % PACKETS].in = ids;
        change = vc_rewrite_map(&rewrite, out, &ids, 1);
        VC_ASSERT(change == 0 || change == 1);
        VC_ASSERT(rewrite.cnt <= VC_REWRITE_STRETCHES && ids.picture <= 0x7fff && ids.key <= 0x1f);
        VC_ASSERT(ids.has == sent[cnt % PACKETS].in.has);
        sent[cnt % PACKETS].out = out++;
        sent[cnt++ % PACKETS].ids = ids;
        check_written(codec, data, n, &ids);
        check_resends(&rewrite, cnt);
        data += n;
        sz -= n;
    }
    return 0;
}
