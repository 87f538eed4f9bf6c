/* SPDX-License-Identifier: MIT */
/* The names of the verdicts, from the one list in ebpf/abi.h. */
#include "bpf_user.h"

#include "../../ebpf/abi.h"

static const char *const verdict_labels[] = {
#define VC_X(name, label, what) label,
    VC_VERDICTS(VC_X)
#undef VC_X
};

static const char *const verdict_whats[] = {
#define VC_X(name, label, what) what,
    VC_VERDICTS(VC_X)
#undef VC_X
};

int vc_bpf_verdict_cnt(void)
{
    return VC_VERDICT_COUNT;
}

const char *vc_bpf_verdict_label(int verdict)
{
    return verdict >= 0 && verdict < VC_VERDICT_COUNT ? verdict_labels[verdict] : NULL;
}

const char *vc_bpf_verdict_what(int verdict)
{
    return verdict >= 0 && verdict < VC_VERDICT_COUNT ? verdict_whats[verdict] : NULL;
}
