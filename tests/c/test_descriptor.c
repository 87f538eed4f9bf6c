/* SPDX-License-Identifier: MIT */
/* descriptor.h, rewrite.h and timeline.h: ids of each form, cut at every length; offsets over
   stretches; clocks that wrap. */
#include "descriptor.h"
#include "rewrite.h"
#include "timeline.h"

#include "check.h"

struct payload_case {
    const char *what;
    enum vc_codec codec;
    uint32_t sz; /* of the descriptor */
    const char *bytes;
    struct vc_ids ids;
    const char *written; /* with picture 0x1234, tl0 0x56, key 0x17 */
};

#define P VC_ID_PICTURE
#define S (VC_ID_PICTURE | VC_ID_SHORT)
#define L VC_ID_TL0
#define K VC_ID_KEY

static const struct payload_case cases[] = {
    { "VP8, nothing", VC_CODEC_VP8, 1, "\x10", { 0 }, "\x10" },
    { "VP8, X without any", VC_CODEC_VP8, 2, "\x90\x00", { 0 }, "\x90\x00" },
    { "VP8, 7 bits", VC_CODEC_VP8, 3, "\x90\x80\x7f", { .picture = 0x7f, .has = S },
      "\x90\x80\x34" },
    { "VP8, 15 bits", VC_CODEC_VP8, 4, "\x80\x80\xff\xff", { .picture = 0x7fff, .has = P },
      "\x80\x80\x92\x34" },
    { "VP8, all", VC_CODEC_VP8, 6, "\x90\xf0\x81\x02\x03\xe4",
      { .picture = 0x102, .tl0 = 3, .key = 4, .has = P | L | K }, "\x90\xf0\x92\x34\x56\xf7" },
    { "VP8, all, 7 bits", VC_CODEC_VP8, 5, "\x90\xf0\x01\x03\xe4",
      { .picture = 1, .tl0 = 3, .key = 4, .has = S | L | K }, "\x90\xf0\x34\x56\xf7" },
    { "VP8, T without K", VC_CODEC_VP8, 5, "\x90\xe0\x01\x03\xff",
      { .picture = 1, .tl0 = 3, .has = S | L }, "\x90\xe0\x34\x56\xff" },
    { "VP8, K alone", VC_CODEC_VP8, 3, "\x90\x10\x3f", { .key = 0x1f, .has = K },
      "\x90\x10\x37" },
    { "VP8, TL0 and T", VC_CODEC_VP8, 4, "\x90\x60\xff\x00", { .tl0 = 255, .has = L },
      "\x90\x60\x56\x00" },
    { "VP9, nothing", VC_CODEC_VP9, 1, "\x0c", { 0 }, "\x0c" },
    { "VP9, 7 bits", VC_CODEC_VP9, 2, "\x8c\x11", { .picture = 0x11, .has = S }, "\x8c\x34" },
    { "VP9, 15 bits", VC_CODEC_VP9, 3, "\x8c\x91\x11", { .picture = 0x1111, .has = P },
      "\x8c\x92\x34" },
    { "VP9, with levels", VC_CODEC_VP9, 5, "\xac\x91\x11\x20\x05",
      { .picture = 0x1111, .tl0 = 5, .has = P | L }, "\xac\x92\x34\x20\x56" },
    { "VP9, flexible: no TL0", VC_CODEC_VP9, 4, "\xbc\x91\x11\x20",
      { .picture = 0x1111, .has = P }, "\xbc\x92\x34\x20" },
    { "VP9, levels without id", VC_CODEC_VP9, 3, "\x2c\x20\x05", { .tl0 = 5, .has = L },
      "\x2c\x20\x56" },
    { "H.264", VC_CODEC_H264, 3, "\x90\x80\x7f", { 0 }, "\x90\x80\x7f" },
    { "AV1", VC_CODEC_AV1, 3, "\x90\x80\x7f", { 0 }, "\x90\x80\x7f" },
    { "sound", VC_CODEC_OPAQUE, 3, "\x90\x80\x7f", { 0 }, "\x90\x80\x7f" },
};

static void test_payloads(void)
{
    const struct vc_ids to = { .picture = 0x1234, .tl0 = 0x56, .key = 0x17, .has = P | L | K };

    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t cut = 0; cut <= cases[i].sz; cut++) {
            const struct payload_case *c = &cases[i];
            uint8_t *p = exact(c->bytes, cut);
            struct vc_ids ids = { 0 }, none = { 0 };

            vc_descriptor_read(c->codec, p, cut, &ids);
            CHECK(!memcmp(&ids, cut == c->sz ? &c->ids : &none, sizeof ids));
            vc_descriptor_write(c->codec, p, cut, &none);
            CHECK(!memcmp(p, c->bytes, cut));
            vc_descriptor_write(c->codec, p, cut, &to);
            if (memcmp(p, cut == c->sz ? c->written : c->bytes, cut)) {
                fprintf(stderr, "%s, %u bytes:\n", c->what, cut);
                CHECK(0);
            }
            free(p);
        }
}

static void test_dependency(void)
{
    for (uint32_t cut = 0; cut <= 5; cut++) {
        uint8_t *p = exact("\xc5\x12\x34\x56\x78", cut);
        struct vc_ids ids = { 0 };

        vc_dependency_read(p, cut, &ids);
        CHECK_EQ(ids.has, cut >= 3 ? VC_ID_FRAME : 0);
        CHECK_EQ(ids.frame, cut >= 3 ? 0x1234 : 0);
        ids.frame = 0xffff;
        vc_dependency_write(p, cut, &ids);
        CHECK(!memcmp(p, cut >= 3 ? "\xc5\xff\xff\x56\x78" : "\xc5\x12\x34\x56\x78", cut));
        free(p);
    }
}

static struct vc_ids map(struct vc_rewrite *rewrite, uint64_t out, struct vc_ids ids, int first,
                         int want)
{
    CHECK_EQ(vc_rewrite_map(rewrite, out, &ids, first), want);
    return ids;
}

static const uint8_t all = P | L | K | VC_ID_FRAME;

static void test_stretches(void)
{
    struct vc_rewrite rewrite = { 0 };
    struct vc_ids a = { .picture = 0x7ffe, .frame = 65534, .tl0 = 254, .key = 30, .has = all };
    struct vc_ids b = { .picture = 7, .frame = 9, .tl0 = 11, .key = 13, .has = all }, got;

    CHECK_EQ(vc_rewrite_map(&rewrite, 5, &a, 1), -1);
    vc_rewrite_switch(&rewrite, 100);
    got = map(&rewrite, 100, a, 1, 0); /* the first source goes through as it is */
    CHECK(!memcmp(&got, &a, sizeof a));
    CHECK_EQ(vc_rewrite_map(&rewrite, 99, &got, 1), -1);
    vc_rewrite_begin(&rewrite, 110);
    got = map(&rewrite, 110, b, 1, 1);
    CHECK_EQ(got.picture, 0x7fff);
    CHECK_EQ(got.frame, 65535);
    CHECK_EQ(got.tl0, 255);
    CHECK_EQ(got.key, 31);
    b.picture++;
    b.frame++;
    b.tl0++;
    b.key++;
    got = map(&rewrite, 111, b, 1, 1); /* each wraps in its own width */
    CHECK_EQ(got.picture, 0);
    CHECK_EQ(got.frame, 0);
    CHECK_EQ(got.tl0, 0);
    CHECK_EQ(got.key, 0);
    got = map(&rewrite, 109, a, 0, 0); /* a resend from before */
    CHECK_EQ(got.picture, 0x7ffe);
    CHECK_EQ(rewrite.highest.picture, 0);
    for (uint64_t i = 0; i < VC_REWRITE_STRETCHES - 1; i++)
        vc_rewrite_begin(&rewrite, 120 + i);
    map(&rewrite, 109, a, 0, -1);
    got = map(&rewrite, 111, b, 0, 1);
    CHECK_EQ(got.picture, 0);
    vc_rewrite_switch(&rewrite, 130); /* what left before a switch cannot be made again */
    map(&rewrite, 129, b, 0, -1);
    got = map(&rewrite, 130, a, 1, 1);
    CHECK_EQ(got.picture, 1);
    vc_rewrite_renumber(&rewrite, 3);
    got = map(&rewrite, 3, a, 1, 1);
    CHECK_EQ(got.picture, 1);
}

static void test_forms(void)
{
    struct vc_rewrite rewrite = { 0 };
    struct vc_ids wide = { .picture = 1000, .has = P }, narrow = { .picture = 5, .has = S };
    struct vc_ids none = { .tl0 = 3, .has = L }, got;

    vc_rewrite_switch(&rewrite, 0);
    map(&rewrite, 0, wide, 1, 0);
    vc_rewrite_switch(&rewrite, 1);
    got = map(&rewrite, 1, narrow, 1, 1);
    CHECK_EQ(got.picture, 1001 & 0x7f); /* stays one of 7 bits */
    for (uint64_t i = 2; i < 300; i++) {
        narrow.picture = (narrow.picture + 1) & 0x7f;
        got = map(&rewrite, i, narrow, 1, 1);
        CHECK_EQ(got.picture, (1000 + i) & 0x7f);
    }
    vc_rewrite_switch(&rewrite, 300);
    got = map(&rewrite, 300, none, 1, 0); /* absent stays absent, and what never was is not moved */
    CHECK_EQ(got.has, L);
    vc_rewrite_switch(&rewrite, 301);
    got = map(&rewrite, 301, wide, 1, 1);
    CHECK_EQ(got.picture, 1300); /* 1299 was the last, whatever its form */
    wide.picture--; /* a late one of the same stretch */
    got = map(&rewrite, 302, wide, 1, 1);
    CHECK_EQ(got.picture, 1299);
    CHECK_EQ(rewrite.highest.picture, 1300);
}

/* Garbage in the index store is ids, and nothing worse. */
static void test_restore(void)
{
    struct vc_ids garbage, offset = { .picture = 10, .has = P }, one = { .picture = 20, .has = P };
    struct vc_rewrite rewrite;
    struct vc_ids got;

    memset(&garbage, 0xff, sizeof garbage);
    vc_rewrite_restore(&rewrite, &garbage, &garbage);
    map(&rewrite, 7, one, 1, 1);
    vc_rewrite_restore(&rewrite, &(struct vc_ids){ .picture = 30, .has = P }, &offset);
    got = map(&rewrite, 1u << 20, one, 1, 1);
    CHECK_EQ(got.picture, 30); /* the same frame, gone on with */
    vc_rewrite_restore(&rewrite, &(struct vc_ids){ .picture = 30, .has = P }, NULL);
    got = map(&rewrite, 1u << 20, one, 1, 1);
    CHECK_EQ(got.picture, 31);
}

static void test_timeline(void)
{
    struct vc_sender_report a = { .ntp = 5ull << 32, .rtp_timestamp = 0xfffffff0 };
    struct vc_sender_report b = { .ntp = 7ull << 32 | 0x80000000, .rtp_timestamp = 1000 };
    uint32_t offset = vc_timeline_offset(&a, 100, &b, 90000);

    CHECK_EQ(vc_timeline_ticks(3ll << 32, 90000), 270000);
    CHECK_EQ((int32_t)vc_timeline_ticks(-(3ll << 32), 90000), -270000);
    CHECK_EQ((int32_t)vc_timeline_ticks(-(1ll << 31), 90000), -45000);
    CHECK_EQ((int32_t)vc_timeline_ticks(-1, 90000), 0);
    CHECK_EQ((uint32_t)(1000 + offset), (uint32_t)(0xfffffff0u + 100 + 225000));
    CHECK_EQ(vc_timeline_offset(&b, offset, &a, 90000), 100); /* there and back */
    CHECK_EQ(vc_timeline_after(0xffffff00, 1000000000, 90000), (uint32_t)(0xffffff00u + 90000));
    CHECK_EQ(vc_timeline_after(7, 0, 90000), 7);
}

int main(void)
{
    test_payloads();
    test_dependency();
    test_stretches();
    test_forms();
    test_restore();
    test_timeline();
    return check_report();
}
