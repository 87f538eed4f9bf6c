"""The conservation laws, as the supervisor judges them."""

from __future__ import annotations

import dataclasses

import pytest

from forwarder.dataplane.tally import Tally, add, balanced, imbalance

GOOD = Tally(
    {
        "rx": 10, "routed": 6, "consumed": 1, "copies": 12, "transmitted": 9, "queued": 1,
        "frames_total": 8, "frames_free": 5, "frames_rx": 2, "frames_tx": 1,
    },
    {"auth_failed": 3, "replayed": 0},
    {"gate": 2},
)  # fmt: skip


def test_the_laws_hold():
    assert imbalance(GOOD) is None
    assert balanced(add([GOOD, GOOD]))
    assert add([GOOD, GOOD])["rx"] == 20
    assert add([GOOD, GOOD]).drops["auth_failed"] == 6
    assert len(add([GOOD, GOOD]).workers) == 2


@pytest.mark.parametrize(
    ("name", "law"),
    [("rx", "rx"), ("consumed", "rx"), ("copies", "copies"), ("queued", "copies"),
     ("frames_free", "frames"), ("frames_total", "frames")],
)  # fmt: skip
def test_a_broken_law_is_named(name, law):
    counters = dict(GOOD.counters) | {name: GOOD.counters[name] + 1}
    broken = dataclasses.replace(GOOD, counters=counters)
    assert imbalance(broken).startswith(law)
    assert not balanced(broken)
