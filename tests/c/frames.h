/* SPDX-License-Identifier: MIT */
/* Frames for the tests of net.h, and their check by code that shares nothing with it. */
#ifndef FRAMES_H
#define FRAMES_H

#include "vcfwd/abi.h"

#include <string.h>

/* 10.77.0.9:4433 -> 10.77.0.1:40000, 2001:db8:77::9 -> ::1 of the same net, as the receiver sees
   it */
static const struct vc_tuple tuple4 = {
    .remote_ip = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 77, 0, 9 },
    .local_ip = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 77, 0, 1 },
    .remote_port_be = 0x5111,
    .local_port_be = 0x409c,
};
static const struct vc_tuple tuple6 = {
    .remote_ip = { 0x20, 1, 0x0d, 0xb8, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9 },
    .local_ip = { 0x20, 1, 0x0d, 0xb8, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 },
    .remote_port_be = 0x5111,
    .local_port_be = 0x409c,
};

/* make_header writes a leg's header as the supervisor prebuilds it, lengths and checksums 0;
   returns its size. */
static inline uint32_t make_header(uint8_t *frame, uint32_t v6, uint32_t tags)
{
    static const uint8_t macs[12] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9 };
    const struct vc_tuple *tuple = v6 ? &tuple6 : &tuple4;
    uint8_t *p = frame;

    memcpy(p, macs, 12);
    p += 12;
    for (uint32_t i = 0; i < tags; i++, p += 4)
        memcpy(p, i + 1 < tags ? "\x88\xa8\x00\x07" : "\x81\x00\x20\x2a", 4);
    memcpy(p, v6 ? "\x86\xdd" : "\x08\x00", 2);
    p += 2;
    if (v6) {
        memcpy(p, "\x60\x0a\xbc\xde\0\0\x11\x40", 8);
        memcpy(p + 8, tuple->remote_ip, 16);
        memcpy(p + 24, tuple->local_ip, 16);
        p += 40;
    } else {
        memcpy(p, "\x45\0\0\0\0\0\x40\0\x40\x11\0\0", 12);
        memcpy(p + 12, tuple->remote_ip + 12, 4);
        memcpy(p + 16, tuple->local_ip + 12, 4);
        p += 20;
    }
    memcpy(p, &tuple->remote_port_be, 2);
    memcpy(p + 2, &tuple->local_port_be, 2);
    memset(p + 4, 0, 4);
    return (uint32_t)(p + 8 - frame);
}

/* RFC 1071 as its section 4.1 writes it: two bytes at a time. */
static inline uint32_t plain_sum(const uint8_t *p, uint32_t sz, uint32_t start)
{
    uint64_t sum = start;

    for (; sz > 1; sz -= 2, p += 2)
        sum += (uint32_t)p[0] << 8 | p[1];
    if (sz)
        sum += (uint32_t)p[0] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

/* check_frame looks at a finished packet from its IP header on; returns 0, or which rule it
   breaks. */
static inline int check_frame(const uint8_t *ip, uint32_t payload_sz, uint32_t dscp)
{
    uint8_t pseudo[40] = { 0 };
    uint32_t udp_sz = payload_sz + 8, ip_sz = ip[0] >> 4 == 4 ? 20 : 40, sum;
    const uint8_t *udp = ip + ip_sz;

    if (((uint32_t)udp[4] << 8 | udp[5]) != udp_sz)
        return 1;
    if (ip_sz == 20) {
        if (ip[0] != 0x45 || ip[1] >> 2 != (int)dscp ||
            ((uint32_t)ip[2] << 8 | ip[3]) != udp_sz + 20)
            return 2;
        if (memcmp(ip + 4, "\0\0\x40\0", 4) || plain_sum(ip, 20, 0) != 0xffff)
            return 3;
        memcpy(pseudo, ip + 12, 8);
    } else {
        if (ip[0] >> 4 != 6 || ((uint32_t)(ip[0] & 15) << 2 | ip[1] >> 6) != dscp)
            return 4;
        if (((uint32_t)ip[4] << 8 | ip[5]) != udp_sz)
            return 5;
        memcpy(pseudo, ip + 8, 32);
    }
    pseudo[32] = (uint8_t)(udp_sz >> 8);
    pseudo[33] = (uint8_t)udp_sz;
    pseudo[35] = 17;
    sum = plain_sum(pseudo, 40, 0);
    if (plain_sum(udp, udp_sz, sum) != 0xffff)
        return 6;
    return !udp[6] && !udp[7] ? 7 : 0;
}

#endif
