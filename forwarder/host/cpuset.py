"""Cpusets where no systemd keeps them: who is in which, and how threads change theirs.

cgroup v1: V1 has the workers' cores, V1_REST all others, and every thread that is free to run
anywhere is moved there, so that what it starts is there too.  What somebody has pinned stays as it
is and is named by the check; kernel threads have stages of their own.  cgroup v2: an isolated
partition (V2) keeps all others out by itself.

The data plane joins when it is started, before it pins its workers (`join`): from elsewhere the
kernel would refuse those cores.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from forwarder.host import cpulist
from forwarder.host.root import Host, Unreadable

V1_ROOT = "/sys/fs/cgroup/cpuset"
V1, V1_REST = f"{V1_ROOT}/vcfwd", f"{V1_ROOT}/vcfwd-rest"
V2_ROOT = "/sys/fs/cgroup"
V2 = f"{V2_ROOT}/vcfwd"
APART = "apart"
"""Nobody who is free to run anywhere is outside of V1_REST."""
PASSES_MAX = 20
"""Times that a cpuset is looked through for threads that were started meanwhile."""
SETTLED_S = 1.0
"""A thread younger than this is no matter yet: helpers of the kernel's come and go."""
WORKER = "vcfwd-w"
_PF_KTHREAD = 0x00200000


@dataclass(frozen=True)
class Thread:
    """A thread of a program, and where it may run."""

    number: int
    name: str
    cpus: frozenset[int]
    age_s: float


def apart(host: Host) -> str | None:
    """APART; None: no cpuset for the others, or some are still outside of it."""
    if not host.path(V1_REST).is_dir():
        return None
    return None if _free(host) else APART


def strays(host: Host) -> list[Thread]:
    """Threads that may run anywhere, workers' cores too, and stay."""
    return [each for each in _free(host) if each.age_s >= SETTLED_S]


def intruders(host: Host, cpus: Collection[int]) -> list[Thread]:
    """Threads outside of our cpusets that somebody pinned to some of these cores."""
    free = {each.number for each in _free(host)}
    return [each for each in _threads(host, V1_ROOT) if each.cpus & set(cpus)
            and each.number not in free]  # fmt: skip


def part(host: Host) -> None:
    """Moves every thread that is free to run anywhere to V1_REST.  OSError: one will not go."""
    for last in range(PASSES_MAX, 0, -1):
        found = _free(host)
        if not found:
            return
        for each in found:
            try:
                host.write(f"{V1_REST}/tasks", str(each.number))
            except OSError as error:
                if error.errno != errno.ESRCH and last == 1:
                    where = f"{each.name} ({each.number}) to {V1_REST}: {error.strerror}"
                    raise OSError(error.errno, where) from error


def empty(host: Host, folder: str) -> None:
    """Moves all members one cpuset up; where they are pinned does not change.  OSError."""
    file = "tasks" if folder.startswith(V1_ROOT) else "cgroup.procs"
    for _ in range(PASSES_MAX):
        found = _numbers(host, f"{folder}/{file}")
        if not found:
            return
        for number in found:
            threads = _of(number) if file == "cgroup.procs" else _some(number)
            with _pins_kept(threads, _cores(host, folder)), suppress(ProcessLookupError):
                host.write(f"{folder.rpartition('/')[0]}/{file}", str(number))


def join(host: Host, pid: int, pinned: Collection[int]) -> str:
    """Has a data plane join the cpuset of the workers' cores that `tune apply` made.

    `pinned`: where its workers are to run.  A sentence when it stays outside; empty: it is in, or
    there is none (under systemd the slice is its cpuset)."""
    folder = V1 if host.path(V1).is_dir() else V2 if host.path(V2).is_dir() else ""
    if not folder:
        return ""
    cpus = _cores(host, folder)
    kept = f"core {cpulist.show(cpus) or '(none)'} is kept for the workers by {folder}"
    if not pinned:
        why = "dataplane.cpus does not pin them, and `vcfwd tune apply` was for another number"
        return f"{kept}, and they run elsewhere: {why}"
    if not set(pinned) <= cpus:
        return (
            f"{kept}, and dataplane.cpus says {cpulist.show(pinned)}: the data plane stays outside "
            "until `vcfwd tune apply isolation`"
        )
    threads = _of(pid)
    if any(each.name.startswith(WORKER) and not each.cpus <= cpus for each in threads):
        return f"{kept}, and the data plane that runs is not pinned to it: restart the data plane"
    try:
        with _pins_kept(threads, ()):
            host.write(f"{folder}/cgroup.procs", str(pid))
    except OSError as error:
        return f"{kept}, which the data plane cannot join ({error.strerror}): run this as root"
    return ""


@contextmanager
def _pins_kept(threads: Iterable[Thread], within: Collection[int]) -> Iterator[None]:
    """Those that are pinned to a part of their cpuset (`within`) are so afterwards: before Linux
    6.2 a change of cpuset forgets it.  A worker always is: its part may be the whole."""
    pinned = [x for x in threads if x.name.startswith(WORKER) or x.cpus < set(within)]
    yield
    for each in pinned:
        if each.cpus != _affinity(each.number):
            with suppress(OSError):  # it has ended, or its cpuset lacks those cores
                os.sched_setaffinity(each.number, each.cpus)


def _cores(host: Host, folder: str) -> frozenset[int]:
    """Of a cpuset."""
    text = host.read(f"{folder}/cpuset.effective_cpus") or host.read(f"{folder}/cpuset.cpus") or ""
    try:
        return frozenset(cpulist.parse(text))
    except ValueError:
        return frozenset()


def _free(host: Host) -> list[Thread]:
    """In the root cpuset, and nobody pinned them."""
    every = _cores(host, V1_ROOT)
    return [each for each in _threads(host, V1_ROOT) if each.cpus >= every]


def _threads(host: Host, folder: str) -> Iterator[Thread]:
    for number in _numbers(host, f"{folder}/tasks"):
        yield from _some(number)


def _numbers(host: Host, file: str) -> list[int]:
    """Of this machine's threads: a capture has none, and takes none down."""
    if not host.live:
        return []
    try:
        words = host.path(file).read_text().split()
    except PermissionError as error:
        raise Unreadable(f"{file} can be read by root only") from error
    except OSError:
        return []
    return [int(word) for word in words if word != "0"]  # 0: of another PID namespace


def _some(number: int) -> list[Thread]:
    found = _thread(number)
    return [found] if found is not None else []


def _of(pid: int) -> list[Thread]:
    """The threads of a process."""
    try:
        numbers = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []
    return [found for number in numbers for found in _some(number)]


def _thread(number: int) -> Thread | None:
    """None: it has ended, or is the kernel's."""
    try:
        with open(f"/proc/{number}/stat") as file:
            head, _, tail = file.read().rpartition(")")
    except OSError:
        return None
    words = tail.split()
    if len(words) < 20 or int(words[6]) & _PF_KTHREAD:
        return None
    started = int(words[19]) / os.sysconf("SC_CLK_TCK")
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    return Thread(number, head.partition("(")[2], _affinity(number), age)


def _affinity(number: int) -> frozenset[int]:
    try:
        return frozenset(os.sched_getaffinity(number))
    except OSError:
        return frozenset()
