"""Folded stacks: counting, reading, writing and comparing them.  Pure but for the two files.

A folded stack is one line, `root;...;leaf weight`.  Frames of the kernel end in `_[k]`, those of
Python in `(file.py)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from forwarder.errors import VcfwdError
from forwarder.telemetry.flame.samples import Sample

KERNEL_MARK = "_[k]"
TOP = 10

Folded = Mapping[tuple[str, ...], int]


class FoldedError(VcfwdError):
    """A file is no file of folded stacks."""


def _clean(name: str) -> str:
    return name.replace(";", ":").replace("\n", " ").strip() or "[unknown]"


def frames(sample: Sample, *, user: bool = True) -> tuple[str, ...]:
    """The whole stack of a sample, its thread's name at the root."""
    below = tuple(_clean(name) for name in sample.user) if user else ()
    above = tuple(_clean(name) + KERNEL_MARK for name in sample.kernel)
    return (_clean(sample.comm), *below, *above)


def fold(samples: Iterable[Sample], *, user: bool = True) -> Counter[tuple[str, ...]]:
    """Weights by stack."""
    folded: Counter[tuple[str, ...]] = Counter()
    for sample in samples:
        folded[frames(sample, user=user)] += sample.weight
    return folded


def self_frame(sample: Sample, *, kernel: bool) -> str:
    """Whose time this is.  Of a process (`kernel` false) its own function, to which the kernel's
    work in a system call counts: `sendto`, not what the kernel does for it."""
    if kernel or not sample.user:
        return _clean((sample.kernel or sample.user or (sample.comm,))[-1])
    return _clean(sample.user[-1])


def top(
    samples: Iterable[Sample], *, kernel: bool = False, count: int = TOP
) -> list[tuple[str, float]]:
    """The functions with the most time of their own, each with its share."""
    own: Counter[str] = Counter()
    for sample in samples:
        own[self_frame(sample, kernel=kernel)] += sample.weight
    total = own.total()
    return [(name, weight / total) for name, weight in own.most_common(count)]


def text(folded: Folded) -> str:
    """One line a stack, in order, so that two runs can be compared as text."""
    return "".join(f"{';'.join(stack)} {weight}\n" for stack, weight in sorted(folded.items()))


def read(path: Path) -> Counter[tuple[str, ...]]:
    """A file of folded stacks, ours or of another tool.  Raises FoldedError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FoldedError(f"cannot read {path}: {error}") from None
    folded: Counter[tuple[str, ...]] = Counter()
    for number, line in enumerate(lines, 1):
        stack, _, weight = line.rpartition(" ")
        if not line.strip():
            continue
        if not stack or not weight.isdecimal():
            raise FoldedError(
                f"{path}, line {number}: `stack weight` was expected, as `vcfwd flame` writes it"
            )
        folded[tuple(stack.split(";"))] += int(weight)
    if not folded.total():
        raise FoldedError(f"{path} holds no stacks")
    return folded


def changes(before: Folded, after: Folded, count: int = TOP) -> list[tuple[str, float, float]]:
    """Functions by how much their share of the time of their own has changed."""

    def shares(folded: Folded) -> dict[str, float]:
        own: Counter[str] = Counter()
        for stack, weight in folded.items():
            own[stack[-1]] += weight
        total = own.total()
        return {name: weight / total for name, weight in own.items()}

    old, new = shares(before), shares(after)
    rows = [(name, old.get(name, 0.0), new.get(name, 0.0)) for name in old.keys() | new.keys()]
    rows.sort(key=lambda row: (-abs(row[2] - row[1]), row[0]))
    return rows[:count]
