"""Change the table of a living data plane, and hear what its workers tell.

Law: commands are pushed in the order in which they are given; one that relies on another that
is not answered yet, on another worker, waits for it (placement.py).  What is in flight never
exceeds a ring, so no ring overflows by commands.  Each command comes to one Outcome; when the
process is lost, whatever is in flight raises DataPlaneLost and the table is empty.  Each such
loss is followed by the DataPlane's `on_restarted`, upon which the owner replays the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from forwarder.commands import Command
from forwarder.dataplane.abi import STATUSES, lib
from forwarder.dataplane.encode import decode_event, encode, encode_dump
from forwarder.dataplane.events import Event
from forwarder.dataplane.outcome import Dump, Outcome
from forwarder.dataplane.placement import Key, NotThere, Placement, Plan, Undo
from forwarder.dataplane.process import DataPlane
from forwarder.errors import DataPlaneError, DataPlaneLost

log = logging.getLogger(__name__)

EVENTS_A_TURN = 512
"""Events taken from a worker before the loop gets its turn."""
ANSWER_TIMEOUT_S = 10.0
"""A hung worker is the watchdog's matter long before this."""
DUMP_ATTEMPTS = 3

_DUMP_KINDS = {
    lib.VC_EVT_DUMP_LEG: "leg",
    lib.VC_EVT_DUMP_SOURCE: "source",
    lib.VC_EVT_DUMP_ROUTE: "route",
}


@dataclass
class _Pending:
    command: Command | None  # None: a dump
    plan: Plan
    waiting: set[int]
    answer: asyncio.Future[int]
    status: int = 0
    undo: Undo | None = None


class CommandClient:
    """The supervisor's end of all workers' rings.

    `on_event` gets each event; `on_overflow` is called when events were lost: dump, and
    compare.  Both are called in the event loop and must not raise.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        on_event: Callable[[Event], None] | None = None,
        on_overflow: Callable[[], None] | None = None,
    ) -> None:
        self._plane = plane
        self.on_event = on_event
        self.on_overflow = on_overflow
        workers = len(plane.segments)
        self.placement = Placement(workers)
        self._ids = itertools.count(int.from_bytes(os.urandom(4), "little") << 32 | 1)
        self._pending: dict[int, _Pending] = {}
        self._writing: dict[Key, dict[int, Plan]] = {}  # of what is pending
        self._reading: dict[Key, dict[int, Plan]] = {}
        self._in_flight = [0] * workers
        self._limit = [
            max(1, min(s.command_capacity, s.event_capacity // 2)) for s in plane.segments
        ]
        self._progress = asyncio.Event()
        self._dumping = asyncio.Lock()
        self._dump: Dump = {}
        self._loop = asyncio.get_running_loop()
        self._open = True
        for worker in range(workers):
            self._loop.add_reader(plane.event_bell(worker), self._on_bell, worker)
        plane.on_lost.append(self._on_lost)

    def close(self) -> None:
        """Stops listening; call before the DataPlane is closed."""
        if self._open:
            self._open = False
            for worker in range(len(self._in_flight)):
                self._loop.remove_reader(self._plane.event_bell(worker))
            self._plane.on_lost.remove(self._on_lost)
            self._fail(DataPlaneLost("the connection to the data plane was closed"))

    # ---- commands ---------------------------------------------------------------------------

    async def apply(self, commands: Iterable[Command]) -> None:
        """Applies commands in order; raises CommandRefused for the first that was refused.

        Those after a refused one may or may not have been applied: apply_all tells.
        """
        for outcome in await self.apply_all(commands):
            if not outcome.ok:
                raise outcome.error()

    async def apply_all(self, commands: Iterable[Command]) -> list[Outcome]:
        """Applies commands in order, goes on past refused ones, and tells how each came out."""
        sent: list[tuple[Command, _Pending | Outcome]] = []
        for command in commands:
            for each in self.placement.expand(command):
                try:
                    sent.append((each, await self._send(each)))
                except NotThere as missing:
                    sent.append((each, Outcome(each, missing.status, str(missing))))
        outcomes = []
        for command, item in sent:
            if isinstance(item, Outcome):
                outcomes.append(item)
                continue
            status = await self._answer(item)
            label, sentence = STATUSES[status] if status < len(STATUSES) else (str(status), "?")
            outcomes.append(Outcome(command, label, sentence))
        return outcomes

    async def _send(self, command: Command) -> _Pending:
        while True:
            plan = self.placement.plan(command)
            if not self._blocked(plan):
                break
            self._progress.clear()
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await self._progress.wait()
            except TimeoutError:
                raise DataPlaneLost(
                    f"no worker answered within {ANSWER_TIMEOUT_S:g} s; {command!r} was not sent"
                ) from None
        pending = self._push(command, plan, lambda command_id: encode(command, command_id))
        pending.undo = self.placement.placed(command)
        return pending

    def _blocked(self, plan: Plan) -> bool:
        if any(self._in_flight[w] >= self._limit[w] for w in plan.workers):
            return True
        # Many routes read one source: two readers are never compared.
        tables = [(self._writing, plan.reads | plan.writes), (self._reading, plan.writes)]
        return any(
            plan.must_wait_for(earlier)
            for table, keys in tables
            for key in keys
            for earlier in table.get(key, {}).values()
        )

    def _push(self, command: Command | None, plan: Plan, record: Callable[[int], Any]) -> _Pending:
        command_id = next(self._ids)
        encoded = record(command_id)
        pending = _Pending(command, plan, set(plan.workers), self._loop.create_future())
        for worker in plan.workers:
            if not self._plane.segments[worker].push(encoded):
                raise DataPlaneError(f"the command ring of worker {worker} is full")
            self._in_flight[worker] += 1
        self._pending[command_id] = pending
        for table, keys in ((self._writing, plan.writes), (self._reading, plan.reads)):
            for key in keys:
                table.setdefault(key, {})[command_id] = plan
        for worker in plan.workers:
            self._plane.ring(worker)
        return pending

    async def _answer(self, pending: _Pending) -> int:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await asyncio.shield(pending.answer)
        except TimeoutError:
            raise DataPlaneLost(
                f"no answer to {pending.command!r} within {ANSWER_TIMEOUT_S:g} s"
            ) from None

    # ---- dump -------------------------------------------------------------------------------

    async def dump(self) -> Dump:
        """What the workers hold; also corrects this client's idea of who owns what."""
        async with self._dumping:
            for _ in range(DUMP_ATTEMPTS):
                self._dump = {kind: {} for kind in _DUMP_KINDS.values()}
                plans = [
                    Plan(frozenset({w}), frozenset(), frozenset())
                    for w in range(len(self._in_flight))
                ]
                try:
                    waits = [self._push(None, plan, encode_dump) for plan in plans]
                    for pending in waits:
                        await self._answer(pending)
                except _AnswersLost:
                    continue
                for kind, found in self._dump.items():
                    self.placement.keep(kind, found)
                return self._dump
        raise DataPlaneError(f"a dump overflowed the event ring {DUMP_ATTEMPTS} times")

    # ---- events -----------------------------------------------------------------------------

    def _on_bell(self, worker: int) -> None:
        with contextlib.suppress(BlockingIOError):  # emptied meanwhile
            os.eventfd_read(self._plane.event_bell(worker))
        self._take(worker)

    def _take(self, worker: int) -> None:
        if not self._open:
            return
        segment = self._plane.segments[worker]
        for _ in range(EVENTS_A_TURN):
            record = segment.pop()
            if record is None:
                break
            self._on_record(worker, record)
        else:
            self._loop.call_soon(self._take, worker)
            return
        if segment.take_overflow():
            self._on_overflow(worker)

    def _on_record(self, worker: int, record: Any) -> None:
        if record.type == lib.VC_EVT_APPLIED:
            self._on_applied(worker, int(record.u.applied.id), int(record.u.applied.status))
            return
        kind = _DUMP_KINDS.get(record.type)
        if kind is not None:
            if self._dump:
                self._dump[kind][record.u.object.object] = record.u.object.digest
                self.placement.found(kind, record.u.object.object, worker)
            return
        event = decode_event(record)
        if event is not None and self.on_event is not None:
            self.on_event(event)

    def _on_applied(self, worker: int, command_id: int, status: int) -> None:
        pending = self._pending.get(command_id)
        if pending is None or worker not in pending.waiting:
            return
        pending.waiting.discard(worker)
        self._in_flight[worker] -= 1
        pending.status = pending.status or status
        if not pending.waiting:
            self._forget(command_id)
            if pending.command is not None and pending.undo is not None:
                self.placement.answered(pending.command, pending.status == 0, pending.undo)
            if not pending.answer.done():
                pending.answer.set_result(pending.status)
        self._progress.set()

    def _forget(self, command_id: int) -> None:
        plan = self._pending.pop(command_id).plan
        for table, keys in ((self._writing, plan.writes), (self._reading, plan.reads)):
            for key in keys:
                touching = table[key]
                del touching[command_id]
                if not touching:
                    del table[key]

    def _on_overflow(self, worker: int) -> None:
        log.warning("worker %d: events were lost; the table must be dumped", worker)
        for command_id, pending in list(self._pending.items()):
            if worker in pending.waiting:
                self._forget(command_id)
                for other in pending.waiting:
                    self._in_flight[other] -= 1
                _reject(pending, _AnswersLost(f"the answer to {pending.command!r} was lost: dump"))
        self._progress.set()
        if self.on_overflow is not None:
            self.on_overflow()

    def _on_lost(self) -> None:
        self._fail(DataPlaneLost("the data plane ended; its table is empty now"))
        self.placement.clear()

    def _fail(self, error: DataPlaneLost) -> None:
        pending, self._pending = self._pending, {}
        self._writing.clear()
        self._reading.clear()
        self._in_flight = [0] * len(self._in_flight)
        for item in pending.values():
            _reject(item, error)
        self._progress.set()


class _AnswersLost(DataPlaneLost):
    """The event ring was full when an answer was due."""


def _reject(pending: _Pending, error: DataPlaneLost) -> None:
    if not pending.answer.done():
        pending.answer.set_exception(error)
        pending.answer.exception()  # somebody may have stopped waiting: that is no error
