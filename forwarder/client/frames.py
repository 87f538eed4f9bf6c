"""Publishing pictures and sound that the caller makes: av.VideoFrame and av.AudioFrame objects."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import av

from forwarder.client import encode
from forwarder.client.media import Media
from forwarder.client.publish import AUDIO_PT, VIDEO_PT, LocalTrack
from forwarder.rtp.codecs import Codec


class FramePublisher:
    """One track.  `send` encodes on a thread and returns when the packets have left.

    Pictures: any pixel format, of the size given; when they are sent is when they are shown.
    Sound: any format and rate; it is cut into 20 ms, which leave as the frames are sent, so send
    at the pace of the sound.  Frames of one track must be sent one after the other.
    """

    def __init__(
        self,
        kind: Codec,
        media: Media,
        rng: random.Random,
        *,
        label: str,
        size: tuple[int, int] = (1280, 720),
        fps: int = 30,
        bitrate: int,
        on_sent: Callable[[LocalTrack, int, int, bytes, int], None] | None = None,
    ) -> None:
        """fps is what the rate control reckons with, nothing more; bitrate in bits a second."""
        if kind not in (Codec.H264, Codec.OPUS):
            raise ValueError(f"this client encodes h264 and opus, not {kind}")
        self._media = media
        self._on_sent = on_sent
        self._pool = ThreadPoolExecutor(1, "encode-frames")
        self._began: float | None = None
        self._size = size
        self._video: encode.VideoEncoder | None = None
        self._audio: encode.SoundEncoder | None = None
        self._packets = 0
        if kind is Codec.H264:
            self.track = LocalTrack(label, kind, VIDEO_PT, encode.VIDEO_CLOCK_HZ, rng)
            self._video = encode.VideoEncoder(*size, fps, bitrate)
        else:
            self.track = LocalTrack(label, kind, AUDIO_PT, encode.AUDIO_CLOCK_HZ, rng)
            self._audio = encode.SoundEncoder(bitrate)

    async def send(self, frame: av.VideoFrame | av.AudioFrame) -> None:
        """ValueError for a frame of the other kind."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        run = asyncio.get_running_loop().run_in_executor
        if self._video is not None and isinstance(frame, av.VideoFrame):
            keyframe = self.track.keyframe_wanted.is_set()
            self.track.keyframe_wanted.clear()
            t = now - self._began
            payloads = await run(self._pool, self._picture, frame, t, keyframe)
            await self.track.send(self._media, payloads, t, self._on_sent)
        elif self._audio is not None and isinstance(frame, av.AudioFrame):
            for payload in await run(self._pool, self._audio.push, frame):
                t = self._packets * encode.AUDIO_FRAME / encode.AUDIO_CLOCK_HZ
                self._packets += 1
                await self.track.send(self._media, [payload], t, self._on_sent)
        else:
            raise ValueError(f"{type(frame).__name__} on a track of {self.track.codec}")

    def _picture(self, frame: av.VideoFrame, t: float, keyframe: bool) -> list[bytes]:
        assert self._video is not None
        return self._video.encode(frame.reformat(*self._size, "yuv420p"), t, keyframe)

    def close(self) -> None:
        """Ends the encoder's thread."""
        self._pool.shutdown(wait=False)
