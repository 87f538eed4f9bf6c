"""Rates between calls, and sizes of processes."""

from __future__ import annotations

import os

from forwarder.dataplane.tally import Snapshot, Tally, add
from forwarder.supervisor.status import RATE_INTERVAL_S, Rates, rss_mb


def snapshot(rx: int, tx: int) -> Snapshot:
    counters = {"rx": rx, "rx_bytes": 100 * rx, "transmitted": tx, "tx_bytes": 100 * tx}
    return add([Tally(counters, {}, {})])


def test_rates_are_between_calls() -> None:
    rates = Rates()
    assert set(rates.update(snapshot(1000, 5000), 10.0).values()) == {0.0}
    found = rates.update(snapshot(1100, 5400), 12.0)
    assert found == {
        "rx_packets_per_s": 50.0,
        "rx_bits_per_s": 40_000.0,
        "tx_packets_per_s": 200.0,
        "tx_bits_per_s": 160_000.0,
    }


def test_calls_that_are_close_together_repeat_the_last_rates() -> None:
    rates = Rates()
    rates.update(snapshot(0, 0), 10.0)
    first = dict(rates.update(snapshot(100, 0), 11.0))
    assert rates.update(snapshot(10_000, 0), 11.0 + RATE_INTERVAL_S / 2) == first
    assert rates.update(snapshot(200, 0), 12.0)["rx_packets_per_s"] == 100.0


def test_a_restarted_data_plane_gives_no_negative_rates() -> None:
    rates = Rates()
    rates.update(snapshot(5000, 0), 10.0)
    before = dict(rates.update(snapshot(6000, 0), 11.0))
    assert rates.update(snapshot(50, 0), 12.0) == before
    assert rates.update(snapshot(150, 0), 13.0)["rx_packets_per_s"] == 100.0


def test_the_size_of_a_process() -> None:
    assert 5 < rss_mb(os.getpid()) < 10_000
    assert rss_mb(0) == 0.0, "a process that is gone has none"
