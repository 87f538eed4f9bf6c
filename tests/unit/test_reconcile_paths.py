"""The reconciler's flows and headers: when they open, close, and are sent."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from reconcile_kit import World, open_world
from rooms_kit import tuple5

from forwarder.commands import LegHeader, LegRemove, LegSet, RouteSet
from forwarder.dataplane.setup import Interface
from forwarder.dataplane.steering_abi import Flow
from forwarder.net.mirror import Unresolved
from forwarder.supervisor.legpaths import LegPaths
from forwarder.table import HeaderTemplate, Leg, Suite


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


async def test_flows_open_after_their_leg_and_close_before_it_goes(world: World) -> None:
    await world.begin()
    person = world.join(5001)
    await world.settle()
    log = world.client.log
    told = next(i for i, c in enumerate(log) if isinstance(c, LegSet))
    assert told < log.index(("open", person.leg))  # type: ignore[arg-type]
    log.clear()
    world.rooms.leave(person.id, "bye", 1.0)
    await world.settle()
    gone = next(i for i, c in enumerate(log) if isinstance(c, LegRemove))
    assert log.index(("close", person.leg)) < gone  # type: ignore[arg-type]


async def test_a_moved_address_moves_the_flow(world: World) -> None:
    await world.begin()
    person = world.join(5001)
    await world.settle()
    world.client.log.clear()
    world.rooms.set_tuples(person.id, [tuple5(5001), tuple5(5009)], 1)
    await world.settle()
    world.equal()
    assert ("close", person.leg) not in world.client.log, "the old address is still valid"
    world.rooms.set_tuples(person.id, [tuple5(5009)], 0)
    await world.settle()
    world.equal()
    assert world.in_force == [person.leg], "told once, when its first address was in force"


async def test_an_address_that_now_is_somebody_elses(world: World) -> None:
    """A client that joined anew from the same socket."""
    await world.begin()
    old, new = world.join(5001), world.join(5002)
    await world.settle()
    world.rooms.set_tuples(new.id, [tuple5(5001)], 0)
    await world.settle()
    world.equal()
    assert {flow.leg for flow in world.flows.table.values()} == {new.leg}
    assert world.plane.table.legs[old.leg].tuples == ()


async def test_a_full_flow_table_is_no_flow_but_no_fault(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.begin()
    world.flows.full = True
    with caplog.at_level(logging.ERROR):
        world.join(5001)
        await world.settle()
    assert "cannot be opened" in caplog.text and world.flows.table == {}
    world.flows.full = False
    world.reconciler.overflowed()
    await world.settle()
    world.equal()


async def test_headers_are_sent_when_their_bytes_change(world: World) -> None:
    await world.begin()
    person = world.join(5001)
    await world.settle()
    assert [c.template.header for c in world.commands(LegHeader)] == [b"header-1"]
    world.header = HeaderTemplate(3, 0, 14, b"header-1", 2)  # another generation, same bytes
    world.reconciler.routes_changed()
    await world.settle()
    assert len(world.commands(LegHeader)) == 1
    world.header = HeaderTemplate(3, 0, 14, b"header-2", 3)
    world.reconciler.routes_changed()
    await world.settle()
    assert [c.template.header for c in world.commands(LegHeader)] == [b"header-1", b"header-2"]
    world.header = HeaderTemplate(4, 1, 14, b"header-2", 4)  # another interface
    world.reconciler.routes_changed()
    await world.settle()
    assert len(world.commands(LegHeader)) == 3
    world.header = Unresolved("192.0.2.7 does not answer yet")
    world.reconciler.routes_changed()
    await world.settle()
    last = world.commands(LegHeader)[-1].template
    assert last.interface is None and last.header == b""
    assert world.paths.unresolved == {person.leg: "192.0.2.7 does not answer yet"}
    world.rooms.leave(person.id, "bye", 1.0)
    await world.settle()
    assert world.paths.unresolved == {}


async def test_a_leg_without_an_address_has_no_header(world: World) -> None:
    await world.begin()
    world.join()
    await world.settle()
    assert world.commands(LegHeader) == []
    assert world.in_force == []


SPLIT = (Interface("a", 3, 0, False, 0, 1), Interface("b", 4, 64, False, 1, 1))


@pytest_asyncio.fixture
async def split(tmp_path: Path) -> AsyncIterator[World]:
    """Worker 0 serves interface 0, worker 1 interface 1; every leg is reached by world.header."""
    async with open_world(tmp_path, workers=2) as made:
        made.paths = LegPaths(made.flows, lambda *at: made.header, SPLIT, 2)
        made.reconciler._paths = made.paths
        yield made


def ways(port: int) -> HeaderTemplate:
    return HeaderTemplate(3 + port, port, 14, b"header of %d" % port, 1)


async def test_a_leg_belongs_to_a_worker_of_its_interface(split: World) -> None:
    await split.begin()
    first, second = split.call()
    await split.settle()
    assert {first.worker, second.worker} == {0}, "from the start: nothing was told twice"
    assert split.commands(LegRemove) == []
    assert {c.template.interface for c in split.commands(LegHeader)} == {0}
    split.equal()
    split.client.log.clear()
    split.header = ways(1)
    split.reconciler.routes_changed()
    await split.settle()
    split.equal()
    assert {first.worker, second.worker} == {1}
    assert set(split.flows.table.values()) == {Flow(first.leg, 1), Flow(second.leg, 1)}
    assert split.reconciler.counters["moved"] >= 2
    log = split.client.log
    for who in (first, second):
        closed, opened = log.index(("close", who.leg)), log.index(("open", who.leg))
        assert closed < log.index(LegRemove(who.leg)) < opened
        (told,) = [c.template for c in split.commands(LegHeader) if c.leg == who.leg]
        assert told.interface == 1
    assert len(split.commands(RouteSet)) == 2
    assert sorted(split.in_force) == [first.leg, second.leg], "in force once"


async def test_a_way_that_is_not_known_moves_nobody(split: World) -> None:
    await split.begin()
    person = split.join(5001)
    await split.settle()
    split.header = Unresolved("192.0.2.7 does not answer yet")
    split.reconciler.routes_changed()
    await split.settle()
    assert person.worker == 0 and split.commands(LegRemove) == []


async def test_the_next_supervisor_finishes_a_move(split: World) -> None:
    """The old one was killed after it saved the new worker, before it told."""
    await split.begin()
    split.call()
    await split.settle()
    split.header = ways(1)
    split.reconciler.overflowed()  # compares with a dump, as after an adoption
    await split.settle()
    split.equal()
    assert {leg.worker for leg in split.plane.table.legs.values()} == {1}


def test_meanwhile_a_leg_goes_through_its_socket() -> None:
    paths = LegPaths(None, lambda *at: ways(1), SPLIT, 2)
    near, far = (
        Leg(1, worker, 1, Suite.AEAD_AES_128_GCM, b"k" * 16, b"s" * 12, b"k" * 16, b"s" * 12,
            tuples=(tuple5(501),), nominated=0)
        for worker in (1, 0)
    )  # fmt: skip
    assert paths.home(far) == {1}
    there = paths.header(near)
    assert there is not None and there.template.interface == 1
    there = paths.header(far)
    assert there is not None and there.template.interface is None
