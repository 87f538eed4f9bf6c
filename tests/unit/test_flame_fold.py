"""Stacks folded, ranked, compared and drawn: pure parts of `vcfwd flame`."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from forwarder.telemetry.flame import fold, merge, record, speedscope, svg
from forwarder.telemetry.flame.pyspy import NEAR_NS, Timeline
from forwarder.telemetry.flame.samples import Sample
from forwarder.telemetry.flame.stacks import NO_FRAME_POINTER

MS = 1_000_000
SVG = "{http://www.w3.org/2000/svg}"


def sample(
    user: tuple[str, ...],
    kernel: tuple[str, ...] = (),
    *,
    at: int = 0,
    tid: int = 7,
    weight: int = 1,
    complete: bool = True,
) -> Sample:
    return Sample(at, 7, tid, "vcfwd-w0", kernel, user, weight, complete)


SAMPLES = [
    *[
        sample(("run", "depart", "sendto"), ("do_syscall_64", "xsk_sendmsg"), at=i)
        for i in range(6)
    ],
    *[sample(("run", "depart", "aes_gcm"), at=10 + i) for i in range(3)],
    sample(("run", "a;b\nc"), at=20),
]


def test_a_fold_counts_equal_stacks_and_keeps_the_format() -> None:
    folded = fold.fold(SAMPLES)
    text = fold.text(folded)
    assert "vcfwd-w0;run;depart;sendto;do_syscall_64_[k];xsk_sendmsg_[k] 6\n" in text
    assert "vcfwd-w0;run;a:b c 1\n" in text
    assert folded.total() == len(SAMPLES)
    assert fold.fold(SAMPLES, user=False)["vcfwd-w0", "do_syscall_64_[k]", "xsk_sendmsg_[k]"] == 6


def test_the_time_of_a_system_call_is_its_callers_and_the_kernels_own_for_the_kernel() -> None:
    assert fold.top(SAMPLES)[:2] == [("sendto", 0.6), ("aes_gcm", 0.3)]
    assert fold.top(SAMPLES, kernel=True)[0] == ("xsk_sendmsg", 0.6)
    assert fold.top([sample((), ("idle",))]) == [("idle", 1.0)]
    assert len(fold.top([sample((f"f{i}",)) for i in range(30)])) == fold.TOP


def test_folded_files_are_read_back_and_bad_ones_named(tmp_path: Path) -> None:
    file = tmp_path / "x.folded"
    file.write_text(fold.text(fold.fold(SAMPLES)) + "\n")
    assert fold.read(file) == fold.fold(SAMPLES)
    for bad in ("", "no weight\n", "a;b -3\n", "justone\n"):
        file.write_text(bad)
        with pytest.raises(fold.FoldedError, match=re.escape(str(file))):
            fold.read(file)
    file.write_bytes(b"\xff\xfe 1\n")
    with pytest.raises(fold.FoldedError):
        fold.read(file)


def test_changes_are_of_shares_not_of_counts() -> None:
    before = {("r", "a"): 50, ("r", "b"): 50}
    after = {("r", "a"): 900, ("r", "c"): 100}
    assert fold.changes(before, after) == [("b", 0.5, 0.0), ("a", 0.5, 0.9), ("c", 0.0, 0.1)]


def _frames(text: str) -> list[tuple[str, float, float, int]]:
    """Name, left, width and depth of each frame; the file must be well-formed XML."""
    root = ET.fromstring(text)
    groups = root.findall(f"{SVG}g")
    return [
        (
            g.get("data-n", ""),
            *(float(g.get(k, "")) for k in ("data-x", "data-w")),
            int(g.get("data-d", "")),
        )
        for g in groups
    ]


def test_the_graph_is_one_file_whose_widths_are_shares() -> None:
    nasty = fold.fold([*SAMPLES, *[sample(("run", "<script>&\"'", "]]>"))] * 2])
    text = svg.draw('a "title" <&>', nasty)
    frames = _frames(text)
    whole = svg.WIDTH - 2 * svg.PAD
    by_name = {name: (left, width, depth) for name, left, width, depth in frames}
    assert by_name["all"] == (svg.PAD, whole, 0)
    assert by_name["sendto"][1] == pytest.approx(whole * 6 / 12, abs=0.02)
    assert by_name["sendto"][2] == 4
    assert "<script>&\"'" in by_name
    for name, left, width, depth in frames:  # a child lies within a parent
        assert depth == 0 or any(
            d == depth - 1 and x - 0.02 <= left and left + width <= x + w + 0.02
            for _, x, w, d in frames
        ), name
    # Nothing is fetched from elsewhere: the one address is the name space.
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
    assert "src=" not in text and "href" not in text and "@import" not in text


def test_frames_too_narrow_to_see_are_left_out() -> None:
    folded = {("r", "wide"): 1_000_000, ("r", "narrow"): 1}
    assert {name for name, *_ in _frames(svg.draw("t", folded))} == {"all", "r", "wide"}


def _fill(group: ET.Element) -> str:
    rect = group.find(f"{SVG}rect")
    assert rect is not None
    return rect.get("fill", "")


def test_a_differential_graph_is_red_where_more_and_blue_where_less() -> None:
    before = {("r", "more"): 10, ("r", "less"): 90}
    after = {("r", "more"): 90, ("r", "less"): 10}
    root = ET.fromstring(svg.draw("t", after, before=before))
    fills = {
        g.get("data-n"): [int(n) for n in re.findall(r"\d+", _fill(g))]
        for g in root.findall(f"{SVG}g")
    }
    assert fills["more"][0] == 255 > fills["more"][2]
    assert fills["less"][2] == 255 > fills["less"][0]
    titles = [g.findtext(f"{SVG}title") or "" for g in root.findall(f"{SVG}g")]
    assert any("before 10.00%, +80.00%" in title for title in titles)


def test_speedscope_has_a_profile_for_each_thread_in_the_order_of_time() -> None:
    samples = [sample(("b",), at=2), sample(("a",), at=1), sample(("c",), at=3, tid=8)]
    document = speedscope.document("n", samples, 500)
    names = [frame["name"] for frame in document["shared"]["frames"]]
    first, second = document["profiles"]
    assert [[names[i] for i in stack][-1] for stack in first["samples"]] == ["a", "b"]
    assert first["weights"] == [2000.0, 2000.0] and first["endValue"] == 4000.0
    assert second["name"] == "vcfwd-w0 (8)"
    waits = speedscope.document("n", [sample(("a",), weight=70)], 500, waits=True)
    assert waits["profiles"][0]["weights"] == [70.0]
    assert json.loads(json.dumps(document)) == document


# ---- joining -------------------------------------------------------------------------------------


def _event(ph: str, name: str, ts: int, file: str = "", tid: int = 1000) -> dict[str, object]:
    return {"ph": ph, "name": name, "ts": ts, "tid": tid, "args": {"filename": file}}


TRACE = [
    _event("B", "thread (7): MainThread", 100),
    _event("B", "main", 100, "/opt/app/run.py"),
    _event("B", "plan", 100, "/opt/app/rooms/plan.py"),
    _event("E", "plan", 2100),
    _event("B", "send", 2100, "/opt/app/slow.py"),
    _event("E", "send", 4100),
    _event("E", "main", 4100),
    _event("E", "thread (7): MainThread", 4100),
]


def test_the_timeline_knows_each_moment_and_what_is_near() -> None:
    timeline = Timeline.parse(TRACE, began_ns=1_000 * MS)
    zero = 1_000 * MS
    assert timeline.threads == [7]
    assert timeline.at(7, zero + MS) == ("main (app/run.py)", "plan (rooms/plan.py)")
    assert timeline.at(7, zero + 3 * MS) == ("main (app/run.py)", "send (app/slow.py)")
    assert timeline.at(7, zero + 5 * MS) == ("main (app/run.py)", "send (app/slow.py)")
    assert timeline.at(7, zero) == ("main (app/run.py)", "plan (rooms/plan.py)")
    assert timeline.at(7, zero + 5 * MS + NEAR_NS) is None
    assert timeline.at(8, zero + MS) is None


def test_python_lies_below_the_native_leaf_and_the_interpreter_is_not_seen() -> None:
    timeline = Timeline.parse(TRACE, began_ns=0)
    given = [
        sample(("_PyEval_EvalFrameDefault",), at=MS),
        sample(("sendto",), ("do_syscall_64",), at=3 * MS),
        sample(("[libc.so.6]",), at=99 * MS),
    ]
    stacks = [one.user for one in merge.with_python(given, timeline)]
    assert stacks == [
        ("main (app/run.py)", "plan (rooms/plan.py)"),
        ("main (app/run.py)", "send (app/slow.py)", "sendto"),
        (merge.PYTHON_UNSEEN, "[libc.so.6]"),
    ]


def test_a_cut_stack_is_hung_below_the_commonest_way_of_its_thread() -> None:
    given = [
        *[sample(("run", "work", "seal", "aes"))] * 2,
        sample(("run", "seal", "aes")),
        *[sample(("run", "other", "seal"), tid=8)] * 9,
        sample(("seal", "sha"), complete=False),
        sample(("lonely", "leaf"), complete=False),
        sample((NO_FRAME_POINTER, "leaf"), complete=False),
    ]
    mended, count = merge.graft(given)
    assert count == 1
    assert [one.user for one in mended[-3:]] == [
        ("run", "work", "seal", "sha"),
        (NO_FRAME_POINTER, "lonely", "leaf"),
        (NO_FRAME_POINTER, "leaf"),
    ]
    assert mended[:-3] == given[:-3]


# ---- files ---------------------------------------------------------------------------------------


def test_what_is_written_can_be_compared(tmp_path: Path) -> None:
    for name, samples in (("a", SAMPLES), ("b", SAMPLES[:7])):
        result = record.Result("bcc", [record.Graph("dataplane", samples, 499)])
        record.write(result, tmp_path / name, "t")
        assert [path.name for path in result.files] == [
            "dataplane.folded",
            "dataplane.svg",
            "dataplane.speedscope.json",
        ]
        assert all(path.stat().st_size for path in result.files)
    rows, files = record.diff(tmp_path / "a", tmp_path / "b", tmp_path / "d")
    assert [path.name for path in files] == ["diff-dataplane.svg"]
    assert rows[0] == ("xsk_sendmsg_[k]", 0.6, pytest.approx(6 / 7))
    one = record.diff(tmp_path / "a/dataplane.folded", tmp_path / "b/dataplane.folded", tmp_path)
    assert one[0] == rows
    (tmp_path / "empty").mkdir()
    for other in (tmp_path / "empty", tmp_path / "a/dataplane.folded"):
        with pytest.raises(fold.FoldedError):
            record.diff(tmp_path / "a", other, tmp_path)
