/* SPDX-License-Identifier: MIT */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int vc_control_listen(const char *run_dir, const char **why)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = VC_CTL_SOCKET };
    int fd, lock;

    *why = "cannot enter the run directory: create it, and make it writable";
    if (chdir(run_dir))
        return -1;
    umask(0077);
    /* The lock is held for the life of the process: a left-over socket of a dead one may go, a
       living one's may not. */
    *why = "cannot open the lock file in the run directory";
    lock = open(VC_CTL_LOCK, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (lock < 0)
        return -1;
    *why = "another vcfwd-dataplane serves this run directory: end it, or use another directory";
    if (flock(lock, LOCK_EX | LOCK_NB)) {
        close(lock);
        return -1;
    }
    *why = "cannot listen on " VC_CTL_SOCKET " in the run directory";
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    unlink(VC_CTL_SOCKET);
    umask(0177);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4)) {
        close(fd);
        return -1;
    }
    umask(0077);
    return fd;
}

int vc_control_accept(int listen_fd)
{
    struct ucred peer;
    socklen_t sz = sizeof peer;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return -1;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &sz) ||
        (peer.uid != geteuid() && peer.uid != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static uint32_t take_fds(struct msghdr *msg, int *fds)
{
    uint32_t cnt = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        uint32_t n = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (uint32_t i = 0; i < n && cnt < VC_CTL_FDS_MAX; i++)
            memcpy(&fds[cnt++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    return cnt;
}

static const char *check(const struct vc_ctl_header *header, size_t sz, int truncated,
                         uint32_t fd_cnt)
{
    size_t want = 0;

    if (truncated)
        return "a control message was longer than any that is known";
    if (sz < sizeof *header || header->magic != VC_SHM_MAGIC)
        return "a control message does not start with the magic number";
    if (header->abi_version != VC_ABI_VERSION)
        return "the supervisor speaks another version of the contract: use parts of one build";
    if (header->type == VC_CTL_SETUP)
        want = sizeof(struct vc_ctl_setup) + (size_t)header->fd_cnt * sizeof(struct vc_ctl_fd);
    if (header->body_sz != want || sz != sizeof *header + want)
        return "a control message has another size than its type needs";
    if (header->fd_cnt != fd_cnt || (fd_cnt && header->type != VC_CTL_SETUP))
        return "a control message came with another number of descriptors than it says";
    return NULL;
}

int vc_control_recv(int fd, struct vc_held *held, const char **why)
{
    struct {
        struct vc_ctl_header header;
        uint8_t body[VC_CTL_BODY_MAX];
    } m;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VC_CTL_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = { &m, sizeof m };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes };
    int fds[VC_CTL_FDS_MAX];
    ssize_t sz;
    uint32_t cnt;

    do
        sz = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (sz < 0 && errno == EINTR);
    if (sz <= 0)
        return 0;
    cnt = take_fds(&msg, fds);
    *why = check(&m.header, (size_t)sz, msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC), cnt);
    if (!*why && m.header.type == VC_CTL_SETUP && held->fd_cnt)
        *why = "already set up: a data plane is set up once in its life";
    if (!*why && m.header.type == VC_CTL_SETUP && !cnt)
        *why = "a set-up without descriptors";
    if (*why) {
        for (uint32_t i = 0; i < cnt; i++)
            close(fds[i]);
        return -1;
    }
    if (m.header.type == VC_CTL_SETUP) {
        memcpy(&held->setup, m.body, sizeof held->setup);
        memcpy(held->labels, m.body + sizeof held->setup, cnt * sizeof *held->labels);
        memcpy(held->fds, fds, cnt * sizeof *fds);
        held->fd_cnt = cnt;
    }
    return m.header.type;
}

static int send_message(int fd, uint16_t type, const struct iovec *body, uint32_t iov_cnt,
                        const int *fds, uint32_t fd_cnt)
{
    struct vc_ctl_header header = { .magic = VC_SHM_MAGIC, .type = type, .fd_cnt = (uint16_t)fd_cnt,
                                    .abi_version = VC_ABI_VERSION };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VC_CTL_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov[3] = { { &header, sizeof header } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 1 + iov_cnt };
    ssize_t sent;

    for (uint32_t i = 0; i < iov_cnt; i++) {
        iov[1 + i] = body[i];
        header.body_sz += (uint32_t)body[i].iov_len;
    }
    if (fd_cnt) {
        memset(&control, 0, sizeof control);
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(fd_cnt * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_cnt * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_cnt * sizeof(int));
    }
    do
        sent = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

int vc_control_send_state(int fd, const struct vc_held *held)
{
    static const struct vc_ctl_setup none;
    struct iovec body[2] = { { (void *)(uintptr_t)(held ? &held->setup : &none), sizeof none } };

    if (held)
        body[1] = (struct iovec){ (void *)(uintptr_t)held->labels,
                                  held->fd_cnt * sizeof *held->labels };
    return send_message(fd, VC_CTL_STATE, body, held ? 2 : 1, held ? held->fds : NULL,
                        held ? held->fd_cnt : 0);
}

int vc_control_send_ready(int fd, const struct vc_ctl_ready *ready)
{
    struct iovec body = { (void *)(uintptr_t)ready, sizeof *ready };

    return send_message(fd, VC_CTL_READY, &body, 1, NULL, 0);
}

int vc_control_send_error(int fd, const char *sentence)
{
    struct iovec body = { (void *)(uintptr_t)sentence, strlen(sentence) };

    return send_message(fd, VC_CTL_ERROR, &body, 1, NULL, 0);
}
