"""`vcfwd top`: differences of two looks, and eighty columns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from forwarder.telemetry import top

NAMES = ("rx", "rx_bytes", "transmitted", "tx_bytes", "queued", "tx_kicks", "wakeups", "loops")
TIMES = ("worked_ns", "spun_ns", "blocked_ns")


def status(scale: int = 0, pid: int = 9, workers: int = 2) -> dict[str, Any]:
    """A status whose counters are `scale` times their names' numbers."""
    counters = {name: scale * (i + 1) for i, name in enumerate(NAMES)}
    counters |= {name: scale * 1_000_000 * (i + 1) for i, name in enumerate(TIMES)}
    late = {"buckets": [[1.0, 90 * scale], [8.0, 9 * scale], [None, scale]]}
    worker = {"counters": counters, "lateness": late}
    return {
        "node": "n",
        "path": "xdp-native",
        "uptime_s": 93784.5,
        "counters": dict(counters),
        "lateness": copy.deepcopy(late),
        "workers": [copy.deepcopy(worker) for _ in range(workers)],
        "drops": {"replay": 2 * scale, "late": 0},
        "copy_drops": {"queue_limit": scale},
        "steering": {
            "verdicts": {"drop_flow_rate": 4 * scale, "pass_stun": 7 * scale},
            "select_verdicts": {"drop_flow_rate": scale},
        },
        "rooms": {"count": 1, "participants": 3},
        "legs": {"count": 3, "live": 2, "unresolved": {}},
        "dataplane": {"pid": pid},
    }


def look(at: float, scale: int, **other: Any) -> top.Reading:
    ran = {i: top.Schedule(int(at * 250_000_000), int(at * 50_000_000)) for i in range(2)}
    return top.Reading(at, status(scale, **other), ran)


def test_rates_are_of_the_interval() -> None:
    view = top.between(look(10.0, 100), look(12.0, 300))
    assert view["interval_s"] == 2.0
    assert (view["rx_per_s"], view["rx_bits_per_s"]) == (100.0, 1600.0)
    assert (view["tx_per_s"], view["tx_bits_per_s"]) == (300.0, 3200.0)
    assert view["queued"] == 1500  # a gauge: as it is now
    assert view["drops_per_s"] == {
        "steering flow rate": 500.0,
        "replay": 200.0,
        "copy queue limit": 100.0,
    }
    worker = view["workers"][1]
    assert (worker["cpu"], worker["ready"]) == (0.25, 0.05)
    assert (worker["work"], worker["spin"], worker["sleep"]) == (0.1, 0.2, 0.3)
    assert (worker["wakeups_per_s"], worker["loops_per_s"]) == (700.0, 800.0)
    assert worker["tx_per_kick"] == 0.5


def test_lateness_is_that_of_the_interval_alone() -> None:
    old, new = look(1.0, 10), look(2.0, 10)
    for part in (new.status["lateness"], new.status["workers"][0]["lateness"]):
        part["buckets"] = [[1.0, 900], [8.0, 90], [64.0, 1000], [None, 10]]
    view = top.between(old, new)
    assert view["lateness"] == {
        "departures": 1000,
        "p50_us": 64.0,
        "p99_us": 64.0,
        "p999_us": 64.0,
        "max_us": 64.0,
    }
    assert view["workers"][1]["lateness"]["departures"] == 0
    assert view["workers"][1]["lateness"]["p99_us"] is None
    first = top.between(look(1.0, 0), look(2.0, 1))
    assert (first["lateness"]["p50_us"], first["lateness"]["p999_us"]) == (1.0, None)


def test_a_restarted_data_plane_counts_from_its_own_start() -> None:
    view = top.between(look(1.0, 500), look(2.0, 30, pid=10))
    assert view["restarted"] and view["rx_per_s"] == 30.0
    assert view["workers"][0]["cpu"] is None
    assert "steering flow rate" not in view["drops_per_s"]  # the maps' counters went on, or back
    assert "restarted" in top.lines(view)[0]


def test_a_status_without_the_newer_counters_is_shown_too() -> None:
    readings = [look(1.0, 1), look(2.0, 2)]
    for reading in readings:
        del reading.status["lateness"]  # type: ignore[attr-defined]
        for worker in reading.status["workers"]:
            del worker["lateness"]
            for name in TIMES:
                del worker["counters"][name]
    view = top.between(*readings)
    assert view["workers"][0]["work"] is None
    text = "\n".join(top.lines(view))
    assert "late by  -" in text


@pytest.mark.parametrize("scale", [0, 1, 10**3, 10**6, 10**9, 10**13])
def test_no_line_is_wider_than_eighty_columns(scale: int) -> None:
    new = look(2.0, scale)
    new.status["drops"].update({f"reason_number_{i}": scale * i for i in range(60)})
    shown = top.lines(top.between(look(1.0, 0), new))
    assert max(map(len, shown)) <= top.WIDTH
    assert len(shown) <= 5 + 2 + top.DROP_LINES
    heads = shown[4].split()
    for row in shown[5:7]:  # every cell keeps to its column
        assert len(row.split()) == len([name for name, _ in top._COLUMNS]), row
    assert heads[0] == "worker"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999.6, "1,000"),
        (9999, "9,999"),
        (9999.7, "10.0k"),
        (68787, "68.8k"),
        (999_999, "1.00M"),
        (1_210_000, "1.21M"),
        (669_200_000, "669M"),
        (5e11, "500G"),
        (5e13, "5e+13"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert top.number(value) == text
    assert len(text) <= 6


def test_threads_are_found_by_name(tmp_path: Path) -> None:
    for tid, name, words in (
        ("7", "vcfwd-dataplan", "1 2 3"),
        ("8", "vcfwd-w0", "250 50 9"),
        ("9", "vcfwd-w11", "1 2 3"),
        ("10", "vcfwd-w2", ""),
        ("11", "vcfwd-wx", "1 2 3"),
    ):
        task = tmp_path / "7/task" / tid
        task.mkdir(parents=True)
        (task / "comm").write_text(name + "\n")
        (task / "schedstat").write_text(words + "\n")
    assert top.threads(7, tmp_path) == {0: top.Schedule(250, 50), 11: top.Schedule(1, 2)}
    assert top.threads(8, tmp_path) == {}
