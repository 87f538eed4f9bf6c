"""Profiles in the file format of speedscope: one profile a thread, in the order of time.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from forwarder.telemetry.flame.fold import frames
from forwarder.telemetry.flame.samples import Sample

SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def document(
    name: str, samples: Iterable[Sample], hz: int, *, user: bool = True, waits: bool = False
) -> dict[str, Any]:
    """`waits`: weights are microseconds already; otherwise a sample stands for 1/hz."""
    indexes: dict[str, int] = {}
    threads: dict[tuple[str, int], tuple[list[list[int]], list[float]]] = {}
    unit = 1.0 if waits else 1e6 / hz
    for sample in sorted(samples, key=lambda one: one.at_ns):
        stack = [indexes.setdefault(frame, len(indexes)) for frame in frames(sample, user=user)]
        key = (sample.comm, sample.tid if user else 0)
        stacks, weights = threads.setdefault(key, ([], []))
        stacks.append(stack)
        weights.append(round(sample.weight * unit, 3))
    return {
        "$schema": SCHEMA,
        "name": name,
        "exporter": "vcfwd",
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": frame} for frame in indexes]},
        "profiles": [
            {
                "type": "sampled",
                "name": f"{comm} ({tid})" if tid else comm,
                "unit": "microseconds",
                "startValue": 0,
                "endValue": round(sum(weights), 3),
                "samples": stacks,
                "weights": weights,
            }
            for (comm, tid), (stacks, weights) in sorted(threads.items())
        ],
    }
