"""What disturbed the workers' cores: interrupts, stolen time, context switches, spin gaps.

The counters are the kernel's; two snapshots give what happened between.  Spin gaps are measured by
a process that reads the clock on the core for a while: only when asked, for it takes the core.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from forwarder.host import cpulist, cpuset, isolation
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
    reader, writer = os.pipe()
    with os.fdopen(reader) as answer, _kept_cores() as cgroup:
        pid = os.fork()
        if pid == 0:
            said = ""
            try:
                if cgroup is not None:
                    cgroup.write_text("0")  # whoever writes it
                os.sched_setaffinity(0, {cpu})
                said = json.dumps(_spin(ms))
            except OSError as error:
                said = json.dumps({"errno": error.errno})
            finally:
                os.write(writer, said.encode())
                os._exit(0)
        os.close(writer)
        said = answer.read()
        os.waitpid(pid, 0)
    found: dict[str, int] = json.loads(said)
    if number := found.get("errno"):
        raise OSError(number, os.strerror(number))
    return found


@contextmanager
def _kept_cores() -> Iterator[Path | None]:
    """The file by which a process joins the cpuset of the workers' cores, from outside of which the
    kernel lets nobody run there; None: there is none."""
    plain = (cpuset.V1, cpuset.V2)
    if found := next((folder for folder in plain if os.path.isdir(folder)), ""):
        yield Path(found, "cgroup.procs")
        return
    if not os.path.isdir(isolation.FOLDER):
        yield None
        return
    ours = Path(isolation.FOLDER, f"vcfwd-spin-{os.getpid()}")  # a slice holds groups alone
    try:
        ours.mkdir()
    except OSError:
        yield None
        return
    try:
        yield ours / "cgroup.procs"
    finally:
        with suppress(OSError):
            ours.rmdir()


def _spin(ms: int) -> dict[str, int]:
    counts = [0] * len(GAPS_US)
    longest = 0
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
    return {f">{us}us": n for us, n in zip(GAPS_US, counts, strict=True)} | {"longest_ns": longest}
