"""Lists and masks of processors as the kernel writes them.  Pure.

A list is `0,2-5`, a mask hexadecimal words of 32 bits from the highest (`ff,ffffffff`).
ValueError: it is neither.  Source: Documentation/admin-guide/cputopology.rst, lib/bitmap.c.
"""

from __future__ import annotations

from collections.abc import Iterable

CPUS_MAX = 8192
"""Processors of a host (NR_CPUS of the largest kernels)."""


def parse(text: str) -> tuple[int, ...]:
    """`0,2-5` -> (0, 2, 3, 4, 5); an empty text is nobody."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if not part.strip():
            continue
        low, _, high = part.partition("-")
        first, last = int(low), int(high or low)
        if not 0 <= first <= last < CPUS_MAX:
            raise ValueError(f"not a list of processors: {text!r}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def show(cpus: Iterable[int]) -> str:
    """(0, 2, 3, 4, 5) -> `0,2-5`."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def parse_mask(text: str) -> tuple[int, ...]:
    """`f0` -> (4, 5, 6, 7)."""
    bits = int(text.strip().replace(",", "") or "0", 16)
    if bits.bit_length() > CPUS_MAX:
        raise ValueError("a mask of too many processors")
    return tuple(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def show_mask(cpus: Iterable[int]) -> str:
    """(4, 5, 6, 7) -> `f0`; words of 32 bits, joined by commas."""
    bits = sum(1 << cpu for cpu in set(cpus))
    words: list[int] = []
    while bits or not words:
        words.append(bits & 0xFFFFFFFF)
        bits >>= 32
    first, *rest = reversed(words)
    return ",".join([f"{first:x}", *(f"{word:08x}" for word in rest)])
