/* SPDX-License-Identifier: MIT */
/* Thin wrappers over libbpf for the supervisor (cffi module forwarder.dataplane._bpf).

   They exist because libbpf's own interface is made of macros, option structs and printing to
   stderr, none of which crosses cffi well.  No policy here: what to attach, pin or replace is
   decided in forwarder/dataplane/steering.py.

   Every function that can fail answers a negative errno.  What libbpf had to say about it is in
   vc_bpf_messages(), the verifier's log in the buffer given to vc_bpf_load().
   File descriptors that are answered belong to the caller, those of an object (program, maps) to
   the object until vc_bpf_close().
   Threads: an object belongs to one thread at a time; messages are per thread. */
#ifndef VC_BPF_USER_H
#define VC_BPF_USER_H

#include <stddef.h>
#include <stdint.h>

struct vc_bpf; /* an opened BPF object with one program */

struct vc_bpf_map_shape {
    uint32_t map_type;
    uint32_t key_sz;
    uint32_t value_sz;
    uint32_t entries_max;
    uint32_t map_flags;
};

struct vc_bpf_xdp_state {
    uint32_t prog_id; /* 0: none */
    uint32_t mode;    /* 1 native, 2 generic, 3 hardware, 4 several */
    char name[16];    /* as the kernel keeps it, cut to 15 */
};

struct vc_bpf_link_state {
    uint32_t link_id;
    uint32_t prog_id;
    uint32_t ifindex; /* 0: the interface is gone */
};

/* Objects.  vc_bpf_set_global: a `const volatile` global of 4 or 8 bytes, before the load. */
int vc_bpf_open(const char *path, struct vc_bpf **bpf);
void vc_bpf_close(struct vc_bpf *bpf);
int vc_bpf_set_global(struct vc_bpf *bpf, const char *name, uint64_t value);
int vc_bpf_map_name(const struct vc_bpf *bpf, int index, char *name, size_t name_sz);
int vc_bpf_map_shape(const struct vc_bpf *bpf, const char *name, struct vc_bpf_map_shape *shape);
int vc_bpf_reuse_map(struct vc_bpf *bpf, const char *name, int map_fd);
int vc_bpf_load(struct vc_bpf *bpf, char *log, size_t log_sz);
int vc_bpf_map_fd(const struct vc_bpf *bpf, const char *name);
int vc_bpf_prog_fd(const struct vc_bpf *bpf);
const char *vc_bpf_messages(void);

/* Pins. */
int vc_bpf_pin(int fd, const char *path);
int vc_bpf_get(const char *path);
int vc_bpf_is_bpffs(const char *path);
int vc_bpf_mount_bpffs(const char *path);
int vc_bpf_unmount_bpffs(const char *path); /* EBUSY while something is pinned and open */

/* Maps by descriptor. */
int vc_bpf_fd_shape(int map_fd, struct vc_bpf_map_shape *shape);
int vc_bpf_update(int map_fd, const void *key, const void *value, uint64_t flags);
int vc_bpf_lookup(int map_fd, const void *key, void *value);
int vc_bpf_delete(int map_fd, const void *key);
int vc_bpf_next_key(int map_fd, const void *key, void *next);
int vc_bpf_percpu_sum(int map_fd, uint32_t index, uint64_t *sum);

/* Programs and links. */
int vc_bpf_prog_id(int prog_fd, uint32_t *prog_id);
int vc_bpf_link_xdp(int prog_fd, int ifindex, int generic);
int vc_bpf_link_replace(int link_fd, int prog_fd);
int vc_bpf_link_detach(int link_fd);
int vc_bpf_link_read(int link_fd, struct vc_bpf_link_state *state);
int vc_bpf_xdp_read(int ifindex, struct vc_bpf_xdp_state *state);
int vc_bpf_xdp_features(int ifindex, uint64_t *features);

/* Egress classifiers (tc, direct action), under a handle and priority of our own.  Attaching makes
   the clsact qdisc where there is none, and replaces what we attached before; detaching leaves the
   qdisc, which others may use.  -ENOENT: nothing of ours is attached. */
int vc_bpf_tc_attach(int prog_fd, int ifindex);
int vc_bpf_tc_detach(int ifindex);
int vc_bpf_tc_read(int ifindex, uint32_t *prog_id);

/* One run of a classifier on a frame that wants to leave at *tstamp_ns; there afterwards is what
   the program left.  Answers its action. */
int vc_bpf_test_run_tc(int prog_fd, const void *data, uint32_t data_sz, uint64_t *tstamp_ns);

/* One run of an XDP program as if `data` had come in on (ifindex, queue); nothing is sent on.
   *out_sz: room in out, then bytes left there.  Answers the program's verdict. */
int vc_bpf_test_run(int prog_fd, const void *data, uint32_t data_sz, uint32_t ifindex,
                    uint32_t queue, void *out, uint32_t *out_sz);

/* enum vc_verdict, from ebpf/abi.h. */
int vc_bpf_verdict_cnt(void);
const char *vc_bpf_verdict_label(int verdict);
const char *vc_bpf_verdict_what(int verdict);

#endif
