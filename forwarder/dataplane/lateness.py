"""How late departures were: the workers' log-linear histogram (vc_lateness_bucket), read.  Pure.

A departure is late by the clock after its transmit call less the time at which the pacing wheel
was to let it go.  Bounds and quantiles are microseconds; a quantile is the upper bound of the
bucket that it falls into, so never too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forwarder.dataplane.abi import lib
from forwarder.dataplane.tally import Tally

BOUNDS_US: tuple[float, ...] = tuple(
    lib.vc_user_lateness_bound(bucket) / 1000 for bucket in range(lib.VC_LATENESS_COUNT - 1)
)
"""What a lateness in each bucket is below; the last bucket has no bound."""


def quantile_us(buckets: Sequence[int], share: float) -> float | None:
    """What this share (0 to 1) of the departures was below; the last bucket's lower bound where
    it falls into that; None without departures."""
    total = sum(buckets)
    if not total:
        return None
    seen = 0
    for bound, count in zip(BOUNDS_US, buckets, strict=False):
        seen += count
        if seen >= share * total:
            return bound
    return BOUNDS_US[-1]


def summary(tally: Tally) -> dict[str, Any]:
    """departures, mean_us, p50_us, p99_us, p999_us, and [bound_us, count] of buckets in use."""
    count = sum(tally.lateness)
    edges = (*BOUNDS_US, None)
    return {
        "departures": count,
        "mean_us": round(tally["lateness_ns"] / count / 1000, 1) if count else None,
        "p50_us": quantile_us(tally.lateness, 0.5),
        "p99_us": quantile_us(tally.lateness, 0.99),
        "p999_us": quantile_us(tally.lateness, 0.999),
        "buckets": [[edge, n] for edge, n in zip(edges, tally.lateness, strict=False) if n],
    }
