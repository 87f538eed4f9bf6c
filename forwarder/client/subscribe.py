"""Receiving: remote tracks, their order, statistics and decoding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Any, NamedTuple

from forwarder.client import h264, rtcp, rtp
from forwarder.client.decode import Decoded, Decoder
from forwarder.rtp.codecs import Codec
from forwarder.signaling.messages import SubscriptionInfo

REORDER_MAX = 64  # packets held back for one that is missing
REORDER_NS = 80_000_000  # and for how long
PLI_EVERY_NS = 300_000_000
QUEUE_MAX = 512  # packets or frames that wait for a slow reader; then the oldest goes


class DecodeMode(StrEnum):
    ALL = "all"
    FIRST_SECOND = "first-second"
    NONE = "none"


class ReceivedPacket(NamedTuple):
    """A verified RTP packet, as it came."""

    track: RemoteTrack
    packet: rtp.RtpPacket
    arrival_ns: int


class Reorder:
    """Gives packets out in sequence; a hole is waited for a little, then passed over."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[rtp.RtpPacket, int]] = {}
        self._next: int | None = None
        self._highest: int | None = None

    def push(self, packet: rtp.RtpPacket, now_ns: int) -> list[tuple[rtp.RtpPacket, bool]]:
        """Packets that are due, each with whether something is missing before it."""
        index = rtp.extend(packet.seq, self._highest)
        self._highest = index if self._highest is None else max(index, self._highest)
        if self._next is None:
            self._next = index
        if index < self._next:
            return []  # came after its hole was passed over
        self._held[index] = (packet, now_ns)
        due = []
        while self._held:
            hole = self._next not in self._held
            if hole:
                oldest = min(self._held)
                waited = now_ns - self._held[oldest][1]
                if len(self._held) < REORDER_MAX and waited < REORDER_NS:
                    break
                self._next = oldest
            due.append((self._held.pop(self._next)[0], hole))
            self._next += 1
        return due


class Statistics:
    """RFC 3550 appendix A.3 and A.8 for one incoming stream."""

    def __init__(self, clock_hz: int) -> None:
        self._clock_hz = clock_hz
        self._base: int | None = None
        self._highest = 0
        self._transit = 0.0
        self._jitter = 0.0
        self._before = (0, 0)  # expected, received at the last report
        self._sr: tuple[int, int] | None = None  # middle of its NTP time, arrival ns
        self.received = 0

    def packet(self, packet: rtp.RtpPacket, now_ns: int) -> None:
        index = rtp.extend(packet.seq, self._highest if self._base is not None else None)
        if self._base is None:
            self._base = self._highest = index
        self._highest = max(self._highest, index)
        transit = now_ns * self._clock_hz / 1e9 - packet.timestamp
        if self.received:
            self._jitter += (abs(transit - self._transit) % (1 << 31) - self._jitter) / 16
        self._transit = transit
        self.received += 1

    def sender_report(self, report: rtcp.SenderReport, now_ns: int) -> None:
        self._sr = ((report.ntp >> 16) & 0xFFFFFFFF, now_ns)

    def block(self, ssrc: int, now_ns: int) -> rtcp.ReportBlock | None:
        """The report block since the last one; None before the first packet."""
        if self._base is None:
            return None
        expected = self._highest - self._base + 1
        interval = expected - self._before[0]
        lost = interval - (self.received - self._before[1])
        self._before = (expected, self.received)
        fraction = min(255, (lost << 8) // interval) if interval > 0 and lost > 0 else 0
        lsr, dlsr = 0, 0
        if self._sr is not None:
            lsr, dlsr = self._sr[0], ((now_ns - self._sr[1]) << 16) // 1_000_000_000
        return rtcp.ReportBlock(
            ssrc,
            fraction,
            expected - self.received,
            self._highest - 0x10000 & 0xFFFFFFFF,
            int(self._jitter) & 0xFFFFFFFF,
            lsr,
            dlsr & 0xFFFFFFFF,
        )


class RemoteTrack:
    """A track that this client receives.  Belongs to the event loop."""

    def __init__(
        self,
        info: SubscriptionInfo,
        decoder: Decoder,
        mode: DecodeMode,
        request_keyframe: Callable[[RemoteTrack], None],
    ) -> None:
        self.info = info
        self.mode = mode
        self.packets_received = 0
        self.octets_received = 0
        self.gaps = 0
        self.decoded = Decoded(info.codec)
        self.statistics = Statistics(info.clock_hz)
        self._decoder = decoder
        self._request_keyframe = request_keyframe
        self._reorder = Reorder()
        self._depacketiser = h264.Depacketiser()
        self._waiting = info.codec is Codec.H264  # for a key frame
        self._first_ns: int | None = None
        self._pli_ns = 0
        self._packets: asyncio.Queue[ReceivedPacket] | None = None
        self._frames: asyncio.Queue[Any] | None = None

    def renew(self, info: SubscriptionInfo) -> None:
        """The same track with another SSRC (after a rejoin)."""
        if info.ssrc != self.info.ssrc:
            self._reorder = Reorder()
            self._depacketiser.reset()
            self._waiting = info.codec is Codec.H264
            self.statistics = Statistics(info.clock_hz)
        self.info = info

    async def packets(self) -> AsyncIterator[ReceivedPacket]:
        """RTP packets from now on, as they come; a slow reader loses the oldest."""
        self._packets = self._packets or asyncio.Queue(QUEUE_MAX)
        while True:
            yield await self._packets.get()

    async def frames(self) -> AsyncIterator[Any]:
        """Decoded av.VideoFrame or av.AudioFrame objects from now on."""
        self._frames = self._frames or asyncio.Queue(QUEUE_MAX)
        while True:
            yield await self._frames.get()

    def give_frame(self, frame: Any) -> None:
        """From the decoder, on the event loop."""
        if self._frames is not None:
            _put(self._frames, frame)

    def receive(self, packet: rtp.RtpPacket, now_ns: int) -> None:
        self.packets_received += 1
        self.octets_received += len(packet.payload)
        self.statistics.packet(packet, now_ns)
        if self._packets is not None:
            _put(self._packets, ReceivedPacket(self, packet, now_ns))
        if self._first_ns is None:
            self._first_ns = now_ns
        if self.mode is DecodeMode.NONE or (
            self.mode is DecodeMode.FIRST_SECOND and now_ns - self._first_ns > 1_000_000_000
        ):
            return
        for due, hole in self._reorder.push(packet, now_ns):
            self._depacketise(due, hole, now_ns)

    def finish(self) -> None:
        """No more packets come: the decoder gives out what it holds."""
        if self.decoded.frames:
            self._decoder.push(self.decoded, None)

    def _depacketise(self, packet: rtp.RtpPacket, hole: bool, now_ns: int) -> None:
        self.gaps += hole
        if self.info.codec is not Codec.H264:
            if packet.payload:
                self._decoder.push(self.decoded, packet.payload)
            return
        if hole:
            self._depacketiser.reset()
            self._waiting = True
        if self._waiting:
            if not h264.is_keyframe_start(packet.payload):
                if now_ns - self._pli_ns > PLI_EVERY_NS:
                    self._pli_ns = now_ns
                    self._request_keyframe(self)
                return
            self._waiting = False
        picture = self._depacketiser.push(packet.payload, packet.marker)
        if picture is not None and not self._decoder.push(self.decoded, picture):
            self._waiting = True


def _put(items: asyncio.Queue[Any], item: Any) -> None:
    if items.full():
        items.get_nowait()
    items.put_nowait(item)
