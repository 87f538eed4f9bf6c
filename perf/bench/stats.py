"""Medians, spreads and ratios.  Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Spread = dict[str, float]


def digits(value: float, significant: int = 4) -> float:
    """Rounded to significant digits: a measurement has no more."""
    return float(f"{value:.{significant}g}")


def spread(values: Sequence[float]) -> Spread | None:
    """Median, least, greatest and count; None of nothing."""
    if not values:
        return None
    return {
        "median": digits(statistics.median(values)),
        "min": digits(min(values)),
        "max": digits(max(values)),
        "rounds": len(values),
    }


def median(values: Sequence[float]) -> float | None:
    return digits(statistics.median(values)) if values else None


def ratios(over: Sequence[float | None], under: Sequence[float | None]) -> list[float]:
    """Round by round, so that what slows a whole round cancels."""
    return [a / b for a, b in zip(over, under, strict=False) if a is not None and b]


def reductions(better: Sequence[float], than: Sequence[float]) -> list[float]:
    """Share by which each value is lower than its partner: 0.3 is 30 % lower."""
    return [1 - a / b for a, b in zip(better, than, strict=False) if b]


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Least squares; ValueError with fewer than two different x."""
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    below = sum((x - mean_x) ** 2 for x in xs)
    if not below:
        raise ValueError("a slope needs two different x")
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / below


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value of rank ceil(share * n)."""
    if not values:
        return None
    ordered = sorted(values)
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[min(rank, len(ordered)) - 1]


def numbers(record: Any, path: str = "") -> dict[str, float]:
    """Every number of a nested record by its dotted path; truth values are none."""
    found: dict[str, float] = {}
    if isinstance(record, bool):
        return found
    if isinstance(record, int | float):
        return {path: float(record)}
    items: Any = ()
    if isinstance(record, Mapping):
        items = record.items()
    elif isinstance(record, list | tuple):
        items = enumerate(record)
    for key, value in items:
        found |= numbers(value, f"{path}.{key}" if path else str(key))
    return found
