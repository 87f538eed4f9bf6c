"""From an order to files: samples, merges, folds and writes.

Targets: `dataplane` and `supervisor` are those processes with their user and kernel stacks;
`kernel` is the kernel's part under every process of the machine, the receivers' softirq included.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from forwarder.errors import HostError
from forwarder.telemetry.flame import bcc_backend, fold, merge, perf_backend, speedscope, svg
from forwarder.telemetry.flame.pyspy import Spy
from forwarder.telemetry.flame.samples import Order, Recording, Sample

TARGETS: Final = ("dataplane", "supervisor", "kernel")
HZ: Final = 499  # prime: not in step with timers of round numbers


@dataclass(frozen=True)
class Graph:
    """One target's stacks.  unit: samples, or microseconds of waiting."""

    name: str
    samples: list[Sample]
    hz: int
    waits: bool = False

    @property
    def kernel(self) -> bool:
        return self.name == "kernel"

    @property
    def top(self) -> list[tuple[str, float]]:
        return fold.top(self.samples, kernel=self.kernel)


@dataclass
class Result:
    """What `vcfwd flame` tells."""

    backend: str
    graphs: list[Graph]
    lost: int = 0
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    load: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "backend": self.backend,
            "samples": sum(len(graph.samples) for graph in self.graphs),
            "lost": self.lost,
            "targets": {
                graph.name: {
                    "samples": len(graph.samples),
                    "top": [{"frame": name, "share": round(share, 4)} for name, share in graph.top],
                }
                for graph in self.graphs
            },
            "files": [str(path) for path in self.files],
            "notes": self.notes,
            **({"load": self.load} if self.load else {}),
        }


def backend(*, off_cpu: bool) -> tuple[str, list[str]]:
    """`bcc` or `perf`, and why not the better one.  HostError when there is neither."""
    no_bcc = bcc_backend.why_not()
    if no_bcc is None:
        return "bcc", []
    if off_cpu:
        raise HostError(f"waits (--off-cpu) are recorded by BCC alone: {no_bcc}")
    no_perf = perf_backend.why_not()
    if no_perf is None:
        return "perf", [no_bcc]
    raise HostError(f"nothing here can sample: {no_bcc}; {no_perf}")


def record(
    pids: dict[str, int], targets: Sequence[str], seconds: float, *, off_cpu: bool
) -> Result:
    """Samples the targets; pids: process ids of `supervisor` and `dataplane`."""
    chosen, notes = backend(off_cpu=off_cpu)
    wanted = {name: pids[name] for name in targets if name in pids}
    order = Order(wanted, "kernel" in targets and not off_cpu, seconds, HZ, off_cpu)
    if off_cpu and not wanted:
        raise HostError("waits belong to a process: take --target dataplane, supervisor or all")
    spies: list[Spy] = []

    def meanwhile() -> None:
        if "supervisor" in wanted:
            spies.append(Spy(wanted["supervisor"], seconds, HZ))

    sampler = bcc_backend.record if chosen == "bcc" else perf_backend.record
    timelines = []
    try:
        recording = sampler(order, meanwhile)
    finally:
        timelines = [spy.finish() for spy in spies]
    result = Result(recording.backend, [], recording.lost, notes)
    result.notes += [spy.note for spy in spies if spy.note]
    for name in targets:
        samples = _of(recording, name, wanted)
        if name == "supervisor" and timelines:
            samples = merge.with_python(samples, timelines[0])
        if name == "dataplane":
            samples, mended = merge.graft(samples)
            if mended:
                result.notes.append(f"{mended} stacks of the data plane were completed by likeness")
        if samples:
            result.graphs.append(Graph(name, samples, recording.hz, off_cpu))
        elif name in wanted:
            result.notes.append(f"{name}: no samples; it did nothing in this time")
    return result


def _of(recording: Recording, name: str, pids: dict[str, int]) -> list[Sample]:
    if name == "kernel":
        return [sample for sample in recording.samples if sample.kernel]
    return [sample for sample in recording.samples if sample.pid == pids[name]]


def write(result: Result, out: Path, title: str) -> None:
    """Folded stacks, a graph and a speedscope file for each target, named in `result.files`."""
    out.mkdir(parents=True, exist_ok=True)
    for graph in result.graphs:
        folded = fold.fold(graph.samples, user=not graph.kernel)
        unit = "us" if graph.waits else "samples"
        profile = speedscope.document(
            f"{title}: {graph.name}",
            graph.samples,
            graph.hz,
            user=not graph.kernel,
            waits=graph.waits,
        )
        stem = f"{graph.name}{'-off-cpu' if graph.waits else ''}"
        texts = {
            f"{stem}.folded": fold.text(folded),
            f"{stem}.svg": svg.draw(f"{title}: {graph.name}", folded, unit=unit),
            f"{stem}.speedscope.json": json.dumps(profile),
        }
        for name, text in texts.items():
            (out / name).write_text(text)
            result.files.append(out / name)


def diff(before: Path, after: Path, out: Path) -> tuple[list[tuple[str, float, float]], list[Path]]:
    """Draws what changed from one run to another: two files of folded stacks, or two folders that
    `write` filled.  The functions that changed most (named with their target where there are
    several), and the files."""
    pairs = _pairs(before, after)
    out.mkdir(parents=True, exist_ok=True)
    files, rows = [], []
    for old, new in pairs:
        left, right = fold.read(old), fold.read(new)
        place = f"{new.stem}: " if len(pairs) > 1 else ""
        rows += [(place + name, was, now) for name, was, now in fold.changes(left, right)]
        target = out / f"diff-{new.stem}.svg"
        target.write_text(svg.draw(f"{old} -> {new}", right, before=left))
        files.append(target)
    rows.sort(key=lambda row: -abs(row[2] - row[1]))
    return rows[: fold.TOP], files


def _pairs(before: Path, after: Path) -> list[tuple[Path, Path]]:
    if before.is_dir() != after.is_dir():
        raise fold.FoldedError(f"{before} and {after}: give two files, or two folders")
    if not before.is_dir():
        return [(before, after)]
    names = sorted(
        {p.name for p in before.glob("*.folded")} & {p.name for p in after.glob("*.folded")}
    )
    if not names:
        raise fold.FoldedError(f"{before} and {after} have no *.folded file of the same name")
    return [(before / name, after / name) for name in names]
