"""Sources that are bound by label, on a whole node: their audio levels, and the death of the data
plane under them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from bare_peer import OPUS, Peer, rtp
from node_kit import PATIENCE_S, PERIOD_S, Site, node_of, until
from webrtc_kit import http

from forwarder.dataplane.tally import LEVEL_SILENT, SourceMeter
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
    async with node_of(site) as node, http(site) as client, Peer("whip", site.token()) as source:
        await site.room()
        await source.connect(client)
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
    async with node_of(site) as node, http(site) as client, Peer("whip", site.token()) as source:
        await site.room()
        await source.connect(client)
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
        status = await node.status()
        assert status["balanced"], status["imbalance"]
