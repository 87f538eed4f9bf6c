"""The reconciler's flows and headers: when they open, close, and are sent."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from reconcile_kit import World, open_world
from rooms_kit import tuple5

from forwarder.commands import LegHeader, LegRemove, LegSet
from forwarder.net.mirror import Unresolved
from forwarder.table import HeaderTemplate


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
