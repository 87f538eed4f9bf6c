"""A WebRTC client of its bare bones: an offer, STUN, DTLS, SRTP, each of which a test can bend.

Nothing is sent but what is asked for, and again what is not answered: checks each RESEND_S, flights
of DTLS, in as few datagrams as a browser's, by OpenSSL's timer (1 s, doubling).  As a program it is
many clients on one host at once:

    python bare_peer.py '{"url", "ca", "token", "room", "count", "at_once", ...}'

joins so many (`kind`: whep, by default, or whip) and prints {"connected", "failed": {why: n},
"seconds", "retransmitted": flights}.  `media` true: viewers are connected when a packet that opens
has come, and publishers send sound until a line or the end comes on stdin, once all have joined.
`session` true: the same offers are said in a session each, over QUIC, instead of WHIP and WHEP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pylibsrtp
from aioice import stun
from dtls_kit import Peer as DtlsClient

from forwarder.client.control import Control
from forwarder.client.quic import Target
from forwarder.errors import VcfwdError
from forwarder.ice.dtls import pack
from forwarder.rtp.suites import Suite

PATIENCE_S = 20.0  # five tries by that timer, one more than the node waits for
RESEND_S = 0.5
MID, RID, LEVEL, NUMBER = 4, 10, 1, 3  # ids of header extensions, in the offer
OPUS, VP8, RTX = 111, 96, 97

HEAD = """v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
"""
COMMON = """c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a={direction}
a=rtcp-mux
a=rtcp-rsize
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
"""
AUDIO = """a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
"""
VIDEO = """a=mid:1
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 goog-remb
a=rtcp-fb:96 transport-cc
a=rtcp-fb:96 ccm fir
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""


def rtp(
    payload_type: int, ssrc: int, number: int, payload: bytes, *, mid: str = "", level: int = -1
) -> bytes:
    """A clear packet with elements of one byte (RFC 8285)."""
    elements = b""
    if mid:
        elements += bytes([MID << 4 | (len(mid) - 1)]) + mid.encode()
    if level >= 0:
        elements += bytes([LEVEL << 4, level])
    elements += bytes(-len(elements) % 4)
    head = struct.pack("!BBHII", 0x90, payload_type, number & 0xFFFF, number * 960, ssrc)
    return head + struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements + payload


def stun_check(user: str, password: str, *, nominate: bool = True) -> bytes:
    """A check of a controlling client (RFC 8445 section 7.2)."""
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes["USERNAME"] = user
    message.attributes["PRIORITY"] = 1
    message.attributes["ICE-CONTROLLING"] = 1
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(password.encode())
    return bytes(message)


class Peer:
    """One client: `join`, `check`, `handshake`, then `send_rtp` and `send_rtcp`."""

    control: Control | None = None
    """Where it has a session, it joins by that."""

    def __init__(self, kind: str, token: str, room: str = "r") -> None:
        self.kind, self.room = kind, room
        self.id = ""
        self.headers = {"authorization": f"Bearer {token}"}
        self.dtls = DtlsClient(b"SRTP_AEAD_AES_128_GCM")
        self.fingerprint = self.dtls.fingerprint
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(12)
        self.answer = self.location = ""
        self.node: tuple[str, int] = ("", 0)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.media: list[bytes] = []
        """Sealed datagrams that came instead of an answer."""
        self.retransmitted = 0
        """Flights of DTLS that were sent again."""
        self._out: pylibsrtp.Session | None = None
        self._in: pylibsrtp.Session | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    @property
    def ssrcs(self) -> list[int]:
        """Of what the node sends, in the order of the answer."""
        found = re.findall(r"^a=ssrc:(\d+)", self.answer, re.MULTILINE)
        return list(dict.fromkeys(map(int, found)))

    def offer(self) -> str:
        common = COMMON.format(
            ufrag=self.ufrag,
            password=self.password,
            fingerprint=self.fingerprint,
            direction="sendonly" if self.kind == "whip" else "recvonly",
        )
        audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\n" + common + AUDIO
        video = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\n" + common + VIDEO
        return (HEAD + audio + video).replace("\n", "\r\n")

    async def post(self, client: httpx.AsyncClient) -> httpx.Response:
        """The offer, and whatever the node says to it."""
        headers = self.headers | {"content-type": "application/sdp"}
        target = f"/{self.kind}/{self.room}"
        return await client.post(target, content=self.offer(), headers=headers)

    async def join(self, client: httpx.AsyncClient) -> None:
        if self.control is not None:
            welcome = await self.control.join(self.offer())
            assert welcome.answer is not None
            self.id = welcome.participant_id
            self.accept(welcome.answer)
            return
        made = await self.post(client)
        assert made.status_code == 201, made.text
        self.accept(made.text, made.headers["location"])

    def accept(self, answer: str, location: str = "") -> None:
        """Takes what the node answered; `location` is of WHIP and WHEP."""
        self.answer, self.location = answer, location
        found = re.search(r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", answer, re.M | re.I)
        assert found, answer
        self.node = (found[1], int(found[2]))
        if ":" in found[1] and self.sock.family is socket.AF_INET:
            self.sock.close()
            self.sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self.sock.setblocking(False)

    # ---- on the wire ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.sock.sendto(data, self.node)

    def of_answer(self, name: str) -> str:
        """An attribute's value."""
        found = re.search(rf"^a={name}:(\S+)", self.answer, re.MULTILINE)
        assert found, self.answer
        return found[1]

    def binding_request(self, *, nominate: bool = True) -> bytes:
        """An authentic check."""
        user = f"{self.of_answer('ice-ufrag')}:{self.ufrag}"
        return stun_check(user, self.of_answer("ice-pwd"), nominate=nominate)

    async def _next(self, first: range, seconds: float) -> bytes:
        """The next datagram with such a first byte; none of it within so long: b""."""
        loop, until = asyncio.get_running_loop(), time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                data = await asyncio.wait_for(loop.sock_recv(self.sock, 4096), left)
            except (TimeoutError, ConnectionError):
                break
            if data and data[0] in first:
                return data
            self.media.append(data)
        return b""

    async def check(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.send(self.binding_request())
            if await self._next(range(4), RESEND_S):
                return
        raise TimeoutError(f"no answer to a check within {PATIENCE_S:g} s")

    async def handshake(self) -> None:
        """DTLS to its end, and the keys of SRTP."""
        deadline = time.monotonic() + PATIENCE_S
        flight = self.dtls.step()
        while True:
            for data in pack(b"".join(flight)):
                self.send(data)
            if self.dtls.done:
                break
            data = await self._next(range(20, 64), self.dtls.timeout())
            flight = self.dtls.step(data) if data else self.dtls.again()
            self.retransmitted += bool(flight and not data)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the handshake did not end within {PATIENCE_S:g} s")
        key, salt, in_key, in_salt = self.dtls.keys(Suite.GCM)
        self._out = _session(key + salt, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        self._in = _session(in_key + in_salt, pylibsrtp.Policy.SSRC_ANY_INBOUND)

    async def connect(self, client: httpx.AsyncClient) -> None:
        await self.join(client)
        await self.check()
        await self.handshake()

    async def hears(self) -> None:
        """Until an RTP packet comes that opens."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            data = self.media.pop() if self.media else await self._next(range(128, 192), RESEND_S)
            if len(data) > 12 and not 64 <= data[1] & 0x7F < 96:  # RFC 5761 section 4
                with contextlib.suppress(pylibsrtp.Error):
                    self.open_rtp(data)
                    return
        raise TimeoutError(f"no media within {PATIENCE_S:g} s")

    def open_rtp(self, data: bytes) -> bytes:
        assert self._in is not None
        return bytes(self._in.unprotect(data))

    def open_rtcp(self, data: bytes) -> bytes:
        assert self._in is not None
        return bytes(self._in.unprotect_rtcp(data))

    def seal_rtp(self, packet: bytes) -> bytes:
        assert self._out is not None
        return bytes(self._out.protect(packet))

    def send_rtp(self, packet: bytes) -> None:
        self.send(self.seal_rtp(packet))

    def send_rtcp(self, compound: bytes) -> None:
        assert self._out is not None
        self.send(bytes(self._out.protect_rtcp(compound)))


def _session(key: bytes, kind: int) -> pylibsrtp.Session:
    profile = pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM
    return pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=kind, srtp_profile=profile))


async def talk(peer: Peer, ssrc: int) -> None:
    """50 packets of sound a second, without end."""
    number = 0
    while True:
        number += 1
        peer.send_rtp(rtp(OPUS, ssrc, number, bytes(40), mid="0", level=40))
        await asyncio.sleep(0.02)


async def _nothing(_: object) -> None:
    """What comes back by itself needs no help."""


def _peer(order: dict[str, Any], kind: str, number: int) -> Peer:
    peer = Peer(kind, order["token"], order["room"])
    if order.get("session"):
        peer.control = Control(
            Target(order["url"], ca_file=order["ca"]),
            order["token"],
            name=f"{kind} {number}",
            suites=[Suite.GCM],
            on_message=lambda message: None,
            on_back=_nothing,
        )
    return peer


async def _crowd(order: dict[str, Any]) -> None:
    """Joins `count` peers, `at_once` at a time; all stay until the end."""
    failed: Counter[str] = Counter()
    kind, media = order.get("kind", "whep"), bool(order.get("media"))
    peers = [_peer(order, kind, number) for number in range(order["count"])]
    kept: list[asyncio.Task[None]] = []
    gate = asyncio.Semaphore(order["at_once"])
    trust = ssl.create_default_context(cafile=order["ca"])

    async def one(peer: Peer, client: httpx.AsyncClient) -> bool:
        async with gate:
            try:
                await peer.connect(client)
                if peer.control is not None:
                    kept.append(asyncio.create_task(peer.control.keep()))
                if media and kind == "whep":
                    await peer.hears()
            except (AssertionError, TimeoutError, httpx.HTTPError, VcfwdError) as error:
                failed[f"{type(error).__name__}: {error}"[:200]] += 1
                return False
            return True

    began = time.monotonic()
    async with httpx.AsyncClient(
        base_url=order["url"], verify=trust, trust_env=False, timeout=30
    ) as client:
        done = await asyncio.gather(*(one(peer, client) for peer in peers))
    result = {
        "connected": sum(done),
        "failed": dict(failed),
        "seconds": round(time.monotonic() - began, 2),
        "retransmitted": sum(peer.retransmitted for peer in peers),
    }
    print(json.dumps(result), flush=True)
    if media and kind == "whip":
        joined = [peer for peer, is_there in zip(peers, done, strict=True) if is_there]
        talking = [asyncio.create_task(talk(p, 0xA000 + n)) for n, p in enumerate(joined)]
        await asyncio.to_thread(sys.stdin.readline)
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)
    for peer in peers:
        if peer.control is not None:
            peer.control.close()
        peer.close()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    assert urlsplit(given["url"]).hostname
    asyncio.run(_crowd(given))
