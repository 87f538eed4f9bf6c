/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Somebody else's XDP program, for the tests: it must survive whatever vcfwd does. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

SEC("xdp")
int somebody_else(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}
