"""Malformed datagrams of every kind a node's port sees, from a seed: for tests of its manners.

Nothing here is valid: no STUN message verifies, no QUIC packet belongs to a connection, no RTP
packet has a tag.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

SIZE_MAX = 1200


def _stun(rng: random.Random) -> bytes:
    """A header that is right or nearly, and attributes whose lengths lie."""
    kind = rng.choice((0x0001, 0x0101, 0x0003, rng.randrange(0x4000)))
    cookie = 0x2112A442 if rng.random() < 0.8 else rng.getrandbits(32)
    body = b""
    for _ in range(rng.randrange(6)):
        attribute = rng.choice((0x0006, 0x0008, 0x0025, 0x8028, 0x802A, rng.getrandbits(16)))
        claimed = rng.choice((rng.randrange(40), rng.getrandbits(16)))
        body += attribute.to_bytes(2, "big") + claimed.to_bytes(2, "big")
        body += rng.randbytes(rng.randrange(40))
    length = len(body) if rng.random() < 0.6 else rng.getrandbits(16)
    head = kind.to_bytes(2, "big") + length.to_bytes(2, "big") + cookie.to_bytes(4, "big")
    return head + rng.randbytes(12) + body


def _rtp(rng: random.Random) -> bytes:
    """Version 2, then lies: CSRC counts, extensions and padding beyond the end."""
    size = rng.choice((0, 1, 4, 11, 12, 13, 16, 28, rng.randrange(SIZE_MAX)))
    return bytes((0x80 | rng.randrange(64), rng.randrange(256))) + rng.randbytes(size)


def _rtcp(rng: random.Random) -> bytes:
    size = rng.choice((2, 4, 6, 8, 12, 24, 28, rng.randrange(200)))
    return bytes((0x80 | rng.randrange(64), rng.randrange(192, 224))) + rng.randbytes(size)


def _quic_long(rng: random.Random) -> bytes:
    """Initial, 0-RTT, Handshake or Retry with any version and connection IDs that lie."""
    first = 0xC0 | rng.randrange(64)
    version = rng.choice((1, 0x6B3343CF, 0, rng.getrandbits(32)))
    claimed = rng.choice((8, 20, rng.randrange(256)))
    head = bytes((first,)) + version.to_bytes(4, "big") + bytes((claimed,))
    return head + rng.randbytes(rng.choice((0, 7, 40, 1194)))


def _quic_short(rng: random.Random) -> bytes:
    return bytes((0x40 | rng.randrange(64),)) + rng.randbytes(rng.choice((1, 8, 21, 60, 1199)))


def _dtls(rng: random.Random) -> bytes:
    return bytes((rng.randrange(20, 64), 0xFE, 0xFD)) + rng.randbytes(rng.randrange(80))


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 2, 3, rng.randrange(SIZE_MAX))))


_KINDS = (_stun, _rtp, _rtcp, _quic_long, _quic_short, _dtls, _noise)


def datagrams(seed: int) -> Iterator[bytes]:
    """Without end; the same for the same seed."""
    rng = random.Random(seed)
    while True:
        yield rng.choice(_KINDS)(rng)[:SIZE_MAX]


def media(seed: int) -> Iterator[bytes]:
    """Only what takes the media path."""
    rng = random.Random(seed)
    while True:
        yield rng.choice((_rtp, _rtcp))(rng)[:SIZE_MAX]
