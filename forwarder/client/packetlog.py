"""A binary log of RTP packets: what was sent or received, when, and a hash of the payload.

Records of 32 bytes.  The first record of a track is a definition, followed by its name in as
many records as it takes.  The hash (BLAKE2b, 8 bytes) is over the RTP payload alone, so that a
packet is known again behind another SSRC, sequence number and key.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_DEFINE, _PACKET = 1, 2
_RECORD = struct.Struct("<BBHIIIq8s")  # kind, track, seq, timestamp, ssrc, size, when_ns, hash
TRACKS_MAX = 255
FLUSH = 256  # records that wait in memory


class Entry(NamedTuple):
    seq: int
    timestamp: int
    ssrc: int
    size: int  # bytes of payload
    when_ns: int  # CLOCK_MONOTONIC, the same for all processes of a host
    digest: bytes


@dataclass
class TrackLog:
    name: str
    entries: list[Entry] = field(default_factory=list)


def digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=8).digest()


class PacketLog:
    """Writes one log; not for several threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._tracks: dict[str, int] = {}
        self._waiting: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def add(
        self, track: str, seq: int, timestamp: int, ssrc: int, payload: bytes, when_ns: int
    ) -> None:
        """OSError when the disk is full."""
        index = self._tracks.get(track)
        if index is None:
            index = self._define(track)
        self._waiting.append(
            _RECORD.pack(
                _PACKET, index, seq, timestamp, ssrc, len(payload), when_ns, digest(payload)
            )
        )
        if len(self._waiting) >= FLUSH:
            self.flush()

    def _define(self, track: str) -> int:
        if len(self._tracks) >= TRACKS_MAX:
            raise ValueError(f"a packet log holds at most {TRACKS_MAX} tracks")
        index = self._tracks[track] = len(self._tracks)
        name = track.encode()
        self._waiting.append(_RECORD.pack(_DEFINE, index, 0, 0, 0, len(name), 0, b""))
        self._waiting.append(name + bytes(-len(name) % _RECORD.size))
        return index

    def flush(self) -> None:
        self._file.write(b"".join(self._waiting))
        self._waiting.clear()
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self.flush()
            self._file.close()


def read(path: Path) -> dict[str, TrackLog]:
    """The tracks of a log by name; a record cut short at the end is left out."""
    data = path.read_bytes()
    by_index: dict[int, TrackLog] = {}
    at = 0
    while at + _RECORD.size <= len(data):
        kind, index, *rest = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if kind == _DEFINE:
            size = rest[3]
            by_index[index] = TrackLog(data[at : at + size].decode())
            at += -(-size // _RECORD.size) * _RECORD.size
        elif kind == _PACKET:
            by_index[index].entries.append(Entry(*rest))
        else:
            raise ValueError(f"{path} is not a packet log: record kind {kind} at {at}")
    return {track.name: track for track in by_index.values()}
