/* SPDX-License-Identifier: MIT */
/* Addresses of the socket backend: a tuple's remote end as the kernel's struct, and back. */
#ifndef VC_UDP_ADDRESS_H
#define VC_UDP_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "vcfwd/abi.h"

static const uint8_t vc_mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

union vc_address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* False: neither IPv4 nor IPv6. */
static inline bool vc_address_read(struct vc_tuple *tuple, const union vc_address *from)
{
    if (from->sa.sa_family == AF_INET) {
        memcpy(tuple->remote_ip, vc_mapped, sizeof vc_mapped);
        memcpy(tuple->remote_ip + 12, &from->v4.sin_addr, 4);
        tuple->remote_port_be = from->v4.sin_port;
        return true;
    }
    memcpy(tuple->remote_ip, &from->v6.sin6_addr, 16);
    tuple->remote_port_be = from->v6.sin6_port;
    return from->sa.sa_family == AF_INET6;
}

static inline void vc_address_set(union vc_address *to, const struct vc_tuple *tuple,
                                  sa_family_t family)
{
    memset(to, 0, sizeof *to);
    if (family == AF_INET) {
        to->v4.sin_family = AF_INET;
        to->v4.sin_port = tuple->remote_port_be;
        memcpy(&to->v4.sin_addr, tuple->remote_ip + 12, 4);
        return;
    }
    to->v6.sin6_family = AF_INET6;
    to->v6.sin6_port = tuple->remote_port_be;
    memcpy(&to->v6.sin6_addr, tuple->remote_ip, 16);
}

static inline bool vc_address_is_v4(const union vc_address *to)
{
    return to->sa.sa_family == AF_INET || !memcmp(&to->v6.sin6_addr, vc_mapped, sizeof vc_mapped);
}

#endif
