"""Sampling by BCC: the helper runs under the system's interpreter, its events are named here."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from forwarder.errors import HostError
from forwarder.telemetry.flame import headers, stacks
from forwarder.telemetry.flame.samples import Order, Recording, Sample
from forwarder.telemetry.flame.symbols import Kernel, Space

SYSTEM_PYTHON = "/usr/bin/python3"
HELPER = Path(__file__).with_name("bcc_helper.py")
START_S, END_S = 60.0, 30.0  # the compiler takes seconds on a busy machine
SCHEDULE = "__schedule"
KERNEL_MAX, USER_MAX, WORDS_MAX = 96, 127, 256


class Event(ctypes.Structure):
    """`struct event` of bcc_helper.py."""

    _fields_ = (
        ("at_ns", ctypes.c_uint64),
        ("weight", ctypes.c_uint64),
        ("pid", ctypes.c_uint32),
        ("tid", ctypes.c_uint32),
        ("kernel_bytes", ctypes.c_int32),
        ("user_bytes", ctypes.c_int32),
        ("word_bytes", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("sp", ctypes.c_uint64),
        ("comm", ctypes.c_char * 16),
        ("kernel", ctypes.c_uint64 * KERNEL_MAX),
        ("user", ctypes.c_uint64 * USER_MAX),
        ("words", ctypes.c_uint64 * WORDS_MAX),
    )


def why_not(root: Path = Path("/")) -> str | None:
    """Why BCC cannot be used here; None when it can."""
    if os.geteuid() != 0:
        return "BCC needs root"
    probe = [SYSTEM_PYTHON, "-c", "import bcc; bcc.BPF"]
    try:
        # The PyPI package `bcc` is another project; it has no BPF.
        if subprocess.run(probe, capture_output=True, timeout=START_S, check=False).returncode:
            return "BCC is not installed: apt-get install python3-bpfcc"
    except OSError:
        return f"BCC needs {SYSTEM_PYTHON}"
    with tempfile.TemporaryDirectory(prefix="vcfwd-headers-") as tree:
        if headers.environment(Path(tree), root) is None:
            return "BCC needs kernel headers: apt-get install linux-headers-amd64"
    return None


def _line(pipe: IO[str], helper: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    line = pipe.readline()
    if not line:
        helper.wait(END_S)
        words = log.read_text(errors="replace").strip()[-800:]
        raise HostError(f"the BCC sampler ended early: {words or 'without a word'}")
    return dict(json.loads(line))


def record(order: Order, meanwhile: Callable[[], None]) -> Recording:
    """Samples for `order.seconds`; `meanwhile` is called once when sampling has begun."""
    spaces = {pid: Space(pid) for pid in order.pids.values()}
    with tempfile.TemporaryDirectory(prefix="vcfwd-flame-") as name:
        place = Path(name)
        env = headers.environment(place / "headers") or {}
        out, log = place / "events", place / "log"
        request = {
            "pids": list(spaces),
            "all": order.kernel,
            "hz": order.hz,
            "seconds": order.seconds,
            "off_cpu": order.off_cpu,
            "out": str(out),
        }
        with log.open("w") as errors:
            helper = subprocess.Popen(
                [SYSTEM_PYTHON, str(HELPER), json.dumps(request)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **env},
            )
        try:
            assert helper.stdout is not None
            _line(helper.stdout, helper, log)
            meanwhile()
            done = _line(helper.stdout, helper, log)
            helper.wait(END_S)
        finally:
            if helper.poll() is None:
                helper.kill()
                helper.wait(END_S)
        for space in spaces.values():
            space.refresh()
        samples = list(_samples(out.read_bytes(), spaces))
    return Recording("bcc", order.hz, samples, int(done["lost"]))


def _events(data: bytes) -> Iterator[Event]:
    at = 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        if size < ctypes.sizeof(Event):
            raise HostError(f"the BCC sampler wrote an event of {size} bytes: versions differ")
        yield Event.from_buffer_copy(data, at + 4)
        at += 4 + size


def _above(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of a wait, without what the tracing itself put on top of the scheduler."""
    return names[: names.index(SCHEDULE) + 1] if SCHEDULE in names else names


def _samples(data: bytes, spaces: dict[int, Space]) -> Iterator[Sample]:
    kernel = Kernel()
    for event in _events(data):
        above = event.kernel[: max(0, event.kernel_bytes) // 8]
        space = spaces.get(event.pid)
        user: tuple[str, ...] = ()
        complete = True
        if space is not None:
            addresses = event.user[: max(0, event.user_bytes) // 8]
            if stacks.is_interpreter(space):
                user = stacks.interpreter_stack(space, addresses)
            else:
                top = stacks.Top(event.sp, event.words[: event.word_bytes // 8])
                user, complete = stacks.name_stack(space, addresses, top)
        yield Sample(
            event.at_ns,
            event.pid,
            event.tid,
            event.comm.decode(errors="replace"),
            _above(tuple(kernel.name(address) for address in reversed(above))),
            user,
            max(1, event.weight),
            complete,
        )
