"""Full rings, lost answers, a program that does not start: counted, told, recovered."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from planes import SETUP, World, find_real, leg, real_world, route, source

pytest.importorskip("forwarder.dataplane.abi", reason="_ring is not built")
from forwarder.commands import KeyframeRequest, LegRate, LegSet, RouteSet, SourceSet
from forwarder.dataplane.abi import Segment
from forwarder.dataplane.commands import CommandClient
from forwarder.dataplane.encode import encode
from forwarder.dataplane.process import DataPlane
from forwarder.errors import DataPlaneLost


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with real_world(tmp_path, dataclasses.replace(SETUP, routes_max=8192)) as made:
        await made.client.apply([LegSet(leg(1)), LegSet(leg(2)), SourceSet(source(1))])
        yield made


def push_all(plane: DataPlane, count: int) -> None:
    """Pushes commands past the client, which would never have so many under way, and does not
    let the event loop read the answers."""
    segment: Segment = plane.segments[0]
    deadline = time.monotonic() + 20
    for i in range(count):
        while not segment.push(encode(KeyframeRequest(1), 1 + i)):
            plane.ring(0)
            assert time.monotonic() < deadline, "the worker does not take commands"
        plane.ring(0)
    while plane.counters()["events_lost"] == 0:
        assert time.monotonic() < deadline, "the event ring did not overflow"


async def test_lost_events_are_told_and_the_table_is_dumped_again(world: World) -> None:
    told = asyncio.Event()
    world.client.on_overflow = told.set
    push_all(world.plane, world.plane.segments[0].event_capacity + 500)
    async with asyncio.timeout(20):
        await told.wait()
    assert (await world.client.dump())["leg"] == {1: leg(1).digest, 2: leg(2).digest}
    await world.client.apply([LegRate(1, 5)])  # the rings serve on
    assert world.plane.counters()["events_lost"] > 0


async def test_answers_that_were_lost_raise(world: World) -> None:
    """Whoever waits for an answer that found the ring full is told, and does not hang."""
    waiting = asyncio.create_task(world.client.apply([LegRate(1, 7)]))
    await asyncio.sleep(0)
    world.client._on_overflow(0)
    with pytest.raises(DataPlaneLost, match="lost"):
        await waiting
    await world.client.apply([LegRate(1, 8)])


async def test_a_dump_larger_than_the_event_ring(world: World) -> None:
    routes = [route(i, out_ssrc=i + 1) for i in range(6000)]
    assert len(routes) > world.plane.segments[0].event_capacity
    await world.client.apply(map(RouteSet, routes))
    dump = await world.client.dump()
    assert dump["route"] == {item.id: item.digest for item in routes}
    assert world.plane.counters()["events_lost"] == 0


async def test_a_program_that_does_not_start_is_tried_again(tmp_path: Path) -> None:
    """Each failure is told; the restart succeeds once the program is in order again."""
    binary = tmp_path / "vcfwd-dataplane"
    binary.symlink_to(find_real())
    run_dir = tmp_path / "run"
    plane = DataPlane(run_dir, binary=binary)
    await plane.start(SETUP)
    client = CommandClient(plane)
    failures: list[str] = []
    back = asyncio.Event()

    def on_failed(sentence: str) -> None:
        failures.append(sentence)
        if len(failures) == 2:
            binary.symlink_to(find_real())

    plane.on_failed, plane.on_restarted = on_failed, lambda gap_ms: back.set()
    binary.unlink()
    os.kill(plane.pid, signal.SIGKILL)
    try:
        async with asyncio.timeout(30):
            await back.wait()
        assert len(failures) == 2 and "cannot start" in failures[0]
        await client.apply([LegSet(leg(1))])
    finally:
        client.close()
        await plane.shutdown()


async def test_commands_while_the_data_plane_is_gone(world: World) -> None:
    """Both what was under way and what comes later is told; nothing hangs."""
    os.kill(world.plane.pid, signal.SIGSTOP)
    results = await asyncio.gather(
        *(world.client.apply([LegRate(1, i)]) for i in range(3000)), return_exceptions=True
    )
    lost = [result for result in results if result is not None]
    assert len(lost) == 3000
    await world.client.apply([LegSet(leg(1))])
