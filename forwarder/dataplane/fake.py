"""A data plane in memory: the same interface and the same refusals, no packets.

Law: tests/contract runs the same cases on this and on the real process.  Needs nothing compiled.
`emit` stands in for what a worker would tell; `crash` for a process that ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from forwarder.commands import (
    Begin,
    Command,
    KeyframeRequest,
    LegHeader,
    LegRate,
    LegRemove,
    LegSet,
    RouteFilter,
    RouteRemove,
    RouteSet,
    SourceRemove,
    SourceSet,
)
from forwarder.dataplane.events import Event
from forwarder.dataplane.outcome import Dump, Outcome
from forwarder.dataplane.placement import NotThere, Placement
from forwarder.dataplane.setup import Local, Setup
from forwarder.dataplane.sockets import Group
from forwarder.dataplane.started import Started
from forwarder.dataplane.tally import (
    LEVEL_SILENT,
    LegStats,
    RouteStats,
    Snapshot,
    SourceMeter,
    SourceStats,
    Tally,
    add,
)
from forwarder.errors import DataPlaneLost
from forwarder.table import Leg, Queue, Route, Source, Tuple5

DSCP_MAX = 63
"""Six bits (RFC 2474)."""

SILENCE = SourceMeter(0, 0, 0, LEVEL_SILENT, 0)

WHY: Mapping[str, str] = {
    "ok": "applied",
    "bad_id": "an id is not below the table's size",
    "no_leg": "there is no such leg",
    "no_source": "there is no such source",
    "no_route": "there is no such route",
    "not_owner": "another worker owns it",
    "in_use": "sources or routes still refer to it",
    "bad_value": "a field is out of range",
    "identity": "the identity of a living route or source cannot change",
    "duplicate_ssrc": "the leg has another source or route with this SSRC",
    "duplicate_tuple": "another leg has this 5-tuple",
    "history_full": "no history of this size class is free",
}
"""The statuses that the fake can give, with the sentences of VC_STATUSES (tested)."""


class FakeTable:
    """The tables of all workers, and what they refuse."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.legs: dict[int, Leg] = {}
        self.sources: dict[int, Source] = {}
        self.routes: dict[int, Route] = {}

    def change(self, command: Command) -> str:
        """Applies a command; answers its status."""
        match command:
            case LegSet(leg):
                return self._leg_set(leg)
            case LegHeader(leg=leg_id, template=template):
                port = template.interface
                if port is not None and not 0 <= port < len(self.setup.interfaces):
                    return "bad_value"
                return "ok" if leg_id in self.legs else "no_leg"
            case LegRate(leg=leg_id):
                return "ok" if leg_id in self.legs else "no_leg"
            case LegRemove(leg_id):
                return self._leg_remove(leg_id)
            case SourceSet(source):
                return self._source_set(source)
            case SourceRemove(source_id):
                if source_id not in self.sources:
                    return "no_source"
                if any(r.source == source_id for r in self.routes.values()):
                    return "in_use"
                del self.sources[source_id]
                return "ok"
            case RouteSet(route):
                return self._route_set(route)
            case RouteFilter(route=route_id):
                return "ok" if route_id in self.routes else "no_route"
            case RouteRemove(route_id):
                return "ok" if self.routes.pop(route_id, None) else "no_route"
            case KeyframeRequest(source_id):
                return "ok" if source_id in self.sources else "no_source"
            case Begin():
                return "ok"

    def _leg_set(self, leg: Leg) -> str:
        if leg.id >= self.setup.legs_max:
            return "bad_id"
        if leg.worker >= self.setup.workers or leg.local >= len(self.setup.locals):
            return "bad_value"
        if max(leg.dscp_audio, leg.dscp_video) > DSCP_MAX:
            return "bad_value"
        before = self.legs.get(leg.id)
        if any(_repeats(ids) for ids in (leg.rx_ext, leg.tx_ext)):
            return "bad_value"
        if before is not None and before.worker != leg.worker:
            return "not_owner"
        taken: set[Tuple5] = set()
        for other in self.legs.values():
            if other.id != leg.id:
                taken.update(other.tuples)
        if taken & set(leg.tuples) or _repeats(leg.tuples):
            return "duplicate_tuple"
        self.legs[leg.id] = leg
        return "ok"

    def _leg_remove(self, leg: int) -> str:
        if leg not in self.legs:
            return "no_leg"
        users: list[Source | Route] = [*self.sources.values(), *self.routes.values()]
        if any(user.leg == leg for user in users):
            return "in_use"
        del self.legs[leg]
        return "ok"

    def _source_set(self, source: Source) -> str:
        if source.id >= self.setup.sources_max:
            return "bad_id"
        if source.leg not in self.legs:
            return "no_leg"
        before = self.sources.get(source.id)
        if before is not None and (before.leg, before.queue) != (source.leg, source.queue):
            return "identity"
        others = [s for s in self.sources.values() if s.id != source.id]
        if before is not None and before.rtx_ssrc not in (None, source.rtx_ssrc or before.rtx_ssrc):
            return "identity"
        used = {ssrc for s in others if s.leg == source.leg for ssrc in (s.ssrc, s.rtx_ssrc)}
        if (used - {None}) & {source.ssrc, source.rtx_ssrc}:
            return "duplicate_ssrc"
        limit = (
            self.setup.history_audio if source.queue == Queue.AUDIO else self.setup.history_video
        )
        if before is None and sum(s.queue == source.queue for s in others) >= limit:
            return "history_full"
        self.sources[source.id] = source
        return "ok"

    def _route_set(self, route: Route) -> str:
        if route.id >= self.setup.routes_max:
            return "bad_id"
        if route.leg not in self.legs:
            return "no_leg"
        if route.source not in self.sources:
            return "no_source"
        before = self.routes.get(route.id)
        if before is not None and _identity(before) != _identity(route):
            return "identity"
        others = [r for r in self.routes.values() if r.id != route.id and r.leg == route.leg]
        used = {ssrc for r in others for ssrc in (r.out_ssrc, r.rtx_ssrc)}
        if (used - {None}) & {route.out_ssrc, route.rtx_ssrc}:
            return "duplicate_ssrc"
        self.routes[route.id] = route
        return "ok"

    def dump(self) -> Dump:
        return {
            "leg": {i: leg.digest for i, leg in self.legs.items()},
            "source": {i: source.digest for i, source in self.sources.items()},
            "route": {i: route.digest for i, route in self.routes.items()},
        }


def _repeats(items: Iterable[object]) -> bool:
    used = [item for item in items if item]
    return len(set(used)) != len(used)


def _identity(route: Route) -> tuple[int | None, ...]:
    main = (route.leg, route.out_ssrc, route.seq_start, route.ts_offset)
    return (*main, route.rtx_ssrc, route.rtx_seq_start)


class FakeDataPlane:
    """Stands in for DataPlane; `table` is what its workers hold."""

    def __init__(
        self,
        run_dir: Path | None = None,
        *,
        on_restarted: Callable[[float], None] | None = None,
        on_failed: Callable[[str], None] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.on_restarted = on_restarted
        self.on_failed = on_failed
        self.on_lost: list[Callable[[], None]] = []
        self.restarts = 0
        self.pid = 0
        self.groups: list[Group] = []
        self.meters: dict[int, SourceMeter] = {}
        """What sources are said to have sent, by id; a test's to set."""
        self._table: FakeTable | None = None
        self._done = [0, 0]

    @property
    def table(self) -> FakeTable:
        if self._table is None:
            raise DataPlaneLost("the data plane was not started")
        return self._table

    @property
    def setup(self) -> Setup:
        return self.table.setup

    @property
    def locals(self) -> tuple[Local, ...]:
        return self.setup.locals

    async def start(self, setup: Setup, *, xsks_map: int | None = None) -> Started:
        self._table, self.pid = FakeTable(setup), 1
        return Started(False, self.pid)

    async def restart(self, why: str = "asked to") -> float:
        self.crash()
        return 0.0

    def crash(self) -> None:
        """The process ends and is started again: the table is empty."""
        self._table, self.pid = FakeTable(self.setup), self.pid + 1
        self._done = [0, 0]
        for lost in self.on_lost:
            lost()
        self.restarts += 1
        if self.on_restarted is not None:
            self.on_restarted(0.0)

    async def shutdown(self) -> None:
        self._table = None

    async def close(self) -> None:
        self._table = None

    def count(self, ok: bool) -> None:
        self._done[0 if ok else 1] += 1

    def counters(self) -> Snapshot:
        counters = {
            name: 0
            for name in (
                "rx", "routed", "consumed", "copies", "transmitted", "queued", "tx_bytes",
                "rx_bytes", "frames_total", "frames_free", "frames_rx", "frames_tx",
                "lateness_ns",
            )
        } | {
            "commands": self._done[0],
            "commands_refused": self._done[1],
            "legs": len(self.table.legs),
            "sources": len(self.table.sources),
            "routes": len(self.table.routes),
        }  # fmt: skip
        return add([Tally(counters, {}, {})])

    def leg_stats(self, worker: int, leg: int) -> LegStats:
        return LegStats(*[0] * len(dataclasses.fields(LegStats)))

    def source_stats(self, worker: int, source: int) -> SourceStats:
        meter = self.meters.get(source, SILENCE)
        none = dict.fromkeys((f.name for f in dataclasses.fields(SourceStats)), 0)
        return SourceStats(**none | meter._asdict())

    def source_meters(self, worker: int, sources: Iterable[int]) -> dict[int, SourceMeter]:
        return {source: self.meters.get(source, SILENCE) for source in sources}

    def route_stats(self, worker: int, route: int) -> RouteStats:
        return RouteStats(*[0] * len(dataclasses.fields(RouteStats)))


class FakeCommandClient:
    """Stands in for CommandClient."""

    def __init__(
        self,
        plane: FakeDataPlane,
        *,
        on_event: Callable[[Event], None] | None = None,
        on_overflow: Callable[[], None] | None = None,
    ) -> None:
        self._plane = plane
        self.on_event = on_event
        self.on_overflow = on_overflow
        self.placement = Placement(plane.setup.workers)
        self.log: list[Command] = []
        """Every command that was given, in order."""
        plane.on_lost.append(self.placement.clear)

    async def apply(self, commands: Iterable[Command]) -> None:
        for outcome in await self.apply_all(commands):
            if not outcome.ok:
                raise outcome.error()

    async def apply_all(self, commands: Iterable[Command]) -> list[Outcome]:
        outcomes = []
        for command in commands:
            for each in self.placement.expand(command):
                outcomes.append(self._apply(each))
        return outcomes

    def _apply(self, command: Command) -> Outcome:
        self.log.append(command)
        try:
            self.placement.plan(command)
        except NotThere as missing:
            return Outcome(command, missing.status, str(missing))
        status = self._plane.table.change(command)
        self._plane.count(status == "ok")
        self.placement.answered(command, status == "ok", self.placement.placed(command))
        return Outcome(command, status, WHY[status])

    async def dump(self) -> Dump:
        table = self._plane.table
        of_leg = {("leg", i): i for i in table.legs}
        of_leg |= {("source", i): source.leg for i, source in table.sources.items()}
        of_leg |= {("route", i): route.leg for i, route in table.routes.items()}
        for (kind, object_id), leg in of_leg.items():
            self.placement.found(kind, object_id, table.legs[leg].worker)
        found = table.dump()
        for kind, objects in found.items():
            self.placement.keep(kind, objects)
        return found

    def emit(self, event: Event) -> None:
        """A worker tells something."""
        if self.on_event is not None:
            self.on_event(event)

    def close(self) -> None:
        if self.placement.clear in self._plane.on_lost:
            self._plane.on_lost.remove(self.placement.clear)
