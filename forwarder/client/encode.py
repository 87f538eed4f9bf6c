"""Live encoding with PyAV: pictures and sound out of a file, as H.264 and Opus.

The classes here are synchronous and belong to one thread each (libav releases the interpreter
lock while it works).  A clip is played in a loop: pictures by time, so that any frame rate can be
asked for and lips stay in step.
"""

from __future__ import annotations

import fractions
from collections.abc import Iterator

import av
from av.audio.resampler import AudioResampler
from av.video.frame import PictureType

from forwarder.client import h264

VIDEO_CLOCK_HZ = 90_000
AUDIO_CLOCK_HZ = 48_000
AUDIO_FRAME = 960  # samples: 20 ms
KEYFRAME_EVERY_S = 10
PRELOAD_PIXELS = 320 * 180  # pictures up to this size are decoded once and kept
PRELOAD_FRAMES = 300


class NoMedia(ValueError):
    """The file cannot be opened, or has no stream of the kind asked for."""


def _open(path: str) -> av.container.InputContainer:
    try:
        return av.open(path)
    except (OSError, av.FFmpegError) as error:
        raise NoMedia(f"cannot open {path}: {error}") from error


def has(path: str) -> tuple[bool, bool]:
    """Whether the file has pictures, and sound."""
    with _open(path) as container:
        return bool(container.streams.video), bool(container.streams.audio)


def duration_s(path: str) -> float:
    """Length of a loop: that of the shorter stream, so that both start again together."""
    with _open(path) as container:
        lengths = [
            float(stream.duration * stream.time_base)
            for stream in (*container.streams.video[:1], *container.streams.audio[:1])
            if stream.duration and stream.time_base
        ]
        if not lengths and container.duration:
            lengths = [container.duration / av.time_base]
    if not lengths or min(lengths) <= 0:
        raise NoMedia(f"{path} does not say how long it is")
    return min(lengths)


class Pictures:
    """`at(t)`: the picture shown t seconds after the start of endless repetition."""

    def __init__(self, path: str, width: int, height: int, loop_s: float) -> None:
        self._path, self._width, self._height, self._loop_s = path, width, height, loop_s
        self._frames = self._decode()
        self._ahead: tuple[float, av.VideoFrame] = next(self._frames)
        self._shown = self._ahead[1]

    def at(self, t: float) -> av.VideoFrame:
        """Calls must not go back in time."""
        while self._ahead[0] <= t:
            self._shown = self._ahead[1]
            self._ahead = next(self._frames)
        return self._shown

    def _decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        kept: list[tuple[float, av.VideoFrame]] = []
        small = self._width * self._height <= PRELOAD_PIXELS
        start = 0.0
        while True:
            if kept:
                for t, frame in kept:
                    yield start + t, frame
            else:
                for t, frame in self._once():
                    if small and len(kept) < PRELOAD_FRAMES:
                        kept.append((t, frame))
                    yield start + t, frame
                if len(kept) >= PRELOAD_FRAMES:
                    kept, small = [], False  # too long to keep
            start += self._loop_s

    def _once(self) -> Iterator[tuple[float, av.VideoFrame]]:
        with _open(self._path) as container:
            if not container.streams.video:
                raise NoMedia(f"{self._path} has no pictures")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                t = float(frame.time or 0.0)
                if t >= self._loop_s:
                    return
                if (frame.width, frame.height, frame.format.name) != (
                    self._width,
                    self._height,
                    "yuv420p",
                ):
                    frame = frame.reformat(self._width, self._height, "yuv420p")  # noqa: PLW2901
                yield t, frame


class VideoEncoder:
    """x264, no look-ahead, no B-pictures; a key frame when asked, else each KEYFRAME_EVERY_S."""

    def __init__(self, width: int, height: int, fps: int, bitrate: int) -> None:
        context = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = fractions.Fraction(1, VIDEO_CLOCK_HZ)
        context.framerate = fractions.Fraction(fps, 1)
        context.bit_rate = bitrate
        context.gop_size = fps * KEYFRAME_EVERY_S
        context.max_b_frames = 0
        context.thread_count = 1
        context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "profile": "baseline",
            "forced-idr": "1",
            "maxrate": str(bitrate),
            "bufsize": str(bitrate // 2),
        }
        context.open()
        self._context = context
        self._last_pts = -1
        self.pictures = 0

    def encode(self, picture: av.VideoFrame, t: float, keyframe: bool) -> list[bytes]:
        """RTP payloads of one picture; `t` in seconds since the start."""
        pts = max(int(t * VIDEO_CLOCK_HZ), self._last_pts + 1)
        self._last_pts = pts
        picture.pts = pts
        picture.time_base = fractions.Fraction(1, VIDEO_CLOCK_HZ)
        picture.pict_type = PictureType.I if keyframe else PictureType.NONE
        self.pictures += 1
        annexb = b"".join(bytes(packet) for packet in self._context.encode(picture))
        return h264.packetise(annexb)


class SoundEncoder:
    """Opus packets of 20 ms out of frames of 20 ms (`encode`), or of any frames (`push`)."""

    def __init__(self, bitrate: int) -> None:
        context = av.CodecContext.create("libopus", "w")
        context.sample_rate = AUDIO_CLOCK_HZ
        context.layout = "stereo"
        context.format = "s16"
        context.bit_rate = bitrate
        context.options = {
            "application": "audio",
            "frame_duration": "20",
            "compression_level": "4",
        }
        context.open()
        self._context = context
        self._resampler = new_resampler()
        self._pts = 0

    def encode(self, frame: av.AudioFrame) -> list[bytes]:
        """`frame` has AUDIO_FRAME samples at AUDIO_CLOCK_HZ, stereo, s16."""
        frame.pts = self._pts
        frame.time_base = fractions.Fraction(1, AUDIO_CLOCK_HZ)
        self._pts += AUDIO_FRAME
        return [bytes(packet) for packet in self._context.encode(frame)]

    def push(self, frame: av.AudioFrame) -> list[bytes]:
        """Any format, rate and length; what does not fill a packet waits for the next call."""
        return [
            packet
            for piece in self._resampler.resample(frame)
            if piece.samples == AUDIO_FRAME
            for packet in self.encode(piece)
        ]


def new_resampler() -> AudioResampler:
    """To what Opus takes."""
    return AudioResampler("s16", "stereo", AUDIO_CLOCK_HZ, frame_size=AUDIO_FRAME)


class Sound:
    """The sound of a file without end, as Opus packets of 20 ms."""

    def __init__(self, path: str, loop_s: float, bitrate: int) -> None:
        self._path = path
        self._loop_frames = max(1, int(loop_s * AUDIO_CLOCK_HZ) // AUDIO_FRAME)
        self._encoder = SoundEncoder(bitrate)
        self._frames = self._decode()

    def next_packet(self) -> bytes:
        """The encoder may want a first frame before it gives a packet."""
        while True:
            packets = self._encoder.encode(next(self._frames))
            if packets:
                return packets[0]

    def _decode(self) -> Iterator[av.AudioFrame]:
        while True:
            count = 0
            for frame in self._once():
                yield frame
                count += 1
                if count == self._loop_frames:
                    break
            if count == 0:
                raise NoMedia(f"{self._path} has less than 20 ms of sound")

    def _once(self) -> Iterator[av.AudioFrame]:
        resampler = new_resampler()
        with _open(self._path) as container:
            if not container.streams.audio:
                raise NoMedia(f"{self._path} has no sound")
            for decoded in container.decode(container.streams.audio[0]):
                for frame in resampler.resample(decoded):
                    if frame.samples == AUDIO_FRAME:
                        yield frame
