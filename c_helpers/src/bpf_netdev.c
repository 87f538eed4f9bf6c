/* SPDX-License-Identifier: MIT */
/* vc_bpf_xdp_features: what a driver says of its XDP abilities, by the generic netlink family
   `netdev` (Linux 6.3 and later; needs no privilege).  Written out here because Debian 12 has
   neither the uapi header nor a libbpf that asks. */
#include "bpf_user.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/genetlink.h>
#include <linux/netlink.h>

#define NETDEV_CMD_DEV_GET 1
#define NETDEV_A_DEV_IFINDEX 1
#define NETDEV_A_DEV_XDP_FEATURES 3
#define VC_NETDEV_REPLY_SZ 8192
#define VC_NETDEV_ATTR_MAX 32

struct request {
    struct nlmsghdr nl;
    struct genlmsghdr genl;
    struct nlattr attr;
    char value[16];
};

static size_t aligned(size_t sz)
{
    return (sz + NLA_ALIGNTO - 1) & ~(size_t)(NLA_ALIGNTO - 1);
}

/* Sends one request with one attribute; leaves the reply in buf and answers its length. */
static ssize_t ask(int fd, struct request *req, uint16_t family, uint8_t cmd, uint16_t attr,
                   const void *value, uint16_t value_sz, char *buf)
{
    const struct nlmsghdr *nl = (const struct nlmsghdr *)buf;
    ssize_t sz;

    memset(req, 0, sizeof(*req));
    req->nl.nlmsg_type = family;
    req->nl.nlmsg_flags = NLM_F_REQUEST;
    req->genl.cmd = cmd;
    req->genl.version = 1;
    req->attr.nla_type = attr;
    req->attr.nla_len = (uint16_t)(NLA_HDRLEN + value_sz);
    memcpy(req->value, value, value_sz);
    req->nl.nlmsg_len =
        (uint32_t)(NLMSG_HDRLEN + GENL_HDRLEN + aligned((size_t)NLA_HDRLEN + value_sz));
    if (send(fd, req, req->nl.nlmsg_len, 0) < 0)
        return -errno;
    sz = recv(fd, buf, VC_NETDEV_REPLY_SZ, 0);
    if (sz < 0)
        return -errno;
    if (sz < (ssize_t)NLMSG_HDRLEN || nl->nlmsg_len > (size_t)sz)
        return -EBADMSG;
    if (nl->nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr error;

        if (sz < (ssize_t)(NLMSG_HDRLEN + sizeof(error)))
            return -EBADMSG;
        memcpy(&error, buf + NLMSG_HDRLEN, sizeof(error));
        return error.error ? error.error : -EBADMSG;
    }
    return (ssize_t)nl->nlmsg_len;
}

/* Copies attribute `attr` of a reply to value; -ENOENT when it is not there or too short. */
static int find(const char *buf, ssize_t sz, uint16_t attr, void *value, size_t value_sz)
{
    size_t at = NLMSG_HDRLEN + GENL_HDRLEN;

    for (int i = 0; i < VC_NETDEV_ATTR_MAX && at + NLA_HDRLEN <= (size_t)sz; i++) {
        struct nlattr head;

        memcpy(&head, buf + at, sizeof(head));
        if (head.nla_len < NLA_HDRLEN || at + head.nla_len > (size_t)sz)
            return -EBADMSG;
        if ((head.nla_type & NLA_TYPE_MASK) == attr && head.nla_len >= NLA_HDRLEN + value_sz) {
            memcpy(value, buf + at + NLA_HDRLEN, value_sz);
            return 0;
        }
        at += aligned(head.nla_len);
    }
    return -ENOENT;
}

int vc_bpf_xdp_features(int ifindex, uint64_t *features)
{
    _Alignas(struct nlmsghdr) char buf[VC_NETDEV_REPLY_SZ];
    const struct timeval patience = {.tv_sec = 1};
    uint32_t wanted = (uint32_t)ifindex;
    struct request req;
    uint16_t family = 0;
    ssize_t sz;
    int error;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    sz = ask(fd, &req, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "netdev",
             sizeof("netdev"), buf);
    error = sz < 0 ? (int)sz : find(buf, sz, CTRL_ATTR_FAMILY_ID, &family, sizeof(family));
    if (!error) {
        sz = ask(fd, &req, family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &wanted,
                 sizeof(wanted), buf);
        error = sz < 0 ? (int)sz
                       : find(buf, sz, NETDEV_A_DEV_XDP_FEATURES, features, sizeof(*features));
    }
    close(fd);
    return error;
}
