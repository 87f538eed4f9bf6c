"""When parts of a whole node die or lose their words: the call goes on (socket path)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_kit import PATIENCE_S, Call, Site, Up, call_on, node_of, until, up

from forwarder.clock import SystemClock
from forwarder.commands import KeyframeRequest, RouteRemove
from forwarder.dataplane import commands
from forwarder.dataplane.encode import encode
from forwarder.rooms.diff import Observed, diff
from forwarder.rooms.plan import plan
from forwarder.rooms.roles import Role
from forwarder.rtp.suites import Suite
from forwarder.supervisor.node import Node


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.clean_up()


async def status(site: Site) -> dict:
    return await asyncio.to_thread(site.status)


async def test_a_killed_supervisor_loses_no_media(site: Site) -> None:
    """And none of it ever reaches Python, in neither process."""
    with up(site) as first:
        async with call_on(site) as call:
            await call.flows(100)
            seen = await status(site)
            pids = site.dataplanes()
            first.kill()
            await call.flows(100)  # nobody is there but the data plane
            second = Up(site)
            try:
                await asyncio.to_thread(second.ready)
                await until(
                    lambda: (call.publisher.resumed, call.subscriber.resumed) == (1, 1),
                    "both are back by their secrets",
                )
                await call.flows(100)
                await call.end()
                assert call.lost() == [] and len(call.numbers) == call.sent
                assert (call.publisher.rejoined, call.subscriber.rejoined) == (0, 0)
                after = await status(site)
                assert site.dataplanes() == pids and after["dataplane"]["adopted"]
                assert after["legs"]["live"] == 2
                assert after["counters"]["rx_socket"] >= call.sent
                assert seen["slow_path"].get("media", 0) == after["slow_path"].get("media", 0) == 0
                assert after["balanced"], after["imbalance"]
            finally:
                second.clean_up()


class Leaping(SystemClock):
    """Ahead by as much as it was told."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


async def test_a_start_that_takes_minutes_is_nobodys_silence(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grace and consent last 30 s: they begin when the new supervisor can hear somebody."""
    clock, table = Leaping(), Node._start_table

    async def slowly(node: Node) -> None:
        await table(node)  # has taken everybody up
        clock.ahead = 300.0

    monkeypatch.setattr(Node, "_start_table", slowly)
    with up(site) as first:
        async with call_on(site) as call:
            await call.flows(100)
            first.kill()
            async with node_of(site, clock) as second:
                await until(
                    lambda: (call.publisher.resumed, call.subscriber.resumed) == (1, 1),
                    "both are back by their secrets",
                )
                await call.flows(100)
                assert second.datapath.adopted
                await call.end()
                assert call.lost() == [] and len(call.numbers) == call.sent
                assert (call.publisher.rejoined, call.subscriber.rejoined) == (0, 0)


async def test_who_left_meanwhile_is_gone_and_who_came_is_served(site: Site) -> None:
    """The supervisor that adopts holds all legs for the grace time, and serves new ones."""
    with up(site) as first:
        async with call_on(site) as call:
            gone = site.client("gone")
            await gone.__aenter__()
            await until(gone.live.is_set, "it is live")
            gone.media.stop()
            first.kill()
            second = Up(site)
            try:
                await asyncio.to_thread(second.ready)
                async with site.client("new", Role.PASSIVE) as new:
                    assert len(await new.subscribe(auto=True)) == 1
                    await until(new.live.is_set, "the new one is live")
                    (track,) = new.tracks.values()
                    await until(lambda: track.packets_received > 20, "it receives")
                await gone.close()
                await call.flows()
                found = await status(site)
                assert found["rooms"]["tracks"] == 1
            finally:
                second.clean_up()


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_data_plane_dies_under_a_call(site: Site, harm: signal.Signals) -> None:
    async with node_of(site) as node, call_on(site) as call:
        pid = node.plane_pid
        os.kill(pid, harm)
        await until(lambda: node.datapath.plane.restarts == 1, "it is started again")
        await call.flows()
        await call.end()
        lost = call.lost()
        assert lost == list(range(lost[0], lost[-1] + 1)) if lost else True, "not one run"
        assert node.plane_pid != pid
        found = await node.status()
        assert found["balanced"] and found["dataplane"]["last_gap_ms"] > 0
        assert (call.publisher.rejoined, call.subscriber.rejoined) == (0, 0)
        assert call.subscriber.media.srtp is not None
        assert sum(call.subscriber.media.srtp.failures.values()) == 0


async def test_joins_in_the_gap_wait_and_succeed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that meet the gap must not wait for an answer that never comes."""
    monkeypatch.setattr(commands, "ANSWER_TIMEOUT_S", 3600.0)
    async with node_of(site) as node, call_on(site) as call:
        plane = node.datapath.plane
        restarts: list[int] = []

        def somebody_joins() -> None:
            """Between the end of the one and the start of the other."""
            node.rooms.join("r", name="n", role=Role.PASSIVE, suites=[Suite.GCM], now=0.0)
            node._reconciler.changed()

        async def come_and_go() -> None:
            async with site.client("passer-by", Role.PASSIVE) as client:
                await client.subscribe(auto=True)
                await until(client.live.is_set, "its leg is live")

        plane.on_lost.append(somebody_joins)
        for number in range(1, 4):
            passing = asyncio.create_task(come_and_go())
            await asyncio.sleep(0)
            os.kill(node.plane_pid, signal.SIGKILL)
            await until(lambda n=number: plane.restarts == n, "it is started again")
            restarts.append(node.plane_pid)
            await call.flows()
            async with asyncio.timeout(PATIENCE_S):
                await passing
        plane.on_lost.remove(somebody_joins)
        assert len(set(restarts)) == 3 and await equal(node)


async def equal(node: Node) -> bool:
    """The data plane holds plan(rooms), as its own dump says."""
    found = await node._reconciler._client.dump()
    return diff(Observed(found["leg"], found["source"], found["route"]), plan(node.rooms)) == []


def overflow(node: Node, call: Call) -> None:
    """Past the client: a route is removed unseen, and more answers than the event ring holds."""
    plane = node.datapath.plane
    segment = plane.segments[0]
    (route,) = plan(node.rooms).routes
    (source,) = plan(node.rooms).sources
    unseen = [RouteRemove(route)]
    unseen += [KeyframeRequest(source)] * (segment.event_capacity + 500)
    deadline = time.monotonic() + 20
    for i, command in enumerate(unseen):
        while not segment.push(encode(command, 1 + i)):
            plane.ring(0)
            assert time.monotonic() < deadline, "the worker does not take commands"
        plane.ring(0)
    while plane.counters()["events_lost"] == 0:
        assert time.monotonic() < deadline, "the event ring did not overflow"


async def test_an_event_ring_that_overflows(site: Site) -> None:
    """Dump, compare, mend: media goes on and people can join."""
    async with node_of(site) as node, call_on(site) as call:
        assert await equal(node)
        overflow(node, call)
        late = site.client("late", Role.PASSIVE)  # its commands may meet lost answers
        try:
            await late.__aenter__()
            assert len(await late.subscribe(auto=True)) == 1
            await call.flows()
            await until(lambda: node._reconciler.counters["dumps"] >= 1, "it was dumped")
            assert await equal(node)
            assert node.datapath.plane.restarts == 0
            (track,) = late.tracks.values()
            await until(lambda: track.packets_received > 20, "the late one receives")
        finally:
            await late.close()
        assert (await node.status())["counters"]["events_lost"] > 0


async def test_a_stopped_supervisor_wakes_up_to_many_events(site: Site) -> None:
    """SIGSTOP: the data plane forwards on; afterwards everybody who waited gets in."""
    with up(site) as node:
        async with call_on(site) as call:
            os.kill(node.pid, signal.SIGSTOP)
            waiting = [site.client(str(i), Role.PASSIVE) for i in range(8)]
            joins = [asyncio.create_task(client.__aenter__()) for client in waiting]
            await call.flows(100)
            assert not any(join.done() for join in joins)
            os.kill(node.pid, signal.SIGCONT)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*joins)
            for client in waiting:
                await until(client.live.is_set, "its leg is live")
            found = await status(site)
            assert found["dataplane"]["restarts"] == 0, "the watchdog blamed the wrong one"
            assert found["legs"]["live"] == 10 and found["balanced"]
            for client in waiting:
                await client.close()
            await call.end()
            assert call.lost() == []


async def test_a_stop_is_told_to_the_clients(site: Site) -> None:
    with up(site) as node:
        async with call_on(site) as call:
            node.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(node.process.wait, PATIENCE_S) == 0
            await until(lambda: not site.dataplanes(), "both processes are gone")
            await until(
                lambda: call.publisher.control.lost or call.publisher.control.closed_by_node,
                "the publisher knows",
                5.0,
            )
