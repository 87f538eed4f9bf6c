"""What Python ran, by thread and time: py-spy's trace, read back as a timeline.

py-spy looks at the interpreter from outside and says at each of its samples which frames have
come and gone (`--format chrometrace`).  Python 3.11 has no perf trampoline, so a kernel's sampler
sees only the interpreter; the two are joined by the thread and the nearest time.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

END_S = 20.0
NEAR_NS = 10_000_000  # a Python stack this old or young still stands for a sample
_THREAD = re.compile(r"thread \((\d+)\)")


class Timeline:
    """Which Python frames were on each thread's stack, and when."""

    def __init__(self) -> None:
        self._spans: dict[int, list[tuple[int, int, tuple[str, ...]]]] = {}
        self._starts: dict[int, list[int]] = {}

    @classmethod
    def parse(cls, events: Iterable[Mapping[str, Any]], began_ns: int) -> Timeline:
        """`events`: py-spy's, in the order of time; began_ns: CLOCK_MONOTONIC at their zero."""
        timeline = cls()
        open_: dict[int, list[str]] = {}
        since: dict[int, int] = {}
        for event in events:
            thread, at = int(event["tid"]), began_ns + int(event["ts"]) * 1000
            stack = open_.setdefault(thread, [])
            if stack and since[thread] < at:
                timeline._add(stack, since[thread], at)
            since[thread] = at
            if event["ph"] == "B":
                stack.append(_name(event))
            elif stack:
                stack.pop()
        for spans in timeline._spans.values():
            spans.sort()
        timeline._starts = {
            tid: [start for start, _, _ in spans] for tid, spans in timeline._spans.items()
        }
        return timeline

    def _add(self, stack: list[str], start: int, end: int) -> None:
        thread = _THREAD.match(stack[0])
        if thread is not None and len(stack) > 1:
            self._spans.setdefault(int(thread[1]), []).append((start, end, tuple(stack[1:])))

    def at(self, tid: int, when_ns: int) -> tuple[str, ...] | None:
        """The frames from the root; None where py-spy saw nothing near this time."""
        spans = self._spans.get(tid)
        if not spans:
            return None
        index = bisect_right(self._starts[tid], when_ns)
        near = spans[max(0, index - 1) : index + 1]
        away, found = min((_distance(start, end, when_ns), stack) for start, end, stack in near)
        return found if away <= NEAR_NS else None

    @property
    def threads(self) -> list[int]:
        return sorted(self._spans)


def _distance(start: int, end: int, when: int) -> int:
    return max(start - when, when - end, 0)


def _name(event: Mapping[str, Any]) -> str:
    """`function (file.py)`: in a graph the name of the file tells the part."""
    name, file = str(event["name"]), str((event.get("args") or {}).get("filename") or "")
    if not file or name.startswith("thread ("):
        return name
    return f"{name} ({'/'.join(Path(file).parts[-2:])})"


def command() -> str | None:
    """py-spy of this installation, or of the system."""
    own = Path(sys.executable).with_name("py-spy")
    return str(own) if own.exists() else shutil.which("py-spy")


class Spy:
    """One run of py-spy on one process."""

    def __init__(self, pid: int, seconds: float, hz: int) -> None:
        self.note = ""
        self._folder = tempfile.TemporaryDirectory(prefix="vcfwd-spy-")
        self._out = Path(self._folder.name) / "trace.json"
        self._log = Path(self._folder.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None
        program = command()
        if program is None:
            self.note = "no Python frames: py-spy is not installed (pip install 'vcfwd[profile]')"
            return
        words = [program, "record", "--pid", str(pid), "--rate", str(hz), "--threads"]
        words += ["--duration", str(max(1, round(seconds))), "--nolineno", "--full-filenames"]
        words += ["--format", "chrometrace", "--output", str(self._out)]
        with self._log.open("wb") as log:
            # py-spy counts from its start, which is when it has been read from the disk.
            self._began_ns = time.monotonic_ns()
            self._process = subprocess.Popen(words, stdout=log, stderr=log)

    def finish(self) -> Timeline:
        """What it saw; empty, with a note, when it could not look."""
        try:
            return self._read()
        finally:
            self._folder.cleanup()

    def _read(self) -> Timeline:
        if self._process is None:
            return Timeline()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGINT)  # writes what it has
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(END_S)
        try:
            events = json.loads(self._out.read_text())
        except (OSError, ValueError):
            words = self._log.read_text(errors="replace").strip()[-300:]
            self.note = f"no Python frames: py-spy ended without a trace: {words}"
            return Timeline()
        return Timeline.parse(events, self._began_ns)
