"""The media socket on loopback against a peer made here: checks, consent, what is counted."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable, Iterator

import pytest
from aioice import stun

pytest.importorskip("pylibsrtp", reason="pylibsrtp (extra `client`) is not installed")

from forwarder.client import media as media_module
from forwarder.client import rtcp, rtp
from forwarder.client.decode import Decoder
from forwarder.client.inbox import EARLY_MAX, Inbox
from forwarder.client.media import Media
from forwarder.client.quic import Target, parse_hash
from forwarder.client.srtp import Srtp
from forwarder.client.subscribe import DecodeMode, RemoteTrack
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.signaling.messages import MediaOffer, SubscriptionInfo

PATIENCE_S = 10.0
PASSWORD = "a password of the node"


def offer(addresses: list[tuple[str, int]], *, mirrored: bool = False) -> MediaOffer:
    one, other = (base64.b64encode(bytes([n]) * 28).decode() for n in (1, 2))
    return MediaOffer(
        addresses=addresses,
        ufrag="node",
        password=PASSWORD,
        suite=Suite.GCM,
        send_key=other if mirrored else one,
        receive_key=one if mirrored else other,
        rtcp_ssrc=1,
        cname="c",
    )


class Peer:
    """Answers checks as a node does, when it is told to."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address: tuple[str, int] = self.socket.getsockname()
        self.client: tuple[str, int] | None = None
        self.media: list[bytes] = []
        self.checks: list[stun.Message] = []
        self.password: str | None = PASSWORD  # None: silent
        self.srtp = Srtp(offer([self.address], mirrored=True))

    def read(self) -> None:
        while True:
            try:
                data, self.client = self.socket.recvfrom(2048)
            except BlockingIOError:
                return
            if data[0] >= 4:
                self.media.append(data)
                continue
            request = stun.parse_message(data)
            self.checks.append(request)
            if self.password is not None:
                answer = stun.Message(
                    stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id
                )
                answer.attributes["XOR-MAPPED-ADDRESS"] = self.client
                answer.add_message_integrity(self.password.encode())
                self.socket.sendto(bytes(answer), self.client)

    def send(self, data: bytes) -> None:
        assert self.client is not None
        self.socket.sendto(data, self.client)


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    made = [Peer(), Peer()]
    yield made
    for peer in made:
        peer.socket.close()


class Received:
    def __init__(self) -> None:
        self.rtp: list[rtp.RtpPacket] = []
        self.rtcp: list[rtcp.Item] = []
        self.media = Media(
            on_rtp=lambda packet, ns: self.rtp.append(packet),
            on_rtcp=lambda items, ns: self.rtcp.extend(items),
        )


async def until(peers: list[Peer], condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            for peer in peers:
                peer.read()
            await asyncio.sleep(0.005)


def packet(seq: int) -> bytes:
    return rtp.build(pt=96, seq=seq, timestamp=0, ssrc=5, payload=b"payload", marker=False)


async def test_the_first_address_that_answers_is_taken(peers: list[Peer]) -> None:
    silent, node = peers
    silent.password = None
    received = Received()
    received.media.start(offer([node.address, silent.address]), prefer="127.0.0.1")
    received.media._candidates = [silent.address, node.address]
    try:
        await until(peers, received.media.validated.is_set)
        check = node.checks[0]
        assert check.attributes["USERNAME"].startswith("node:")
        assert "USE-CANDIDATE" in check.attributes
        assert check.check_message_integrity(PASSWORD.encode())
        assert silent.checks
        assert received.media.consent
    finally:
        received.media.stop()


async def test_an_answer_with_another_password_proves_nothing(peers: list[Peer]) -> None:
    node = peers[0]
    node.password = "somebody else's"
    received = Received()
    received.media.start(offer([node.address]), prefer="127.0.0.1")
    try:
        await until(peers, lambda: received.media.malformed >= 2)
        assert not received.media.validated.is_set()
        assert received.media.send_rtp(packet(1)) is None
        node.password = PASSWORD
        await until(peers, received.media.validated.is_set)
    finally:
        received.media.stop()


async def test_media_both_ways_and_garbage_is_counted(peers: list[Peer]) -> None:
    node = peers[0]
    received = Received()
    media = received.media
    media.start(offer([node.address]), prefer="127.0.0.1")
    try:
        await until(peers, media.validated.is_set)
        sealed = media.send_rtp(packet(1))
        assert sealed is not None
        await media.transmit(sealed)
        await until(peers, lambda: node.media)
        assert node.srtp.open_rtp(node.media[0]) == packet(1)

        for data in (b"", b"\x16abc", b"\x80", b"\x00\x01", b"\x80\x60" + bytes(30), b"\x50"):
            node.send(data)
        node.send(node.srtp.seal_rtcp(rtcp.picture_loss(1, 77)))
        node.send(node.srtp.seal_rtp(packet(9)))
        await until(peers, lambda: received.rtp)
        assert [got.seq for got in received.rtp] == [9]
        assert received.rtcp == [rtcp.KeyframeWanted(77)]
        assert media.malformed == 4
        assert media.srtp is not None
        assert sum(media.srtp.failures.values()) == 2
    finally:
        media.stop()


async def test_what_the_kernel_drops_is_seen(
    peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_module, "RCVBUF", 4096)
    node = peers[0]
    received = Received()
    received.media.start(offer([node.address]), prefer="127.0.0.1")
    try:
        await until(peers, received.media.validated.is_set)
        assert received.media.socket_drops() == 0
        for _ in range(100):  # nothing is read meanwhile: this is the loop's own thread
            node.send(bytes(1000))
        assert received.media.socket_drops() > 0
    finally:
        received.media.stop()


def subscription(track_id: str, ssrc: int) -> SubscriptionInfo:
    return SubscriptionInfo(
        track_id=track_id,
        participant_id="p",
        kind=Kind.AUDIO,
        codec=Codec.OPUS,
        ssrc=ssrc,
        pt=111,
        clock_hz=48_000,
    )


def test_packets_before_their_subscription_wait_for_it() -> None:
    order: list[tuple[str, int]] = []

    def new_track(info: SubscriptionInfo) -> RemoteTrack:
        return RemoteTrack(info, Decoder(), DecodeMode.NONE, lambda track: None)

    inbox = Inbox(
        new_track, lambda track, packet, ns: order.append((track.info.track_id, packet.seq))
    )

    def arrive(ssrc: int, seq: int) -> None:
        inbox.packet(rtp.RtpPacket(False, 111, seq, 0, ssrc, b"x"), seq)

    arrive(1, 10)
    arrive(2, 20)
    inbox.subscribed(subscription("a", 1))
    arrive(1, 11)
    inbox.subscribed(subscription("b", 2))
    assert order == [("a", 10), ("a", 11), ("b", 20)]
    inbox.subscribed(subscription("a", 3))  # the same track behind another SSRC
    arrive(3, 12)
    assert order[-1] == ("a", 12)
    for seq in range(EARLY_MAX + 5):
        arrive(99, seq)
    assert inbox.unknown_ssrc == 5


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://10.0.0.1:4433", "10.0.0.1:4433", "/v1/join?token=a.b"),
        ("https://[fd77::1]:443/", "[fd77::1]:443", "/v1/join?token=a.b"),
        ("https://node.example/v1/join", "node.example:4433", "/v1/join?token=a.b"),
        ("https://node.example/prefix", "node.example:4433", "/prefix/v1/join?token=a.b"),
    ],
)
def test_urls(url: str, authority: str, path: str) -> None:
    target = Target(url)
    assert (target.authority, target.path("a.b")) == (authority, path)
    assert target.path(None) == path.removesuffix("?token=a.b")


def test_certificate_hashes() -> None:
    digest = bytes(range(32))
    assert parse_hash(digest.hex()) == digest
    assert parse_hash(digest.hex(":").upper()) == digest
    for wrong in ("", "abc", digest.hex()[:-2], "zz" * 32):
        with pytest.raises(ValueError):
            parse_hash(wrong)
