/* SPDX-License-Identifier: MIT */
#include "privilege.h"

#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CAP_BPF
#define CAP_BPF 39
#endif

#define BIT(cap) (UINT64_C(1) << (cap))

void vc_privilege_start(void)
{
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(VC_SANITIZED)
    /* Keys are in memory: no core file, no ptrace.  (The leak checker needs ptrace.) */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

int vc_privilege_drop(int keep_for_xsk)
{
    uint64_t keep = keep_for_xsk ? BIT(CAP_NET_RAW) | BIT(CAP_NET_ADMIN) | BIT(CAP_BPF) |
                                       BIT(CAP_IPC_LOCK) : 0;
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &header, data))
        return -1;
    /* Best effort: it needs CAP_SETPCAP, and no_new_privs bars the way back anyhow. */
    for (int cap = 0; cap < 64; cap++)
        if (!(keep & BIT(cap)))
            prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int i = 0; i < 2; i++) {
        uint32_t mask = (uint32_t)(keep >> (32 * i));

        data[i].permitted &= mask;
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &header, data) ? -1 : 0;
}
