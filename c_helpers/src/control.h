/* SPDX-License-Identifier: MIT */
/* The control socket of the data plane: framing and descriptor passing, nothing else.

   Messages are those of enum vc_ctl_type (vcfwd/abi.h): vc_ctl_header, body, and for SETUP and
   STATE a vc_ctl_setup followed by one vc_ctl_fd label for each descriptor of the SCM_RIGHTS.
   SOCK_SEQPACKET keeps the borders; a message that lies about its sizes is refused whole and its
   descriptors are closed.  Main thread only.  Limit: VC_CTL_FDS_MAX descriptors a message (the
   kernel's SCM_MAX_FD). */
#ifndef VC_CONTROL_H
#define VC_CONTROL_H

#include <stdint.h>

#include "vcfwd/abi.h"

#define VC_CTL_FDS_MAX 253u
#define VC_CTL_BODY_MAX (sizeof(struct vc_ctl_setup) + VC_CTL_FDS_MAX * sizeof(struct vc_ctl_fd))
#define VC_CTL_SOCKET "dataplane.sock"
#define VC_CTL_LOCK "dataplane.lock"

/* What a SETUP carried, and what a STATE gives back: kept for the whole life of the process. */
struct vc_held {
    struct vc_ctl_setup setup;
    uint32_t fd_cnt; /* 0: not set up */
    struct vc_ctl_fd labels[VC_CTL_FDS_MAX];
    int fds[VC_CTL_FDS_MAX];
};

/* vc_control_listen takes the run directory (made the working directory, so that its path may be
   longer than a socket address) and returns the listening socket, or -1 with a sentence. */
int vc_control_listen(const char *run_dir, const char **why);

/* vc_control_accept returns a connection whose peer has our own uid or root's, or -1. */
int vc_control_accept(int listen_fd);

/* vc_control_recv reads one message: its type, 0 at end of the connection or on an error, -1 when
   it is malformed (*why then says how).  After SETUP, held is filled. */
int vc_control_recv(int fd, struct vc_held *held, const char **why);

/* None of these waits for a peer that does not read.
   All return 0 or -1 (the connection is then of no use).  held NULL: a STATE without set-up. */
int vc_control_send_state(int fd, const struct vc_held *held);
int vc_control_send_ready(int fd, const struct vc_ctl_ready *ready);
int vc_control_send_error(int fd, const char *sentence);

#endif
