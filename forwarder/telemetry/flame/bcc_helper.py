"""Samples stacks by BPF; run by the interpreter that has Debian's `bcc`, not imported.

    /usr/bin/python3 bcc_helper.py '{"pids": [1, 2], "all": true, "hz": 499, "seconds": 5,
                                     "off_cpu": false, "out": "FILE"}'

Writes each event as it is to FILE (struct event below; bcc_backend.py has its twin) and says in
JSON lines on stdout when it is `sampling` and `done`.  Stands alone: nothing but bcc and the
standard library.  The program reads no structure of the kernel, so headers of another version
serve as well.
"""

import ctypes
import json
import platform
import sys
import time
from typing import Any

PAGES = 512  # of the buffer of each CPU: a second of samples and more
OFF_CPU_MIN_US = 10

PROGRAM = r"""
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>

#define KERNEL_MAX 96
#define USER_MAX 127
#define WORDS_MAX 256
#define PT_REGS_SP 152 /* struct pt_regs on x86-64: a stable ABI of ptrace */

struct event {
    u64 at_ns;
    u64 weight;
    u32 pid;
    u32 tid;
    s32 kernel_bytes;
    s32 user_bytes;
    u32 word_bytes;
    u32 pad;
    u64 sp;
    char comm[16];
    u64 kernel[KERNEL_MAX];
    u64 user[USER_MAX];
    u64 words[WORDS_MAX];
};

BPF_PERCPU_ARRAY(scratch, struct event, 1);
BPF_HASH(targets, u32, u32, 64);
BPF_PERF_OUTPUT(events);

static __always_inline struct event *take(void *ctx, int is_target)
{
    u32 zero = 0;
    u64 id = bpf_get_current_pid_tgid();
    struct event *event = scratch.lookup(&zero);

    if (!event)
        return 0;
    event->at_ns = bpf_ktime_get_ns();
    event->weight = 1;
    event->pid = id >> 32;
    event->tid = (u32)id;
    event->word_bytes = 0;
    event->user_bytes = 0;
    bpf_get_current_comm(event->comm, sizeof(event->comm));
    event->kernel_bytes = bpf_get_stack(ctx, event->kernel, sizeof(event->kernel), 0);
    if (!is_target)
        return event;
    event->user_bytes = bpf_get_stack(ctx, event->user, sizeof(event->user), BPF_F_USER_STACK);
#ifdef X86_64
    {
        u64 sp = 0;
        char *regs = (char *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());

        bpf_probe_read_kernel(&sp, sizeof(sp), regs + PT_REGS_SP);
        event->sp = sp;
        if (!bpf_probe_read_user(event->words, sizeof(event->words), (void *)sp))
            event->word_bytes = sizeof(event->words);
        else if (!bpf_probe_read_user(event->words, 256, (void *)sp))
            event->word_bytes = 256;
    }
#endif
    return event;
}

int on_clock(struct bpf_perf_event_data *ctx)
{
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    int is_target = targets.lookup(&pid) != 0;
    struct event *event;

    if (!pid || (!is_target && !EVERYBODY))
        return 0;
    event = take(ctx, is_target);
    if (event && (is_target || event->kernel_bytes > 0))
        events.perf_submit(ctx, event, sizeof(*event));
    return 0;
}

#ifdef OFF_CPU
BPF_HASH(waiting, u64, struct event, 2048);

RAW_TRACEPOINT_PROBE(sched_switch)
{
    u64 prev = ctx->args[1], next = ctx->args[2];
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    struct event *event;

    if (pid && targets.lookup(&pid) && (event = take(ctx, 1)))
        waiting.update(&prev, event);
    event = waiting.lookup(&next);
    if (!event)
        return 0;
    event->weight = (bpf_ktime_get_ns() - event->at_ns) / 1000;
    if (event->weight >= OFF_CPU_MIN_US)
        events.perf_submit(ctx, event, sizeof(*event));
    waiting.delete(&next);
    return 0;
}
#endif
"""


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def main() -> int:
    order = json.loads(sys.argv[1])
    from bcc import BPF, PerfSWConfig, PerfType  # type: ignore[import-not-found]

    flags = [f"-DEVERYBODY={int(order['all'])}", f"-DOFF_CPU_MIN_US={OFF_CPU_MIN_US}"]
    if platform.machine() == "x86_64":
        flags.append("-DX86_64")
    if order["off_cpu"]:
        flags.append("-DOFF_CPU")
    bpf = BPF(text=PROGRAM, cflags=[*flags, "-Wno-macro-redefined"])
    for pid in order["pids"]:
        bpf["targets"][ctypes.c_uint32(pid)] = ctypes.c_uint32(1)
    counts = {"samples": 0, "lost": 0}
    with open(order["out"], "wb") as out:

        def take(cpu: int, data: int, size: int) -> None:
            counts["samples"] += 1
            out.write(size.to_bytes(4, "little") + ctypes.string_at(data, size))

        def lose(count: int) -> None:
            counts["lost"] += count

        bpf["events"].open_perf_buffer(take, page_cnt=PAGES, lost_cb=lose)
        if not order["off_cpu"]:
            bpf.attach_perf_event(
                ev_type=PerfType.SOFTWARE,
                ev_config=PerfSWConfig.CPU_CLOCK,
                fn_name="on_clock",
                sample_freq=order["hz"],
            )
        say("sampling", at_ns=time.monotonic_ns())
        end = time.monotonic() + order["seconds"]
        while (left := end - time.monotonic()) > 0:
            bpf.perf_buffer_poll(timeout=max(1, min(200, int(left * 1000))))
        if not order["off_cpu"]:
            bpf.detach_perf_event(ev_type=PerfType.SOFTWARE, ev_config=PerfSWConfig.CPU_CLOCK)
        bpf.perf_buffer_poll(timeout=1)
    say("done", **counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
