"""Kinds and codecs, and what the data plane must know of each."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    AUDIO = "audio"
    VIDEO = "video"


class Codec(StrEnum):
    OPUS = "opus"
    H264 = "h264"
    VP8 = "vp8"
    VP9 = "vp9"
    AV1 = "av1"

    @property
    def kind(self) -> Kind:
        """Opus is audio, all others are video."""
        return Kind.AUDIO if self is Codec.OPUS else Kind.VIDEO


VIDEO_ORDER: tuple[Codec, ...] = (Codec.VP8, Codec.H264, Codec.VP9, Codec.AV1)
"""Video codecs of a room, best first, unless it was made with another order."""
