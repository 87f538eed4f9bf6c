"""have, want -> the shortest ordered list of commands that turns one into the other.

Rule 1: adds before the routes that use them, legs first; removes after the routes that stop,
        legs last.  So no command, at any prefix of the list, names a leg or source that is not
        there, and none removes what is still used.  A route that changes its source goes on with
        the old one until the new one has a key frame; where the old one must go now, the route
        is removed and comes back, with the numbers that follow.
Rule 2: pure.  No clock, no I/O.  Replaying a data plane is diff(EMPTY, want).
Rule 3: the identity of a living object never changes (another key, SSRC, ...): its id is used
        again only after its remove was answered.  A want that breaks this is a broken invariant
        and raises IdentityChanged.
Rule 4: a leg that changes its worker is removed with its sources, its routes and all that reads
        them, and set again there; whoever sends the commands waits for a remove's answer before
        the id's next set.  Numbers and windows lie in the index store, by id, and go on.

`have` is what the data plane was told (Table, Told), or what it says it holds (Observed: ids and
digests only, from a dump).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from forwarder.commands import (
    Command,
    LegRate,
    LegRemove,
    LegSet,
    RouteRemove,
    RouteSet,
    SourceRemove,
    SourceSet,
)
from forwarder.rooms.core import Rooms
from forwarder.rooms.plan import plan_dirty
from forwarder.rooms.state import Dirty, IdKind
from forwarder.table import EMPTY, Leg, Route, Source, Table, Tuple5

PAST_MAX = 8
"""Sources that are remembered of a route that changes faster than key frames come."""


class IdentityChanged(ValueError):
    """The wanted object is not the one that lives under this id.  What to do: restart the data
    plane and replay the table into it."""


@dataclass
class Told:
    """What the data plane was told so far; `apply` keeps it in step with each command sent."""

    legs: dict[int, Leg] = field(default_factory=dict)
    sources: dict[int, Source] = field(default_factory=dict)
    routes: dict[int, Route] = field(default_factory=dict)
    past: dict[int, tuple[int, ...]] = field(default_factory=dict, compare=False)
    """By route: sources that it may still read, because a switch waits for a key frame."""
    held: set[int] = field(default_factory=set, compare=False)
    """Sources whose remove was refused, for a route that still read them."""

    @classmethod
    def of(cls, told: Table) -> Told:
        return cls(dict(told.legs), dict(told.sources), dict(told.routes))

    def apply(self, command: Command) -> None:
        """Commands that are not about the table (header, filter, key frame) are ignored."""
        match command:
            case LegSet(leg):
                self.legs[leg.id] = leg
            case SourceSet(source):
                self.sources[source.id] = source
            case RouteSet(route):
                old = self.routes.get(route.id)
                if old is not None and old.gated and old.source != route.source:
                    others = [s for s in self.past.get(route.id, ()) if s != old.source]
                    self.past[route.id] = (*others, old.source)[-PAST_MAX:]
                self.routes[route.id] = route
            case LegRate(index, rate_bps) if index in self.legs:
                self.legs[index] = replace(self.legs[index], rate_bps=rate_bps)
            case LegRemove(index):
                self.legs.pop(index, None)
            case SourceRemove(index):
                self.sources.pop(index, None)
                self.held.discard(index)
            case RouteRemove(index):
                self.routes.pop(index, None)
                self.past.pop(index, None)

    def part(self, dirty: Dirty) -> Told:
        """What was told under these ids."""
        return Told(
            {i: self.legs[i] for i in dirty.legs if i in self.legs},
            {i: self.sources[i] for i in dirty.sources if i in self.sources},
            {i: self.routes[i] for i in dirty.routes if i in self.routes},
            {i: self.past[i] for i in dirty.routes if i in self.past},
            self.held & dirty.sources,
        )

    def hanging(self, legs: Collection[int], want: Table = EMPTY) -> Dirty:
        """What must go when these legs do: their sources and routes, and routes that read them."""
        sources = {i for i, source in self.sources.items() if source.leg in legs}
        routes = {
            i
            for i, route in self.routes.items()
            if route.leg in legs
            or route.source in sources
            or not sources.isdisjoint(self.past.get(i, ()))
        }
        return Dirty(legs=frozenset(legs), sources=frozenset(sources), routes=frozenset(routes))

    def without(self, gone: Dirty) -> Told:
        return Told(
            {i: leg for i, leg in self.legs.items() if i not in gone.legs},
            {i: source for i, source in self.sources.items() if i not in gone.sources},
            {i: route for i, route in self.routes.items() if i not in gone.routes},
            {i: past for i, past in self.past.items() if i not in gone.routes},
            self.held - gone.sources,
        )

    def holders(self, sources: Collection[int]) -> frozenset[int]:
        """The routes that may be why these sources could not be removed."""
        held = self.held.intersection(sources)
        if not held:
            return frozenset()
        return frozenset(i for i, past in self.past.items() if not held.isdisjoint(past))


@dataclass(frozen=True)
class Observed:
    """What a dump showed: id -> digest; legs with the id of their keys and with their workers,
    where they are known."""

    legs: Mapping[int, int] = field(default_factory=dict)
    sources: Mapping[int, int] = field(default_factory=dict)
    routes: Mapping[int, int] = field(default_factory=dict)
    key_ids: Mapping[int, int] = field(default_factory=dict)
    workers: Mapping[int, int] = field(default_factory=dict)

    def hanging(self, legs: Collection[int], want: Table) -> Dirty:
        """What must go when these legs do.  A dump does not tell who reads what: whatever is not as
        it is wanted may read them."""
        sources = {i for i in self.sources if i not in want.sources or want.sources[i].leg in legs}
        routes = {
            i
            for i, digest in self.routes.items()
            if (route := want.routes.get(i)) is None
            or route.digest != digest
            or route.leg in legs
            or route.source in sources
        }
        return Dirty(legs=frozenset(legs), sources=frozenset(sources), routes=frozenset(routes))

    def without(self, gone: Dirty) -> Observed:
        return Observed(
            {i: digest for i, digest in self.legs.items() if i not in gone.legs},
            {i: digest for i, digest in self.sources.items() if i not in gone.sources},
            {i: digest for i, digest in self.routes.items() if i not in gone.routes},
        )


Have: TypeAlias = Table | Told | Observed


def diff(have: Have, want: Table) -> list[Command]:
    """Empty if and only if there is nothing to do."""
    if isinstance(have, Observed):
        _check_keys(have, want)
    commands: list[Command] = []
    resumed: Collection[int] = ()
    if moved := _moved(have, want):
        told = Told.of(have) if isinstance(have, Table) else have
        gone = told.hanging(moved, want)
        commands += [RouteRemove(i) for i in sorted(gone.routes)]
        commands += [SourceRemove(i) for i in sorted(gone.sources)]
        commands += [LegRemove(i) for i in sorted(gone.legs)]
        have, resumed = told.without(gone), _same_streams(told, want, gone.sources)
    legs = []
    for i, leg in want.legs.items():
        old = have.legs.get(i)
        if not _differs(old, leg):
            continue
        if isinstance(old, Leg) and replace(old, rate_bps=leg.rate_bps) == leg:
            commands.append(LegRate(i, leg.rate_bps))
        else:
            legs.append(leg)
    if not isinstance(have, Observed):
        commands += _shed(have, legs)
    commands += [LegSet(leg) for leg in legs]
    commands += [
        SourceSet(s, s.resume or i in resumed)
        for i, s in want.sources.items()
        if _differs(have.sources.get(i), s)
    ]
    routes = {i: r for i, r in want.routes.items() if _differs(have.routes.get(i), r)}
    back = _back(have, want, routes)
    commands += [RouteRemove(r.id) for r in back]
    commands += [RouteSet(r) for r in {**routes, **{r.id: r for r in back}}.values()]
    commands += [RouteRemove(i) for i in have.routes if i not in want.routes]
    commands += [SourceRemove(i) for i in have.sources if i not in want.sources]
    commands += [LegRemove(i) for i in have.legs if i not in want.legs]
    return commands


def diff_dirty(told: Told, rooms: Rooms, dirty: Dirty) -> list[Command]:
    """diff(told, plan(rooms)), when nothing outside `dirty` changed; in proportion to the change.

    The result is not applied to `told` yet: that is for whoever sends the commands.
    """
    dirty |= Dirty(routes=told.holders(dirty.sources))
    if moved := _moved(told.part(dirty), plan_dirty(rooms, Dirty(legs=dirty.legs))):
        dirty |= told.hanging(moved)
    return diff(told.part(dirty), plan_dirty(rooms, dirty))


def release_gone(told: Told, rooms: Rooms, dirty: Dirty) -> None:
    """After the commands for `dirty` were answered: what is in no table any more has a free id.

    Covers removes that were answered, and objects that were never accepted in the first place.
    What should be gone and is not, is tried again: a route that waits for a key frame holds its
    old source until then; at the second attempt it lets go of it.
    """
    here, parting = rooms.state.by_source.keys(), rooms.state.parting
    for index in told.sources.keys() & ((dirty.sources - here) | (dirty.sources & parting)):
        told.held.add(index)
        rooms.state.remind(IdKind.SOURCE, index)
    for index in told.legs.keys() & dirty.legs - rooms.state.by_leg.keys():
        rooms.state.remind(IdKind.LEG, index)
    for kind, indices, table in (
        (IdKind.LEG, dirty.legs, told.legs),
        (IdKind.SOURCE, dirty.sources, told.sources),
        (IdKind.ROUTE, dirty.routes, told.routes),
    ):
        for index in indices:
            if index not in table:
                rooms.released(kind, index)


def _moved(have: Have, want: Table) -> frozenset[int]:
    """Living legs that are to be on another worker, with the same keys."""
    moved = set()
    for i, leg in want.legs.items():
        if isinstance(have, Observed):
            if i in have.legs and have.workers.get(i, leg.worker) != leg.worker:
                moved.add(i)
            continue
        old = have.legs.get(i)
        if old is None or old.worker == leg.worker:
            continue
        if _identity(replace(old, worker=leg.worker)) == _identity(leg):
            moved.add(i)
    return frozenset(moved)


def _same_streams(have: Told | Observed, want: Table, gone: Collection[int]) -> frozenset[int]:
    """Of the sources that are removed: those that come back as the streams that they were."""
    back = {i: want.sources[i] for i in gone if i in want.sources}
    if isinstance(have, Observed):
        return frozenset(i for i, source in back.items() if have.sources[i] == source.digest)
    return frozenset(i for i, s in back.items() if _identity(have.sources[i]) == _identity(s))


def _back(have: Have, want: Table, changed: Mapping[int, Route]) -> list[Route]:
    """Routes that must be removed and come back, because a source that they read goes now."""
    gone = have.sources.keys() - want.sources.keys()
    if not gone:
        return []
    if isinstance(have, Observed):  # a dump does not tell who reads what
        return [r for i, r in changed.items() if r.gated and i in have.routes]
    back = {}
    for i, route in changed.items():
        old = have.routes.get(i)
        if old is not None and old.gated and old.source != route.source and old.source in gone:
            back[i] = route
    if isinstance(have, Told):
        held = gone & have.held
        for i, past in have.past.items():
            if i in want.routes and not held.isdisjoint(past):
                back[i] = want.routes[i]
    return list(back.values())


def _identity(value: Leg | Source | Route) -> tuple[Any, ...]:
    match value:
        case Leg():
            return (value.key_id, value.worker, value.suite)
        case Source():
            return (value.leg, value.ssrc, value.mid, value.rid, value.by_pt)
        case Route():
            main = (value.leg, value.out_ssrc, value.seq_start, value.ts_offset)
            return (*main, value.rtx_ssrc, value.rtx_seq_start)


def _differs(have: Leg | Source | Route | int | None, want: Leg | Source | Route) -> bool:
    if have is None:
        return True
    if isinstance(have, int):
        return have != want.digest
    if have == want:
        return False
    if _identity(have) != _identity(want):
        raise IdentityChanged(
            f"{type(want).__name__.lower()} {want.id} is alive as another: it must be removed, "
            "and the remove answered, before its id is used again"
        )
    return True


def _check_keys(have: Observed, want: Table) -> None:
    for index, key_id in have.key_ids.items():
        leg = want.legs.get(index)
        if leg is not None and leg.key_id != key_id:
            raise IdentityChanged(f"leg {index} is alive with other keys than the table wants")


def _shed(have: Table | Told, legs: Collection[Leg]) -> list[Command]:
    """A 5-tuple leads to one leg: those who lose one to another leg let go of it first."""
    gained: dict[Tuple5, int] = {}
    for leg in legs:
        old = have.legs.get(leg.id)
        gained.update({t: leg.id for t in leg.tuples if old is None or t not in old.tuples})
    if not gained:
        return []
    return [
        LegSet(replace(leg, tuples=(), nominated=None))
        for leg in have.legs.values()
        if any(gained.get(t, leg.id) != leg.id for t in leg.tuples)
    ]
