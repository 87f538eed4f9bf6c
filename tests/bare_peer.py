"""A WebRTC client of its bare bones: an offer, STUN, DTLS, SRTP, each of which a test can bend.

Nothing is sent but what is asked for.  As a program it is many clients on one host at once:

    python bare_peer.py '{"url", "ca", "token", "room", "count", "at_once"}'

joins so many viewers and prints {"connected", "failed": {why: n}, "seconds"}.
"""

from __future__ import annotations

import asyncio
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

from forwarder.rtp.suites import Suite

PATIENCE_S = 20.0
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


class Peer:
    """One client: `join`, `check`, `handshake`, then `send_rtp` and `send_rtcp`."""

    def __init__(self, kind: str, token: str, room: str = "r") -> None:
        self.kind, self.room = kind, room
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
        self._out: pylibsrtp.Session | None = None

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
        made = await self.post(client)
        assert made.status_code == 201, made.text
        self.accept(made)

    def accept(self, made: httpx.Response) -> None:
        """Takes what the node answered."""
        self.answer, self.location = made.text, made.headers["location"]
        found = re.search(
            r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", made.text, re.M | re.I
        )
        assert found, made.text
        self.node = (found[1], int(found[2]))

    # ---- on the wire ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.sock.sendto(data, self.node)

    def binding_request(self) -> bytes:
        """An authentic check that nominates."""

        def of_answer(name: str) -> str:
            found = re.search(rf"^a={name}:(\S+)", self.answer, re.MULTILINE)
            assert found, self.answer
            return found[1]

        message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        message.attributes["USERNAME"] = f"{of_answer('ice-ufrag')}:{self.ufrag}"
        message.attributes["PRIORITY"] = 1
        message.attributes["ICE-CONTROLLING"] = 1
        message.attributes["USE-CANDIDATE"] = None
        message.add_message_integrity(of_answer("ice-pwd").encode())
        return bytes(message)

    async def _answers(self, sends: list[bytes], first: range) -> bytes:
        """Sends, again from time to time, until a datagram with such a first byte comes."""
        loop, deadline = asyncio.get_running_loop(), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for data in sends:
                self.send(data)
            until = time.monotonic() + RESEND_S
            while (left := until - time.monotonic()) > 0:
                try:
                    data = await asyncio.wait_for(loop.sock_recv(self.sock, 4096), left)
                except (TimeoutError, ConnectionError):
                    break
                if data and data[0] in first:
                    return data
                self.media.append(data)
        raise TimeoutError(f"no datagram of {first} within {PATIENCE_S:g} s")

    async def check(self) -> None:
        await self._answers([self.binding_request()], range(4))

    async def handshake(self) -> None:
        """DTLS to its end, and the keys of SRTP."""
        flight = self.dtls.step()
        while not self.dtls.done:
            data = await self._answers(flight, range(20, 64))
            flight = self.dtls.step(data) or flight
        for data in flight:
            self.send(data)
        key, salt, *_ = self.dtls.keys(Suite.GCM)
        self._out = pylibsrtp.Session(
            pylibsrtp.Policy(
                key=key + salt,
                ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND,
                srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
            )
        )

    async def connect(self, client: httpx.AsyncClient) -> None:
        await self.join(client)
        await self.check()
        await self.handshake()

    def seal_rtp(self, packet: bytes) -> bytes:
        assert self._out is not None
        return bytes(self._out.protect(packet))

    def send_rtp(self, packet: bytes) -> None:
        self.send(self.seal_rtp(packet))

    def send_rtcp(self, compound: bytes) -> None:
        assert self._out is not None
        self.send(bytes(self._out.protect_rtcp(compound)))


async def _crowd(order: dict[str, Any]) -> dict[str, Any]:
    """Joins `count` viewers, `at_once` at a time; all stay until the end."""
    failed: Counter[str] = Counter()
    peers = [Peer("whep", order["token"], order["room"]) for _ in range(order["count"])]
    gate = asyncio.Semaphore(order["at_once"])
    trust = ssl.create_default_context(cafile=order["ca"])

    async def one(peer: Peer, client: httpx.AsyncClient) -> bool:
        async with gate:
            try:
                await peer.connect(client)
            except (AssertionError, TimeoutError, httpx.HTTPError) as error:
                failed[f"{type(error).__name__}: {error}"[:200]] += 1
                return False
            return True

    began = time.monotonic()
    async with httpx.AsyncClient(
        base_url=order["url"], verify=trust, trust_env=False, timeout=30
    ) as client:
        done = await asyncio.gather(*(one(peer, client) for peer in peers))
    seconds = time.monotonic() - began
    for peer in peers:
        peer.close()
    return {"connected": sum(done), "failed": dict(failed), "seconds": round(seconds, 2)}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    assert urlsplit(given["url"]).hostname
    print(json.dumps(asyncio.run(_crowd(given))))
