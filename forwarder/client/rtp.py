"""RTP packets (RFC 3550 section 5) as the client needs them: building and reading headers, and
sequence numbers without their wrap.

Pure functions.  A malformed packet is None, never an exception: it comes from the network.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER_SIZE = 12
VERSION_BITS = 0x80
_FIXED = struct.Struct("!BBHII")


class RtpPacket(NamedTuple):
    """A clear RTP packet; `payload` is without padding."""

    marker: bool
    pt: int
    seq: int
    timestamp: int
    ssrc: int
    payload: bytes


def build(*, pt: int, seq: int, timestamp: int, ssrc: int, payload: bytes, marker: bool) -> bytes:
    """A packet without CSRCs and extensions."""
    return (
        _FIXED.pack(
            VERSION_BITS,
            (0x80 if marker else 0) | pt,
            seq & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            ssrc,
        )
        + payload
    )


def parse(data: bytes) -> RtpPacket | None:
    """None when the version is wrong or a length lies."""
    if len(data) < HEADER_SIZE:
        return None
    first, second, seq, timestamp, ssrc = _FIXED.unpack_from(data)
    if first >> 6 != 2:
        return None
    start = HEADER_SIZE + 4 * (first & 0x0F)
    if first & 0x10:
        if len(data) < start + 4:
            return None
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = len(data)
    if first & 0x20:
        end -= data[-1]
        if data[-1] == 0:
            return None
    if start > end:
        return None
    return RtpPacket(bool(second & 0x80), second & 0x7F, seq, timestamp, ssrc, data[start:end])


def is_rtcp(data: bytes) -> bool:
    """RTP and RTCP on one port (RFC 5761 section 4): payload types 64-95 are RTCP."""
    return len(data) >= 2 and 192 <= data[1] <= 223


def extend(seq: int, highest: int | None) -> int:
    """The number without wrap that is nearest to `highest` (a number without wrap, or None)."""
    if highest is None:
        return seq + 0x10000  # room below for packets that come late
    delta = (seq - highest) & 0xFFFF
    if delta >= 0x8000:
        delta -= 0x10000
    return highest + delta
