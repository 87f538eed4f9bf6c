"""Child processes that speak JSON lines on stdout and are led by words on stdin."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from forwarder.demo.namespaces import Host, die_with_parent
from forwarder.demo.options import DemoError

LINE_MAX = 1 << 20  # bytes
TAIL = 1500  # characters of a child's stderr that an error quotes


class Child:
    """One process.  Its stderr goes to `log`; `last[event]` is the newest line of each event."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self.last: dict[str, dict[str, Any]] = {}
        self._process = process
        self._news = asyncio.Condition()
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def start(
        cls,
        name: str,
        host: Host,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """In a session of its own, so that Ctrl-C reaches it through us alone."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *host.command(*command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
                limit=LINE_MAX,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            async with self._news:
                self.last[str(event.get("event", "line"))] = event
                self._news.notify_all()
        await self._process.wait()
        async with self._news:
            self._news.notify_all()

    def tell(self, word: str) -> None:
        """A child that is gone hears nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(word.encode() + b"\n")

    def hang_up(self) -> None:
        """Ends its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def wait_for(
        self,
        what: str,
        timeout_s: float,
        condition: Callable[[dict[str, Any]], bool] = lambda event: True,
    ) -> dict[str, Any]:
        """The newest line of this event that meets the condition; DemoError if it never comes."""

        def met() -> bool:
            event = self.last.get(what)
            return self._reader.done() or (event is not None and condition(event))

        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(met)
        except TimeoutError:
            raise DemoError(
                f"{self.name}: no {what} within {timeout_s:g} s\n{self.tail()}"
            ) from None
        event = self.last.get(what)
        if event is None or not condition(event):
            raise DemoError(f"{self.name} ended without {what}\n{self.tail()}")
        return event

    async def wait(self, timeout_s: float) -> int:
        """Its exit status; DemoError if it does not end."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._reader
                return await self._process.wait()
        except TimeoutError:
            raise DemoError(f"{self.name} did not end within {timeout_s:g} s") from None

    def signal(self, number: int) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self) -> None:
        """SIGTERM, then SIGKILL; for cleaning up."""
        for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if self._process.returncode is not None:
                break
            self.signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    def tail(self) -> str:
        """The end of its stderr."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-TAIL:].strip()
        return ""
