"""The loop that keeps the data plane's table equal to plan(rooms).

Law: one round at a time.  A round takes what changed, saves it, computes the smallest list of
commands, applies it, and only then lets `settle` return.  A data plane that was restarted is told
everything; one that lost events is dumped and compared.  No other code sends table commands.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from forwarder.commands import (
    Begin,
    Command,
    KeyframeRequest,
    LegRemove,
    LegSet,
    RouteFilter,
    RouteRemove,
    RouteSet,
    SourceRemove,
    SourceSet,
)
from forwarder.dataplane.commands import CommandClient
from forwarder.dataplane.outcome import Outcome
from forwarder.errors import CommandRefused, DataPlaneLost
from forwarder.rooms.core import Rooms
from forwarder.rooms.diff import IdentityChanged, Observed, Told, diff, diff_dirty, release_gone
from forwarder.rooms.plan import plan, plan_leg
from forwarder.rooms.state import Dirty, IdKind
from forwarder.store.database import StoreError
from forwarder.supervisor.legpaths import LegPaths
from forwarder.table import EMPTY

log = logging.getLogger(__name__)

RETRY_S = 1.0  # pause after a round that failed
GONE = ("no_leg", "no_source", "no_route")  # a remove is refused so where nothing was


class Store(Protocol):
    """What survives this process (forwarder/store)."""

    def save(self, rooms: Rooms, dirty: Dirty) -> None: ...


class Reconciler:
    """See the module.  `on_in_force(leg)`: a leg's first addresses are in force.
    `on_index_lost(leg)`: its send indices are lost; the client must rejoin with new keys."""

    def __init__(
        self,
        rooms: Rooms,
        client: CommandClient,
        paths: LegPaths,
        store: Store,
        *,
        on_in_force: Callable[[int], None],
        on_index_lost: Callable[[int], None],
        on_identity: Callable[[str], None],
    ) -> None:
        self._rooms = rooms
        self._client = client
        self._paths = paths
        self._store = store
        self._on_in_force = on_in_force
        self._on_index_lost = on_index_lost
        self._on_identity = on_identity
        self._told = Told()
        self._wake = asyncio.Event()
        self._wanted = 0
        self._done = 0
        self._progress = asyncio.Condition()
        self._down = False
        self._replay = False
        self._dump = False
        self._headers = False
        self._stuck: set[tuple[IdKind, int]] = set()
        """What was refused to go, and is still there."""
        self.counters: Counter[str] = Counter()

    # ---- what others call -------------------------------------------------------------------

    def changed(self) -> None:
        """The rooms changed."""
        self._wake.set()

    async def settle(self) -> None:
        """Returns when everything that changed in the rooms until now is in force."""
        self._wanted += 1
        mine = self._wanted
        self._wake.set()
        async with self._progress:
            await self._progress.wait_for(lambda: self._done >= mine)

    async def send(self, command: KeyframeRequest) -> None:
        """A command that is not part of the table.  It may be lost with the data plane."""
        try:
            await self._client.apply([command])
        except (DataPlaneLost, CommandRefused):
            self.counters["lost_requests"] += 1

    def lost(self) -> None:
        """The data plane ended: commands given to it now would wait for an answer in vain."""
        self._down = True

    def restarted(self) -> None:
        """The data plane serves again, with an empty table."""
        self._replay, self._down = True, False
        self._wake.set()

    def overflowed(self) -> None:
        """Events were lost: what the data plane holds must be looked at."""
        self._dump = True
        self._wake.set()

    def routes_changed(self) -> None:
        """Links, addresses, routes or neighbours of the host changed."""
        self._headers = True
        self._wake.set()

    async def begin(self, *, adopted: bool) -> None:
        """The first round: an adopted data plane is compared, a fresh one told everything."""
        self._paths.adopt()
        self._dump, self._replay = adopted, not adopted
        await self._round()

    async def run(self) -> None:
        """Rounds, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._down and not self._replay:
                continue  # restarted() wakes us
            asked = self._wanted
            try:
                await self._round()
            except DataPlaneLost as error:
                log.warning("the table waits for the data plane: %s", error)
                # It may be back already, or only answers were lost: then something is asked for.
                if not (self._replay or self._dump):
                    self._down = True
                continue
            except IdentityChanged as error:
                self._on_identity(str(error))
                self._down = True
                continue
            except Exception:  # whatever it is, the loop lives: without it nobody can join
                self.counters["failed_rounds"] += 1
                log.exception("a round failed; comparing with what the data plane holds")
                self._dump = True
                self._wake.set()
                await asyncio.sleep(RETRY_S)
                continue
            async with self._progress:
                self._done = asked
                self._progress.notify_all()

    # ---- one round ----------------------------------------------------------------------------

    async def _round(self) -> None:
        dirty = self._rooms.drain_dirty()
        if self._paths.split:
            dirty |= self._place(dirty)
        if dirty:
            self._save(dirty)
        if self._replay:
            self._replay = self._dump = self._headers = False
            self.counters["replays"] += 1
            self._told = Told()
            self._stuck.clear()
            self._paths.forget_headers()
            await self._apply_all(diff(EMPTY, plan(self._rooms)))
            await self._apply([Begin()])
            self._observed()
        elif self._dump:
            self._dump = False
            self.counters["dumps"] += 1
            await self._compare()
        elif dirty:
            await self._carry_out(diff_dirty(self._told, self._rooms, dirty), dirty.legs)
            release_gone(self._told, self._rooms, dirty)
        if self._headers:
            self._headers = False
            commands = [self._paths.header(leg) for leg in self._told.legs.values()]
            await self._apply([c for c in commands if c is not None])

    def _place(self, dirty: Dirty) -> Dirty:
        """Legs whose way leads to an interface that their worker does not serve change the worker:
        of those that changed, or of all, when the ways may have."""
        here = self._rooms.state.by_leg
        everywhere = self._headers or self._replay or self._dump
        for index in list(here) if everywhere else dirty.legs & here.keys():
            who = here[index]
            home = self._paths.home(plan_leg(who, 0)) if who.keyed else None
            if home and self._rooms.move_leg(who.id, home):
                self.counters["moved"] += 1
        return self._rooms.drain_dirty()

    def _save(self, dirty: Dirty) -> None:
        """A full disk must not end the calls; the store tries again with the next change."""
        try:
            self._store.save(self._rooms, dirty)
        except StoreError as error:
            self.counters["save_failed"] += 1
            log.error("what changed could not be saved: %s", error)

    def _observed(self) -> None:
        """The data plane holds what it was told and what it would not let go of, so ids of anything
        else are free."""
        told = self._told
        kept = {kind: {i for which, i in self._stuck if which is kind} for kind in IdKind}
        self._rooms.observed(
            told.legs.keys() | kept[IdKind.LEG],
            told.sources.keys() | kept[IdKind.SOURCE],
            told.routes.keys() | kept[IdKind.ROUTE],
        )

    async def _apply_all(self, commands: list[Command]) -> None:
        concerned = set(self._rooms.state.by_leg) | self._paths.legs_with_flows()
        await self._carry_out(commands, concerned)

    async def _compare(self) -> None:
        self._stuck.clear()
        found = await self._client.dump()
        owners = self._client.placement.owners()
        observed = Observed(found["leg"], found["source"], found["route"], workers=owners)
        want = plan(self._rooms)
        commands = diff(observed, want)
        missing = {c for c in commands if isinstance(c, LegSet | SourceSet | RouteSet)}
        told = Told.of(want)
        for command in missing:
            match command:
                case LegSet(leg):
                    told.legs.pop(leg.id)
                case SourceSet(source):
                    told.sources.pop(source.id)
                case RouteSet(route):
                    told.routes.pop(route.id)
        self._told = told
        # A dump does not tell which routes are paused: say it again.
        commands += [RouteFilter(r.id, paused=True) for r in told.routes.values() if r.paused]
        await self._apply_all(commands)
        # A dump does not tell who holds an address: one that moved may have come before it was
        # let go of, and was refused.
        if missed := diff(self._told, want):
            await self._apply_all(missed)
        self._observed()
        if self._stuck:  # no later change would name them
            asyncio.get_running_loop().call_later(RETRY_S, self.overflowed)
        self._headers = True  # what an earlier supervisor sent is not known

    async def _carry_out(self, commands: list[Command], concerned: Iterable[int]) -> None:
        """In proportion to the change, not to the table: joins stay fast in a full node."""
        changed = {c.leg.id: c.leg for c in commands if isinstance(c, LegSet)}
        removed = {c.leg for c in commands if isinstance(c, LegRemove)}
        wanted = {i: leg for i in concerned if (leg := self._told.legs.get(i)) and i not in removed}
        wanted.update(changed)
        live = {i for i in changed if (leg := self._told.legs.get(i)) and leg.nominated is not None}
        staying = {i: leg for i, leg in wanted.items() if i not in removed}  # one that moves is not
        self._paths.close_stale(staying, {*concerned, *changed, *removed})
        await self._apply(self._with_headers(commands))
        in_force = [leg for i, leg in wanted.items() if self._told.legs.get(i) is leg]
        self._paths.open(in_force)
        for leg in in_force:
            if leg.nominated is not None and leg.id in changed and leg.id not in live:
                self._on_in_force(leg.id)

    def _with_headers(self, commands: Iterable[Command]) -> list[Command]:
        expanded: list[Command] = []
        for command in commands:
            expanded.append(command)
            if isinstance(command, LegSet):
                header = self._paths.header(command.leg)
                if header is not None:
                    expanded.append(header)
        return expanded

    async def _apply(self, commands: list[Command]) -> None:
        if not commands:
            return
        for outcome in await self._client.apply_all(commands):
            self._note(outcome)

    def _note(self, outcome: Outcome) -> None:
        command = outcome.command
        if outcome.ok:
            self.counters["applied"] += 1
            self._told.apply(command)
            if (removed := _removed(command)) is not None:
                self._stuck.discard(removed)
            return
        self.counters["refused"] += 1
        removed = _removed(command)
        if removed is not None and outcome.status not in GONE:
            self._stuck.add(removed)
        again = removed is not None and outcome.status == "in_use"  # it is tried again
        log.log(logging.INFO if again else logging.ERROR, "%s", outcome.error())
        if outcome.status == "index_lost" and isinstance(command, RouteSet):
            self._on_index_lost(command.route.leg)


def _removed(command: Command) -> tuple[IdKind, int] | None:
    """What the command was to remove."""
    match command:
        case LegRemove(index):
            return IdKind.LEG, index
        case SourceRemove(index):
            return IdKind.SOURCE, index
        case RouteRemove(index):
            return IdKind.ROUTE, index
    return None
