/* SPDX-License-Identifier: MIT */
/* libFuzzer: bytes of a stranger through open_rtp and open_rtcp on both backends.

   Input: five bytes, then the packet.  Byte 0: bit 0 RTCP, bit 1 suite, bit 2 in place, bits 3-4
   clear: the packet as it is, else sealed first with the harness's key and then changed, so that
   some get past the tag check at all; bits 5-7: zeros to add to the packet, in steps of 200 bytes.
   Bytes 1-4: the change (position, mask, cut).  The header size is found, and refused, as a
   caller would.

   Held: no write outside the promised room (ASan), both backends agree on ok, whatever opens seals
   again to the same bytes, and what was not changed opens. */
#include "crypto.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX 1600
#define PACKET_MAX (INPUT_MAX + 7 * 200) /* some are past VC_CRYPTO_MAX_SZ */
#define RTP_INDEX(seq) (0x7ull << 16 | (seq))

static struct vc_crypto *engines[2];
static struct vc_crypto_key keys[2][2]; /* [engine][suite] */

static void set_up(void)
{
    static const enum vc_srtp_suite suites[2] = {VC_SRTP_AEAD_AES_128_GCM,
                                                 VC_SRTP_AES_CM_128_HMAC_SHA1_80};
    static const uint8_t master[16] = {1, 2, 3}, salt[14] = {4, 5, 6};

    engines[0] = vc_crypto_new(VC_CRYPTO_IMB);
    engines[1] = vc_crypto_new(VC_CRYPTO_EVP);
    for (int e = 0; e < 2; e++)
        for (int s = 0; s < 2; s++)
            if (engines[e] == NULL ||
                vc_crypto_key_init(engines[e], &keys[e][s], suites[s], master, salt) != 0)
                abort();
}

/* RFC 3550 section 5.1: 12 bytes, CSRCs, extension.  0: not a whole header. */
static uint32_t rtp_header_sz(const uint8_t *p, uint32_t sz)
{
    uint32_t hdr_sz;

    if (sz < 12 || p[0] >> 6 != 2)
        return 0;
    hdr_sz = 12 + 4 * (p[0] & 15u);
    if (p[0] & 0x10) {
        if (sz < hdr_sz + 4)
            return 0;
        hdr_sz += 4 + 4 * ((uint32_t)p[hdr_sz + 2] << 8 | p[hdr_sz + 3]);
    }
    return hdr_sz <= sz ? hdr_sz : 0;
}

static uint64_t rtp_index(const uint8_t *p)
{
    return RTP_INDEX((uint64_t)p[2] << 8 | p[3]);
}

static struct vc_crypto_item open_one(int e, int s, bool rtcp, bool in_place, const uint8_t *packet,
                                      uint32_t sz, uint32_t hdr_sz, uint8_t **dst)
{
    uint8_t *src = malloc(sz + (in_place ? VC_CRYPTO_RTCP_GROW_MAX : 0));
    struct vc_crypto_item item = {.key = &keys[e][s], .src_sz = sz, .hdr_sz = hdr_sz};

    *dst = in_place ? src : malloc(sz + VC_CRYPTO_RTCP_GROW_MAX);
    if (src == NULL || *dst == NULL)
        abort();
    memcpy(src, packet, sz);
    item.src = src;
    item.dst = *dst;
    item.index = rtcp ? 0 : rtp_index(packet);
    if ((rtcp ? vc_crypto_open_rtcp : vc_crypto_open_rtp)(engines[e], &item, 1) != item.ok)
        abort();
    if (!in_place)
        free(src);
    return item;
}

/* What opened must seal to the packet.  SRTCP with the E flag clear is never sealed, and the
   harness never makes it, so it must not open. */
static void must_seal_again(int s, bool rtcp, const struct vc_crypto_item *opened,
                            const uint8_t *packet, uint32_t sz)
{
    uint8_t again[PACKET_MAX + VC_CRYPTO_RTCP_GROW_MAX];
    struct vc_crypto_item item = {.key = &keys[0][s],
                                  .src = opened->dst,
                                  .dst = again,
                                  .src_sz = opened->dst_sz,
                                  .hdr_sz = opened->hdr_sz,
                                  .index = opened->index};

    if ((rtcp ? vc_crypto_seal_rtcp : vc_crypto_seal_rtp)(engines[0], &item, 1) != 1)
        abort();
    if (item.dst_sz != sz || memcmp(again, packet, sz) != 0)
        abort();
}

static bool check(int s, bool rtcp, bool in_place, const uint8_t *packet, uint32_t sz)
{
    uint32_t hdr_sz = rtcp ? 8 : rtp_header_sz(packet, sz), ok[2];

    if (hdr_sz == 0)
        return false;
    for (int e = 0; e < 2; e++) {
        uint8_t *dst;
        struct vc_crypto_item item = open_one(e, s, rtcp, in_place, packet, sz, hdr_sz, &dst);

        ok[e] = item.ok;
        if (item.ok)
            must_seal_again(s, rtcp, &item, packet, sz);
        free(dst);
    }
    if (ok[0] != ok[1])
        abort();
    return ok[0];
}

/* A sealed packet, changed as `how` says. */
static void check_changed(int s, bool rtcp, bool in_place, const uint8_t *clear, uint32_t sz,
                          const uint8_t how[4])
{
    uint8_t packet[PACKET_MAX + VC_CRYPTO_RTCP_GROW_MAX];
    uint32_t cut = how[3] & 1 ? how[3] / 2 : 0;
    struct vc_crypto_item item = {
        .key = &keys[1][s], .src = clear, .dst = packet, .src_sz = sz, .index = how[0]};

    item.hdr_sz = rtcp ? 8 : rtp_header_sz(clear, sz);
    if (!rtcp && item.hdr_sz != 0)
        item.index = rtp_index(clear);
    if ((rtcp ? vc_crypto_seal_rtcp : vc_crypto_seal_rtp)(engines[1], &item, 1) != 1)
        return;
    packet[(how[0] << 8 | how[1]) % item.dst_sz] ^= how[2];
    cut = cut < item.dst_sz ? cut : item.dst_sz;
    if (check(s, rtcp, in_place, packet, item.dst_sz - cut) != (how[2] == 0 && cut == 0) &&
        item.dst_sz <= VC_CRYPTO_MAX_SZ)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t packet[PACKET_MAX] = {0};
    uint32_t sz;

    if (engines[0] == NULL)
        set_up();
    if (size < 5 || size > INPUT_MAX)
        return 0;
    sz = (uint32_t)size - 5 + 200 * (data[0] >> 5);
    memcpy(packet, data + 5, size - 5);
    if ((data[0] & 0x18) == 0)
        check(data[0] >> 1 & 1, data[0] & 1, data[0] & 4, packet, sz);
    else
        check_changed(data[0] >> 1 & 1, data[0] & 1, data[0] & 4, packet, sz, data + 1);
    return 0;
}
