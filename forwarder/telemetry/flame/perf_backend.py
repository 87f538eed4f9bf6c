"""Sampling by perf, where BCC cannot be used: the same samples, without mended leaves.

perf's own walk is by frame pointers, so a leaf in a library may lack its caller; waits (off-CPU)
need the tracepoints that perf may not see.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from forwarder.errors import HostError
from forwarder.telemetry.flame.samples import Order, Recording, Sample
from forwarder.telemetry.flame.stacks import INTERPRETER, NO_FRAME_POINTER

END_S = 60.0
_HEAD = re.compile(r"^(?P<comm>.+?)\s+(?P<pid>-?\d+)/(?P<tid>-?\d+)\s+(?P<at>\d+\.\d+):")
_FRAME = re.compile(r"^\s+(?P<ip>[0-9a-f]+)\s+(?P<name>.*?)\s+\((?P<module>[^()]*(?:\(.*?\))?)\)$")


def why_not() -> str | None:
    """Why perf cannot be used here; None when it can."""
    if shutil.which("perf") is None:
        return "perf is not installed: apt-get install linux-perf"
    level = Path("/proc/sys/kernel/perf_event_paranoid")
    if os.geteuid() != 0 and (not level.exists() or int(level.read_text()) > -1):
        return "perf needs root, or kernel.perf_event_paranoid = -1"
    return None


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)
    if done.returncode != 0:
        raise HostError(f"`{' '.join(command[:3])}` failed: {done.stderr.strip()[-400:]}")
    return done.stdout


def record(order: Order, meanwhile: Callable[[], None]) -> Recording:
    """Samples of the whole machine for `order.seconds`, cut down to what was ordered."""
    with tempfile.TemporaryDirectory(prefix="vcfwd-perf-") as folder:
        data = str(Path(folder) / "perf.data")
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(order.hz), "-g"]
        command += ["-k", "CLOCK_MONOTONIC", "-a", "-o", data]
        command += ["--", "sleep", str(order.seconds)]
        sampler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        meanwhile()
        try:
            _, told = sampler.communicate(timeout=order.seconds + END_S)
        except subprocess.TimeoutExpired:
            sampler.kill()
            sampler.communicate()
            raise HostError("perf did not end in time") from None
        if sampler.returncode != 0:
            words = told.decode(errors="replace").strip()[-400:]
            raise HostError(f"perf cannot sample: {words}")
        text = _run("perf", "script", "--ns", "-i", data, "-F", "comm,pid,tid,time,ip,sym,dso")
    pids = set(order.pids.values())
    samples = [
        sample
        for sample in parse(text.splitlines())
        if sample.pid in pids or (order.kernel and sample.pid > 0 and sample.kernel)
    ]
    return Recording("perf", order.hz, samples)


def parse(lines: Iterable[str]) -> Iterator[Sample]:
    """The output of `perf script -F comm,pid,tid,time,ip,sym,dso`, one blank line after each."""
    head: re.Match[str] | None = None
    frames: list[tuple[str, str]] = []
    for line in (*lines, ""):
        if not line.strip():
            if head is not None:
                yield _sample(head, frames)
            head, frames = None, []
        elif head is None:
            head = _HEAD.match(line.strip())
        elif found := _FRAME.match(line):
            frames.append((found["name"], found["module"]))


def _is_kernel(module: str) -> bool:
    return module.startswith(("[kernel", "[guest.kernel", "bpf_prog")) or module.endswith(".ko")


def _public(name: str, file: str) -> str:
    """Of libc's several names for a function the one that is called."""
    name = name.partition("+0x")[0]
    if file.startswith("libc."):
        return name.removeprefix("__libc_").removeprefix("__")
    return name


def _sample(head: re.Match[str], frames: list[tuple[str, str]]) -> Sample:
    """`frames`: name and file, leaf first."""
    kernel = [name for name, module in frames if _is_kernel(module)]
    user = [(name, module) for name, module in frames if not _is_kernel(module)]
    names: list[str] = []
    complete = True
    for index, (name, module) in enumerate(user):
        file = module.rsplit("/", 1)[-1]
        if module.startswith("[unknown"):
            complete = False
            break  # the walk left what is mapped
        names.append(f"[{file}]" if name.startswith("[unknown") else _public(name, file))
        if index == 0 and file.startswith(INTERPRETER):
            break  # no frame pointers from here on; the rest is told by Timeline
    if user and not names:
        names = [NO_FRAME_POINTER]
    complete = complete and len(user) != 1  # a leaf alone: its caller was not found
    seconds, _, fraction = head["at"].partition(".")
    at_ns = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
    return Sample(
        at_ns,
        int(head["pid"]),
        int(head["tid"]),
        head["comm"].strip(),
        tuple(reversed(kernel)),
        tuple(reversed(names)),
        complete=complete,
    )
