"""Two records beside each other: every number that both have, and its change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perf.bench.lab import PerfError
from perf.bench.stats import digits, numbers


def load(where: str) -> dict[str, Any]:
    """A record from FILE or FILE:N, a JSON file or one line of a JSONL file (1 is the first)."""
    name, _, line = where.partition(":") if not Path(where).exists() else (where, "", "")
    number = int(line or -1)
    lines = [text for text in Path(name).read_text().splitlines() if text.strip()]
    if not number or not -len(lines) <= number <= len(lines):
        raise PerfError(f"{name} has {len(lines)} records, not a number {number}")
    record = json.loads(lines[number - 1 if number > 0 else number])
    if not isinstance(record, dict):
        raise PerfError(f"{where} is no record of this rig")
    return record


def compare(a: dict[str, Any], b: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """By dotted path: a, b, and change = b / a - 1 (None where a is 0)."""
    if a.get("suite") != b.get("suite"):
        raise PerfError(f"a is of suite {a.get('suite')}, b of {b.get('suite')}")
    left, right = numbers(a), numbers(b)
    return {
        path: {
            "a": left[path],
            "b": right[path],
            "change": digits(right[path] / left[path] - 1) if left[path] else None,
        }
        for path in left
        if path in right
    }


def show(found: dict[str, Any]) -> None:
    """A table on standard output."""
    for path, value in found.items():
        if isinstance(value, dict) and set(value) == {"a", "b", "change"}:
            change = "" if value["change"] is None else f"{value['change']:+.1%}"
            print(f"{path:48} {value['a']:>14g} {value['b']:>14g} {change:>9}")
        else:
            print(f"{path:32} {value}")
