"""One participant who films in two layers and reports its clocks, and one who asks for layers: both
packet by packet, both with every datagram that came kept as it came."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

import httpx
import pylibsrtp
from bare_peer import MID, OPUS, RID, VP8
from codec_kit import begin, dependency, offering
from media_kit import RIDS, SIZES, Camera, Ears
from node_kit import PATIENCE_S, Site, until
from pydantic import BaseModel

from forwarder.client import rtcp
from forwarder.client.control import Control
from forwarder.client.quic import SessionLost, Target, parse_hash
from forwarder.client.rtp import RtpPacket, is_rtcp
from forwarder.demo.tap import Indices
from forwarder.rooms.roles import Role
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as m

LAYER_SSRC, SOUND_SSRC = 0xC0, 0xA0
FRAME_S, SOUND_S, REPORT_S = 1 / 30, 0.02, 0.3
PARTS = 3  # packets of a frame
ENCODER_MINDS_S = 0.2  # libwebrtc takes no two requests within 0.3 s, but reads them in time
CLOCK_AHEAD_S = 4321.5  # of the sender's own, so that nobody can mistake the node's for it
VIDEO = VP8  # payload type, whatever the codec


class Stamp(NamedTuple):
    """What a payload says of itself."""

    stream: int  # 0, 1: the layer; 2: sound
    part: int
    key: bool
    capture_s: float


def stamp_of(packet: RtpPacket) -> Stamp:
    stream, part, key, capture_s = struct.unpack("!BB?d", packet.payload[-11:])
    return Stamp(stream, part, key, capture_s)


def distance(a: int, b: int) -> int:
    """a - b of RTP timestamps, the short way round."""
    return (a - b + (1 << 31)) % (1 << 32) - (1 << 31)


@dataclass
class Stream:
    """Something that the studio sends; `late_s`: so long after its capture."""

    number: int
    ssrc: int
    pt: int
    clock_hz: int
    period_s: float
    late_s: float
    mid: str
    rid: str = ""
    base: int = 0
    seq: int = 0
    packets: int = 0
    octets: int = 0
    picture: int = 0
    wants_key: bool = True

    def ticks(self, capture_s: float) -> int:
        return (self.base + round(capture_s * self.clock_hz)) % (1 << 32)


@dataclass
class Report:
    """A sender report, by the sender's clock, and how many packets went before it: of its stream
    where it was sent, of all where it came."""

    ssrc: int
    ntp_s: float
    timestamp: int
    packets: int


class Studio(Camera):
    """Publishes sound and a picture in two layers, each with an RTP clock of its own.  A layer may
    come later than the other.  Both layers begin anew when the node asks one of them to."""

    def __init__(
        self, token: str, *, late_s: tuple[float, float] = (0.0, 0.0), codec: str = "vp8"
    ) -> None:
        super().__init__("whip", token)
        self.codec = codec
        rng = random.Random(11)
        self.layers = [
            Stream(n, LAYER_SSRC + n, VIDEO, 90_000, FRAME_S, late_s[n], "1", rid)
            for n, rid in enumerate(RIDS)
        ]
        self.sound = Stream(2, SOUND_SSRC, OPUS, 48_000, SOUND_S, 0.0, "0")
        for stream in (*self.layers, self.sound):
            stream.base, stream.seq = rng.randrange(1 << 32), rng.randrange(1 << 15)
            stream.picture = rng.randrange(1 << 15)
        self.asked_when: list[float] = []
        """When key frames were asked for; what repeats a request before its answer is left out."""
        self._asked_at = float("-inf")
        self._unanswered = False
        """Two requests were read at once, as by a process that stood still for a while: the second
        must come again."""
        self.reports: list[Report] = []
        """What it said of its clocks."""
        self.tap = Indices(srtcp_tail=0)
        self._began = time.monotonic()

    def offer(self) -> str:
        return offering(super().offer(), self.codec)

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began

    def captured_s(self, stamp: Stamp) -> float:
        """When that was captured by what the studio last reported of the stream's clock."""
        stream = (*self.layers, self.sound)[stamp.stream]
        told = [report for report in self.reports if report.ssrc == stream.ssrc]
        newest = min(told, key=lambda report: abs(report.ntp_s - stamp.capture_s))
        ticks = distance(stream.ticks(stamp.capture_s), newest.timestamp)
        return newest.ntp_s + ticks / stream.clock_hz

    @property
    def asked(self) -> int:
        return len(self.asked_when)

    def take(self, data: bytes) -> None:
        if not is_rtcp(data):
            return
        self.tap.add(0, data)
        for item in rtcp.parse(self.open_rtcp(data)):
            if isinstance(item, rtcp.KeyframeWanted):
                if not self._unanswered and not all(layer.wants_key for layer in self.layers):
                    self.asked_when.append(round(self.now_s, 3))
                self._unanswered = self.now_s - self._asked_at < ENCODER_MINDS_S
                if not self._unanswered:
                    self._asked_at = self.now_s
                    for layer in self.layers:
                        layer.wants_key = True

    # ---- sending ----------------------------------------------------------------------------

    def _packet(self, stream: Stream, capture_s: float, part: int, key: bool) -> bytes:
        parts = PARTS if stream.rid else 1
        labels = bytes([MID << 4]) + stream.mid.encode()
        if stream.rid:
            labels += bytes([RID << 4 | (len(stream.rid) - 1)]) + stream.rid.encode()
        if stream.rid and self.codec == "av1":
            labels += dependency(stream.picture, part, parts)
        labels += bytes(-len(labels) % 4)
        payload = bytes(60)
        if stream.rid:
            payload = begin(self.codec, stream.picture, part, parts, key=key)
            payload += bytes(SIZES[stream.number] // PARTS)
        payload += struct.pack("!BB?d", stream.number, part, key, capture_s)
        marker = 0x80 if part == parts - 1 else 0
        head = struct.pack(
            "!BBHII", 0x90, marker | stream.pt, stream.seq, stream.ticks(capture_s), stream.ssrc
        )
        stream.seq = (stream.seq + 1) & 0xFFFF
        stream.packets += 1
        stream.octets += len(payload)
        return head + struct.pack("!HH", 0xBEDE, len(labels) // 4) + labels + payload

    async def _send(self, stream: Stream) -> None:
        number = int(self.now_s / stream.period_s) + 1
        while True:
            capture_s = number * stream.period_s
            await asyncio.sleep(max(0.0, capture_s + stream.late_s - self.now_s))
            key, stream.wants_key = stream.wants_key and bool(stream.rid), False
            stream.picture = (stream.picture + 1) & 0xFFFF
            for part in range(PARTS if stream.rid else 1):
                self.send_rtp(self._packet(stream, capture_s, part, key))
            number += 1

    async def _report(self, stream: Stream) -> None:
        while True:
            now = self.now_s
            report = rtcp.SenderReport(
                stream.ssrc,
                rtcp.ntp_time(now + CLOCK_AHEAD_S),
                stream.ticks(now),
                stream.packets,
                stream.octets,
            )
            self.reports.append(Report(stream.ssrc, now, report.rtp_timestamp, stream.packets))
            self.send_rtcp(
                rtcp.sender_report(report) + rtcp.source_description(stream.ssrc, "studio")
            )
            await asyncio.sleep(REPORT_S)

    @contextlib.asynccontextmanager
    async def filming_live(self) -> AsyncIterator[None]:
        streams = (*self.layers, self.sound)
        tasks = [asyncio.create_task(self._send(stream)) for stream in streams]
        tasks += [asyncio.create_task(self._report(stream)) for stream in streams]
        try:
            yield
        finally:
            failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert not failed, failed


class Kept(Ears):
    """One whose session outlives the supervisor; whoever derives from it makes the `control`."""

    control: Control

    def __init__(self, kind: str) -> None:
        super().__init__(kind, "")
        self.back = 0
        """How often the session came back."""
        self._kept: asyncio.Task[None] | None = None

    async def _came_back(self, welcome: m.Welcome) -> None:
        self.back += 1

    async def join(self, client: httpx.AsyncClient) -> None:
        await super().join(client)
        self._kept = asyncio.create_task(self.control.keep())

    async def leave(self) -> None:
        await self.control.leave()
        if self._kept is not None:
            self._kept.cancel()
            await asyncio.gather(self._kept, return_exceptions=True)
        self.control.close()


class Seat(Kept):
    """A viewer by session: one slot, whose layer it asks for.  Without `repair` its offer has no
    RTX: what it asks for comes again byte for byte, or not at all."""

    def __init__(self, site: Site, name: str, *, repair: bool = True, codec: str = "vp8") -> None:
        super().__init__("whep")
        self.repair, self.codec = repair, codec
        self.clear: list[bytes] = []
        """Each of `packets` with its header."""
        self.reports: list[Report] = []
        self.tap = Indices(srtcp_tail=0)
        self.again = 0
        """Packets that came as the same bytes before."""
        self.unopened = 0
        self.control = Control(
            Target(site.url(), parse_hash(site.cert_hash)),
            site.token(name, Role.PASSIVE),
            name=name,
            suites=[Suite.GCM],
            on_message=self._told,
            on_back=self._came_back,
        )

    def _told(self, message: BaseModel) -> None:
        """The one slot is always the studio's."""

    def offer(self) -> str:
        text = offering(super().offer(), self.codec)
        if self.repair:
            return text
        lines = [x for x in text.split("\r\n") if not x.startswith(("a=rtpmap:97", "a=fmtp:97"))]
        return "\r\n".join(lines).replace("SAVPF 96 97", "SAVPF 96")

    async def wish(self, layer: int) -> None:
        """Said again where the session is lost meanwhile, as on a busy machine it may be."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(SessionLost, TimeoutError):
                    return await self.control.request(m.LayerWish, mid="1", layer=layer)

    def open_rtp(self, data: bytes) -> bytes:
        self.clear.append(super().open_rtp(data))
        return self.clear[-1]

    def ask(self, numbers: list[int]) -> None:
        """For packets of the picture once more (RFC 4585 section 6.2.1)."""
        body = struct.pack("!II", 1, self.of(VIDEO)[-1].ssrc)
        body += b"".join(struct.pack("!HH", number, 0) for number in numbers)
        head = struct.pack("!BBH", 0x81, 205, len(body) // 4)
        self.send_rtcp(rtcp.receiver_report(1, []) + head + body)

    def take(self, data: bytes) -> None:
        if not 128 <= data[0] <= 191:
            return
        repeated = self.tap.repeated
        self.tap.add(0, data)
        try:
            clear = self.open_rtcp(data) if is_rtcp(data) else b""
            if not clear:
                super().take(data)
        except pylibsrtp.Error:
            # A packet that came before as the same bytes is refused, any other must open.
            again = self.tap.repeated == repeated + 1
            self.again += again
            self.unopened += not again
            return
        for item in rtcp.parse(clear):
            if isinstance(item, rtcp.SenderReport):
                ntp_s = item.ntp / (1 << 32) - rtcp.NTP_EPOCH - CLOCK_AHEAD_S
                self.reports.append(Report(item.ssrc, ntp_s, item.rtp_timestamp, len(self.packets)))

    # ---- what a test waits for ----------------------------------------------------------------

    def layer(self) -> int | None:
        """Of the newest picture."""
        return next((stamp_of(p).stream for p in reversed(self.packets) if p.pt == VIDEO), None)

    async def sees(self, layer: int, packets: int = 1) -> None:
        """Until so many packets of the picture came since its layer is this one."""

        def enough() -> bool:
            newest = self.of(VIDEO)[-packets:]
            return len(newest) == packets and all(stamp_of(p).stream == layer for p in newest)

        await until(enough, f"layer {layer} comes (now: {self.layer()})")
