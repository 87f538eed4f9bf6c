"""H.264 in RTP, packetization mode 1 (RFC 6184): Annex B pictures to payloads and back.

Sent: single NAL units, STAP-A for small ones that follow each other, FU-A for long ones.
Received: the same three; anything else is counted as malformed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

PAYLOAD_MAX = 1100  # bytes; with RTP, SRTP, UDP and IPv6 headers far below any path MTU
PICTURE_MAX = 4 * 1024 * 1024  # bytes of one picture that is put together again
NAL_IDR, NAL_SEI, NAL_SPS, NAL_PPS, NAL_AUD = 5, 6, 7, 8, 9
STAP_A, FU_A = 24, 28
_START = b"\x00\x00\x00\x01"
_START_CODE = re.compile(rb"\x00\x00\x01")


def split(annexb: bytes) -> Iterator[bytes]:
    """The NAL units of an Annex B byte stream, without start codes."""
    starts = [match.end() for match in _START_CODE.finditer(annexb)]
    for index, start in enumerate(starts):
        end = starts[index + 1] - 3 if index + 1 < len(starts) else len(annexb)
        nal = annexb[start:end].rstrip(b"\x00")  # zeros belong to the next start code
        if nal:
            yield nal


def _fragments(nal: bytes, limit: int) -> Iterator[bytes]:
    """FU-A (RFC 6184 section 5.8), in pieces of nearly equal size."""
    indicator, kind = nal[0] & 0xE0 | FU_A, nal[0] & 0x1F
    body = memoryview(nal)[1:]
    count = -(-len(body) // (limit - 2))
    size = -(-len(body) // count)
    for start in range(0, len(body), size):
        first, last = start == 0, start + size >= len(body)
        header = (0x80 if first else 0) | (0x40 if last else 0) | kind
        yield bytes((indicator, header)) + body[start : start + size]


def _aggregate(nals: list[bytes]) -> bytes:
    """STAP-A (RFC 6184 section 5.7.1); a lonely NAL unit goes as it is."""
    if len(nals) == 1:
        return nals[0]
    header = STAP_A | max(nal[0] & 0x60 for nal in nals)
    return bytes((header,)) + b"".join(len(nal).to_bytes(2, "big") + nal for nal in nals)


def packetise(annexb: bytes, limit: int = PAYLOAD_MAX) -> list[bytes]:
    """One picture to RTP payloads of at most `limit` bytes; the last gets the marker.

    Delimiters and SEI are left out: no receiver needs them, and the parameter sets then
    come first, where a forwarder looks for them.
    """
    payloads: list[bytes] = []
    waiting: list[bytes] = []

    def flush() -> None:
        if waiting:
            payloads.append(_aggregate(waiting))
            waiting.clear()

    for nal in split(annexb):
        if nal[0] & 0x1F in (NAL_AUD, NAL_SEI):
            continue
        if len(nal) > limit:
            flush()
            payloads.extend(_fragments(nal, limit))
            continue
        if 1 + sum(2 + len(other) for other in waiting) + 2 + len(nal) > limit:
            flush()
        waiting.append(nal)
    flush()
    return payloads


def is_keyframe_start(payload: bytes) -> bool:
    """Whether decoding can start with this payload: it brings a sequence parameter set."""
    if not payload:
        return False
    kind = payload[0] & 0x1F
    if kind == STAP_A:
        return len(payload) > 3 and payload[3] & 0x1F == NAL_SPS
    return kind == NAL_SPS


class Depacketiser:
    """Puts pictures together again from payloads in order; `malformed` counts bad ones."""

    def __init__(self) -> None:
        self.malformed = 0
        self._picture = bytearray()
        self._fragmented = False  # inside an FU-A

    def reset(self) -> None:
        """Forgets the picture under way (after a loss)."""
        self._picture.clear()
        self._fragmented = False

    def push(self, payload: bytes, marker: bool) -> bytes | None:
        """The Annex B picture when this payload completes one."""
        if not payload or not self._append(payload) or len(self._picture) > PICTURE_MAX:
            self.malformed += 1
            self.reset()
            return None
        if not marker:
            return None
        picture = bytes(self._picture)
        complete = not self._fragmented
        self.reset()
        return picture if complete else None

    def _append(self, payload: bytes) -> bool:
        kind = payload[0] & 0x1F
        if kind == FU_A:
            return self._fragment(payload)
        if self._fragmented:
            return False
        if kind == STAP_A:
            return self._aggregate(payload)
        if not 1 <= kind <= 23:
            return False
        self._picture += _START + payload
        return True

    def _fragment(self, payload: bytes) -> bool:
        if len(payload) < 3:
            return False
        start, end = bool(payload[1] & 0x80), bool(payload[1] & 0x40)
        if start == self._fragmented or (start and end):
            return False
        if start:
            self._picture += _START + bytes((payload[0] & 0xE0 | payload[1] & 0x1F,))
        self._picture += payload[2:]
        self._fragmented = not end
        return True

    def _aggregate(self, payload: bytes) -> bool:
        at = 1
        while at + 2 <= len(payload):
            size = int.from_bytes(payload[at : at + 2], "big")
            nal = payload[at + 2 : at + 2 + size]
            if size == 0 or len(nal) != size:
                return False
            self._picture += _START + nal
            at += 2 + size
        return at == len(payload) and at > 1
