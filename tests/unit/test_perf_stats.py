"""Statistics, comparison and small codecs of the performance rig."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.commands import LegSet, RouteSet, SourceSet
from perf.bench import keys, rtpengine, stats
from perf.bench.capacity import A, B, BareXdp, Row, ratio_fields
from perf.bench.compare import compare, load
from perf.bench.jitter import A_FREE, B_FREE, CONDITIONS, METRICS, POINTS, fields
from perf.bench.lab import PerfError, flags
from perf.bench.meter import cost
from perf.bench.results import keep
from perf.bench.table import FanOut, Meeting, Port

PORT = Port(0, bytes(6), bytes(6), "10.0.0.1", "10.0.0.2", 5000)


def test_spread_and_percentiles() -> None:
    assert stats.spread([]) is None
    assert stats.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": 3}
    assert stats.percentile([], 0.5) is None
    assert stats.percentile([5, 1, 3], 0.5) == 3
    assert stats.percentile(list(range(1, 101)), 0.99) == 99
    assert stats.percentile([7], 0.01) == 7


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0.01, 1.0))
def test_percentile_is_a_value_with_that_many_below(values: list[float], share: float) -> None:
    found = stats.percentile(values, share)
    assert found in values
    assert sum(v <= found for v in values) >= share * len(values) - 1e-6


def test_ratios_are_taken_within_rounds() -> None:
    assert stats.ratios([10, 40, None, 5], [5, 10, 3, 0]) == [2, 4]
    assert stats.reductions([7.0, 5.0], [10.0, 10.0]) == pytest.approx([0.3, 0.5])


def test_slope() -> None:
    xs = [1, 10, 100, 1000]
    assert stats.slope(xs, [70 + 3 * x for x in xs]) == pytest.approx(3)
    assert stats.slope(xs, [5] * 4) == 0
    with pytest.raises(ValueError):
        stats.slope([2, 2], [1, 9])


def test_compare(tmp_path: Path) -> None:
    first = {"suite": "x", "quick": True, "a": {"b": [1.0, 2.0]}, "only": 1, "word": "w"}
    second = {"suite": "x", "quick": False, "a": {"b": [1.5, 2.0]}, "zero": 0}
    keep("x", first, tmp_path)
    path = keep("x", second, tmp_path)
    assert load(str(path)) == second
    assert load(f"{path}:1") == first
    assert compare(load(f"{path}:1"), load(f"{path}:-1")) == {
        "a.b.0": {"a": 1.0, "b": 1.5, "change": 0.5},
        "a.b.1": {"a": 2.0, "b": 2.0, "change": 0.0},
    }
    with pytest.raises(PerfError, match="has 2 records"):
        load(f"{path}:3")
    with pytest.raises(PerfError, match="suite"):
        compare(first, {"suite": "y"})
    path.write_text(json.dumps([1]))
    with pytest.raises(PerfError, match="no record"):
        load(str(path))


def test_a_source_limited_row_has_no_ratio() -> None:
    rows = {A: Row([100.0], [1.0]), B: Row([50.0], [1.0], source_limited=True)}
    found, spreads, reasons = ratio_fields(rows)
    assert found["ratio_vs_own_sockets"] is None and "ratio_vs_own_sockets" not in spreads
    assert "limit of vcfwd on sockets" in reasons["ratio_vs_own_sockets"]
    assert "was not measured" in reasons["ratio_vs_bare_xdp"]
    rows = {A: Row([500_000.0, 400_000.0]), BareXdp.name: Row([1_000_000.0, 500_000.0])}
    found, spreads, reasons = ratio_fields(rows)
    assert found["ratio_vs_bare_xdp"] == pytest.approx(0.65)
    assert found["added_ns_per_copy"] == pytest.approx(750)  # of 1000 and 500
    rows[BareXdp.name].source_limited = True
    found, _, reasons = ratio_fields(rows)
    assert found["added_ns_per_copy"] is None
    assert reasons["added_ns_per_copy"] == f"the source was the limit of {BareXdp.name}"
    assert spreads["ratio_vs_bare_xdp"]["rounds"] == 2


def window(pdv: float, ipd: float) -> dict:
    found: dict = {name: dict.fromkeys(POINTS, 1.0) for name in METRICS}
    found |= {"records": 5, "lost": 0, "unmatched": 0, "reordered": 0, "jitter_rfc3550": 1.0}
    found["lateness"] = {"p50": 3.0, "p99": None, "p999": 4.0}
    found["pdv"]["p99"], found["ipd"]["p99"] = pdv, ipd
    return found


def test_jitter_fields_are_the_worst_condition() -> None:
    windows = {
        A_FREE.name: {c: [window(5.0 + i, 0)] for i, c in enumerate(CONDITIONS)},
        B_FREE.name: {c: [window(10.0, 10.0)] for c in CONDITIONS},
    }
    found = fields(windows)
    assert found["pdv_p99_reduction"] == pytest.approx(0.3)
    assert found["ipd_p99_reduction"] is None
    assert found["conditions"]["idle"]["pdv_p99_reduction"] == pytest.approx(0.5)


def test_the_meter_counts_gaps() -> None:
    core = {"lost_s": 9.0, "gaps": 1, "steal_s": 0.0}
    found = cost(
        {"seconds": 2.0, "cores": {"0": core | {"lost_gap_s": 0.5}, "1": core | {"lost_gap_s": 1}}}
    )
    assert (found.both, found.relay) == (0.75, 0.5)


def test_flags() -> None:
    found = flags({"dst_ip": "a", "tick_us": None, "reuse_port": True, "buckets": False, "n": 3})
    assert found == ["--dst-ip", "a", "--reuse-port", "--n", 3]


bencoded = st.recursive(
    st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(bencoded)
def test_bencode_comes_back(value: object) -> None:
    assert rtpengine.bdecode(rtpengine.bencode(value)) == value


@pytest.mark.parametrize("raw", [b"", b"5:ab", b"i1", b"i1ex", b"l", b"zz"])
def test_bdecode_refuses(raw: bytes) -> None:
    with pytest.raises(ValueError):
        rtpengine.bdecode(raw)


def test_sdp_of_rtpengine() -> None:
    text = rtpengine.sdp("10.0.0.9", 7000, "gcm", bytes(range(16)), bytes(12), "sendonly")
    assert rtpengine.media_port(text) == 7000
    assert rtpengine.media_key(text, "gcm") == (bytes(range(16)), bytes(12))
    with pytest.raises(PerfError, match="did not take"):
        rtpengine.media_key(text, "sha1")
    with pytest.raises(PerfError, match="no port"):
        rtpengine.media_port("m=audio 0 RTP/SAVP 96")


@pytest.mark.parametrize(("suite", "salt"), [("gcm", 12), ("sha1", 14)])
def test_keys_differ_by_leg_and_direction(suite: str, salt: int, tmp_path: Path) -> None:
    pairs = {keys.pair(suite, leg, way) for leg in range(50) for way in ("rx", "tx")}
    assert len(pairs) == 100 and all(len(k) == 16 and len(s) == salt for k, s in pairs)
    lines = keys.generator_file(tmp_path / "k", suite, range(3)).read_text().split("\n")
    assert lines[1] == " ".join(part.hex() for part in keys.pair(suite, 1, "rx"))


@pytest.mark.parametrize("workers", [1, 2])
def test_tables_are_whole(workers: int) -> None:
    plans = [
        (FanOut("gcm", 3, 5, workers, PORT, PORT, 20000, 6000, xsk=True), 18, 3, 15),
        (Meeting("gcm", 6, workers, PORT, 20000, xsk=False), 6, 12, 60),
    ]
    for plan, legs, sources, routes in plans:
        commands = plan.commands()
        owner = {c.leg.id: c.leg.worker for c in commands if isinstance(c, LegSet)}
        source = {c.source.id: c.source for c in commands if isinstance(c, SourceSet)}
        route = [c.route for c in commands if isinstance(c, RouteSet)]
        assert (len(owner), len(source), len(route)) == (legs, sources, routes)
        assert len({r.id for r in route}) == len(route)
        assert len({(r.leg, r.out_ssrc) for r in route}) == len(route)
        for r in route:
            assert r.source_worker == owner[source[r.source].leg]
            assert r.out_ssrc == source[r.source].ssrc and source[r.source].leg != r.leg
