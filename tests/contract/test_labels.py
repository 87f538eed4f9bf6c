"""Sources that are bound by label, on a whole node: their audio levels, and the death of the data
plane under them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from bare_peer import OPUS, VP8, Peer, rtp
from media_kit import Ears, labelled, picture
from node_kit import PATIENCE_S, PERIOD_S, Site, until, up
from webrtc_kit import http, meeting

from forwarder.dataplane.tally import LEVEL_SILENT, SourceMeter
from forwarder.rooms.roles import Role
from forwarder.supervisor.node import Node

LOUD = 31  # -31 dBov


def meters(node: Node) -> dict[int, SourceMeter]:
    """Of sources that have sent."""
    plane = node.datapath.plane
    every = plane.source_meters(0, range(plane.setup.sources_max))
    return {source: meter for source, meter in every.items() if meter.packets}


async def send_until(
    peer: Peer, condition: Callable[[], object], what: str, *, first: int, mid: str, level: int = -1
) -> int:
    """Sends sound until it is so; the number of the next packet."""
    number = first
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            peer.send_rtp(rtp(OPUS, 0xA1, number, bytes(50), mid=mid, level=level))
            number += 1
            await asyncio.sleep(PERIOD_S)
    assert number > first, what
    return number


async def test_levels_of_sources(tmp_path: Path) -> None:
    site = Site(tmp_path)
    source = Peer("whip", site.token())
    async with meeting(site, source) as (node, _):
        plane = node.datapath.plane
        silent = plane.source_meters(0, range(plane.setup.sources_max))
        assert all(meter.level_ns == 0 for meter in silent.values())
        assert {meter.level for meter in silent.values()} <= {LEVEL_SILENT, 0}

        def told() -> bool:
            return any(meter.level_ns for meter in meters(node).values())

        next_one = await send_until(source, told, "a level", first=1, mid="0", level=LOUD)
        ((spoken, meter),) = meters(node).items()
        assert meter.level == LOUD
        assert plane.source_stats(0, spoken).level == LOUD
        assert meter.packets <= next_one and meter.bytes > 50 * meter.packets


async def test_the_data_plane_is_killed_and_labels_no_longer_come(tmp_path: Path) -> None:
    """A browser says whose a stream is only until it is heard: the SSRC is remembered."""
    site = Site(tmp_path)
    source = Peer("whip", site.token())
    async with meeting(site, source) as (node, _):
        plane = node.datapath.plane

        def routed() -> int:
            return plane.counters()["routed"]

        number = await send_until(source, lambda: routed() > 5, "media", first=1, mid="0")
        died = node.plane_pid
        os.kill(died, signal.SIGKILL)
        await until(lambda: node.plane_pid != died and plane.restarts == 1, "it is back")

        def is_back() -> bool:
            return routed() > 5

        await send_until(source, is_back, "media again", first=number, mid="")


async def test_the_first_packet_needs_no_supervisor(tmp_path: Path) -> None:
    """Binding, gate and route are the worker's: the very first packet of the first key frame is
    shown while the supervisor is stopped."""
    site = Site(tmp_path)
    with up(site) as node:
        async with (
            http(site) as client,
            Ears("whip", site.token("camera")) as camera,
            Ears("whep", site.token("eve", Role.PASSIVE)) as eve,
        ):
            await site.room()
            await camera.connect(client)
            await eve.connect(client)

            async def routes() -> int:
                return int((await asyncio.to_thread(site.status))["counters"]["routes"])

            async with asyncio.timeout(PATIENCE_S):
                while await routes() < 2:
                    await asyncio.sleep(0.02)
            os.kill(node.pid, signal.SIGSTOP)
            try:
                for number in range(5):
                    data = picture(number, key=number == 0)
                    camera.send_rtp(labelled(VP8, 0xC0, number, data, mid="1"))
                await until(lambda: len(eve.of(VP8)) == 5, "all of it is shown")
            finally:
                os.kill(node.pid, signal.SIGCONT)
            assert [p.payload for p in eve.of(VP8)] == [
                picture(number, key=number == 0) for number in range(5)
            ]
