"""How late departures were: quantiles, summaries, the exposition."""

from __future__ import annotations

import itertools
import random

from forwarder.dataplane import lateness
from forwarder.dataplane.abi import lib
from forwarder.dataplane.lateness import BOUNDS_US, quantile_us, summary
from forwarder.dataplane.tally import Tally, add
from forwarder.telemetry import metrics


def histogram(values_us: list[float]) -> tuple[int, ...]:
    counts = [0] * (len(BOUNDS_US) + 1)
    for value in values_us:
        counts[next((i for i, b in enumerate(BOUNDS_US) if value < b), len(BOUNDS_US))] += 1
    return tuple(counts)


def tally(values_us: list[float]) -> Tally:
    return Tally({"lateness_ns": int(1000 * sum(values_us))}, {}, {}, histogram(values_us))


def test_bounds_rise_and_reach_far_enough():
    assert len(BOUNDS_US) == lib.VC_LATENESS_COUNT - 1
    assert list(BOUNDS_US) == sorted(set(BOUNDS_US))
    assert BOUNDS_US[0] < 1 and BOUNDS_US[-1] > 100_000
    assert all(b <= 1.26 * a for a, b in itertools.pairwise(BOUNDS_US[3:]))


def test_quantiles_are_never_too_good_and_close():
    values = [random.Random(3).lognormvariate(4, 1.5) for _ in range(5000)]
    for share in (0.01, 0.5, 0.99, 0.999, 1.0):
        exact = sorted(values)[max(0, int(share * len(values)) - 1)]
        found = quantile_us(histogram(values), share)
        assert found is not None
        assert exact <= found <= 1.26 * exact + 0.26


def test_nothing_departed():
    assert quantile_us(histogram([]), 0.5) is None
    assert summary(tally([])) == {
        "departures": 0, "mean_us": None, "p50_us": None, "p99_us": None, "p999_us": None,
        "buckets": [],
    }  # fmt: skip


def test_the_last_bucket_has_no_bound():
    found = summary(tally([1e9]))
    assert found["p50_us"] == BOUNDS_US[-1]
    assert found["buckets"] == [[None, 1]]


def test_workers_add_up():
    both = add([tally([10, 20]), tally([30])])
    assert summary(both)["departures"] == 3
    assert summary(both)["mean_us"] == 20
    assert add([Tally({}, {}, {})]).lateness == ()


def test_exposition():
    worker = {
        "counters": {"lateness_ns": 5_000_000},
        "drops": {},
        "copy_drops": {},
        "lateness": summary(tally([0.5, 1.5, 40, 5000, 1e9])),
    }
    (late,) = [m for m in metrics._workers([worker]) if m.name.endswith("lateness_seconds")]
    buckets = {s.labels["le"]: s.value for s in late.samples if s.name.endswith("_bucket")}
    assert buckets["1.024e-06"] == 1
    assert buckets["2.048e-06"] == 2
    assert buckets["0.067108864"] == 4
    assert buckets["+Inf"] == 5
    assert list(buckets.values()) == sorted(buckets.values())
    sums = [s.value for s in late.samples if s.name.endswith("_sum")]
    assert sums == [0.005]
    assert lateness.quantile_us([0] * len(buckets), 0.5) is None
