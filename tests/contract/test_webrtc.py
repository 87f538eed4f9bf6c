"""WHIP in, WHEP out through a real node on loopback, with aiortc as the browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_kit import Site, node_of, until
from webrtc_kit import http, on_loopback, only, publisher, viewer

from forwarder.rtp.suites import Suite

pytestmark = pytest.mark.usefixtures("on_loopback")
__all__ = ["on_loopback"]


@pytest.mark.parametrize("suite", list(Suite))
async def test_what_is_published_is_seen_and_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: Suite
) -> None:
    only(monkeypatch, suite)
    site = Site(tmp_path)
    async with node_of(site) as node, http(site) as client:
        await site.room()
        async with publisher(site) as source, viewer(site) as seen:
            await source.join(client)
            await seen.join(client)
            await until(lambda: seen.frames["video"] >= 10, "ten pictures arrive")
            await until(lambda: seen.frames["audio"] >= 20, "sound arrives")
            assert {p.suite for p in node.rooms.participants()} == {suite}
            assert all(abs(b - 200) < 20 for b in seen.brightness[2:])
            status = await node.status()
            assert status["dtls"]["completed"] == 2
            assert status["balanced"], status["imbalance"]
            for peer in (seen, source):
                gone = await client.delete(peer.location, headers=peer.headers)
                assert gone.status_code == 200
            assert list(node.rooms.participants()) == []
