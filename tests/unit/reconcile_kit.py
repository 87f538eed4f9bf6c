"""Rooms, a fake data plane that can be made to fail, and the reconciler between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from rooms_kit import audio, join, make_rooms, tuple5, video

from forwarder.commands import Command, LegHeader
from forwarder.dataplane.fake import FakeCommandClient, FakeDataPlane
from forwarder.dataplane.outcome import Outcome
from forwarder.dataplane.setup import Local, Setup
from forwarder.dataplane.steering_abi import Flow
from forwarder.errors import HostError
from forwarder.net.mirror import Unresolved
from forwarder.rooms.plan import plan
from forwarder.rooms.state import Dirty
from forwarder.store.database import StoreError
from forwarder.supervisor.legpaths import LegPaths
from forwarder.supervisor.reconcile import Reconciler
from forwarder.table import HeaderTemplate, Tuple5

PATIENCE_S = 10.0


class Client(FakeCommandClient):
    """`before`, when set, sees each batch first and may raise; `refuse` answers for commands."""

    before: Callable[[list[Command]], None] | None = None
    refuse: Callable[[Command], str] | None = None

    async def apply_all(self, commands: Iterable[Command]) -> list[Outcome]:
        batch = list(commands)
        if self.before is not None:
            self.before(batch)
        for _ in range(3):  # answers take their time: others get their turn
            await asyncio.sleep(0)
        return await super().apply_all(batch)

    def _apply(self, command: Command) -> Outcome:
        if isinstance(command, LegHeader):  # the fake has no interface, and no frames
            self.log.append(command)
            return Outcome(command, "ok", "")
        if self.refuse is not None and (status := self.refuse(command)):
            self.log.append(command)
            return Outcome(command, status, "the test says so")
        return super()._apply(command)


class Flows:
    """The steering program's table; what happens is written into the log of commands."""

    def __init__(self, log: list[object]) -> None:
        self.table: dict[Tuple5, Flow] = {}
        self.full = False
        self._log = log

    def set_flow(self, five_tuple: Tuple5, flow: Flow) -> None:
        if self.full:
            raise HostError("the table is full")
        self._log.append(("open", flow.leg))
        self.table[five_tuple] = flow

    def del_flow(self, five_tuple: Tuple5) -> bool:
        flow = self.table.pop(five_tuple, None)
        self._log.append(("close", flow.leg if flow else None))
        return flow is not None

    def flows(self) -> dict[Tuple5, Flow]:
        return dict(self.table)


class World:
    """Rooms, a fake data plane and the reconciler between them."""

    def __init__(self, run_dir: Path, workers: int = 1) -> None:
        self.workers = workers
        self.rooms = make_rooms(workers=workers)
        self.rooms.create_room("r", now=0.0)
        self.plane = FakeDataPlane(run_dir)
        self.in_force: list[int] = []
        self.index_lost: list[int] = []
        self.identity: list[str] = []
        self.saved: list[Dirty] = []
        self.disk_full = False
        self.header: HeaderTemplate | Unresolved = HeaderTemplate(3, 0, 14, b"header-1", 1)
        self._run: asyncio.Task[None] | None = None

    def save(self, rooms: object, dirty: Dirty) -> None:
        if self.disk_full:
            raise StoreError("no space left")
        self.saved.append(dirty)

    async def open(self) -> None:
        await self.plane.start(
            Setup(locals=(Local("127.0.0.1", 4433),), workers=self.workers, history_video=64)
        )
        self.client = Client(self.plane)
        self.flows = Flows(self.client.log)  # type: ignore[arg-type]
        self.paths = LegPaths(self.flows, lambda *at: self.header)
        self.reconciler = Reconciler(
            self.rooms,
            self.client,  # type: ignore[arg-type]
            self.paths,
            self,
            on_in_force=self.in_force.append,
            on_index_lost=self.index_lost.append,
            on_identity=self.identity.append,
        )
        self.plane.on_lost.append(self.reconciler.lost)
        self.plane.on_restarted = lambda gap_ms: self.reconciler.restarted()

    async def begin(self, *, adopted: bool = False) -> None:
        await self.reconciler.begin(adopted=adopted)
        self._run = asyncio.create_task(self.reconciler.run())

    async def close(self) -> None:
        if self._run is not None:
            assert not self._run.done(), "the loop of the reconciler ended"
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)

    async def settle(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.reconciler.settle()

    async def turns(self) -> None:
        """Whatever can happen by itself has happened."""
        for _ in range(20):
            await asyncio.sleep(0)

    def join(self, port: int | None = None):
        person = join(self.rooms)
        if port is not None:
            self.rooms.set_tuples(person.id, [tuple5(port)], 0)
        return person

    def call(self):
        """A publisher of sound and pictures, and one who receives both."""
        first, second = self.join(5001), self.join(5002)
        self.rooms.publish(first.id, [audio(11), video(12)])
        self.rooms.subscribe(second.id, list(first.tracks), False)
        return first, second

    def equal(self) -> None:
        """The data plane holds what the rooms want, and flows are those of the legs."""
        want, have = plan(self.rooms), self.plane.table
        assert (have.legs, have.sources, have.routes) == (want.legs, want.sources, want.routes)
        assert {(flow.leg, five.remote_port) for five, flow in self.flows.table.items()} == {
            (leg.id, t.remote_port) for leg in want.legs.values() for t in leg.tuples
        }

    def commands(self, kind: type) -> list:
        return [command for command in self.client.log if isinstance(command, kind)]


@asynccontextmanager
async def open_world(run_dir: Path, workers: int = 1) -> AsyncIterator[World]:
    """With a data plane; nothing has been told yet."""
    made = World(run_dir, workers)
    await made.open()
    yield made
    await made.close()
