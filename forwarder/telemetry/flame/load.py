"""Load beside a recording: a program of its own, so that another can take its place.

The program says one JSON line, `{"event": "ready", "run_dir": DIR}`, once media flows through a
node whose admin socket is in DIR; it goes on until its stdin ends, and then says
`{"event": "summary", ...}` with what it did.  `PROGRAM` is the one that is run; the environment's
VCFWD_FLAME_LOAD (a command line) names another.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from forwarder.errors import HostError

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "forwarder.demo.load")
VARIABLE = "VCFWD_FLAME_LOAD"
READY_S, END_S = 60.0, 30.0
LINE_MAX = 1 << 16  # bytes


class Load:
    """Runs inside `with`; `run_dir` is that of its node, `summary` is filled at the end."""

    def __init__(self, program: tuple[str, ...] | None = None) -> None:
        named = os.environ.get(VARIABLE)
        self._program = program or (tuple(shlex.split(named)) if named else PROGRAM)
        self.run_dir = Path()
        self.summary: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")
        try:
            self._process = subprocess.Popen(
                self._program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
            )
        except OSError as error:
            raise HostError(f"cannot start the load `{self._program[0]}`: {error}") from error
        self._rest = b""
        try:
            self.run_dir = Path(str(self._event("ready", READY_S)["run_dir"]))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                assert self._process.stdin is not None
                self._process.stdin.close()
                self.summary = self._event("summary", END_S)
                self.summary.pop("event")
        finally:
            self._end()

    def _event(self, name: str, seconds: float) -> dict[str, Any]:
        """The next line of this event."""
        assert self._process.stdout is not None
        pipe, until = self._process.stdout.fileno(), time.monotonic() + seconds
        while len(self._rest) < LINE_MAX:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and event.get("event") == name:
                    return event
                continue
            if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                raise HostError(f"the load said no {name} within {seconds:g} s{self._words()}")
            data = os.read(pipe, 4096)
            if not data:
                raise HostError(f"the load ended without {name}{self._words()}")
            self._rest += data
        raise HostError("the load wrote a line without end")

    def _words(self) -> str:
        self._log.seek(0)
        words = self._log.read()[-800:].strip()
        return f": {words}" if words else ""

    def _end(self) -> None:
        """By its stdin's end, then by signals: it removes what it made."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()
        self._log.close()
