"""aiortc as a browser: it publishes over WHIP and views over WHEP, on loopback; who meets there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any, Protocol

import httpx
import pytest

pytest.importorskip("aiortc", reason="aiortc (extra `dev`) is not installed")

import aioice.ice
import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    rtcdtlstransport,
    rtcrtpreceiver,
)
from aiortc.mediastreams import AudioStreamTrack
from node_kit import Site, node_of

from forwarder.rooms.roles import Role
from forwarder.rtp.suites import Suite
from forwarder.supervisor.node import Node

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
PROFILE = {Suite.GCM: b"SRTP_AEAD_AES_128_GCM", Suite.SHA1: b"SRTP_AES128_CM_SHA1_80"}


@pytest.fixture
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves loopback out of its candidates; here it is the only network."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc waits for a missing packet until 512 others came: 35 s of small pictures.  Browsers
    go on with the next key frame."""
    made = rtcrtpreceiver.JitterBuffer

    def small(capacity: int, **options: Any) -> Any:
        return made(capacity=min(capacity, 32), **options)

    monkeypatch.setattr(rtcrtpreceiver, "JitterBuffer", small)


def only(monkeypatch: pytest.MonkeyPatch, suite: Suite) -> None:
    """Peers made from now on offer this suite alone."""
    kept = [p for p in rtcdtlstransport.SRTP_PROFILES if p.openssl_profile == PROFILE[suite]]
    assert len(kept) == 1
    monkeypatch.setattr(rtcdtlstransport, "SRTP_PROFILES", kept)


class Picture(MediaStreamTrack):
    """Frames of one brightness, 15 a second."""

    kind = "video"

    def __init__(self, brightness: int) -> None:
        super().__init__()
        self.brightness = brightness
        self.count = 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / 15)
        image = np.full((120, 160, 3), self.brightness, dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self.count * 6000, Fraction(1, 90000)
        self.count += 1
        return frame


def http(site: Site) -> httpx.AsyncClient:
    trust = ssl.create_default_context(cafile=str(site.base / "state" / "dev-cert.pem"))
    return httpx.AsyncClient(base_url=site.url(), verify=trust, trust_env=False, timeout=20)


class Member(Protocol):
    """Who can be in a room: a bare peer, a page."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(self, *exc: object) -> None: ...
    async def connect(self, client: httpx.AsyncClient) -> None: ...


@contextlib.asynccontextmanager
async def meeting(site: Site, *members: Member) -> AsyncIterator[tuple[Node, httpx.AsyncClient]]:
    """A Node in this process and a client of its API; in its room `r` are these, joined in this
    order.  The books balance before they leave."""
    async with node_of(site) as node, http(site) as client, contextlib.AsyncExitStack() as here:
        await site.room()
        for member in members:
            await here.enter_async_context(member)
            await member.connect(client)
        yield node, client
        status = await node.status()
        assert status["balanced"], status["imbalance"]


class Peer:
    """A peer connection and the session that it has at the node."""

    def __init__(self, site: Site, kind: str, token: str) -> None:
        self.site, self.kind = site, kind
        self.headers = {"authorization": f"Bearer {token}"}
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.location = self.etag = self.answer = ""
        self.frames = {"audio": 0, "video": 0}
        self.brightness: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.pc.on("track", self._on_track)

    def _on_track(self, track: Any) -> None:
        self._tasks.append(asyncio.create_task(self._take(track)))

    async def _take(self, track: Any) -> None:
        with contextlib.suppress(Exception):  # the track's end
            while True:
                frame = await track.recv()
                self.frames[track.kind] += 1
                if track.kind == "video":
                    self.brightness.append(int(frame.to_ndarray(format="gray").mean()))

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return str(self.pc.localDescription.sdp)

    async def join(self, client: httpx.AsyncClient, room: str = "r", query: str = "") -> None:
        headers = self.headers | {"content-type": SDP}
        made = await client.post(
            f"/{self.kind}/{room}{query}", content=await self.offer(), headers=headers
        )
        assert made.status_code == 201, made.text
        self.location, self.etag = made.headers["location"], made.headers["etag"]
        self.answer = made.text
        await self.pc.setRemoteDescription(RTCSessionDescription(made.text, "answer"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pc.close()


@contextlib.asynccontextmanager
async def publisher(site: Site, brightness: int = 200, name: str = "p") -> AsyncIterator[Peer]:
    """Not joined yet."""
    peer = Peer(site, "whip", site.token(name, Role.ACTIVE))
    peer.pc.addTransceiver(AudioStreamTrack(), direction="sendonly")
    peer.pc.addTransceiver(Picture(brightness), direction="sendonly")
    try:
        yield peer
    finally:
        await peer.close()


@contextlib.asynccontextmanager
async def viewer(site: Site, name: str = "v") -> AsyncIterator[Peer]:
    """Not joined yet."""
    peer = Peer(site, "whep", site.token(name, Role.PASSIVE))
    peer.pc.addTransceiver("audio", direction="recvonly")
    peer.pc.addTransceiver("video", direction="recvonly")
    try:
        yield peer
    finally:
        await peer.close()
