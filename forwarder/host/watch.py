"""Keeps what was applied: settings that drift are put back, and who fights us is told.

A setting is put back at most REAPPLIES times an hour; after that it is left to the other side and
said once an hour, with the name of who it may be.  The journal says what should be; only what a
link event brings anew is planned.  Time is an argument.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final

from forwarder.errors import HostError
from forwarder.host import conflicts, settings
from forwarder.host.apply import explain, renew
from forwarder.host.audit import Audit
from forwarder.host.journal import Busy, Entry, Journal
from forwarder.host.root import Host, Unreadable, printable
from forwarder.host.stage import Site, Step
from forwarder.host.stages import BY_NAME, STAGES

REAPPLIES: Final = 3
"""Times an hour that a setting is put back."""
HOUR_S: Final = 3600.0

Tell = Callable[[str], None]


class Watcher:
    """`look` from time to time, and whenever a link changes.  One thread."""

    def __init__(self, host: Host, journal: Journal, audit: Audit, tell: Tell) -> None:
        self._host, self._journal, self._audit, self._tell = host, journal, audit, tell
        self._tries: dict[str, deque[float]] = {}
        self._told: dict[str, float] = {}
        self._tried: set[str] = set()

    def look(self, now: float) -> int:
        """Puts back what drifted; how much.  `now`: monotonic seconds."""
        drifted = [entry for entry in self._journal.current() if self._drift(entry) is not None]
        if not drifted:
            return 0
        try:
            with self._journal.locked():
                return sum(self._again(entry, now) for entry in drifted)
        except Busy:
            return 0  # an apply or a revert runs: the next look sees what it made

    def renew(self, survey: Callable[[Sequence[str]], Site]) -> int:
        """After a link changed: what the stages that it undoes plan now and nobody made yet (its
        interrupts, its queues).  How much; the interfaces that were applied to count."""
        applied = self._journal.applied()
        again = [stage for stage in STAGES if stage.after_attach and stage.name in applied.stages]
        if not again or not applied.nics:
            return 0
        try:
            site = survey(applied.nics)
            with self._journal.locked():
                return renew(site, again, self._journal, self._audit, self._tell, self._tried)
        except Busy:
            return 0
        except (HostError, OSError) as error:  # the NIC has gone: the next notice may bring it
            self._tell(f"not run again: {error}")
            return 0

    def _drift(self, entry: Entry) -> str | None:
        """What it is now, if not what we made it; None: all well, or it is not there now."""
        if not entry.done or entry.stage not in BY_NAME:
            return None
        try:
            now = settings.read(self._host, entry.key)
        except (Unreadable, HostError):
            return None
        return now if now is not None and now != entry.news[-1] else None

    def _again(self, entry: Entry, now: float) -> int:
        value = self._drift(entry)
        if value is None:
            return 0
        tries = self._tries.setdefault(entry.key, deque(maxlen=REAPPLIES))
        if len(tries) == REAPPLIES and now - tries[0] < HOUR_S:
            self._give_up(entry, value, now)
            return 0
        tries.append(now)
        wanted = entry.news[-1]
        step = Step(entry.stage, entry.key, value, wanted, "", "", lifetime=entry.lifetime)
        try:
            BY_NAME[entry.stage].init(self._host, step)
        except (OSError, HostError) as error:
            reason = explain(error) if isinstance(error, OSError) else str(error)
            self._say(entry, f"{entry.key} is {value} and cannot be put back: {reason}")
            return 0
        self._say(entry, f"{entry.key} was {value}: {wanted} again")
        return 1

    def _give_up(self, entry: Entry, value: str, now: float) -> None:
        last = self._told.get(entry.key)
        if last is not None and now - last < HOUR_S:
            return
        self._told[entry.key] = now
        self._say(
            entry,
            f"{entry.key} is {value} again after {REAPPLIES} times in an hour: {self._who(entry)}",
        )

    def _who(self, entry: Entry) -> str:
        for other in conflicts.find(self._host, None):
            if entry.stage in other.stages:
                return f"{other.who} fights for it: {other.peace}"
        return "somebody fights for it: find who sets it, or `vcfwd tune revert`"

    def _say(self, entry: Entry, sentence: str) -> None:
        sentence = printable(sentence)
        self._tell(f"{entry.stage}: {sentence}")
        self._audit.add("watch", sentence, stage=entry.stage)


class Latency:
    """Holds /dev/cpu_dma_latency at zero: no core sleeps deeply.  Ends with the process at last."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._fd = -1
        self.why_not = ""

    def __enter__(self) -> Latency:
        if not self._host.live:
            self.why_not = "a capture has no /dev/cpu_dma_latency"
            return self
        try:
            self._fd = os.open("/dev/cpu_dma_latency", os.O_WRONLY | os.O_CLOEXEC)
            os.write(self._fd, struct.pack("=i", 0))
        except OSError as error:
            self.why_not = f"/dev/cpu_dma_latency: {explain(error)}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
