"""Decoding on a thread of its own, so that the event loop goes on receiving."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import av

from forwarder.rtp.codecs import Codec

QUEUE_MAX = 256  # pictures and sound frames that wait for the decoder

_NAMES = {Codec.H264: "h264", Codec.OPUS: "libopus"}


@dataclass
class Decoded:
    """What one track gave; written by the decoder's thread alone."""

    codec: Codec
    frames: int = 0
    errors: int = 0
    dropped: int = 0  # for want of room in the queue
    first_at: float = 0.0  # monotonic seconds
    size: tuple[int, int] = (0, 0)
    first_picture: Any = None  # av.VideoFrame
    context: Any = field(default=None, repr=False)


class Decoder:
    """One thread for all tracks of a client.  `on_frame(decoded, frame)` runs on that thread."""

    def __init__(self, on_frame: Callable[[Decoded, Any], None] | None = None) -> None:
        self._on_frame = on_frame
        self._queue: queue.Queue[tuple[Decoded, bytes | None] | None] = queue.Queue(QUEUE_MAX)
        self._thread: threading.Thread | None = None

    def push(self, track: Decoded, data: bytes | None) -> bool:
        """Queues one access unit (None: give out what the codec still holds); false when full."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait((track, data))
        except queue.Full:
            track.dropped += 1
            return False
        return True

    def close(self, timeout_s: float = 5.0) -> None:
        """Decodes what is queued, then ends."""
        if self._thread is not None:
            self._queue.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)
            self._thread = None

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            track, data = item
            try:
                self._decode(track, data)
            except av.FFmpegError:
                track.errors += 1

    def _decode(self, track: Decoded, data: bytes | None) -> None:
        if track.context is None:
            track.context = av.CodecContext.create(_NAMES[track.codec], "r")
            track.context.thread_count = 1
            if track.codec is Codec.OPUS:
                track.context.sample_rate = 48_000
                track.context.layout = "stereo"
        for frame in track.context.decode(av.Packet(data) if data is not None else None):
            if track.frames == 0:
                track.first_at = time.monotonic()
                if track.codec is not Codec.OPUS:
                    track.first_picture = frame
                    track.size = (frame.width, frame.height)
            track.frames += 1
            if self._on_frame is not None:
                self._on_frame(track, frame)
