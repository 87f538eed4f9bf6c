"""The books: what was published against what arrived, packet by packet.

A packet is known again by the hash of its payload; payloads repeat (silence), so a received one
is matched with the latest unmatched one of the same hash that had been sent by then.  Sequence
numbers are not trusted: a forwarder may renumber.  Pure functions on packet logs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from forwarder.client.packetlog import Entry

FAULT_BEFORE_NS = 1_000_000_000  # a run of losses may begin so long before its fault
FAULT_AFTER_NS = 5_000_000_000  # and must begin at most so long after


@dataclass
class TrackAccount:
    """One track at one subscriber."""

    track: str
    expected: int
    received: int
    mismatches: int  # received, but never published (or received twice)
    lost_runs: list[tuple[int, int]] = field(default_factory=list)  # first position, length
    sent_ns: list[int] = field(default_factory=list)  # of each published packet

    @property
    def lost(self) -> int:
        return self.expected - self.received


def account(
    track: str, published: list[Entry], received: list[Entry], *, late: bool
) -> TrackAccount:
    """`late`: expected is what was published from the first packet on that was received."""
    positions: dict[bytes, list[int]] = defaultdict(list)
    for position, entry in enumerate(published):
        positions[entry.digest].append(position)
    matched = [False] * len(published)
    first: int | None = None
    good = 0
    for entry in sorted(received, key=lambda e: e.when_ns):
        index = _match(entry, positions[entry.digest], published, matched)
        if index is None:
            continue
        matched[index] = True
        good += 1
        first = index if first is None else min(first, index)
    start = (first if first is not None else len(published)) if late else 0
    return TrackAccount(
        track,
        expected=len(published) - start,
        received=good,
        mismatches=len(received) - good,
        lost_runs=list(_runs(matched, start)),
        sent_ns=[entry.when_ns for entry in published],
    )


def _match(
    entry: Entry, candidates: list[int], published: list[Entry], matched: list[bool]
) -> int | None:
    until = bisect_right(candidates, entry.when_ns, key=lambda i: published[i].when_ns)
    for index in reversed(candidates[:until]):
        if not matched[index] and published[index].size == entry.size:
            return index
    return None


def _runs(matched: list[bool], start: int) -> Iterable[tuple[int, int]]:
    run = 0
    for index in range(start, len(matched) + 1):
        if index < len(matched) and not matched[index]:
            run += 1
        elif run:
            yield index - run, run
            run = 0


def lost_outside_gap(accounts: Iterable[TrackAccount], fault_ns: int | None) -> int:
    """Losses other than one run for each track, around the fault."""
    outside = 0
    for each in accounts:
        excused = 0
        for first, length in each.lost_runs:
            around = (
                fault_ns is not None
                and -FAULT_BEFORE_NS <= each.sent_ns[first] - fault_ns <= FAULT_AFTER_NS
            )
            if around:
                excused = max(excused, length)
        outside += each.lost - excused
    return outside


def longest_pause_ms(received: Mapping[str, list[Entry]]) -> float:
    """Between two packets, whatever their tracks, at one subscriber."""
    times = sorted(entry.when_ns for entries in received.values() for entry in entries)
    gaps = (after - before for before, after in pairwise(times))
    return round(max(gaps, default=0) / 1e6, 1)
