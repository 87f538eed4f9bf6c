/* SPDX-License-Identifier: MIT */
#include "bpf_user.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/magic.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#define VC_BPF_MESSAGES_SZ 4096
#define VC_BPF_CPUS_MAX 4096

struct vc_bpf {
    struct bpf_object *object;
};

static _Thread_local char messages[VC_BPF_MESSAGES_SZ];
static _Thread_local size_t messages_sz;

/* libbpf would print to stderr, which belongs to the supervisor's structured log. */
static int keep_message(enum libbpf_print_level level, const char *format, va_list args)
{
    int sz;

    if (level == LIBBPF_DEBUG)
        return 0;
    sz = vsnprintf(messages + messages_sz, sizeof(messages) - messages_sz, format, args);
    if (sz > 0)
        messages_sz += (size_t)sz;
    if (messages_sz >= sizeof(messages))
        messages_sz = sizeof(messages) - 1;
    return sz;
}

static void fresh_messages(void)
{
    messages_sz = 0;
    messages[0] = '\0';
    libbpf_set_print(keep_message);
}

const char *vc_bpf_messages(void)
{
    return messages;
}

/* System call style (-1 and errno, or already negative) -> negative errno. */
static int answer(int result)
{
    if (result >= 0)
        return result;
    return errno ? -errno : result;
}

int vc_bpf_open(const char *path, struct vc_bpf **bpf)
{
    struct vc_bpf *made = calloc(1, sizeof(*made));

    if (!made)
        return -ENOMEM;
    fresh_messages();
    made->object = bpf_object__open_file(path, NULL);
    if (!made->object) {
        int error = answer(-1);

        free(made);
        return error;
    }
    *bpf = made;
    return 0;
}

void vc_bpf_close(struct vc_bpf *bpf)
{
    if (!bpf)
        return;
    bpf_object__close(bpf->object);
    free(bpf);
}

static struct bpf_map *find_rodata(const struct vc_bpf *bpf)
{
    struct bpf_map *map;

    bpf_object__for_each_map(map, bpf->object) {
        const char *name = bpf_map__name(map);
        size_t sz = strlen(name);

        if (sz >= 7 && !strcmp(name + sz - 7, ".rodata"))
            return map;
    }
    return NULL;
}

/* Where a global lies in .rodata, and how long it is. */
static int find_global(const struct btf *btf, const char *name, uint32_t *offset, uint32_t *sz)
{
    const struct btf_type *section;
    const struct btf_var_secinfo *var;
    int id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);

    if (id < 0)
        return -ENOENT;
    section = btf__type_by_id(btf, (__u32)id);
    var = btf_var_secinfos(section);
    for (int i = 0; i < btf_vlen(section); i++, var++) {
        const struct btf_type *type = btf__type_by_id(btf, var->type);

        if (strcmp(btf__name_by_offset(btf, type->name_off), name) != 0)
            continue;
        *offset = var->offset;
        *sz = var->size;
        return 0;
    }
    return -ENOENT;
}

int vc_bpf_set_global(struct vc_bpf *bpf, const char *name, uint64_t value)
{
    const struct btf *btf = bpf_object__btf(bpf->object);
    struct bpf_map *map = find_rodata(bpf);
    uint32_t offset = 0, sz = 0, narrow = (uint32_t)value;
    size_t data_sz = 0;
    const void *initial = map ? bpf_map__initial_value(map, &data_sz) : NULL;
    char *data;
    int error;

    if (!btf || !initial)
        return -ENOENT;
    error = find_global(btf, name, &offset, &sz);
    if (error)
        return error;
    if (offset + sz > data_sz || (sz != 8 && (sz != 4 || value != narrow)))
        return -ERANGE;
    data = malloc(data_sz);
    if (!data)
        return -ENOMEM;
    memcpy(data, initial, data_sz);
    if (sz == 8)
        memcpy(data + offset, &value, 8);
    else
        memcpy(data + offset, &narrow, 4);
    error = answer(bpf_map__set_initial_value(map, data, data_sz));
    free(data);
    return error;
}

int vc_bpf_map_name(const struct vc_bpf *bpf, int index, char *name, size_t name_sz)
{
    struct bpf_map *map;

    bpf_object__for_each_map(map, bpf->object) {
        if (bpf_map__is_internal(map) || index-- > 0)
            continue;
        snprintf(name, name_sz, "%s", bpf_map__name(map));
        return 0;
    }
    return -ENOENT;
}

int vc_bpf_map_shape(const struct vc_bpf *bpf, const char *name, struct vc_bpf_map_shape *shape)
{
    const struct bpf_map *map = bpf_object__find_map_by_name(bpf->object, name);

    if (!map)
        return -ENOENT;
    shape->map_type = bpf_map__type(map);
    shape->key_sz = bpf_map__key_size(map);
    shape->value_sz = bpf_map__value_size(map);
    shape->entries_max = bpf_map__max_entries(map);
    shape->map_flags = bpf_map__map_flags(map);
    return 0;
}

int vc_bpf_reuse_map(struct vc_bpf *bpf, const char *name, int map_fd)
{
    struct bpf_map *map = bpf_object__find_map_by_name(bpf->object, name);

    return map ? answer(bpf_map__reuse_fd(map, map_fd)) : -ENOENT;
}

/* libbpf repeats a refused load with the log on when it was given a buffer and level 0. */
int vc_bpf_load(struct vc_bpf *bpf, char *log, size_t log_sz)
{
    struct bpf_program *prog = bpf_object__next_program(bpf->object, NULL);

    if (!prog)
        return -ENOENT;
    fresh_messages();
    log[0] = '\0';
    bpf_program__set_log_buf(prog, log, log_sz);
    return answer(bpf_object__load(bpf->object));
}

int vc_bpf_map_fd(const struct vc_bpf *bpf, const char *name)
{
    const struct bpf_map *map = bpf_object__find_map_by_name(bpf->object, name);

    return map ? bpf_map__fd(map) : -ENOENT;
}

int vc_bpf_prog_fd(const struct vc_bpf *bpf)
{
    const struct bpf_program *prog = bpf_object__next_program(bpf->object, NULL);

    return prog ? bpf_program__fd(prog) : -ENOENT;
}

int vc_bpf_pin(int fd, const char *path)
{
    return answer(bpf_obj_pin(fd, path));
}

int vc_bpf_get(const char *path)
{
    return answer(bpf_obj_get(path));
}

int vc_bpf_is_bpffs(const char *path)
{
    struct statfs fs;

    if (statfs(path, &fs))
        return -errno;
    return (uint32_t)fs.f_type == BPF_FS_MAGIC;
}

int vc_bpf_mount_bpffs(const char *path)
{
    return mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") ? -errno : 0;
}

int vc_bpf_unmount_bpffs(const char *path)
{
    return umount2(path, UMOUNT_NOFOLLOW) ? -errno : 0;
}

int vc_bpf_fd_shape(int map_fd, struct vc_bpf_map_shape *shape)
{
    struct bpf_map_info info = {0};
    uint32_t sz = sizeof(info);
    int error = answer(bpf_obj_get_info_by_fd(map_fd, &info, &sz));

    if (error < 0)
        return error;
    shape->map_type = info.type;
    shape->key_sz = info.key_size;
    shape->value_sz = info.value_size;
    shape->entries_max = info.max_entries;
    shape->map_flags = info.map_flags;
    return 0;
}

int vc_bpf_update(int map_fd, const void *key, const void *value, uint64_t flags)
{
    return answer(bpf_map_update_elem(map_fd, key, value, flags));
}

int vc_bpf_lookup(int map_fd, const void *key, void *value)
{
    return answer(bpf_map_lookup_elem(map_fd, key, value));
}

int vc_bpf_delete(int map_fd, const void *key)
{
    return answer(bpf_map_delete_elem(map_fd, key));
}

int vc_bpf_next_key(int map_fd, const void *key, void *next)
{
    return answer(bpf_map_get_next_key(map_fd, key, next));
}

int vc_bpf_percpu_sum(int map_fd, uint32_t index, uint64_t *sum)
{
    int cpu_cnt = libbpf_num_possible_cpus();
    uint64_t *values;
    int error;

    if (cpu_cnt < 1 || cpu_cnt > VC_BPF_CPUS_MAX)
        return -ERANGE;
    values = calloc((size_t)cpu_cnt, sizeof(*values));
    if (!values)
        return -ENOMEM;
    error = answer(bpf_map_lookup_elem(map_fd, &index, values));
    *sum = 0;
    for (int i = 0; i < cpu_cnt && error >= 0; i++)
        *sum += values[i];
    free(values);
    return error;
}

int vc_bpf_prog_id(int prog_fd, uint32_t *prog_id)
{
    struct bpf_prog_info info = {0};
    uint32_t sz = sizeof(info);
    int error = answer(bpf_obj_get_info_by_fd(prog_fd, &info, &sz));

    *prog_id = info.id;
    return error;
}

int vc_bpf_link_xdp(int prog_fd, int ifindex, int generic)
{
    LIBBPF_OPTS(bpf_link_create_opts, opts,
                .flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE);

    return answer(bpf_link_create(prog_fd, ifindex, BPF_XDP, &opts));
}

int vc_bpf_link_replace(int link_fd, int prog_fd)
{
    return answer(bpf_link_update(link_fd, prog_fd, NULL));
}

int vc_bpf_link_detach(int link_fd)
{
    return answer(bpf_link_detach(link_fd));
}

int vc_bpf_link_read(int link_fd, struct vc_bpf_link_state *state)
{
    struct bpf_link_info info = {0};
    uint32_t sz = sizeof(info);
    int error = answer(bpf_obj_get_info_by_fd(link_fd, &info, &sz));

    if (error < 0)
        return error;
    if (info.type != BPF_LINK_TYPE_XDP)
        return -EINVAL;
    state->link_id = info.id;
    state->prog_id = info.prog_id;
    state->ifindex = info.xdp.ifindex;
    return 0;
}

int vc_bpf_xdp_read(int ifindex, struct vc_bpf_xdp_state *state)
{
    LIBBPF_OPTS(bpf_xdp_query_opts, query);
    struct bpf_prog_info info = {0};
    uint32_t sz = sizeof(info);
    int error, fd;

    memset(state, 0, sizeof(*state));
    fresh_messages();
    error = answer(bpf_xdp_query(ifindex, 0, &query));
    if (error < 0)
        return error;
    if (query.attach_mode == XDP_ATTACHED_NONE)
        return 0;
    state->mode = query.attach_mode;
    state->prog_id = query.drv_prog_id   ? query.drv_prog_id
                     : query.skb_prog_id ? query.skb_prog_id
                                         : query.prog_id;
    fd = bpf_prog_get_fd_by_id(state->prog_id);
    if (fd < 0) /* without the right to look, the id still names it */
        return 0;
    if (!bpf_obj_get_info_by_fd(fd, &info, &sz))
        memcpy(state->name, info.name, sizeof(state->name) - 1);
    close(fd);
    return 0;
}

int vc_bpf_test_run(int prog_fd, const void *data, uint32_t data_sz, uint32_t ifindex,
                    uint32_t queue, void *out, uint32_t *out_sz)
{
    struct xdp_md ctx = {.data_end = data_sz, .ingress_ifindex = ifindex, .rx_queue_index = queue};
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = data, .data_size_in = data_sz, .data_out = out,
                .data_size_out = *out_sz, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx), .repeat = 1);
    int error = answer(bpf_prog_test_run_opts(prog_fd, &opts));

    if (error < 0)
        return error;
    *out_sz = opts.data_size_out;
    return (int)opts.retval;
}

#define VC_BPF_TC_HANDLE 0x7663 /* "vc" */
#define VC_BPF_TC_PRIORITY 0x7663

int vc_bpf_tc_attach(int prog_fd, int ifindex)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_EGRESS);
    LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog_fd, .handle = VC_BPF_TC_HANDLE,
                .priority = VC_BPF_TC_PRIORITY, .flags = BPF_TC_F_REPLACE);
    int error;

    fresh_messages();
    error = bpf_tc_hook_create(&hook);
    if (error && error != -EEXIST)
        return error;
    return bpf_tc_attach(&hook, &opts);
}

int vc_bpf_tc_detach(int ifindex)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_EGRESS);
    LIBBPF_OPTS(bpf_tc_opts, opts, .handle = VC_BPF_TC_HANDLE, .priority = VC_BPF_TC_PRIORITY);

    fresh_messages();
    return bpf_tc_detach(&hook, &opts);
}

int vc_bpf_tc_read(int ifindex, uint32_t *prog_id)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_EGRESS);
    LIBBPF_OPTS(bpf_tc_opts, opts, .handle = VC_BPF_TC_HANDLE, .priority = VC_BPF_TC_PRIORITY);
    int error;

    fresh_messages();
    error = bpf_tc_query(&hook, &opts);
    *prog_id = opts.prog_id;
    return error;
}

int vc_bpf_test_run_tc(int prog_fd, const void *data, uint32_t data_sz, uint64_t *tstamp_ns)
{
    struct __sk_buff ctx = { .tstamp = *tstamp_ns };
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = data, .data_size_in = data_sz, .ctx_in = &ctx,
                .ctx_size_in = sizeof(ctx), .ctx_out = &ctx, .ctx_size_out = sizeof(ctx),
                .repeat = 1);
    int error = answer(bpf_prog_test_run_opts(prog_fd, &opts));

    if (error < 0)
        return error;
    *tstamp_ns = ctx.tstamp;
    return (int)opts.retval;
}
