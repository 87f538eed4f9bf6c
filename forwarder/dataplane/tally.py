"""Counters and statistics of a data plane as immutable values, and the laws they obey.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Tally:
    """Counters by name (see VC_COUNTERS), drops and copy drops by label, lateness of departures."""

    counters: Mapping[str, int]
    drops: Mapping[str, int]
    copy_drops: Mapping[str, int]
    lateness: tuple[int, ...] = ()
    """Departures by bucket (forwarder.dataplane.lateness)."""

    def __getitem__(self, name: str) -> int:
        return self.counters[name]


@dataclass(frozen=True)
class Snapshot(Tally):
    """The sum of all workers, and each of them."""

    workers: tuple[Tally, ...] = ()


@dataclass(frozen=True)
class LegStats:
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    last_rx_ns: int
    auth_failed: int
    rtcp_rx: int
    queue_delay_ns: int


@dataclass(frozen=True)
class SourceStats:
    """RFC 3550 statistics: `lost` by appendix A.3, `jitter` in RTP clock units.

    `level`: audio level of the last whole 100 ms, the mean of its packets, 0 (loudest) to 127
    (silent) for 0 to -127 dBov (RFC 6464); `level_ns`: when those ended, CLOCK_MONOTONIC ns,
    0: never (its sender does not tell, or has not yet).  A sender that is silent may send nothing:
    look at the age."""

    packets: int
    bytes: int
    keyframes: int
    last_rx_ns: int
    ssrc: int
    highest_seq: int
    lost: int
    jitter: int
    plis: int
    level: int
    level_ns: int


LEVEL_SILENT = 127
"""RFC 6464."""


class SourceMeter(NamedTuple):
    """Of SourceStats what is looked at often, for many sources at once."""

    packets: int
    bytes: int
    last_rx_ns: int
    level: int
    level_ns: int


@dataclass(frozen=True)
class RouteStats:
    """What the receiver reported: `fraction_lost` in 1/256, `jitter` in RTP clock units."""

    packets: int
    bytes: int
    dropped: int
    out_ssrc: int
    fraction_lost: int
    cumulative_lost: int
    jitter: int
    rtt_us: int
    plis: int
    gate_open: int


def add(tallies: Sequence[Tally]) -> Snapshot:
    """The sum of workers."""

    def total(of: Sequence[Mapping[str, int]]) -> dict[str, int]:
        return {name: sum(each[name] for each in of) for name in of[0]}

    return Snapshot(
        total([t.counters for t in tallies]),
        total([t.drops for t in tallies]),
        total([t.copy_drops for t in tallies]),
        tuple(map(sum, zip(*(t.lateness for t in tallies), strict=True))),
        tuple(tallies),
    )


def imbalance(tally: Tally) -> str | None:
    """None, or the conservation law that does not hold, with its numbers."""
    c = tally.counters
    drops, copy_drops = sum(tally.drops.values()), sum(tally.copy_drops.values())
    if c["rx"] != c["routed"] + c["consumed"] + drops:
        return (
            f"rx {c['rx']} is not routed {c['routed']} + consumed {c['consumed']} + drops {drops}"
        )
    if c["copies"] != c["transmitted"] + copy_drops + c["queued"]:
        return (
            f"copies {c['copies']} is not transmitted {c['transmitted']} + "
            f"copy drops {copy_drops} + queued {c['queued']}"
        )
    frames = c["frames_free"] + c["frames_rx"] + c["frames_tx"]
    if frames != c["frames_total"]:
        return f"frames {c['frames_total']} is not free + receiving + sending {frames}"
    return None


def balanced(tally: Tally) -> bool:
    """Do both conservation laws and the law of frames hold?"""
    return imbalance(tally) is None
