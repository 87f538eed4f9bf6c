"""WebRTC packet by packet: peers that open what comes, and a camera of two layers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import httpx
from bare_peer import MID, RID, VP8, Peer

from forwarder.client.rtp import RtpPacket, is_rtcp, parse

RIDS = ("lo", "hi")
SIZES = (300, 1100)  # bytes of a picture in each layer: no way is judged by less
RRID = 11
KEY_FRAME = bytes.fromhex("90800110 00 00 9d 01 2a a0 00 78 00".replace(" ", ""))
"""A VP8 descriptor with a picture id of 7 bits, and the head of a key frame (RFC 7741)."""
DELTA = bytes.fromhex("90800111 00 00".replace(" ", ""))


def picture(number: int, *, key: bool, size: int = 400) -> bytes:
    """A frame of VP8 in one packet, with its picture id."""
    head = bytearray(KEY_FRAME if key else DELTA)
    head[2] = number & 0x7F
    return bytes(head) + bytes(size)


def labelled(
    pt: int, ssrc: int, number: int, payload: bytes, *, at: int | None = None, **labels: str
) -> bytes:
    """An RTP packet of picture `at` (where it is not `number`), 30 a second, that says by its
    labels `mid`, `rid` and `rrid` whose it is."""
    ids = {"mid": MID, "rid": RID, "rrid": RRID}
    elements = b"".join(
        bytes([ids[name] << 4 | (len(value) - 1)]) + value.encode()
        for name, value in labels.items()
    )
    elements += bytes(-len(elements) % 4)
    when = (number if at is None else at) * 3000
    head = struct.pack("!BBHII", 0x90, 0x80 | pt, number & 0xFFFF, when, ssrc)
    return head + struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements + payload


class Ears(Peer):
    """Opens what comes once it is connected."""

    def __init__(self, kind: str, token: str, query: str = "") -> None:
        super().__init__(kind, token)
        self.query = query
        self.packets: list[RtpPacket] = []
        self.gaps: list[int] = []
        """Numbers that were asked for by NACK."""

    async def post(self, client: httpx.AsyncClient) -> httpx.Response:
        headers = self.headers | {"content-type": "application/sdp"}
        target = f"/{self.kind}/{self.room}{self.query}"
        return await client.post(target, content=self.offer(), headers=headers)

    async def connect(self, client: httpx.AsyncClient) -> None:
        await super().connect(client)
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.sock.fileno())
        super().close()

    def rebind(self) -> None:
        """What a NAT does: from now on it sends from another port."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.sock.fileno())
        self.sock.close()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind(("127.0.0.1", 0))
        loop.add_reader(self.sock.fileno(), self._readable)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.take(self.sock.recv(4096))

    def take(self, data: bytes) -> None:
        """A datagram that came, by whichever socket."""
        if not 128 <= data[0] <= 191:
            return
        if is_rtcp(data):
            self.gaps += asked_for(self.open_rtcp(data))
        elif packet := parse(self.open_rtp(data)):
            self.packets.append(packet)

    def of(self, pt: int) -> list[RtpPacket]:
        return [packet for packet in self.packets if packet.pt == pt]


def asked_for(compound: bytes) -> list[int]:
    """The numbers in generic NACKs (RFC 4585 section 6.2.1)."""
    found: list[int] = []
    while len(compound) >= 4:
        size = 4 * (int.from_bytes(compound[2:4], "big") + 1)
        if compound[1] == 205 and compound[0] & 31 == 1:
            for first, mask in struct.iter_unpack("!HH", compound[12:size]):
                found += [first, *(first + 1 + n for n in range(16) if mask >> n & 1)]
        compound = compound[size:]
    return found


class Camera(Ears):
    """Publishes a picture in two layers that are known by their rids alone."""

    def offer(self) -> str:
        lines = [
            "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            "a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            *(f"a=rid:{rid} send" for rid in RIDS),
            f"a=simulcast:send {';'.join(RIDS)}",
        ]
        return super().offer() + "\r\n".join([*lines, ""])

    async def film(self, stop: asyncio.Event) -> None:
        """30 frames a second in both layers, each of its own size; a key frame each second."""
        number = 0
        while not stop.is_set():
            for n, rid in enumerate(RIDS):
                data = picture(number, key=number % 15 == 0, size=SIZES[n])
                packet = labelled(VP8, 0xC0 + n, number, data, mid="1", rid=rid)
                self.send_rtp(packet)
            number += 1
            await asyncio.sleep(1 / 30)


def section(text: str, kind: str) -> str:
    """An m-line of an answer with its attributes."""
    (found,) = [part for part in text.split("\r\nm=") if part.startswith(kind)]
    return found


@contextlib.asynccontextmanager
async def filming(camera: Camera) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(camera.film(stop))
    try:
        yield
    finally:
        stop.set()
        await task
