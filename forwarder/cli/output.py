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

# Parts of a status that have a place of their own; whatever else a node tells is shown below them.
_PLACED: Final = frozenset(
    {
        "node",
        "version",
        "pid",
        "url",
        "path",
        "why",
        "selector",
        "interfaces",
        "uptime_s",
        "rooms",
        "legs",
        "rates",
        "drops",
        "copy_drops",
        "workers",
        "counters",
        "lateness",
        "memory",
        "dataplane",
        "balanced",
        "imbalance",
    }
)


def emit_json(value: object) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def emit_table(columns: Sequence[str], rows: Sequence[Row], *, title: str | None = None) -> None:
    """Numbers to the right, text to the left."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
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
    """A node's status for people: what matters first, zeros left out.

    Parts that this does not know are shown as they come, so that a newer node hides nothing.
    """
    emit_pairs(_heading(status))
    _emit_drops(status)
    _emit_workers(status.get("workers", []))
    _emit_memory(status.get("memory", {}))
    for name, value in status.items():
        if name in _PLACED:
            continue
        if isinstance(value, Mapping):
            _emit_part(name, value)
        elif value:
            print(f"\n{name}: {text(value)}")


def _heading(status: Mapping[str, Any]) -> dict[str, object]:
    rates, plane = status.get("rates", {}), status.get("dataplane", {})
    interfaces = [f"{one['name']} ({one['path']})" for one in status.get("interfaces", [])]
    lines: dict[str, object] = {
        "node": f"{status.get('node') or '-'}, version {status.get('version', '?')}",
        "url": status.get("url"),
        "up": duration(float(status.get("uptime_s", 0.0))),
        "data path": status.get("path"),
        "why": status.get("why"),
        "interfaces": interfaces,
    }
    if "rooms" in status:
        lines["rooms"] = _counted(status["rooms"])
    if "legs" in status:
        lines["legs"] = _counted(status["legs"])
    for way, name in (("rx", "in"), ("tx", "out")):
        if f"{way}_packets_per_s" in rates:
            packets = f"{rates[f'{way}_packets_per_s']:,.0f} packets/s"
            lines[name] = f"{packets}, {bits(rates[f'{way}_bits_per_s'])}"
    late = status.get("lateness", {})
    if late.get("departures"):
        shown = (f"{name} {text(late[f'{name}_us'])} us" for name in ("p50", "p99", "p999"))
        lines["lateness"] = f"{', '.join(shown)} of {late['departures']:,} departures"
    if plane.get("scheduler"):
        lines["workers run"] = f"{plane['scheduler']}: {plane.get('scheduler_why')}"
    if plane:
        rest = {name: value for name, value in plane.items() if not name.startswith("scheduler")}
        lines["data plane"] = _counted(rest)
    if "balanced" in status:
        lines["balanced"] = "yes" if status["balanced"] else f"NO: {status.get('imbalance')}"
    return {name: value for name, value in lines.items() if value not in (None, "", [])}


def _counted(values: Any) -> str:
    """`5 active, 2 tracks`; zeros left out where there is more to say."""
    if not isinstance(values, Mapping):
        return text(values)
    total = values.get("count")
    parts = [] if total is None else [text(total)]
    for name, value in values.items():
        if name != "count" and value:
            shown = str(value) if name == "pid" else text(value)
            parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts) or "none"


def _emit_drops(status: Mapping[str, Any]) -> None:
    rows = [
        (what, reason.replace("_", " "), count)
        for key, what in (("drops", "packet received"), ("copy_drops", "copy to be sent"))
        for reason, count in status.get(key, {}).items()
        if count
    ]
    if "drops" in status:
        print("\ndrops" if rows else "\ndrops: none")
    if rows:
        emit_table(("what", "reason", "count"), rows)


def _emit_workers(workers: Sequence[Mapping[str, Any]]) -> None:
    counters = [worker.get("counters", {}) for worker in workers]
    names = [name for name in (counters[0] if counters else ()) if any(c[name] for c in counters)]
    if names:
        columns = ["counter", *(f"worker {index}" for index in range(len(counters)))]
        print()
        emit_table(columns, [[name, *(one[name] for one in counters)] for name in names])


def _emit_memory(memory: Mapping[str, Any]) -> None:
    rows: list[Row] = [
        (name, pool["count"], size(pool["bytes"])) for name, pool in memory.get("pools", {}).items()
    ]
    if rows:
        print()
        emit_table(("memory", "in use", "bytes"), rows)
    resident = {
        f"{name.removesuffix('_rss_mb')} resident": f"{value:,.1f} MiB"
        for name, value in memory.items()
        if name.endswith("_rss_mb")
    }
    emit_pairs(resident)


def _emit_part(name: str, values: Mapping[str, Any]) -> None:
    shown = {f"  {key}": value for key, value in _flatten(values) if value}
    if shown:
        print(f"\n{name.replace('_', ' ')}")
        emit_pairs(shown)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
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


def bits(rate: float) -> str:
    """Bits a second."""
    for unit, scale in (("Gb/s", 1e9), ("Mb/s", 1e6), ("kb/s", 1e3)):
        if rate >= scale:
            return f"{rate / scale:,.1f} {unit}"
    return f"{rate:,.0f} b/s"


def size(count: int) -> str:
    """Bytes."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:,} B"


def duration(seconds: float) -> str:
    """The two largest units."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"


def when(seconds: float) -> str:
    """Wall-clock seconds as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
