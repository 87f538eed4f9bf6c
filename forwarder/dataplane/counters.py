"""Read the counters and statistics of a data plane from its segments.

Law: reading changes nothing and never waits for a worker.  Each number has one writer; a
snapshot is read again when it does not balance, because it may have been taken between two
stores of a worker.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from forwarder.dataplane.abi import COPY_DROPS, COUNTERS, DROPS, Segment, ffi
from forwarder.dataplane.tally import (
    LegStats,
    RouteStats,
    Snapshot,
    SourceMeter,
    SourceStats,
    Tally,
    add,
    balanced,
    imbalance,
)

__all__ = ["Snapshot", "Tally", "add", "balanced", "imbalance", "snapshot"]

ATTEMPTS = 16
"""Readings until one balances; the last one is returned as it is."""

SOURCE_ROW = struct.Struct("=QQ8xQ20xIQ")
"""struct vc_source_stats, as a SourceMeter (test_abi compares)."""

_NAMES = tuple(name for name, _ in COUNTERS)
_DROPS = tuple(label for label, _ in DROPS)
_COPY_DROPS = tuple(label for label, _ in COPY_DROPS)


def _tally(record: Any) -> Tally:
    return Tally(
        {name: getattr(record, name) for name in _NAMES},
        dict(zip(_DROPS, ffi.unpack(record.drops, len(_DROPS)), strict=True)),
        dict(zip(_COPY_DROPS, ffi.unpack(record.copy_drops, len(_COPY_DROPS)), strict=True)),
        tuple(ffi.unpack(record.lateness, len(record.lateness))),
    )


def snapshot(segments: Sequence[Segment]) -> Snapshot:
    """The counters of all workers, read until they balance (at most ATTEMPTS times)."""
    for _ in range(ATTEMPTS):
        result = add([_tally(segment.counters()) for segment in segments])
        if balanced(result):
            break
    return result


def _read(kind: Any, record: Any) -> Any:
    return kind(**{name: getattr(record, name) for name in kind.__dataclass_fields__})


def leg_stats(segment: Segment, leg: int) -> LegStats:
    """Of a leg, from the segment of the worker that owns it."""
    result: LegStats = _read(LegStats, segment.leg_stats(leg))
    return result


def source_stats(segment: Segment, source: int) -> SourceStats:
    """Of a source, from the segment of the worker that owns its leg."""
    result: SourceStats = _read(SourceStats, segment.source_stats(source))
    return result


def source_meters(segment: Segment, sources: Iterable[int]) -> dict[int, SourceMeter]:
    """Of many sources whose legs this segment's worker owns: half a microsecond each.
    IndexError for an id that is not below the table's size."""
    ids = tuple(sources)
    with segment.source_table() as table:
        limit = len(table) // SOURCE_ROW.size
        if ids and not (min(ids) >= 0 and max(ids) < limit):
            raise IndexError(f"of sources {min(ids)} to {max(ids)} one is not below {limit}")
        return {
            source: SourceMeter._make(SOURCE_ROW.unpack_from(table, source * SOURCE_ROW.size))
            for source in ids
        }


def route_stats(segment: Segment, route: int) -> RouteStats:
    """Of a route, from the segment of the worker that owns its leg."""
    result: RouteStats = _read(RouteStats, segment.route_stats(route))
    return result
