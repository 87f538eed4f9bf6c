/* SPDX-License-Identifier: MIT */
#include "net.h"

#include "base.h"

#include <stdbool.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum {
    ETH_SZ = 14,
    VLAN_SZ = 4,
    VLAN_TAGS_MAX = 2,
    IP4_SZ = 20,
    IP6_SZ = 40,
    UDP_SZ = 8,
    ETHERTYPE_IP4 = 0x0800,
    ETHERTYPE_IP6 = 0x86dd,
    ETHERTYPE_VLAN = 0x8100,
    ETHERTYPE_QINQ = 0x88a8,
    PROTOCOL_UDP = 17,
    IP4_DF = 0x4000,
    IP4_MF_AND_OFFSET = 0x3fff,
};

static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

/* Fills the addresses and cuts *sz to the IP payload; returns the IP header's size, 0: not ours. */
static uint32_t parse_ip4(const uint8_t *ip, uint32_t *sz, struct vc_tuple *tuple)
{
    uint32_t total;

    if (*sz < IP4_SZ || ip[0] != 0x45 || ip[9] != PROTOCOL_UDP)
        return 0;
    total = vc_load_be16(ip + 2);
    if (total < IP4_SZ || total > *sz || (vc_load_be16(ip + 6) & IP4_MF_AND_OFFSET))
        return 0;
    memcpy(tuple->remote_ip, mapped, sizeof mapped);
    memcpy(tuple->remote_ip + 12, ip + 12, 4);
    memcpy(tuple->local_ip, mapped, sizeof mapped);
    memcpy(tuple->local_ip + 12, ip + 16, 4);
    *sz = total - IP4_SZ;
    return IP4_SZ;
}

static uint32_t parse_ip6(const uint8_t *ip, uint32_t *sz, struct vc_tuple *tuple)
{
    uint32_t payload;

    if (*sz < IP6_SZ || ip[0] >> 4 != 6 || ip[6] != PROTOCOL_UDP)
        return 0;
    payload = vc_load_be16(ip + 4);
    if (payload > *sz - IP6_SZ)
        return 0;
    memcpy(tuple->remote_ip, ip + 8, 16);
    memcpy(tuple->local_ip, ip + 24, 16);
    *sz = payload;
    return IP6_SZ;
}

int vc_net_parse(const uint8_t *frame, uint32_t frame_sz, uint32_t *payload_off,
                 uint32_t *payload_sz, struct vc_tuple *tuple)
{
    uint32_t off = ETH_SZ, sz, ip_sz, udp_sz, ethertype;

    if (frame_sz < ETH_SZ)
        return -1;
    ethertype = vc_load_be16(frame + off - 2);
    for (int tag = 0; tag < VLAN_TAGS_MAX; tag++) {
        if (ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ)
            break;
        off += VLAN_SZ;
        if (frame_sz < off)
            return -1;
        ethertype = vc_load_be16(frame + off - 2);
    }
    sz = frame_sz - off;
    if (ethertype == ETHERTYPE_IP4)
        ip_sz = parse_ip4(frame + off, &sz, tuple);
    else if (ethertype == ETHERTYPE_IP6)
        ip_sz = parse_ip6(frame + off, &sz, tuple);
    else
        return -1;
    if (!ip_sz || sz < UDP_SZ)
        return -1;
    off += ip_sz;
    udp_sz = vc_load_be16(frame + off + 4);
    if (udp_sz < UDP_SZ || udp_sz > sz)
        return -1;
    memcpy(&tuple->remote_port_be, frame + off, 2);
    memcpy(&tuple->local_port_be, frame + off + 2, 2);
    *payload_off = off + UDP_SZ;
    *payload_sz = udp_sz - UDP_SZ;
    return 0;
}

/* The one's complement sum does not care about the width of its words: 8 bytes at a time, with
   the carries added back (RFC 1071 section 2), four chains so that they do not wait for each
   other. */
static uint64_t sum_words(const uint8_t *data, uint32_t blocks)
{
    uint64_t a = 0, b = 0, c = 0, d = 0, w[4];

    for (uint32_t i = 0; i < blocks; i++, data += sizeof w) {
        memcpy(w, data, sizeof w);
        a += w[0];
        a += a < w[0];
        b += w[1];
        b += b < w[1];
        c += w[2];
        c += c < w[2];
        d += w[3];
        d += d < w[3];
    }
    a += b;
    a += a < b;
    c += d;
    c += c < d;
    a += c;
    a += a < c;
    return a;
}

#ifdef __x86_64__
/* Wide CPUs: low and high halves of 64-bit lanes apart, so that no carry is ever lost. */
__attribute__((target("avx2"))) static uint64_t sum_words_avx2(const uint8_t *data, uint32_t blocks)
{
    const __m256i low = _mm256_set1_epi64x(0xffffffff);
    __m256i lo = _mm256_setzero_si256(), hi = _mm256_setzero_si256();
    uint64_t lanes[4];

    for (uint32_t i = 0; i < blocks; i++, data += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)data);

        lo = _mm256_add_epi64(lo, _mm256_and_si256(v, low));
        hi = _mm256_add_epi64(hi, _mm256_srli_epi64(v, 32));
    }
    _mm256_storeu_si256((__m256i *)lanes, _mm256_add_epi64(lo, hi));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}
#endif

static uint64_t sum_blocks(const uint8_t *data, uint32_t blocks)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return sum_words_avx2(data, blocks);
#endif
    return sum_words(data, blocks);
}

uint32_t vc_net_sum(const uint8_t *data, uint32_t sz, uint32_t sum)
{
    uint32_t blocks = sz / 32;
    uint64_t total = blocks ? sum_blocks(data, blocks) : 0, word;

    data += (size_t)blocks * 32;
    for (sz &= 31; sz >= 8; sz -= 8, data += 8) {
        memcpy(&word, data, 8);
        total += word;
        total += total < word;
    }
    word = 0;
    memcpy(&word, data, sz); /* after an odd last byte comes a zero byte: little-endian does that */
    total += word;
    total += total < word;
    total = (total & 0xffffffff) + (total >> 32);
    total = (total & 0xffffffff) + (total >> 32);
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    sum += __builtin_bswap16((uint16_t)total);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

static void finish_ip4(uint8_t *ip, uint32_t total_sz, uint8_t dscp)
{
    ip[1] = (uint8_t)(dscp << 2 | (ip[1] & 3));
    vc_store_be16(ip + 2, (uint16_t)total_sz);
    vc_store_be16(ip + 4, 0);
    vc_store_be16(ip + 6, IP4_DF);
    vc_store_be16(ip + 10, 0);
    vc_store_be16(ip + 10, (uint16_t)~vc_net_sum(ip, IP4_SZ, 0));
}

static void finish_ip6(uint8_t *ip, uint32_t payload_sz, uint8_t dscp)
{
    /* version 4 bits, traffic class 8, flow label 20: the label stays the template's */
    uint32_t ecn = (uint32_t)(ip[1] >> 4) & 3;
    uint32_t traffic_class = (uint32_t)dscp << 2 | ecn;

    ip[0] = (uint8_t)(0x60 | ((traffic_class >> 4) & 0xf));
    ip[1] = (uint8_t)((traffic_class & 0xf) << 4 | (ip[1] & 0xf));
    vc_store_be16(ip + 4, (uint16_t)payload_sz);
}

void vc_net_finish(uint8_t *header, uint32_t header_sz, uint32_t l3_off, uint32_t payload_sz,
                   uint8_t dscp)
{
    uint8_t *ip = header + l3_off, *udp = header + header_sz - UDP_SZ;
    uint32_t udp_sz = UDP_SZ + payload_sz, sum;
    bool ip4 = ip[0] >> 4 == 4;

    vc_store_be16(udp + 4, (uint16_t)udp_sz);
    vc_store_be16(udp + 6, 0);
    if (ip4)
        finish_ip4(ip, IP4_SZ + udp_sz, dscp);
    else
        finish_ip6(ip, udp_sz, dscp);
    /* pseudo-header: addresses, protocol, length (RFC 768; RFC 8200 section 8.1) */
    sum = ip4 ? vc_net_sum(ip + 12, 8, PROTOCOL_UDP + udp_sz) :
                vc_net_sum(ip + 8, 32, PROTOCOL_UDP + udp_sz);
    sum = ~vc_net_sum(udp, udp_sz, sum) & 0xffff;
    vc_store_be16(udp + 6, (uint16_t)(sum ? sum : 0xffff));
}
