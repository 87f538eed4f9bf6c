"""The reconciler on the fake data plane: whatever happens, the table becomes plan(rooms) again."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from reconcile_kit import PATIENCE_S, World, open_world
from rooms_kit import tuple5

from forwarder.commands import (
    Command,
    KeyframeRequest,
    LegHeader,
    LegRemove,
    LegSet,
    RouteFilter,
    RouteRemove,
    RouteSet,
    SourceRemove,
    SourceSet,
)
from forwarder.dataplane.steering_abi import Flow
from forwarder.errors import DataPlaneLost
from forwarder.rooms.plan import plan
from forwarder.supervisor import reconcile
from forwarder.table import Leg, Queue, Route, Source, Suite, Tuple5


@pytest_asyncio.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(reconcile, "RETRY_S", 0.0)
    async with open_world(tmp_path) as made:
        yield made


async def test_settle_returns_when_the_table_is_in_force(world: World) -> None:
    await world.begin()
    first, second = world.call()
    await world.settle()
    world.equal()
    assert sorted(world.in_force) == sorted([first.leg, second.leg])
    assert world.saved, "what survives was not saved"
    world.rooms.leave(first.id, "bye", 1.0)
    await world.settle()
    world.equal()
    assert world.plane.table.sources == {} and list(world.plane.table.legs) == [second.leg]


async def test_saved_before_the_data_plane_is_told(world: World) -> None:
    await world.begin()
    world.client.before = lambda batch: seen.append(len(world.saved))
    seen: list[int] = []
    world.join(5001)
    await world.settle()
    assert seen and min(seen) == len(world.saved)


async def test_many_settles_are_one_round(world: World) -> None:
    await world.begin()
    batches: list[int] = []
    world.client.before = lambda batch: batches.append(len(batch))
    for port in range(6000, 6040):
        world.join(port)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(world.reconciler.settle() for _ in range(40)))
    assert len(batches) == 1
    world.equal()


async def test_settle_waits_for_what_came_during_a_round(world: World) -> None:
    """A round under way may have missed the change: the next one counts."""
    await world.begin()
    late: list[asyncio.Task[None]] = []

    def meanwhile(batch: list[Command]) -> None:
        world.client.before = None
        person = world.join(5002)

        async def settle_and_look() -> None:
            await world.reconciler.settle()
            assert person.leg in world.plane.table.legs

        late.append(asyncio.create_task(settle_and_look()))

    world.client.before = meanwhile
    world.join(5001)
    await world.settle()
    async with asyncio.timeout(PATIENCE_S):
        await late[0]
    world.equal()


async def test_a_restarted_data_plane_is_told_everything(world: World) -> None:
    await world.begin()
    world.call()
    await world.settle()
    headers = len(world.commands(LegHeader))
    assert headers == 2
    world.plane.crash()
    assert world.plane.table.legs == {}
    await world.settle()
    world.equal()
    assert len(world.commands(LegHeader)) == 2 * headers, "it has no headers any more"
    assert world.reconciler.counters["replays"] == 2  # the first one at the start


async def test_nothing_is_sent_to_a_data_plane_that_is_gone(world: World) -> None:
    await world.begin()
    world.reconciler.lost()
    world.client.log.clear()
    person = world.join(5001)
    settled = asyncio.create_task(world.reconciler.settle())
    await world.turns()
    assert world.client.log == [] and not settled.done()
    world.reconciler.restarted()
    async with asyncio.timeout(PATIENCE_S):
        await settled
    assert person.leg in world.plane.table.legs


async def test_the_data_plane_ends_in_a_round(world: World) -> None:
    await world.begin()

    def gone(batch: list[Command]) -> None:
        world.client.before = None
        raise DataPlaneLost("it ended")

    world.client.before = gone
    world.join(5001)
    settled = asyncio.create_task(world.reconciler.settle())
    await world.turns()
    assert not settled.done() and world.plane.table.legs == {}
    world.plane.crash()  # and is there again
    async with asyncio.timeout(PATIENCE_S):
        await settled
    world.equal()


async def test_it_is_back_before_the_round_knows_that_it_went(world: World) -> None:
    await world.begin()

    def quick(batch: list[Command]) -> None:
        world.client.before = None
        world.plane.crash()
        raise DataPlaneLost("it ended")

    world.client.before = quick
    world.join(5001)
    await world.settle()
    world.equal()


async def test_lost_answers_are_no_lost_data_plane(world: World) -> None:
    """The event ring was full: the commands may have been carried out; a dump tells."""
    await world.begin()
    world.call()
    await world.settle()

    def half(batch: list[Command]) -> None:
        world.client.before = None
        world.client._apply(batch[0])
        world.reconciler.overflowed()
        raise DataPlaneLost("answers were lost")

    world.client.before = half
    world.join(5003)
    await world.settle()
    world.equal()
    assert world.reconciler.counters["dumps"] == 1


async def test_an_overflow_finds_what_went_wrong_unseen(world: World) -> None:
    await world.begin()
    first, second = world.call()
    world.rooms.mute(first.id, next(iter(first.tracks)), True)
    await world.settle()
    table = world.plane.table
    table.routes.popitem()
    table.legs[77] = dataclasses.replace(table.legs[second.leg], id=77, tuples=(tuple5(7777),))
    world.client.log.clear()
    world.reconciler.overflowed()
    await world.settle()
    world.equal()
    assert [command.leg for command in world.commands(LegRemove)] == [77]
    assert len(world.commands(RouteSet)) == 1, "what was there needs no command"
    paused = [command for command in world.commands(RouteFilter) if command.paused]
    assert paused, "a dump does not tell what is paused"


async def test_an_adopted_data_plane_is_compared(world: World) -> None:
    """Strays of an earlier supervisor go, what is missing comes, what is right stays untouched."""
    first, second = world.call()
    want = plan(world.rooms)
    table = world.plane.table
    table.legs.update({first.leg: want.legs[first.leg], 9: stray_leg(9)})
    table.sources[30] = Source(30, 9, 0x999, queue=Queue.AUDIO)
    table.routes[40] = Route(40, 9, 30, 0, 0x777)
    world.flows.table[Tuple5("192.0.2.9", 9, "127.0.0.1", 4433)] = Flow(9, 0)
    await world.begin(adopted=True)
    world.equal()
    assert [c.leg.id for c in world.commands(LegSet)] == [second.leg]
    assert world.in_force == [second.leg]
    # What the earlier supervisor sent is not known.
    assert {c.leg for c in world.commands(LegHeader)} == {first.leg, second.leg}
    order = [type(c) for c in world.client.log if type(c) in (RouteRemove, SourceRemove, LegRemove)]
    assert order == [RouteRemove, SourceRemove, LegRemove]
    assert world.reconciler.counters["dumps"] == 1
    assert world.reconciler.counters["refused"] == 0


async def test_what_would_not_go_keeps_its_id_and_is_asked_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A stray source that a route still reads: nobody gets its id until it is gone."""
    table = world.plane.table
    table.legs[0] = stray_leg(0)
    table.sources[0] = Source(0, 0, 0x999, queue=Queue.AUDIO)
    world.client.refuse = lambda c: "in_use" if isinstance(c, SourceRemove | LegRemove) else ""
    with caplog.at_level(logging.INFO):
        await world.begin(adopted=True)
    refusals = [r for r in caplog.records if "in_use" in r.getMessage()]
    assert refusals and {r.levelno for r in refusals} == {logging.INFO}
    first, _ = world.call()
    ids = {layer.source for track in first.tracks.values() for layer in track.layers}
    assert 0 not in ids and first.leg != 0
    world.client.refuse = None
    async with asyncio.timeout(PATIENCE_S):
        while 0 in table.sources or 0 in table.legs:
            await world.settle()
    world.equal()
    assert world.join().leg == 0


async def test_an_address_moved_while_nobody_looked(world: World) -> None:
    first, second = world.call()
    held = plan(world.rooms).legs
    world.plane.table.legs.update(held)
    for leg in held.values():
        world.flows.table[leg.tuples[0]] = Flow(leg.id, 0)
    world.rooms.set_tuples(first.id, [tuple5(5002)], 0)  # the second one's
    await world.begin(adopted=True)
    world.equal()
    assert world.plane.table.legs[second.leg].tuples == ()


def stray_leg(number: int) -> Leg:
    return Leg(number, 0, 1, Suite.AEAD_AES_128_GCM, b"k" * 16, b"s" * 12, b"k" * 16, b"s" * 12)


async def test_a_refused_command_does_not_stop_the_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.begin()
    world.client.refuse = lambda c: "history_full" if isinstance(c, SourceSet) else ""
    with caplog.at_level(logging.ERROR):
        first, second = world.call()
        await world.settle()
    assert set(world.plane.table.legs) == {first.leg, second.leg}
    assert world.plane.table.sources == {}
    # The sources, and the routes that needed them.
    assert world.reconciler.counters["refused"] == 4
    assert "history_full" in caplog.text
    world.client.refuse = None
    world.reconciler.overflowed()
    await world.settle()
    world.equal()


async def test_lost_indices_end_the_leg(world: World) -> None:
    await world.begin()
    _, second = world.call()
    world.client.refuse = lambda c: "index_lost" if isinstance(c, RouteSet) else ""
    await world.settle()
    assert set(world.index_lost) == {second.leg}


async def test_an_object_that_lives_as_another_restarts_the_data_plane(world: World) -> None:
    await world.begin()
    first, _ = world.call()
    await world.settle()
    first.key_id += 1
    world.rooms.state.touch_participant(first)
    settled = asyncio.create_task(world.reconciler.settle())
    await world.turns()
    assert len(world.identity) == 1 and "alive as another" in world.identity[0]
    assert not settled.done()
    world.plane.crash()
    async with asyncio.timeout(PATIENCE_S):
        await settled
    world.equal()


async def test_a_full_disk_does_not_end_calls(world: World) -> None:
    await world.begin()
    world.disk_full = True
    world.call()
    await world.settle()
    world.equal()
    assert world.reconciler.counters["save_failed"] == 1


async def test_the_loop_outlives_an_error_that_nobody_foresaw(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.begin()

    def fault(batch: list[Command]) -> None:
        world.client.before = None
        raise RuntimeError("a bug")

    world.client.before = fault
    with caplog.at_level(logging.ERROR):
        world.call()
        await world.settle()
    world.equal()
    assert world.reconciler.counters["failed_rounds"] == 1
    assert "a bug" in caplog.text


async def test_requests_outside_the_table_may_be_lost(world: World) -> None:
    await world.begin()
    first, _ = world.call()
    await world.settle()
    source = next(iter(first.tracks.values())).source
    await world.reconciler.send(KeyframeRequest(source))
    assert world.commands(KeyframeRequest) == [KeyframeRequest(source)]
    await world.reconciler.send(KeyframeRequest(63))
    assert world.reconciler.counters["lost_requests"] == 1
