/* SPDX-License-Identifier: MIT */
/* Options of the generator; see the head of generator.c. */
#ifndef VC_PERF_GENERATOR_H
#define VC_PERF_GENERATOR_H

#include <stdint.h>

#define FLOWS_MAX 1024u
#define BATCH_MAX 32u
#define SIZE_MIN 28u   /* RTP header and probe */
#define SIZE_MAX_ 1456u /* with the tag below an Ethernet MTU */

struct options {
    uint32_t dst_ip; /* network byte order */
    uint32_t ssrc, flows, size, per_frame, key_every, key_packets, type, tick_us, batch;
    uint32_t src_port_base, dst_port_cnt, suite; /* enum vc_srtp_suite */
    uint16_t dst_ports[FLOWS_MAX];
    uint64_t index;
    double rate, fps, seconds;
    const char *keys, *times;
    int reuse_port, h264, fd; /* fd: above 0, of all flows */
};

/* Ends the process with a sentence when an option is wrong. */
void generator_options(struct options *o, int argc, char **argv);
_Noreturn void generator_fail(const char *what, const char *detail);

#endif
