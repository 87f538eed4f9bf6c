"""Joins native stacks with Python's, and mends what has no way to the root.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from forwarder.telemetry.flame.pyspy import Timeline
from forwarder.telemetry.flame.samples import Sample
from forwarder.telemetry.flame.stacks import NO_FRAME_POINTER

PYTHON_UNSEEN = "[python, not sampled]"
_EVAL = ("_PyEval_", "[python3", "_PyFunction_Vectorcall", "_PyObject_Vectorcall")


def with_python(samples: Iterable[Sample], timeline: Timeline) -> list[Sample]:
    """Puts Python's frames of that thread and time below the native leaf.

    A leaf that is the interpreter itself is left out: its work is the Python function's."""
    merged = []
    for sample in samples:
        frames = timeline.at(sample.tid, sample.at_ns)
        if frames is None:
            frames = (PYTHON_UNSEEN,)
        native = tuple(name for name in sample.user if not name.startswith(_EVAL))
        merged.append(sample.with_user(frames + native))
    return merged


def _ways(samples: Sequence[Sample]) -> dict[tuple[int, str], Counter[tuple[str, ...]]]:
    """For each thread and function: the ways that lead to it, and how often."""
    ways: dict[tuple[int, str], Counter[tuple[str, ...]]] = {}
    for sample in samples:
        if not sample.complete:
            continue
        for depth, name in enumerate(sample.user):
            ways.setdefault((sample.tid, name), Counter())[sample.user[:depth]] += sample.weight
    return ways


def graft(samples: Sequence[Sample]) -> tuple[list[Sample], int]:
    """Incomplete stacks below the commonest way to their first function in the same thread;
    also how many were mended so.  Those without a way are put below one frame that says it."""
    ways = _ways(samples)
    mended, count = [], 0
    for sample in samples:
        if sample.complete or not sample.user:
            mended.append(sample)
            continue
        known = ways.get((sample.tid, sample.user[0]))
        if known:
            count += 1
            way = known.most_common(1)[0][0]
        else:
            way = () if sample.user[0] == NO_FRAME_POINTER else (NO_FRAME_POINTER,)
        mended.append(sample.with_user(way + sample.user))
    return mended, count
