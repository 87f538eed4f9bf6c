/* SPDX-License-Identifier: MIT */
/* rtp.h: headers with CSRCs, extensions of both forms, padding; cut everywhere; rewritten. */
#include "rtp.h"

#include "check.h"

struct packet {
    uint8_t bytes[2048];
    uint32_t sz;
};

/* Version 2, marker, payload type 96, sequence 0x1234, timestamp 0x01020304, SSRC 0xa1b2c3d4. */
static struct packet make(uint32_t csrcs, int ext, uint16_t profile, const void *elements,
                          uint32_t elements_sz, const void *payload, uint32_t payload_sz)
{
    static const uint8_t fixed[12] = { 0x80, 0xe0, 0x12, 0x34, 1, 2, 3, 4, 0xa1, 0xb2, 0xc3, 0xd4 };
    struct packet p = { .sz = 12 };

    memcpy(p.bytes, fixed, 12);
    p.bytes[0] |= (uint8_t)(csrcs | (ext ? 0x10 : 0));
    for (uint32_t i = 0; i < 4 * csrcs; i++)
        p.bytes[p.sz++] = (uint8_t)(0xc0 + i);
    if (ext) {
        uint32_t words = (elements_sz + 3) / 4;

        p.bytes[p.sz++] = (uint8_t)(profile >> 8);
        p.bytes[p.sz++] = (uint8_t)profile;
        p.bytes[p.sz++] = (uint8_t)(words >> 8);
        p.bytes[p.sz++] = (uint8_t)words;
        if (elements_sz)
            memcpy(p.bytes + p.sz, elements, elements_sz);
        p.sz += 4 * words;
    }
    if (payload_sz)
        memcpy(p.bytes + p.sz, payload, payload_sz);
    p.sz += payload_sz;
    return p;
}

static void test_fixed_header(void)
{
    for (uint32_t csrcs = 0; csrcs <= 15; csrcs++)
        for (int ext = 0; ext < 2; ext++)
            for (uint32_t words = 0; words < (ext ? 5u : 1u); words++) {
                uint8_t zeros[16] = { 0 };
                struct packet p = make(csrcs, ext, 0xbede, zeros, 4 * words, "hello", 5);
                uint32_t header_sz = p.sz - 5;
                struct vc_rtp rtp;

                CHECK_EQ(vc_rtp_parse(p.bytes, p.sz, &rtp), VC_RTP_OK);
                CHECK_EQ(rtp.header_sz, header_sz);
                CHECK_EQ(rtp.seq, 0x1234);
                CHECK_EQ(rtp.pt, 96);
                CHECK_EQ(rtp.marker, 1);
                CHECK_EQ(rtp.timestamp, 0x01020304);
                CHECK_EQ(rtp.ssrc, 0xa1b2c3d4);
                CHECK_EQ(rtp.csrc_cnt, csrcs);
                CHECK_EQ(rtp.padding, 0);
                CHECK_EQ(rtp.ext_off, ext ? 16 + 4 * csrcs : 0);
                CHECK_EQ(rtp.ext_sz, 4 * words);
                for (uint32_t cut = 0; cut < header_sz; cut++) {
                    uint8_t *q = exact(p.bytes, cut);

                    CHECK_EQ(vc_rtp_parse(q, cut, &rtp), VC_RTP_TRUNCATED);
                    free(q);
                }
                CHECK_EQ(vc_rtp_parse(p.bytes, header_sz, &rtp),
                         VC_RTP_OK); /* an empty payload is one */
            }
}

static void test_first_two_bytes(void)
{
    struct packet p = make(0, 0, 0, NULL, 0, "x", 1);
    struct vc_rtp rtp;

    for (uint32_t first = 0; first < 256; first++) {
        uint8_t pkt[100] = { 0 };
        int want = first >> 6 == 2 ? VC_RTP_OK : VC_RTP_VERSION;

        memcpy(pkt, p.bytes, p.sz);
        pkt[0] = (uint8_t)first;
        CHECK_EQ(vc_rtp_parse(pkt, sizeof pkt, &rtp), want);
    }
    for (uint32_t second = 0; second < 256; second++) {
        p.bytes[1] = (uint8_t)second;
        CHECK_EQ(vc_rtp_is_rtcp(p.bytes), second >= 192 && second <= 223);
    }
    /* the longest extension there is, cut by one byte */
    p = make(0, 1, 0xbede, NULL, 0, NULL, 0);
    p.bytes[14] = p.bytes[15] = 0xff;
    CHECK_EQ(vc_rtp_parse(p.bytes, p.sz, &rtp), VC_RTP_TRUNCATED);
}

struct ext_case {
    const char *what;
    uint16_t profile;
    uint32_t sz;
    const char *elements;
    uint8_t id;
    int found; /* size, or -1 */
    const char *data;
};

static void test_find_ext(void)
{
    static const struct ext_case cases[] = {
        { "the only one", 0xbede, 4, "\x32\x0a\x0b\x0c", 3, 3, "\x0a\x0b\x0c" },
        { "not there", 0xbede, 4, "\x32\x0a\x0b\x0c", 4, -1, "" },
        { "after padding", 0xbede, 8, "\0\0\x10\xaa\0\x21\xbb\xcc", 2, 2, "\xbb\xcc" },
        { "first of two", 0xbede, 4, "\x10\xaa\x10\xbb", 1, 1, "\xaa" },
        { "16 bytes", 0xbede, 20,
          "\xef"
          "0123456789abcdef\0\0\0",
          14, 16, "0123456789abcdef" },
        { "runs out", 0xbede, 4, "\x33\x0a\x0b\x0c", 3, -1, "" },
        { "last byte", 0xbede, 4, "\x00\x00\x00\x30", 3, -1, "" },
        { "nothing counts after 15", 0xbede, 4, "\xf0\xaa\x10\xbb", 1, -1, "" },
        { "15 itself", 0xbede, 4, "\xf0\xaa\0\0", 15, -1, "" },
        { "nothing counts after 0 with a length", 0xbede, 4, "\x01\xaa\x10\xbb", 1, -1, "" },
        { "id 0", 0xbede, 4, "\0\0\0\0", 0, -1, "" },
        { "two-byte", 0x1000, 8, "\x03\x01\xaa\xc8\x02\xbb\xcc\0", 200, 2, "\xbb\xcc" },
        { "two-byte, application bits", 0x100f, 4, "\x03\x01\xaa\0", 3, 1, "\xaa" },
        { "two-byte, empty", 0x1000, 4, "\x03\x00\x04\x00", 4, 0, "" },
        { "two-byte, 15 is an id", 0x1000, 4, "\x0f\x01\xaa\0", 15, 1, "\xaa" },
        { "two-byte, runs out", 0x1000, 4, "\x03\x03\xaa\xbb", 3, -1, "" },
        { "two-byte, no length", 0x1000, 4, "\0\0\0\x03", 3, -1, "" },
        { "two-byte, after padding", 0x1000, 4, "\0\x05\x01\xee", 5, 1, "\xee" },
        { "another profile", 0x1010, 4, "\x03\x01\xaa\0", 3, -1, "" },
        { "another profile", 0xbedf, 4, "\x32\x0a\x0b\x0c", 3, -1, "" },
    };

    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct ext_case *c = &cases[i];
        struct packet p = make(i % 3, 1, c->profile, c->elements, c->sz, NULL, 0);
        uint8_t *q = exact(p.bytes, p.sz);
        const uint8_t *data;
        struct vc_rtp rtp;
        uint32_t sz = 0;

        CHECK_EQ(vc_rtp_parse(q, p.sz, &rtp), VC_RTP_OK);
        data = vc_rtp_ext(q, &rtp, c->id, &sz);
        if (!!data != (c->found >= 0))
            fprintf(stderr, "%s:\n", c->what);
        CHECK_EQ(!!data, c->found >= 0);
        if (data) {
            CHECK_EQ(sz, c->found);
            CHECK(!memcmp(data, c->data, sz));
        }
        free(q);
    }
}

static void test_padding(void)
{
    struct packet p = make(1, 0, 0, NULL, 0, "abcdefgh", 8);
    struct vc_rtp rtp;

    CHECK_EQ(vc_rtp_parse(p.bytes, p.sz, &rtp), VC_RTP_OK);
    CHECK_EQ(vc_rtp_padding(p.bytes, p.sz, &rtp), 0);
    p.bytes[0] |= 0x20;
    CHECK_EQ(vc_rtp_parse(p.bytes, p.sz, &rtp), VC_RTP_OK);
    for (uint32_t n = 0; n < 256; n++) {
        p.bytes[p.sz - 1] = (uint8_t)n;
        CHECK_EQ(vc_rtp_padding(p.bytes, p.sz, &rtp), n >= 1 && n <= 8 ? (int)n : -1);
    }
    CHECK_EQ(vc_rtp_padding(p.bytes, rtp.header_sz, &rtp), -1); /* no payload to hold the count */
}

/* ---- rewriting --------------------------------------------------------------------------- */

static const uint8_t rx_ids[VC_EXT_COUNT] = {
    [VC_EXT_MID] = 1,         [VC_EXT_RID] = 2,           [VC_EXT_RRID] = 3,
    [VC_EXT_AUDIO_LEVEL] = 4, [VC_EXT_ABS_SEND_TIME] = 5, [VC_EXT_TRANSPORT_CC] = 6,
    [VC_EXT_DEPENDENCY] = 7,  [VC_EXT_PLAYOUT_DELAY] = 8,
};
static const uint8_t tx_ids[VC_EXT_COUNT] = {
    [VC_EXT_MID] = 9,         [VC_EXT_RID] = 10,           [VC_EXT_RRID] = 11,
    [VC_EXT_AUDIO_LEVEL] = 1, [VC_EXT_DEPENDENCY] = 12,    [VC_EXT_PLAYOUT_DELAY] = 13,
};
/* one of each kind */
static const char all_kinds[] =
    "\x10m\x20r\x30q\x40\x7f\x52\x01\x02\x03\x61\x00\x07\x73wxyz\x82\x0a\x0b\x0c";
#define ALL_KINDS_SZ (sizeof all_kinds - 1)

static struct packet rewrite(const struct packet *in, const uint8_t *rx, const uint8_t *tx,
                             const char *mid)
{
    uint8_t label[VC_LABEL_SZ] = { 0 };
    struct vc_rtp_identity as = {
        0x11223344, 0x55667788, 0x99aa, 111, 0, rx, tx, mid ? label : NULL, 0x7a7b7c, 0x6a6b
    };
    struct packet out = { .sz = 0 };
    uint8_t *q = exact(in->bytes, in->sz), *dst = malloc(VC_RTP_HEADER_MAX);
    struct vc_rtp rtp, again;

    if (mid)
        memcpy(label, mid, strlen(mid));
    CHECK_EQ(vc_rtp_parse(q, in->sz, &rtp), VC_RTP_OK);
    out.sz = vc_rtp_write(dst, q, &rtp, &as);
    memcpy(out.bytes, dst, out.sz);
    free(q);
    free(dst);
    CHECK_EQ(vc_rtp_parse(out.bytes, out.sz, &again), VC_RTP_OK);
    CHECK_EQ(again.header_sz, out.sz);
    CHECK(again.ssrc == 0x11223344 && again.timestamp == 0x55667788 && again.seq == 0x99aa &&
          again.pt == 111);
    CHECK(again.marker == rtp.marker && again.padding == rtp.padding &&
          again.csrc_cnt == rtp.csrc_cnt);
    CHECK(!memcmp(out.bytes + 12, in->bytes + 12, 4u * rtp.csrc_cnt));
    return out;
}

static void expect(const struct packet *p, uint16_t profile, const char *elements, uint32_t sz)
{
    struct vc_rtp rtp;

    CHECK_EQ(vc_rtp_parse(p->bytes, p->sz, &rtp), VC_RTP_OK);
    CHECK_EQ(rtp.ext_profile, profile);
    CHECK_EQ(rtp.ext_sz, sz);
    CHECK(rtp.ext_sz == sz && !memcmp(p->bytes + rtp.ext_off, elements, sz));
}

static void test_rewrite(void)
{
    uint8_t wide[VC_EXT_COUNT];
    struct packet in = make(2, 1, 0xbede, all_kinds, ALL_KINDS_SZ, "payload", 7), out;

    out = rewrite(&in, rx_ids, tx_ids, NULL);
    expect(&out, 0xbede, "\x10\x7f\xc3wxyz\xd2\x0a\x0b\x0c\0", 12);
    out = rewrite(&in, rx_ids, tx_ids, "audio0");
    expect(&out, 0xbede,
           "\x95"
           "audio0\x10\x7f\xc3wxyz\xd2\x0a\x0b\x0c\0\0",
           20);
    out = rewrite(&in, NULL, tx_ids, "v");
    expect(&out, 0xbede, "\x90v\0\0", 4);
    out = rewrite(&in, rx_ids, NULL, "v");
    expect(&out, 0, "", 0);
    CHECK(!(out.bytes[0] & 0x10));
    out = rewrite(&in, rx_ids, tx_ids, "");
    expect(&out, 0xbede, "\x10\x7f\xc3wxyz\xd2\x0a\x0b\x0c\0", 12);
    out = rewrite(&in, rx_ids, tx_ids,
                  "0123456789abcdef"); /* a label that fills its field has no zero */
    expect(&out, 0xbede,
           "\x9f"
           "0123456789abcdef\x10\x7f\xc3wxyz\xd2\x0a\x0b\x0c",
           28);

    memcpy(wide, tx_ids, sizeof wide);
    wide[VC_EXT_AUDIO_LEVEL] = 15; /* not an id in one-byte form */
    out = rewrite(&in, rx_ids, wide, NULL);
    expect(&out, 0x1000, "\x0f\x01\x7f\x0c\x04wxyz\x0d\x03\x0a\x0b\x0c\0\0", 16);
    wide[VC_EXT_AUDIO_LEVEL] = 0;
    out = rewrite(&in, rx_ids, wide, NULL);
    expect(&out, 0xbede, "\xc3wxyz\xd2\x0a\x0b\x0c\0\0\0", 12);

    in.bytes[0] |= 0x20;
    in.bytes[1] &= 0x7f;
    rewrite(&in, rx_ids, tx_ids, NULL);
    in = make(15, 0, 0, NULL, 0, NULL, 0);
    out = rewrite(&in, rx_ids, tx_ids, NULL);
    expect(&out, 0, "", 0);
    in = make(0, 1, 0x1234, "\x40\x7f\0\0", 4, NULL, 0); /* opaque profile */
    out = rewrite(&in, rx_ids, tx_ids, NULL);
    expect(&out, 0, "", 0);
    in = make(0, 1, 0x1000, "\x04\x00\0\0", 4, NULL, 0); /* an empty element has no one-byte form */
    out = rewrite(&in, rx_ids, tx_ids, NULL);
    expect(&out, 0x1000, "\x01\x00\0\0", 4);
}

/* What the node says of a departure: never what came, and also where nothing came. */
static void test_stamps(void)
{
    uint8_t ids[VC_EXT_COUNT];
    struct packet in = make(1, 1, 0xbede, all_kinds, ALL_KINDS_SZ, "payload", 7), out;

    memcpy(ids, tx_ids, sizeof ids);
    ids[VC_EXT_ABS_SEND_TIME] = 2;
    ids[VC_EXT_TRANSPORT_CC] = 3;
    out = rewrite(&in, rx_ids, ids, NULL);
    expect(&out, 0xbede, "\x22\x7a\x7b\x7c\x31\x6a\x6b\x10\x7f\xc3wxyz\xd2\x0a\x0b\x0c\0\0", 20);
    out = rewrite(&in, NULL, ids, "v");
    expect(&out, 0xbede, "\x90v\x22\x7a\x7b\x7c\x31\x6a\x6b\0\0\0", 12);
    ids[VC_EXT_TRANSPORT_CC] = 200;
    in = make(0, 0, 0, NULL, 0, NULL, 0);
    out = rewrite(&in, rx_ids, ids, NULL);
    expect(&out, 0x1000, "\x02\x03\x7a\x7b\x7c\xc8\x02\x6a\x6b\0\0\0", 12);

    CHECK_EQ(vc_rtp_send_time(0), 0);
    CHECK_EQ(vc_rtp_send_time(1000000000ull), 1 << 18);
    CHECK_EQ(vc_rtp_send_time(500000000ull), 1 << 17);
    CHECK_EQ(vc_rtp_send_time(64000000000ull + 3815), 1); /* 24 bits: 64 s, and 3.8 us each */
    CHECK_EQ(vc_rtp_send_time(63999999999ull), 0xffffff);
    CHECK_EQ(vc_rtp_send_time(UINT64_MAX),
             (18446744073ull << 18 | 709551615ull * 262144 / 1000000000) & 0xffffff);
}

/* However long the elements and many the CSRCs: never past VC_RTP_HEADER_MAX, MID always there. */
static void test_rewrite_bound(void)
{
    for (uint32_t csrcs = 0; csrcs <= 15; csrcs++)
        for (uint32_t sz = 0; sz <= 255; sz++) {
            uint8_t elements[300] = { 7, (uint8_t)sz };
            struct packet in, out;
            struct vc_rtp rtp;
            uint32_t got;

            memset(elements + 2, 0x5a, sz);
            elements[2 + sz] = 4;
            elements[3 + sz] = 1;
            elements[4 + sz] = 0x66;
            in = make(csrcs, 1, 0x1000, elements, sz + 5, "p", 1);
            out = rewrite(&in, rx_ids, tx_ids, "0123456789abcdef");
            CHECK(out.sz <= VC_RTP_HEADER_MAX && out.sz % 4 == 0);
            CHECK_EQ(vc_rtp_parse(out.bytes, out.sz, &rtp), VC_RTP_OK);
            CHECK(vc_rtp_ext(out.bytes, &rtp, 9, &got) && got == 16);
            CHECK(vc_rtp_ext(out.bytes, &rtp, 1, &got) && got == 1);
            /* 4 extension head, 18 MID, 3 audio level, 2 its own head */
            if (vc_rtp_ext(out.bytes, &rtp, 12, &got))
                CHECK_EQ(got, sz);
            else
                CHECK(12 + 4 * csrcs + 4 + 18 + 3 + 2 + sz > VC_RTP_HEADER_MAX);
        }
}

int main(void)
{
    test_fixed_header();
    test_first_two_bytes();
    test_find_ext();
    test_padding();
    test_rewrite();
    test_stamps();
    test_rewrite_bound();
    return check_report();
}
