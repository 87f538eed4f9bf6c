"""Ids, SSRCs and secrets: everything that must be unique, or unpredictable.

Law: an id of a leg, source or route is given out again only after the data plane said that the
old object is gone (`released`); an outgoing SSRC is never given out twice.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Protocol

from forwarder.ids import Ssrc
from forwarder.rtp.suites import Suite

ROOM_ID_BYTES = 12
"""Random bytes of a room id that the node makes up: 16 characters."""
UFRAG_BYTES = 9
"""Random bytes of an ICE ufrag: 12 characters (RFC 8445 section 5.3 wants 24 bits)."""
PASSWORD_BYTES = 24
"""Random bytes of an ICE password: 32 characters (RFC 8445 section 5.3 wants 128 bits)."""
RESUME_BYTES = 32
"""Random bytes of a resume secret: 43 characters."""
CNAME_BYTES = 12
"""Random bytes of a CNAME: 16 characters (RFC 7022 section 5)."""


class Secrets(Protocol):
    """Randomness; the standard library's module `secrets` is one."""

    def token_bytes(self, nbytes: int, /) -> bytes: ...

    def randbits(self, k: int, /) -> int: ...


def urlsafe(secrets: Secrets, size: int) -> str:
    """`size` random bytes in [A-Za-z0-9_-]."""
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()


def ice_chars(secrets: Secrets, size: int) -> str:
    """`size` random bytes in ice-char, [A-Za-z0-9+/] (RFC 8839 section 5.4)."""
    return base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()


def master_key(secrets: Secrets, suite: Suite) -> tuple[bytes, bytes]:
    """A fresh SRTP master key and salt."""
    return secrets.token_bytes(suite.key_size), secrets.token_bytes(suite.salt_size)


class IdPool:
    """Indices 0..limit-1; the lowest free one first, so that tables stay dense."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._fresh = 0
        self._free: list[int] = []
        self._used: set[int] = set()
        self._draining: set[int] = set()

    @property
    def available(self) -> int:
        """How many can be taken now."""
        return self._limit - len(self._used) - len(self._draining)

    @property
    def used(self) -> int:
        return len(self._used)

    @property
    def draining(self) -> frozenset[int]:
        """Given back, and not yet released by the data plane."""
        return frozenset(self._draining)

    def holds(self, index: int) -> bool:
        """Whether an object has it, or the data plane has not released it yet."""
        return index in self._used or index in self._draining

    def take(self) -> int:
        """A free index; the caller has looked at `available`."""
        if self._free:
            index = heapq.heappop(self._free)
        elif self._fresh < self._limit:
            index = self._fresh
            self._fresh += 1
        else:
            raise AssertionError("no id is free: look at `available` first")
        self._used.add(index)
        return index

    def give_back(self, index: int) -> None:
        """Its object is going; the index stays reserved until `released`."""
        self._used.remove(index)
        self._draining.add(index)

    def released(self, index: int) -> bool:
        """The data plane let go of it.  False: it was not draining, nothing changed."""
        if index not in self._draining:
            return False
        self._draining.remove(index)
        heapq.heappush(self._free, index)
        return True

    def observed(self, present: Iterable[int]) -> None:
        """What the data plane holds, after a dump: of the indices that no object has, exactly
        these stay reserved."""
        there = {i for i in present if 0 <= i < self._limit} - self._used
        self._reserve(self._used, there)

    def adopt(self, used: Iterable[int]) -> None:
        """Starts anew with these in use (after a restart)."""
        mine = set(used)
        if not all(0 <= i < self._limit for i in mine):
            raise ValueError(f"an id is not below {self._limit}")
        self._reserve(mine, set())

    def _reserve(self, used: set[int], draining: set[int]) -> None:
        self._used, self._draining = used, draining
        self._fresh = max(used | draining, default=-1) + 1
        self._free = [i for i in range(self._fresh) if i not in used and i not in draining]


@dataclass(slots=True)
class SsrcSequence:
    """A walk through all 2^32 SSRCs that meets none twice: x -> multiplier * x + offset (mod 2^32)
    with an odd multiplier is a permutation.  One walk serves the node, so an outgoing SSRC is
    unique under every key there is, and remembering the past costs one number."""

    multiplier: int
    offset: int
    counter: int = 0

    @classmethod
    def start(cls, secrets: Secrets) -> SsrcSequence:
        return cls(secrets.randbits(32) | 1, secrets.randbits(32))

    def take(self, avoid: Container[int]) -> Ssrc:
        """The next SSRC that is neither 0 nor in `avoid`."""
        while True:
            ssrc = (self.multiplier * self.counter + self.offset) & 0xFFFFFFFF
            self.counter += 1
            if ssrc != 0 and ssrc not in avoid:
                return Ssrc(ssrc)
