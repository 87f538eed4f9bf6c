/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the departure-time program shares with user space: map keys and values, outcomes.  No logic.
   Addresses are 16 bytes, IPv4 mapped, as in abi.h; ports in network byte order.  The loader holds
   its sizes against the maps of the object. */
#ifndef VC_EBPF_EDT_H
#define VC_EBPF_EDT_H

#include <linux/types.h>

#define VC_EDT_FLOWS_MAX 262144 /* edt_rates, edt_next: paced flows */

/* A flow on its way out: to whom, from which of our ports (the protocol is always UDP). */
struct vc_edt_key {
    __u8 remote_ip[16];
    __u16 remote_port_be;
    __u16 local_port_be;
}; /* 20 bytes */

/* Value of `edt_rates`, written by user space only.  bytes_per_s: of frames, headers included;
   0: not paced.  burst_ns: so much of the rate may leave at once after a pause. */
struct vc_edt_rate {
    __u64 bytes_per_s;
    __u64 burst_ns;
}; /* 16 bytes */

/* What became of a packet; each is counted once in `edt_outcomes`.  X(NAME, label, what) */
#define VC_EDT_OUTCOMES(X)                                                                         \
    X(PASSED, "passed", "not of a paced flow: untouched")                                         \
    X(AT_ONCE, "at_once", "of a paced flow, due already: untouched")                              \
    X(STAMPED, "stamped", "given a later departure time")                                         \
    X(BEYOND, "beyond", "dropped: its time lies beyond the horizon of fq")

enum vc_edt_outcome {
#define VC_X(name, label, what) VC_EDT_##name,
    VC_EDT_OUTCOMES(VC_X)
#undef VC_X
    VC_EDT_OUTCOME_COUNT
};

#endif
