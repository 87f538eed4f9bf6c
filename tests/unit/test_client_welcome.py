"""What the node says right behind a welcome, in the same datagram, is not forgotten: the client
takes the welcome in before it reads on.  The node is a bare one of aioquic: its order is certain.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("pylibsrtp", reason="pylibsrtp (extra `client`) is not installed")

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

from forwarder.client.join import Client
from forwarder.client.subscribe import DecodeMode
from forwarder.clock import SystemClock
from forwarder.errors import ErrorCode
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as m
from forwarder.signaling.certs import Certificate, development
from forwarder.signaling.framing import FrameDecoder, decode_client, encode

PATIENCE_S = 10.0
ONE_DATAGRAM = 1100  # bytes of a stream that fit into one of aioquic's packets, at least


class Script:
    """What the node says: `welcomes` one after the other to each join, in one write each."""

    def __init__(self) -> None:
        self.welcomes: list[Callable[[m.Join], list[m.Message]]] = []
        self.joins: list[m.Join] = []
        self.subscribed: list[m.Subscribe] = []

    def named(self) -> list[str]:
        """Tracks that were subscribed to."""
        return [name for request in self.subscribed for name in request.track_ids]

    def answer(self, request: Any) -> list[m.Message]:
        if isinstance(request, m.Join):
            self.joins.append(request)
            return self.welcomes.pop(0)(request)
        if isinstance(request, m.Subscribe):
            self.subscribed.append(request)
            given = [subscription(n, name) for n, name in enumerate(request.track_ids, 1)]
            return [m.Subscribed(re=request.id, subscriptions=given)]
        return [m.Ok(re=request.id)]


class BareNode(QuicConnectionProtocol):
    """Takes every session; what it says on the control stream is the script's."""

    def __init__(self, *args: Any, script: Script, **options: Any) -> None:
        super().__init__(*args, **options)
        self._script = script
        self._h3 = H3Connection(self._quic, enable_webtransport=True)
        self._frames = FrameDecoder()

    def quic_event_received(self, event: QuicEvent) -> None:
        for told in self._h3.handle_event(event):
            if isinstance(told, HeadersReceived):
                self._h3.send_headers(told.stream_id, [(b":status", b"200")])
            elif isinstance(told, WebTransportStreamDataReceived):
                for frame in self._frames.feed(told.data):
                    assert isinstance(frame, bytes)
                    data = b"".join(map(encode, self._script.answer(decode_client(frame))))
                    assert len(data) < ONE_DATAGRAM
                    self._quic.send_stream_data(told.stream_id, data)
        self.transmit()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development(tmp_path_factory.mktemp("node"), ["127.0.0.1"], clock=SystemClock())


@asynccontextmanager
async def client_of(certificate: Certificate, script: Script) -> AsyncIterator[Client]:
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, max_datagram_frame_size=65536
    )
    configuration.load_cert_chain(certificate.cert_file, certificate.key_file)

    def node(*args: Any, **options: Any) -> BareNode:
        return BareNode(*args, script=script, **options)

    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=node)
    assert server._transport is not None
    url = "https://{}:{}".format(*server._transport.get_extra_info("sockname"))
    try:
        async with Client(
            url, "token", cert_hash=certificate.sha256, decode=DecodeMode.NONE
        ) as client:
            yield client
    finally:
        server.close()


def track(name: str) -> m.TrackInfo:
    return m.TrackInfo(id=name, participant_id="p2", label=name, kind=Kind.AUDIO, codec=Codec.OPUS)


def subscription(ssrc: int, name: str) -> m.SubscriptionInfo:
    return m.SubscriptionInfo(
        track_id=name,
        participant_id="p2",
        kind=Kind.AUDIO,
        codec=Codec.OPUS,
        ssrc=ssrc,
        pt=111,
        clock_hz=48_000,
    )


def welcome(
    *tracks: str, resumed: bool = False, leg: int = 1, late: str = "late"
) -> Callable[[m.Join], list[m.Message]]:
    """A welcome that lists these tracks; right behind it the last one ends and another is
    published.  The leg tells one set of keys from another."""
    key = base64.b64encode(bytes([leg]) * 28).decode()

    def say(join: m.Join) -> list[m.Message]:
        first = m.Welcome(
            re=join.id,
            room_id="r",
            participant_id="p1",
            role=Role.PASSIVE,
            resume="secret",
            resumed=resumed,
            participants=[],
            tracks=[track(name) for name in tracks],
            media=m.MediaOffer(
                addresses=[("127.0.0.1", 9)],
                ufrag="node",
                password="a password of the node",
                suite=Suite.GCM,
                send_key=key,
                receive_key=key,
                rtcp_ssrc=1,
                cname="c",
            ),
        )
        gone = m.TrackUnpublished(track_id=tracks[-1])
        return [first, gone, m.TrackPublished(track=track(late))]

    return say


def refusal(join: m.Join) -> list[m.Message]:
    """Of a resume: the node has forgotten everything."""
    return [m.Error(re=join.id, code=ErrorCode.RESUME_INVALID, message="unknown")]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_is_said_right_behind_the_first_welcome_counts(
    certificate: Certificate,
) -> None:
    script = Script()
    script.welcomes = [welcome("mic", "gone")]
    async with client_of(certificate, script) as client:
        assert client.room_tracks.keys() == {"mic", "late"}
        await client.subscribe(auto=True)
    assert set(script.named()) >= {"mic", "late"} and "gone" not in script.named()


async def test_what_is_said_right_behind_a_resume_counts(certificate: Certificate) -> None:
    script = Script()
    script.welcomes = [welcome("gone"), welcome("mic", "gone", resumed=True, late="later")]
    async with client_of(certificate, script) as client:
        client.lose_session()
        await until(lambda: client.resumed)
        assert client.room_tracks.keys() == {"mic", "later"}
    assert [join.resume for join in script.joins] == [None, "secret"]


async def test_what_is_said_right_behind_the_welcome_of_a_rejoin_counts(
    certificate: Certificate,
) -> None:
    """An `auto` subscriber names what it knows: of a track that it had forgotten it would never
    hear again."""
    script = Script()
    script.welcomes = [welcome("gone"), refusal, welcome("mic", "gone", leg=2, late="later")]
    async with client_of(certificate, script) as client:
        await client.subscribe(auto=True)
        script.subscribed.clear()
        client.lose_session()
        await until(lambda: client.rejoined and script.subscribed)
        assert client.room_tracks.keys() == {"mic", "later"}
        assert (client.resumed, client.rejoined) == (0, 1)
        assert set(script.named()) == {"mic", "later"}
    assert [join.resume for join in script.joins] == [None, "secret", None]
