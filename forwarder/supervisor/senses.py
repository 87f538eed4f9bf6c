"""What the workers tell and what their meters show, brought to the rooms.

Law: nothing is decided here.  Each LOOK_S the levels of all sounds that are new, each RATE_S the
rates of all pictures; receivers' reports and estimates as they come.  What follows from them is
announced once in a turn of the loop, however many came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from forwarder.clock import Clock
from forwarder.dataplane.events import EstimateReceived, Event, FeedbackReceived
from forwarder.dataplane.tally import SourceMeter
from forwarder.errors import DataPlaneLost
from forwarder.rooms.core import Rooms
from forwarder.rtp.codecs import Kind

log = logging.getLogger(__name__)

LOOK_S = 0.1  # the window of audio levels in the worker
RATE_S = 1.0  # between two measurements of a picture's rate


class Plane(Protocol):
    """The data plane process, as this file needs it."""

    def source_meters(self, worker: int, sources: Iterable[int]) -> Mapping[int, SourceMeter]: ...


class Senses:
    """See the module.  `announce`: tells what happened in the rooms."""

    def __init__(
        self, rooms: Rooms, plane: Plane, clock: Clock, announce: Callable[[], None]
    ) -> None:
        self._rooms = rooms
        self._plane = plane
        self._clock = clock
        self._announce = announce
        self._soon: asyncio.Handle | None = None
        self._sources: dict[Kind, dict[int, list[int]]] = {}
        self._windows: dict[int, int] = {}
        """Of each sound: the end of the last window that was told, ns."""
        self._bytes: dict[int, int] = {}
        self._rated_at = -RATE_S

    async def run(self) -> None:
        """Looks, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self.look()
            except Exception:  # the next look is needed all the same
                log.exception("the meters could not be read")

    def on_event(self, event: Event) -> None:
        """From the data plane."""
        now = self._clock.now()
        match event:
            case EstimateReceived(leg=leg, bitrate_bps=bps):
                self._rooms.on_estimate(leg, bps, now)
            case FeedbackReceived(route=route, fraction_lost=lost):
                self._rooms.on_feedback(route, lost, now)
            case _:
                return
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._soon = None
        self._announce()

    def look(self) -> None:
        """Once."""
        now = self._clock.now()
        rated = now - self._rated_at
        if rated >= RATE_S:
            self._rated_at = now
            self._sources = self._list()
            rates = self._rates(rated)
            if rates:
                self._rooms.on_bitrates(rates, now)
        levels = self._levels()
        if levels:
            self._rooms.on_levels(levels, now)
        if levels or rated >= RATE_S:
            self._announce()

    def _list(self) -> dict[Kind, dict[int, list[int]]]:
        """Sources that the table holds, by kind and worker."""
        found: dict[Kind, dict[int, list[int]]] = {kind: {} for kind in Kind}
        for source, track in self._rooms.state.by_source.items():
            publisher = track.publisher
            if publisher.keyed:
                found[track.kind].setdefault(publisher.worker, []).append(source)
        self._windows = _kept(self._windows, found[Kind.AUDIO])
        self._bytes = _kept(self._bytes, found[Kind.VIDEO])
        return found

    def _read(self, kind: Kind) -> Iterable[tuple[int, SourceMeter]]:
        for worker, sources in self._sources.get(kind, {}).items():
            try:
                yield from self._plane.source_meters(worker, sources).items()
            except (DataPlaneLost, IndexError):  # between two data planes there are none
                return

    def _levels(self) -> list[tuple[int, int, float]]:
        found = []
        for source, meter in self._read(Kind.AUDIO):
            if meter.level_ns and meter.level_ns != self._windows.get(source):
                self._windows[source] = meter.level_ns
                found.append((source, meter.level, meter.level_ns / 1e9))
        return found

    def _rates(self, span_s: float) -> list[tuple[int, int]]:
        found = []
        for source, meter in self._read(Kind.VIDEO):
            before = self._bytes.get(source)
            self._bytes[source] = meter.bytes
            # The first measurement, or another data plane that began at nothing.
            if before is not None and meter.bytes >= before:
                found.append((source, round(8 * (meter.bytes - before) / span_s)))
        return found


def _kept(values: dict[int, int], sources: Mapping[int, list[int]]) -> dict[int, int]:
    """Without those of sources that are gone: their ids may come again."""
    here = {source for group in sources.values() for source in group}
    return {source: value for source, value in values.items() if source in here}
