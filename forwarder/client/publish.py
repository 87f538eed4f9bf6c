"""Sending: local tracks, and the loops that encode a file live and send it in time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from forwarder.client import encode, rtcp, rtp
from forwarder.client.media import Media
from forwarder.rtp.codecs import Codec
from forwarder.signaling.messages import TrackOffer

BURST = 4  # packets sent together; the rest of a picture follows a millisecond later each
KEYFRAME_GAP_S = 0.1  # requests closer than this are one
VIDEO_PT, AUDIO_PT = 102, 111


class LocalTrack:
    """One outgoing RTP stream: numbering, counters and its sender report."""

    def __init__(
        self, label: str, codec: Codec, pt: int, clock_hz: int, rng: random.Random
    ) -> None:
        self.label = label
        self.codec = codec
        self.pt = pt
        self.clock_hz = clock_hz
        self.ssrc = rng.randrange(1, 1 << 32)
        self.track_id = ""
        self.packets = 0
        self.octets = 0
        self.refused = 0  # packets not sent for want of consent
        self.keyframe_requests = 0
        self.keyframe_wanted = asyncio.Event()
        self._seq = rng.randrange(1 << 15)  # RFC 3711 section 3.3.1: first below 2^15
        self._timestamp0 = rng.randrange(1 << 32)
        self._mapping: tuple[float, float] | None = None  # t, wall clock at that moment

    @property
    def offer(self) -> TrackOffer:
        return TrackOffer(
            label=self.label,
            kind=self.codec.kind,
            codec=self.codec,
            pt=self.pt,
            clock_hz=self.clock_hz,
            ssrc=self.ssrc,
        )

    def timestamp(self, t: float) -> int:
        """RTP timestamp of `t` seconds after the start."""
        return (self._timestamp0 + round(t * self.clock_hz)) & 0xFFFFFFFF

    async def send(
        self,
        media: Media,
        payloads: list[bytes],
        t: float,
        on_sent: Callable[[LocalTrack, int, int, bytes, int], None] | None,
    ) -> None:
        """Sends the payloads of one picture or sound frame; the last one carries the marker.

        `on_sent(track, seq, timestamp, payload, when_ns)` is called for each before it goes."""
        timestamp = self.timestamp(t)
        self._mapping = (t, time.time())
        video = self.codec is not Codec.OPUS
        for index, payload in enumerate(payloads):
            if index and index % BURST == 0:
                await asyncio.sleep(0.001)
            sealed = media.send_rtp(
                rtp.build(
                    pt=self.pt,
                    seq=self._seq,
                    timestamp=timestamp,
                    ssrc=self.ssrc,
                    payload=payload,
                    marker=video and index == len(payloads) - 1,
                )
            )
            if sealed is None:
                self.refused += 1
                continue
            if on_sent is not None:
                on_sent(self, self._seq, timestamp, payload, time.monotonic_ns())
            self._seq = (self._seq + 1) & 0xFFFF
            self.packets += 1
            self.octets += len(payload)
            await media.transmit(sealed)

    def report(self) -> bytes:
        """Sender report, or nothing before the first packet."""
        if self._mapping is None:
            return b""
        t, then = self._mapping
        now = time.time()
        return rtcp.sender_report(
            rtcp.SenderReport(
                self.ssrc,
                rtcp.ntp_time(now),
                self.timestamp(t + now - then),
                self.packets,
                self.octets,
            )
        )

    def want_keyframe(self) -> None:
        """The node asks (PLI or FIR)."""
        self.keyframe_requests += 1
        self.keyframe_wanted.set()


class FilePublisher:
    """Encodes a file live until `stop()` (or for one pass without `loop`)."""

    def __init__(
        self,
        path: str,
        *,
        video: bool,
        audio: bool,
        size: tuple[int, int],
        fps: int,
        bitrate: int,
        audio_bitrate: int,
        loop: bool,
        rng: random.Random,
        label: str,
    ) -> None:
        has_video, has_audio = encode.has(path)
        self._path, self._size, self._fps, self._bitrate = path, size, fps, bitrate
        self._audio_bitrate = audio_bitrate
        self._loop_s = encode.duration_s(path)
        self._end_s = float("inf") if loop else self._loop_s
        self._stopping = asyncio.Event()
        self.video: LocalTrack | None = None
        self.audio: LocalTrack | None = None
        if video and has_video:
            self.video = LocalTrack(
                f"{label}video", Codec.H264, VIDEO_PT, encode.VIDEO_CLOCK_HZ, rng
            )
        if audio and has_audio:
            self.audio = LocalTrack(
                f"{label}audio", Codec.OPUS, AUDIO_PT, encode.AUDIO_CLOCK_HZ, rng
            )
        if not self.tracks:
            raise encode.NoMedia(f"{path} has nothing to publish of what was asked for")
        self._pools = ThreadPoolExecutor(2, "encode")
        self._pictures: encode.Pictures | None = None
        self._encoder: encode.VideoEncoder | None = None
        self._sound: encode.Sound | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def tracks(self) -> list[LocalTrack]:
        return [track for track in (self.video, self.audio) if track is not None]

    async def prepare(self) -> None:
        """Opens file and encoders, so that the first packet leaves at once after the start."""
        await asyncio.get_running_loop().run_in_executor(self._pools, self._prepare)

    def _prepare(self) -> None:
        if self.video is not None:
            self._pictures = encode.Pictures(self._path, *self._size, self._loop_s)
            self._encoder = encode.VideoEncoder(*self._size, self._fps, self._bitrate)
        if self.audio is not None:
            self._sound = encode.Sound(self._path, self._loop_s, self._audio_bitrate)

    async def run(
        self,
        media: Media,
        on_sent: Callable[[LocalTrack, int, int, bytes, int], None] | None = None,
    ) -> None:
        """Sends until `stop()` or the end of the file."""
        start = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                if self.video is not None:
                    group.create_task(self._run_video(self.video, media, start, on_sent))
                if self.audio is not None:
                    group.create_task(self._run_audio(self.audio, media, start, on_sent))
        finally:
            self._pools.shutdown(wait=False)

    def stop(self) -> None:
        """After the picture under way nothing more is sent."""
        self._stopping.set()

    async def _until(self, due: float, event: asyncio.Event | None = None) -> None:
        """Sleeps until the time, or the event, or the stop."""
        delay = due - time.monotonic()
        if delay <= 0:
            return
        waits = [asyncio.ensure_future(self._stopping.wait())]
        if event is not None:
            waits.append(asyncio.ensure_future(event.wait()))
        await asyncio.wait(waits, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await wait

    def _encode_picture(self, t: float, keyframe: bool) -> list[bytes]:
        assert self._pictures is not None and self._encoder is not None
        return self._encoder.encode(self._pictures.at(t), t, keyframe)

    async def _run_video(
        self,
        track: LocalTrack,
        media: Media,
        start: float,
        on_sent: Callable[[LocalTrack, int, int, bytes, int], None] | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        shown, forced = 0, 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            keyframe = track.keyframe_wanted.is_set() and now - forced >= KEYFRAME_GAP_S
            if keyframe:
                track.keyframe_wanted.clear()
                forced = now
            t = now - start
            if t >= self._end_s:
                return
            payloads = await loop.run_in_executor(self._pools, self._encode_picture, t, keyframe)
            await track.send(media, payloads, t, on_sent)
            shown = max(shown + 1, int((time.monotonic() - start) * self._fps) + 1)
            # A request is answered at once, not with the next picture's time.
            waiting = track.keyframe_wanted if not track.keyframe_wanted.is_set() else None
            await self._until(start + shown / self._fps, waiting)

    async def _run_audio(
        self,
        track: LocalTrack,
        media: Media,
        start: float,
        on_sent: Callable[[LocalTrack, int, int, bytes, int], None] | None,
    ) -> None:
        assert self._sound is not None
        loop = asyncio.get_running_loop()
        count = 0
        while not self._stopping.is_set():
            t = count * encode.AUDIO_FRAME / encode.AUDIO_CLOCK_HZ
            if t >= self._end_s:
                return
            payload = await loop.run_in_executor(self._pools, self._sound.next_packet)
            await self._until(start + t)
            if self._stopping.is_set():
                return
            await track.send(media, [payload], t, on_sent)
            count += 1
