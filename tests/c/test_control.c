/* SPDX-License-Identifier: MIT */
/* The control socket: framing, descriptors, every message that lies.  A socketpair, no process. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "control.h"

static int ours, theirs;
static struct vc_held held;

static void open_pair(void)
{
    int fds[2];

    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
    ours = fds[0];
    theirs = fds[1];
    held = (struct vc_held){ 0 };
}

static void close_pair(void)
{
    for (uint32_t i = 0; i < held.fd_cnt; i++)
        close(held.fds[i]);
    close(ours);
    close(theirs);
}

static int open_fds(void)
{
    int cnt = 0;

    for (int fd = 0; fd < 1024; fd++)
        cnt += fcntl(fd, F_GETFD) >= 0;
    return cnt;
}

/* Sends a message of sz bytes with fd_cnt copies of a descriptor. */
static void send_raw(const void *bytes, size_t sz, uint32_t fd_cnt)
{
    char control[CMSG_SPACE(VC_CTL_FDS_MAX * sizeof(int))] = { 0 };
    struct iovec iov = { (void *)(uintptr_t)bytes, sz };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    int fds[VC_CTL_FDS_MAX];

    for (uint32_t i = 0; i < fd_cnt; i++)
        fds[i] = theirs;
    if (fd_cnt) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(fd_cnt * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_cnt * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_cnt * sizeof(int));
    }
    CHECK_EQ(sendmsg(theirs, &msg, 0), sz);
}

struct message {
    struct vc_ctl_header header;
    struct vc_ctl_setup setup;
    struct vc_ctl_fd labels[VC_CTL_FDS_MAX];
};

static struct message setup_message(uint32_t fd_cnt)
{
    struct message m = { .header = { .magic = VC_SHM_MAGIC, .type = VC_CTL_SETUP,
                                     .fd_cnt = (uint16_t)fd_cnt, .abi_version = VC_ABI_VERSION } };

    m.header.body_sz = (uint32_t)(sizeof m.setup + fd_cnt * sizeof m.labels[0]);
    m.setup.worker_cnt = 3;
    for (uint32_t i = 0; i < fd_cnt; i++)
        m.labels[i] = (struct vc_ctl_fd){ VC_FD_OTHER, i, 7, 0 };
    return m;
}

static size_t whole(const struct message *m)
{
    return sizeof m->header + m->header.body_sz;
}

static void test_setup_of(uint32_t fd_cnt)
{
    struct message m = setup_message(fd_cnt);
    const char *why = NULL;

    open_pair();
    send_raw(&m, whole(&m), fd_cnt);
    CHECK_EQ(vc_control_recv(ours, &held, &why), VC_CTL_SETUP);
    CHECK(!why);
    CHECK_EQ(held.fd_cnt, fd_cnt);
    CHECK_EQ(held.setup.worker_cnt, 3);
    CHECK_EQ(held.labels[fd_cnt - 1].a, fd_cnt - 1);
    CHECK(fcntl(held.fds[fd_cnt - 1], F_GETFD) & FD_CLOEXEC);
    /* A second one is refused, and its descriptors are closed. */
    int before = open_fds();
    send_raw(&m, whole(&m), fd_cnt);
    CHECK_EQ(vc_control_recv(ours, &held, &why), -1);
    CHECK(why && strstr(why, "already set up"));
    CHECK_EQ(open_fds(), before);
    CHECK_EQ(held.fd_cnt, fd_cnt);
    close_pair();
}

/* A message that is refused leaves no descriptor open and nothing held. */
static void refused(const struct message *m, size_t sz, uint32_t fd_cnt)
{
    const char *why = NULL;
    int before;

    open_pair();
    before = open_fds();
    send_raw(m, sz, fd_cnt);
    CHECK_EQ(vc_control_recv(ours, &held, &why), -1);
    CHECK(why != NULL);
    CHECK_EQ(open_fds(), before);
    CHECK_EQ(held.fd_cnt, 0);
    close_pair();
}

static void test_lies(void)
{
    struct message m = setup_message(4), lie;

    for (size_t sz = 1; sz < whole(&m); sz += sz < 80 ? 1 : 37)
        refused(&m, sz, 4);
    refused(&m, whole(&m), 3);
    refused(&m, whole(&m), 5);
    refused(&m, whole(&m), 0);
    lie = m;
    lie.header.magic++;
    refused(&lie, whole(&m), 4);
    lie = m;
    lie.header.abi_version++;
    refused(&lie, whole(&m), 4);
    lie = m;
    lie.header.body_sz--;
    refused(&lie, whole(&m), 4);
    lie = m;
    lie.header.fd_cnt = 0xffff;
    refused(&lie, whole(&m), 4);
    lie = setup_message(0);
    refused(&lie, whole(&lie), 0); /* a set-up needs descriptors */
    lie = m;
    lie.header.type = VC_CTL_GET;
    lie.header.body_sz = 0;
    refused(&lie, sizeof lie.header, 4); /* a GET brings none */
    lie = m;
    lie.header.type = VC_CTL_GET;
    refused(&lie, whole(&m), 0);
}

static void test_too_long(void)
{
    static uint8_t bytes[sizeof(struct vc_ctl_header) + VC_CTL_BODY_MAX + 1];
    const struct message m = setup_message(1);

    memcpy(bytes, &m, whole(&m));
    refused((const struct message *)bytes, sizeof bytes, 1);
}

static void test_state_comes_back(void)
{
    struct message m = setup_message(VC_CTL_FDS_MAX);
    struct vc_ctl_header header;
    const char *why = NULL;

    open_pair();
    send_raw(&m, whole(&m), VC_CTL_FDS_MAX);
    CHECK_EQ(vc_control_recv(ours, &held, &why), VC_CTL_SETUP);
    CHECK_EQ(vc_control_send_state(ours, &held), 0);
    CHECK_EQ(recv(theirs, &header, sizeof header, 0), sizeof header);
    CHECK_EQ(header.type, VC_CTL_STATE);
    CHECK_EQ(header.fd_cnt, VC_CTL_FDS_MAX);
    CHECK_EQ(header.body_sz, m.header.body_sz);
    CHECK_EQ(vc_control_send_state(ours, NULL), 0);
    CHECK_EQ(recv(theirs, &header, sizeof header, 0), sizeof header);
    CHECK_EQ(header.fd_cnt, 0);
    CHECK_EQ(vc_control_send_error(ours, "why"), 0);
    CHECK_EQ(recv(theirs, &header, sizeof header, 0), sizeof header);
    CHECK_EQ(header.body_sz, 3);
    close_pair();
}

/* A peer that does not read, or is gone, costs the connection and never the time. */
static void test_peer_that_does_not_read(void)
{
    struct vc_ctl_ready ready = { 0 };
    const char *why;
    int sent = 0;

    open_pair();
    while (sent < 100000 && !vc_control_send_ready(ours, &ready))
        sent++;
    CHECK(sent > 0 && sent < 100000);
    CHECK_EQ(vc_control_recv(ours, &held, &why), 0); /* nothing there: does not wait */
    close(theirs);
    theirs = -1;
    CHECK_EQ(vc_control_send_ready(ours, &ready), -1);
    CHECK_EQ(vc_control_recv(ours, &held, &why), 0);
    close_pair();
}

int main(void)
{
    test_setup_of(1);
    test_setup_of(VC_CTL_FDS_MAX);
    test_lies();
    test_too_long();
    test_state_comes_back();
    test_peer_that_does_not_read();
    return check_report();
}
