"""The contract of a data plane, held by the fake and by the real process alike."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from planes import SETUP, WORLDS, World, leg, route, source

from forwarder.commands import (
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
from forwarder.dataplane.fake import WHY
from forwarder.errors import CommandRefused, DataPlaneLost
from forwarder.table import Codec, Ext, HeaderTemplate, Queue, extensions

BASE = (LegSet(leg(1)), LegSet(leg(2)), SourceSet(source(1)), RouteSet(route(1)))


@pytest_asyncio.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with WORLDS[request.param](tmp_path, SETUP) as made:
        yield made


@pytest_asyncio.fixture(params=["fake", "real"])
async def two_workers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with WORLDS[request.param](tmp_path, dataclasses.replace(SETUP, workers=2)) as made:
        yield made


async def test_what_was_set_is_dumped(world: World) -> None:
    assert await world.client.dump() == {"leg": {}, "source": {}, "route": {}}
    await world.client.apply(BASE)
    assert await world.client.dump() == {
        "leg": {1: leg(1).digest, 2: leg(2).digest},
        "source": {1: source(1).digest},
        "route": {1: route(1).digest},
    }


async def test_a_table_is_taken_down_in_reverse(world: World) -> None:
    await world.client.apply(BASE)
    await world.client.apply([RouteRemove(1), SourceRemove(1), LegRemove(2), LegRemove(1)])
    assert await world.client.dump() == {"leg": {}, "source": {}, "route": {}}
    await world.client.apply(BASE)  # the ids may be used again
    assert (await world.client.dump())["route"] == {1: route(1).digest}


async def test_changes_of_living_objects(world: World) -> None:
    await world.client.apply(BASE)
    changed_leg = leg(1, rate_bps=5_000_000)
    changed_route = route(1, source=2, paused=True)
    await world.client.apply(
        [
            LegSet(changed_leg),
            LegRate(2, 1_000_000),
            LegHeader(2, HeaderTemplate(1, None, 0, b"", 1)),
            SourceSet(source(2)),
            RouteSet(changed_route),
            RouteFilter(1, paused=False),
            KeyframeRequest(2),
        ]
    )
    dump = await world.client.dump()
    assert dump["leg"][1] == changed_leg.digest
    assert dump["route"][1] == changed_route.digest


REFUSED = [
    ("bad_id", LegSet(leg(16))),
    ("bad_value", LegSet(leg(3, worker=1))),
    ("bad_value", LegSet(leg(3, local=1))),
    ("duplicate_tuple", LegSet(leg(3, tuples=leg(1).tuples))),
    ("duplicate_tuple", LegSet(leg(3, tuples=leg(3).tuples * 2))),
    ("bad_value", LegSet(leg(3, tx_ext=extensions({Ext.MID: 3, Ext.RID: 3})))),
    ("bad_value", LegSet(leg(3, dscp_audio=64))),
    ("no_leg", LegRate(3, 1)),
    ("no_leg", LegRemove(3)),
    ("no_leg", LegHeader(3, HeaderTemplate(1, None, 0, b"", 1))),
    ("bad_value", LegHeader(2, HeaderTemplate(1, 0, 14, bytes(42), 1))),
    ("in_use", LegRemove(1)),
    ("in_use", LegRemove(2)),
    ("bad_id", SourceSet(source(16))),
    ("no_leg", SourceSet(source(2, leg=3))),
    ("duplicate_ssrc", SourceSet(source(2, ssrc=source(1).ssrc))),
    ("identity", SourceSet(source(1, leg=2))),
    ("duplicate_ssrc", SourceSet(source(2, ssrc=9, rtx_ssrc=source(1).ssrc, rtx_pt=97))),
    ("no_source", SourceRemove(2)),
    ("in_use", SourceRemove(1)),
    ("no_source", KeyframeRequest(2)),
    ("bad_id", RouteSet(route(64))),
    ("no_leg", RouteSet(route(2, leg=3))),
    ("no_source", RouteSet(route(2, source=2))),
    ("duplicate_ssrc", RouteSet(route(2, out_ssrc=route(1).out_ssrc))),
    ("identity", RouteSet(route(1, out_ssrc=7))),
    ("identity", RouteSet(route(1, seq_start=7))),
    ("identity", RouteSet(route(1, ts_offset=7))),
    ("identity", RouteSet(route(1, rtx_ssrc=7, rtx_pt=97))),
    ("duplicate_ssrc", RouteSet(route(2, rtx_ssrc=route(1).out_ssrc, rtx_pt=97))),
    ("no_route", RouteFilter(2)),
    ("no_route", RouteRemove(2)),
]


@pytest.mark.parametrize(
    ("status", "command"), REFUSED, ids=[f"{s}-{type(c).__name__}-{i}" for i, (s, c) in
                                         enumerate(REFUSED)],
)  # fmt: skip
async def test_a_bad_command_is_refused_and_changes_nothing(
    world: World, status: str, command
) -> None:
    await world.client.apply(BASE)
    before = await world.client.dump()
    (outcome,) = await world.client.apply_all([command])
    assert outcome.status == status
    assert await world.client.dump() == before
    with pytest.raises(CommandRefused, match=type(command).__name__) as refused:
        await world.client.apply([command])
    assert status in str(refused.value)


async def test_a_refused_command_does_not_stop_the_next(world: World) -> None:
    outcomes = await world.client.apply_all(
        [LegSet(leg(1)), SourceSet(source(1, leg=9)), LegSet(leg(2))]
    )
    assert [outcome.status for outcome in outcomes] == ["ok", "no_leg", "ok"]
    assert set((await world.client.dump())["leg"]) == {1, 2}


async def test_histories_of_a_class_run_out_and_come_back(world: World) -> None:
    await world.client.apply([LegSet(leg(1))])
    outcomes = await world.client.apply_all([SourceSet(source(i)) for i in (1, 2, 3)])
    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "history_full"]
    audio = source(4, queue=Queue.AUDIO, codec=Codec.OPAQUE, clock_hz=48000)
    await world.client.apply([SourceSet(audio), SourceRemove(1), SourceSet(source(3))])


async def test_order_across_workers(two_workers: World) -> None:
    """Sources on one worker, routes on the other: each command finds what it relies on."""
    legs = [leg(1), leg(2, worker=1)]
    routes = [route(i, source=1 + i % 2) for i in range(1, 33)]
    up = [*map(LegSet, legs), SourceSet(source(1)), SourceSet(source(2)), *map(RouteSet, routes)]
    down = [
        *(RouteRemove(r.id) for r in routes),
        SourceRemove(1),
        SourceRemove(2),
        LegRemove(2),
        LegRemove(1),
    ]
    for _ in range(5):
        await two_workers.client.apply(up)
        assert len((await two_workers.client.dump())["route"]) == len(routes)
        await two_workers.client.apply(down)
    assert await two_workers.client.dump() == {"leg": {}, "source": {}, "route": {}}


async def test_a_leg_moves_only_by_remove_and_set(two_workers: World) -> None:
    await two_workers.client.apply([LegSet(leg(1))])
    (outcome,) = await two_workers.client.apply_all([LegSet(leg(1, worker=1))])
    assert outcome.status == "not_owner"
    moved = leg(1, worker=1)
    await two_workers.client.apply([LegRemove(1), LegSet(moved), SourceSet(source(1))])
    assert (await two_workers.client.dump())["leg"] == {1: moved.digest}


async def test_more_commands_than_a_ring_holds(world: World) -> None:
    await world.client.apply(BASE)
    rates = [LegRate(1 + i % 2, 1_000_000 + i) for i in range(5000)]
    outcomes = await world.client.apply_all(rates)
    assert len(outcomes) == 5000 and all(outcome.ok for outcome in outcomes)
    assert world.plane.counters()["commands_refused"] == 0


async def test_gauges_count_what_is_there(world: World) -> None:
    await world.client.apply(BASE)

    async def settled() -> tuple[int, int, int]:
        counters = world.plane.counters()
        return counters["legs"], counters["sources"], counters["routes"]

    async with asyncio.timeout(5):
        while await settled() != (2, 1, 1):
            await world.client.dump()


async def test_a_restart_empties_the_table_and_it_is_replayed(world: World) -> None:
    told = []
    world.plane.on_restarted = told.append
    await world.client.apply(BASE)
    pid = world.plane.pid
    await world.plane.restart("a test")
    assert len(told) == 1 and world.plane.restarts == 1
    assert world.plane.pid != pid
    assert await world.client.dump() == {"leg": {}, "source": {}, "route": {}}
    await world.client.apply(BASE)
    assert set((await world.client.dump())["leg"]) == {1, 2}


def test_the_fakes_sentences_are_those_of_the_contract() -> None:
    abi = pytest.importorskip("forwarder.dataplane.abi", reason="_ring is not built")
    assert WHY.items() <= dict(abi.STATUSES).items()


def test_lost_is_an_error_of_its_own() -> None:
    assert not issubclass(DataPlaneLost, CommandRefused)
