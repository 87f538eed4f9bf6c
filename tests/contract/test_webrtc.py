"""WHIP in, WHEP out through a real node on loopback, with aiortc as the browser."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiortc import RTCRtpSender
from node_kit import Site, Up, call_on, node_of, until, up
from webrtc_kit import FRAGMENT, Peer, http, impatient, on_loopback, only, publisher, viewer

from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec
from forwarder.rtp.suites import Suite

pytestmark = pytest.mark.usefixtures("on_loopback")
__all__ = ["impatient", "on_loopback"]


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


async def watched(peer: Peer, brightness: int, frames: int = 5) -> None:
    """Until so many further pictures of this brightness have come."""
    start = len(peer.brightness)

    def enough() -> bool:
        return sum(abs(b - brightness) < 20 for b in peer.brightness[start:]) >= frames

    await until(enough, f"pictures of brightness {brightness} (last: {peer.brightness[-3:]})")


@pytest.mark.usefixtures("impatient")
async def test_a_viewer_that_came_first_sees_one_publisher_after_the_other(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    async with node_of(site) as node, http(site) as client, viewer(site) as seen:
        await site.room()
        await seen.join(client)
        await until(lambda: seen.pc.connectionState == "connected", "the viewer is connected")
        async with publisher(site, 60, "one") as first:
            await first.join(client)
            await watched(seen, 60)
            async with publisher(site, 220, "two") as second:
                await second.join(client)
                await until(lambda: second.pc.connectionState == "connected", "connected")
                await client.delete(first.location, headers=first.headers)
                await watched(seen, 220)
                slots = (await node._backend.show_room("r")).slots
                assert {slot.state for slot in slots} == {"playing"}
                await client.delete(second.location, headers=second.headers)
        (me,) = node.rooms.participants()
        assert (me.subscriptions, len(me.slots)) == ({}, 2)
        status = await node.status()
        assert status["balanced"], status["imbalance"]


async def test_a_viewer_without_the_codec_is_told_so(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with node_of(site) as node, http(site) as client:
        await site.room()
        async with publisher(site) as source, viewer(site) as seen:
            video = seen.pc.getTransceivers()[1]
            codecs = RTCRtpSender.getCapabilities("video").codecs
            video.setCodecPreferences([c for c in codecs if c.mimeType == "video/H264"])
            await source.join(client)
            await seen.join(client)
            await until(lambda: seen.frames["audio"] >= 5, "sound arrives")
            detail = await node._backend.show_room("r")
            assert {s.kind: s.state for s in detail.slots} == {
                "audio": "playing",
                "video": "codec_unsupported",
            }
            assert (await node.status())["dtls"]["codec_unsupported"] == 1


async def test_the_supervisor_is_killed_under_a_call(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with up(site) as first:
        async with http(site) as client, publisher(site) as source, viewer(site) as seen:
            await site.room()
            await source.join(client)
            await seen.join(client)
            await watched(seen, 200)
            first.kill()
            await watched(seen, 200)  # nobody is there, and nobody is missed
            second = Up(site)
            try:
                await asyncio.to_thread(second.ready)
                await watched(seen, 200)
                people = await asyncio.to_thread(site.request, "GET", "/v1/rooms/r")
                assert [p["name"] for p in people["participants"]] == ["p", "v"]
                assert {s["state"] for s in people["slots"]} == {"playing"}
                assert seen.pc.connectionState == source.pc.connectionState == "connected"
                async with http(site) as again:
                    restarted = await again.patch(
                        seen.location,
                        content="a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n",
                        headers=seen.headers | {"content-type": FRAGMENT, "if-match": seen.etag},
                    )
                    assert restarted.status_code == 200
                    for peer in (source, seen):
                        gone = await again.delete(peer.location, headers=peer.headers)
                        assert gone.status_code == 200
            finally:
                second.clean_up()


async def test_native_clients_and_browsers_share_a_room(tmp_path: Path) -> None:
    """A native client is heard in a browser; a browser's tracks reach a native client."""
    site = Site(tmp_path)
    arrived: Counter[Codec] = Counter()

    def take(track: Any, packet: Any, arrival_ns: int) -> None:
        arrived[Codec(track.info.codec)] += 1

    native = site.client("native", Role.PASSIVE, on_packet=take)
    async with (
        node_of(site) as node,
        http(site) as client,
        call_on(site),
        native,
        viewer(site) as seen,
        publisher(site) as source,
    ):
        await seen.join(client)
        await until(lambda: seen.frames["audio"] >= 20, "a native client is heard")
        await source.join(client)
        await native.subscribe(
            [t.id for t in node.rooms.show_room("r").tracks if t.label == "video"]
        )
        await until(lambda: arrived[Codec.VP8] >= 20, "a browser is seen by a native client")
        status = await node.status()
        assert status["balanced"], status["imbalance"]
        assert status["drops"].get("unknown_ssrc", 0) == 0
