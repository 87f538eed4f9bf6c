"""The shared memory and the lists of c_helpers/include/vcfwd/abi.h, as Python sees them.

Law: only this package touches `_ring`; records cross its border as the value objects of
`forwarder.table`, `forwarder.dataplane.events` and `forwarder.dataplane.counters`.  Loads and
stores that need an order are done in C (c_helpers/src/ring_user.c).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

from forwarder.dataplane._ring import ffi, lib
from forwarder.errors import DataPlaneError

__all__ = ["COPY_DROPS", "COUNTERS", "DROPS", "STATUSES", "Segment", "ffi", "lib", "make_memfd"]

_V4_MAPPED = bytes(10) + b"\xff\xff"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def _listed(name: Callable[[int], Any], what: Callable[[int], Any]) -> tuple[tuple[str, str], ...]:
    def pairs() -> Iterator[tuple[str, str]]:
        i = 0
        while (label := name(i)) != ffi.NULL:
            yield ffi.string(label).decode(), ffi.string(what(i)).decode()
            i += 1

    return tuple(pairs())


STATUSES = _listed(lib.vc_user_status_label, lib.vc_user_status_sentence)
"""(label, sentence) of each enum vc_status."""
DROPS = _listed(lib.vc_user_drop_label, lib.vc_user_drop_what)
COPY_DROPS = _listed(lib.vc_user_copy_drop_label, lib.vc_user_copy_drop_what)
COUNTERS = _listed(lib.vc_user_counter_name, lib.vc_user_counter_what)


def make_memfd(name: str, size: int) -> int:
    """A zeroed memfd of `size` bytes that can neither shrink nor grow."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


class Memory:
    """A mapped memfd: `address` is valid until close()."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self.size)
        self._map.madvise(mmap.MADV_DONTDUMP)
        self._buffer = ffi.from_buffer(self._map)
        self.address = ffi.cast("void *", self._buffer)

    def clear(self) -> None:
        """Sets every byte to 0."""
        self._map.madvise(mmap.MADV_REMOVE)  # the pages go back to the kernel, too

    def close(self) -> None:
        ffi.release(self._buffer)
        self._map.close()


class Segment:
    """The supervisor's end of one worker's segment.

    Nobody reads it after close().  `format` wipes it: only while no data plane serves it.
    """

    def __init__(self, memory: Memory, worker: int) -> None:
        self.memory = memory
        self.worker = worker
        self._header = ffi.cast("struct vc_shm_header *", memory.address)
        self._event = ffi.new("struct vc_event *")

    @staticmethod
    def size_for(setup: Any, worker: int) -> int:
        """Bytes of a segment for a set-up record; raises where the set-up makes no sense."""
        size = int(lib.vc_shm_format(ffi.NULL, 0, setup, worker))
        if size == 0:
            raise DataPlaneError("a worker segment has no size for this set-up: check its limits")
        return size

    def format(self, setup: Any) -> None:
        """Wipes and lays out the segment; counters and rings start empty."""
        self.memory.clear()
        if lib.vc_shm_format(self.memory.address, self.memory.size, setup, self.worker) == 0:
            raise DataPlaneError(f"the segment of worker {self.worker} is too small for the set-up")

    def check(self, setup: Any) -> str | None:
        """None, or what does not fit."""
        why = lib.vc_shm_check(self.memory.address, self.memory.size, setup, self.worker)
        return None if why == ffi.NULL else ffi.string(why).decode()

    @property
    def command_capacity(self) -> int:
        return int(self._header.cmd_cap)

    @property
    def event_capacity(self) -> int:
        return int(self._header.evt_cap)

    @property
    def epoch(self) -> int:
        """Start of the data plane that serves it, CLOCK_MONOTONIC ns; 0: none."""
        return int(lib.vc_user_epoch(self.memory.address))

    @property
    def alive_until_ns(self) -> int:
        """The later of the worker's last beat and, while it sleeps, its announced wake-up."""
        return int(lib.vc_user_alive_until(self.memory.address))

    def push(self, record: Any) -> bool:
        """Publishes a command; False when the ring is full."""
        return bool(lib.vc_user_push(self.memory.address, record) == 0)

    def must_ring(self) -> bool:
        """Is the worker asleep, so that its bell must be rung after pushes?"""
        return bool(lib.vc_user_must_ring(self.memory.address))

    def pop(self) -> Any | None:
        """The next event record (valid until the next pop), or None."""
        return self._event if lib.vc_user_pop(self.memory.address, self._event) else None

    def take_overflow(self) -> bool:
        """Were events lost since the last call?"""
        return bool(lib.vc_user_take_overflow(self.memory.address))

    def _at(self, kind: str, offset: int, index: int = 0) -> Any:
        base = ffi.cast("char *", self.memory.address) + offset
        return ffi.cast(f"struct {kind} *", base) + index

    def counters(self) -> Any:
        """A copy of the counters record."""
        copy = ffi.new("struct vc_counters *")
        source = self._at("vc_counters", self._header.counters_off)
        ffi.memmove(copy, source, ffi.sizeof("struct vc_counters"))
        return copy

    def _stats(self, kind: str, offset: int, index: int, limit: int) -> Any:
        if not 0 <= index < limit:
            raise IndexError(f"{kind} {index} is not below {limit}")
        copy = ffi.new(f"struct {kind} *")
        ffi.memmove(copy, self._at(kind, offset, index), ffi.sizeof(f"struct {kind}"))
        return copy

    def leg_stats(self, leg: int) -> Any:
        h = self._header
        return self._stats("vc_leg_stats", h.leg_stats_off, leg, h.legs_max)

    def source_stats(self, source: int) -> Any:
        h = self._header
        return self._stats("vc_source_stats", h.source_stats_off, source, h.sources_max)

    def source_table(self) -> memoryview:
        """All statistics of sources, as bytes that go on changing; release it before close()."""
        h = self._header
        base = self._at("vc_source_stats", h.source_stats_off)
        size = ffi.sizeof("struct vc_source_stats") * h.sources_max
        return memoryview(ffi.buffer(base, size)).toreadonly()

    def route_stats(self, route: int) -> Any:
        h = self._header
        return self._stats("vc_route_stats", h.route_stats_off, route, h.routes_max)


def format_index(memory: Memory, setup: Any) -> None:
    """Lays out a fresh index store."""
    if lib.vc_index_format(memory.address, memory.size, setup) == 0:
        raise DataPlaneError("the index store is too small for the set-up")


def index_size(setup: Any) -> int:
    """Bytes of the index store for a set-up record."""
    size = int(lib.vc_index_format(ffi.NULL, 0, setup))
    if size == 0:
        raise DataPlaneError("the index store has no size for this set-up: check its limits")
    return size
