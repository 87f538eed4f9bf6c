"""What disturbed the workers' cores: interrupts, stolen time, context switches, spin gaps.

The counters are the kernel's; two snapshots give what happened between.  Spin gaps are measured by
a thread that reads the clock on the core for a while: only when asked, for it takes the core.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.host import cpulist
from forwarder.host.root import Host, Unreadable

_DATAPLANE = "vcfwd-dataplane"  # 15 characters: what /proc/PID/comm holds
GAPS_US = (1, 10, 100, 1000)
"""Bounds of the spin gaps' histogram, microseconds."""
TASKS_MAX = 256


@dataclass(frozen=True)
class Core:
    """Counters of a core since boot; `switches` of the data plane's threads pinned to it."""

    interrupts: int
    stolen_ms: int
    switches: int


def read(host: Host, cpus: Sequence[int]) -> dict[int, Core]:
    interrupts, stolen = _interrupts(host), _stolen(host)
    switches = _switches(host)
    return {
        cpu: Core(interrupts.get(cpu, 0), stolen.get(cpu, 0), switches.get(cpu, 0)) for cpu in cpus
    }


def between(before: dict[int, Core], now: dict[int, Core]) -> dict[int, Core]:
    """What happened; a counter that began anew counts from zero."""
    found = {}
    for cpu, core in now.items():
        old = before.get(cpu, core)
        found[cpu] = Core(
            *(
                new - was if new >= was else new
                for new, was in zip(vars(core).values(), vars(old).values(), strict=True)
            )
        )
    return found


def _interrupts(host: Host) -> dict[int, int]:
    """Columns of /proc/interrupts, summed."""
    lines = (host.read("/proc/interrupts") or "").splitlines()
    columns = [int(w[3:]) for w in lines[0].split() if w[3:].isdecimal()] if lines else []
    sums = dict.fromkeys(columns, 0)
    for line in lines[1:]:
        words = line.partition(":")[2].split()[: len(columns)]
        if len(words) == len(columns) and all(word.isdecimal() for word in words):
            for cpu, word in zip(columns, words, strict=True):
                sums[cpu] += int(word)
    return sums


def _stolen(host: Host) -> dict[int, int]:
    """Field 8 of a cpuN line of /proc/stat, ticks -> ms."""
    tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
    found = {}
    for line in (host.read("/proc/stat") or "").splitlines():
        words = line.split()
        if len(words) > 8 and words[0].startswith("cpu") and words[0][3:].isdecimal():
            found[int(words[0][3:])] = round(int(words[8]) * tick_ms)
    return found


def _switches(host: Host) -> dict[int, int]:
    found: dict[int, int] = {}
    for pid in host.names("/proc"):
        if not pid.isdecimal() or host.read(f"/proc/{pid}/comm") != _DATAPLANE:
            continue
        for task in host.names(f"/proc/{pid}/task")[:TASKS_MAX]:
            try:
                text = host.read(f"/proc/{pid}/task/{task}/status") or ""
            except Unreadable:
                continue
            fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            cpus = cpulist.parse(fields.get("Cpus_allowed_list", ""))
            if len(cpus) == 1:
                count = sum(
                    int(fields.get(f"{kind}_ctxt_switches", "0"))
                    for kind in ("voluntary", "nonvoluntary")
                )
                found[cpus[0]] = found.get(cpus[0], 0) + count
    return found


def spin_gaps(cpu: int, ms: int) -> dict[str, int]:
    """Gaps of a clock-reading loop on the core, by size: {">10us": 3, ...}; and the longest, ns.

    OSError: the core is not ours to run on."""
    result: dict[str, int] = {}
    failed: list[OSError] = []

    def spin() -> None:
        counts = [0] * len(GAPS_US)
        longest = 0
        try:
            os.sched_setaffinity(0, {cpu})  # this thread
        except OSError as error:
            failed.append(error)
            return
        last = time.perf_counter_ns()
        end = last + ms * 1_000_000
        while last < end:
            now = time.perf_counter_ns()
            gap, last = now - last, now
            longest = max(longest, gap)
            for at in range(len(GAPS_US) - 1, -1, -1):
                if gap > GAPS_US[at] * 1000:
                    counts[at] += 1
                    break
        result.update({f">{us}us": n for us, n in zip(GAPS_US, counts, strict=True)})
        result["longest_ns"] = longest

    thread = threading.Thread(target=spin)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result
