"""How answers look: tables for people, JSON for programs; all of it here.

JSON is one document on standard output.  Tables bend to the terminal's width; rich is imported
only when one is drawn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

Row = Sequence[object]

# What a status holds, in the order in which it is shown; other parts follow as they come.
STATUS_ORDER: Final = ("node", "path", "why", "uptime_s", "rooms", "legs")


def emit_json(value: object) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def emit_table(columns: Sequence[str], rows: Sequence[Row], *, title: str | None = None) -> None:
    """Numbers to the right, text to the left."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    Console(highlight=False, markup=False).print(table)


def emit_pairs(values: Mapping[str, object]) -> None:
    """One `name  value` a line."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        print(f"{name.ljust(width)}  {text(value)}")


def emit_status(status: Mapping[str, Any]) -> None:
    """A node's status: plain values first, then each part as a table or a list of pairs.

    Shown as it comes, so that what a node adds to its status is seen without a new client.
    """
    names = [name for name in STATUS_ORDER if name in status]
    names += [name for name in status if name not in names]
    plain = {name: status[name] for name in names if not isinstance(status[name], dict | list)}
    emit_pairs(plain)
    for name in names:
        value = status[name]
        if isinstance(value, list):
            _emit_list(name, value)
        elif isinstance(value, dict):
            _emit_part(name, value)


def _emit_list(name: str, values: list[Any]) -> None:
    if not values or not all(isinstance(value, dict) for value in values):
        print(f"\n{name}: {', '.join(text(value) for value in values) or 'none'}")
        return
    columns = list(dict.fromkeys(key for value in values for key in value))
    print()
    emit_table(columns, [[value.get(key) for key in columns] for value in values], title=name)


def _emit_part(name: str, values: dict[str, Any]) -> None:
    flat = dict(_flatten(values))
    print(f"\n{name}" if flat else f"\n{name}: none")
    emit_pairs({f"  {key}": value for key, value in flat.items()})


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def text(value: object) -> str:
    """A cell: thousands grouped, lists joined, nothing as a dash."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
        case dict():
            return ", ".join(f"{key} {text(one)}" for key, one in value.items())
        case list() | tuple():
            return ", ".join(text(one) for one in value)
    return str(value)


def when(seconds: float) -> str:
    """Wall-clock seconds as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
