/* SPDX-License-Identifier: MIT */
/* Privilege is a phase: vc_privilege_start before anything is read from outside, vc_privilege_drop
   once sockets are bound and memory is mapped, before any worker thread exists (capabilities
   belong to threads, and threads inherit them).

   What stays, and only with AF_XDP interfaces, for binding again after a driver reset or a link
   that went down:
     CAP_NET_RAW    socket(AF_XDP)
     CAP_NET_ADMIN  SO_SNDBUFFORCE, SO_PREFER_BUSY_POLL and SO_BUSY_POLL on the new socket
     CAP_BPF        bpf(BPF_MAP_UPDATE_ELEM) on the XSKMAP where unprivileged BPF is off
     CAP_IPC_LOCK   registering the UMEM above RLIMIT_MEMLOCK
   Without AF_XDP interfaces nothing stays. */
#ifndef VC_PRIVILEGE_H
#define VC_PRIVILEGE_H

void vc_privilege_start(void);

/* 0, or -1 when the kernel refused to take them away. */
int vc_privilege_drop(int keep_for_xsk);

#endif
