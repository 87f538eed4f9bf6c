"""A stale worker that only waits for a processor is not hung: a restart would not help it.

A worker beats in each loop, and a loop takes microseconds.  So one that is runnable, stale, and
has not run at all between two looks was given no processor (an overloaded host, a stopped virtual
machine); one that ran and did not beat, sleeps past its time or is stopped is hung.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

STARVED_MAX_NS = 2_000_000_000
"""Longer than this nobody waits: then a restart is as good as anything."""
RAN_NS = 1_000_000
"""Less than this between two looks is not to have run (the kernel counts its own switches)."""


@dataclass
class Starvation:
    """Looks at the worker threads of one process (`vcfwd-wN` in /proc/PID/task)."""

    pid: int
    proc: Path = Path("/proc")
    _ran: dict[int, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Nobody is stale: the next look begins anew."""
        self._ran.clear()

    def waits(self, worker: int) -> bool:
        """Is the worker runnable, and has it not run since the look before?  The first look at a
        runnable worker cannot tell and says yes."""
        task = self._task(worker)
        if task is None:
            return False
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            ran = int((task / "schedstat").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return False
        before = self._ran.get(worker)
        self._ran[worker] = ran
        return state == "R" and (before is None or ran - before < RAN_NS)

    def _task(self, worker: int) -> Path | None:
        name = f"vcfwd-w{worker}"
        try:
            for task in (self.proc / str(self.pid) / "task").iterdir():
                if (task / "comm").read_text().strip() == name:
                    return task
        except OSError:
            return None
        return None
