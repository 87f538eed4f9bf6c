"""What the workers tell and what their meters show, brought to the rooms.

Law: nothing is decided here.  Each LOOK_S the levels of all sounds that are new, each RATE_S the
rates of all pictures; receivers' reports and estimates as they come.  What follows from them is
announced once in a turn of the loop, however many came.  The loop is held for SLICE sources at a
time, and of who is silent nothing is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from forwarder.clock import Clock
from forwarder.dataplane.events import EstimateReceived, Event, FeedbackReceived
from forwarder.dataplane.tally import SourceMeter
from forwarder.errors import DataPlaneLost
from forwarder.rooms.core import Rooms
from forwarder.rooms.speakers import FLOOR, VOICE_KEPT_S
from forwarder.rtp.codecs import Kind

log = logging.getLogger(__name__)

LOOK_S = 0.1  # the window of audio levels in the worker
RATE_S = 1.0  # between two measurements of a picture's rate
VOICE_KEPT_NS = round(VOICE_KEPT_S * 1e9)
SLICE = 250  # sources, or rooms, between which others get their turn

T = TypeVar("T")


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
        """Of each sound: the end of the last window that was looked at, ns."""
        self._loud: dict[int, int] = {}
        """Of each sound that was loud a moment ago: the end of its last loud window, ns."""
        self._bytes: dict[int, int] = {}
        self._rated_at = -RATE_S

    async def run(self) -> None:
        """Looks, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                for _ in self._steps():
                    await asyncio.sleep(0)
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
        """Once, in one go."""
        for _ in self._steps():
            pass

    def _steps(self) -> Iterator[None]:
        """One look, in steps that are short each."""
        now = self._clock.now()
        rated = now - self._rated_at
        if rated >= RATE_S:
            self._rated_at = now
            yield from self._list()
            for meters in self._read(Kind.VIDEO):
                rates = self._rates(meters, rated)
                if rates:
                    self._rooms.on_bitrates(rates, now)
                yield
        told = False
        for meters in self._read(Kind.AUDIO):
            levels = self._levels(meters)
            if levels:
                self._rooms.on_levels(levels, now)
                told = True
            yield
        if rated >= RATE_S:
            for rooms in _sliced(self._rooms.talking()):
                self._rooms.judge(rooms, now)
                yield
        if told or rated >= RATE_S:
            self._announce()

    def _list(self) -> Iterator[None]:
        """Sources that the table holds, by kind and worker."""
        found: dict[Kind, dict[int, list[int]]] = {kind: {} for kind in Kind}
        kept: tuple[dict[int, int], ...] = ({}, {}, {})
        values = (self._windows, self._bytes, self._loud)
        for part in _sliced(list(self._rooms.state.by_source.items())):
            for source, track in part:
                publisher = track.publisher
                if not publisher.keyed:
                    continue
                found[track.kind].setdefault(publisher.worker, []).append(source)
                for old, new in zip(values, kept, strict=True):
                    if source in old:  # those of sources that are gone: their ids may come again
                        new[source] = old[source]
            yield
        self._sources = found
        self._windows, self._bytes, self._loud = kept

    def _read(self, kind: Kind) -> Iterator[Mapping[int, SourceMeter]]:
        for worker, sources in list(self._sources.get(kind, {}).items()):
            for part in _sliced(sources):
                try:
                    meters = self._plane.source_meters(worker, part)
                except (DataPlaneLost, IndexError):  # between two data planes there are none
                    return
                yield meters

    def _levels(self, meters: Mapping[int, SourceMeter]) -> list[tuple[int, int, float]]:
        found = []
        windows, loud = self._windows, self._loud
        for source, (_, _, _, level, level_ns) in meters.items():
            if not level_ns or level_ns == windows.get(source):
                continue
            windows[source] = level_ns
            if level < FLOOR:
                loud[source] = level_ns
            elif source not in loud:
                continue
            elif level_ns - loud[source] > VOICE_KEPT_NS:
                del loud[source]
            found.append((source, level, level_ns / 1e9))
        return found

    def _rates(self, meters: Mapping[int, SourceMeter], span_s: float) -> list[tuple[int, int]]:
        found = []
        for source, meter in meters.items():
            before = self._bytes.get(source)
            self._bytes[source] = meter.bytes
            # The first measurement, or another data plane that began at nothing.
            if before is not None and meter.bytes >= before:
                found.append((source, round(8 * (meter.bytes - before) / span_s)))
        return found


def _sliced(items: list[T]) -> Iterator[list[T]]:
    return (items[at : at + SLICE] for at in range(0, len(items), SLICE))
