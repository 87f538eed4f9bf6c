/* SPDX-License-Identifier: MIT */
/* Ethernet, VLAN, IPv4, IPv6 and UDP: a bounds-checked reader for received frames, and the
   writer that completes a leg's prebuilt header (lengths, DSCP, checksums) for a payload.

   Pure functions, no state.  Accepted: at most two VLAN tags; IPv4 without options or fragments;
   IPv6 without extension headers: the steering program passes everything else to the kernel. */
#ifndef VC_NET_H
#define VC_NET_H

#include <stdint.h>

#include "vcfwd/abi.h"

/* vc_net_parse finds the UDP payload of a frame.  Returns 0 and fills payload offset, size and the
   tuple (remote = source); -1 when the frame is not such a datagram or its lengths lie.  Trailing Ethernet
   padding is cut off by the UDP length.  Checksums are not verified (SRTP authenticates). */
int vc_net_parse(const uint8_t *frame, uint32_t frame_sz, uint32_t *payload_off, uint32_t *payload_sz,
                 struct vc_tuple *tuple);

/* vc_net_finish completes header[0..header_sz) in place for payload_sz bytes that follow it directly
   in memory: IP and UDP lengths, IPv4 identification 0 with DF, DSCP, IPv4 header checksum, UDP checksum
   (always computed; 0 is sent as 0xffff). */
void vc_net_finish(uint8_t *header, uint32_t header_sz, uint32_t l3_off, uint32_t payload_sz, uint8_t dscp);

/* Internet checksum (RFC 1071), not inverted, folded to 16 bits, host order of the wire bytes;
   `sum` continues an earlier one. */
uint32_t vc_net_sum(const uint8_t *data, uint32_t sz, uint32_t sum);

#endif
