"""Which workers a command goes to, and which commands must wait for which.  Pure.

Law: a command waits for the answer of an earlier one that concerns the same object, unless
every worker of the later one has the earlier one before it in its own ring, and the earlier one
takes nothing away (a remove is answered only when all workers have let go).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

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
from forwarder.errors import CommandRefused

Key = tuple[str, int]
T = TypeVar("T")


class NotThere(CommandRefused):
    """A command names an object that was never placed; `status` is the worker's label for it."""

    def __init__(self, kind: str, object_id: int) -> None:
        self.status = f"no_{kind}"
        super().__init__(f"there is no {kind} {object_id}")


@dataclass(frozen=True)
class Plan:
    """Where a command goes (`workers`), what it changes and what it relies on."""

    workers: frozenset[int]
    writes: frozenset[Key]
    reads: frozenset[Key]
    removes: bool = False

    def must_wait_for(self, earlier: Plan) -> bool:
        """See the law of this module."""
        if earlier.removes or not self.workers <= earlier.workers:
            return bool(earlier.writes & (self.writes | self.reads)) or bool(
                self.writes & earlier.reads
            )
        return False


Undo = Callable[[], None]


def _nothing() -> None:
    return


def _put(table: dict[int, T], key: int, value: T) -> Undo:
    """Sets an item; the answer restores what was there."""
    there, before = key in table, table.get(key)
    table[key] = value

    def undo() -> None:
        if there:
            table[key] = before  # type: ignore[assignment]
        else:
            table.pop(key, None)

    return undo


@dataclass(frozen=True)
class RouteAt:
    """Where a route is."""

    worker: int
    leg: int
    source: int
    paused: bool


class Placement:
    """What was placed where, as far as this supervisor has asked for it."""

    def __init__(self, workers: int) -> None:
        self._all = frozenset(range(workers))
        self._legs: dict[int, int] = {}
        self._sources: dict[int, tuple[int, int]] = {}
        self._routes: dict[int, RouteAt] = {}

    def clear(self) -> None:
        """The table is empty."""
        self._legs.clear()
        self._sources.clear()
        self._routes.clear()

    def found(self, kind: str, object_id: int, worker: int) -> None:
        """A dump named an object that this placement may not know (after an adoption)."""
        if kind == "leg":
            self._legs[object_id] = worker
        elif kind == "source":
            self._sources.setdefault(object_id, (-1, worker))
        else:
            self._routes.setdefault(object_id, RouteAt(worker, -1, -1, False))

    def keep(self, kind: str, ids: Iterable[int]) -> None:
        """Forgets what a complete dump did not name."""
        table: dict[int, object] = {
            "leg": self._legs, "source": self._sources, "route": self._routes,
        }[kind]  # type: ignore[assignment]  # fmt: skip
        for gone in table.keys() - set(ids):
            del table[gone]

    def owners(self) -> dict[int, int]:
        """Leg -> its worker."""
        return dict(self._legs)

    def paused(self, route: int) -> bool:
        at = self._routes.get(route)
        return at.paused if at else False

    def expand(self, command: Command) -> tuple[Command, ...]:
        """A route's `paused` is a command of its own."""
        if isinstance(command, RouteSet):
            route = command.route
            if route.paused != self.paused(route.id):
                return (command, RouteFilter(route.id, route.paused))
        return (command,)

    def _leg(self, leg: int) -> int:
        try:
            return self._legs[leg]
        except KeyError:
            raise NotThere("leg", leg) from None

    def _source(self, source: int) -> tuple[int, int]:
        try:
            return self._sources[source]
        except KeyError:
            raise NotThere("source", source) from None

    def _route(self, route: int) -> RouteAt:
        try:
            return self._routes[route]
        except KeyError:
            raise NotThere("route", route) from None

    def plan(self, command: Command) -> Plan:
        """Where `command` goes; raises NotThere when what it names was never placed."""
        match command:
            case Begin():
                return Plan(self._all, frozenset(), frozenset())
            case LegSet(leg):
                return Plan(self._all, frozenset({("leg", leg.id)}), frozenset())
            case LegHeader(leg=leg_id) | LegRate(leg=leg_id):
                worker = self._leg(leg_id)
                return Plan(frozenset({worker}), frozenset(), frozenset({("leg", leg_id)}))
            case LegRemove(leg_id):
                self._leg(leg_id)
                return Plan(self._all, frozenset({("leg", leg_id)}), frozenset(), True)
            case SourceSet(source):
                worker = self._leg(source.leg)
                return Plan(
                    frozenset({worker}),
                    frozenset({("source", source.id)}),
                    frozenset({("leg", source.leg)}),
                )
            case SourceRemove(source_id):
                leg_id, worker = self._source(source_id)
                return Plan(
                    frozenset({worker}),
                    frozenset({("source", source_id)}),
                    frozenset({("leg", leg_id)}),
                    True,
                )
            case RouteSet(route):
                worker = self._leg(route.leg)
                reads = {("leg", route.leg), ("source", route.source)}
                if route.id in self._routes:
                    reads.add(("source", self._routes[route.id].source))
                return Plan(frozenset({worker}), frozenset({("route", route.id)}), frozenset(reads))
            case RouteFilter(route=route_id):
                at = self._route(route_id)
                return Plan(frozenset({at.worker}), frozenset({("route", route_id)}), frozenset())
            case RouteRemove(route_id):
                at = self._route(route_id)
                return Plan(
                    frozenset({at.worker}),
                    frozenset({("route", route_id)}),
                    frozenset({("leg", at.leg), ("source", at.source)}),
                    True,
                )
            case KeyframeRequest(source_id):
                _, worker = self._source(source_id)
                return Plan(frozenset({worker}), frozenset(), frozenset({("source", source_id)}))

    def placed(self, command: Command) -> Undo:
        """`command` was sent: later ones may rely on it.  The answer is for a refusal."""
        match command:
            case LegSet(leg):
                return _put(self._legs, leg.id, leg.worker)
            case SourceSet(source):
                return _put(self._sources, source.id, (source.leg, self._legs[source.leg]))
            case RouteSet(route):
                paused, worker = self.paused(route.id), self._legs[route.leg]
                at = RouteAt(worker, route.leg, route.source, paused)
                return _put(self._routes, route.id, at)
            case RouteRemove(route_id):  # one that comes back under this id is not paused
                at = dataclasses.replace(self._routes[route_id], paused=False)
                return _put(self._routes, route_id, at)
            case RouteFilter(route_id, paused):
                at = dataclasses.replace(self._routes[route_id], paused=paused)
                return _put(self._routes, route_id, at)
            case _:
                return _nothing

    def answered(self, command: Command, ok: bool, undo: Undo) -> None:
        """`command`, placed before, was answered."""
        if not ok:
            undo()
            return
        match command:
            case LegRemove(object_id):
                self._legs.pop(object_id, None)
            case SourceRemove(object_id):
                self._sources.pop(object_id, None)
            case RouteRemove(object_id):
                self._routes.pop(object_id, None)
            case _:
                return
