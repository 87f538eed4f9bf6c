"""When is a worker hung?  Pure: times in, a verdict out (nanoseconds of CLOCK_MONOTONIC).

A worker beats in shared memory in each loop; one that sleeps announces until when (at most
100 ms ahead).  A worker is stale `stale_ns` after the later of the two.  It is hung when two
polls in a row, each on time, find it stale: when this process or the whole machine was stopped, the
poll itself comes late and proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

POLL_S = 0.05
STALE_NS = 250_000_000
LATE_NS = 150_000_000
"""A poll that comes so long after the one before proves nothing."""


class Watch:
    """State of the watchdog for the workers of one process."""

    def __init__(self, workers: int, stale_ns: int = STALE_NS) -> None:
        self._stale_ns = stale_ns
        self._stale = [0] * workers
        self._last_ns: int | None = None

    def stale(self, now_ns: int, alive_until_ns: Sequence[int]) -> int | None:
        """The first hung worker, or None."""
        late = self._last_ns is None or now_ns - self._last_ns > LATE_NS
        self._last_ns = now_ns
        for worker, until in enumerate(alive_until_ns):
            if late or now_ns - until <= self._stale_ns:
                self._stale[worker] = 0
                continue
            self._stale[worker] += 1
            if self._stale[worker] >= 2:
                return worker
        return None
