"""What happened between two looks at a node: rates, lateness, and how busy each worker was.

The node is asked for its status (counters since its start); the workers' threads are looked at in
/proc.  Everything else here is pure: two readings in, one document, eighty columns out.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

WIDTH: Final = 80
DROP_LINES: Final = 4
THREAD: Final = "vcfwd-w"  # and the worker's number: c_helpers/src/threads.c

Buckets = Sequence[Sequence[Any]]  # [bound in microseconds or None, departures]


@dataclass(frozen=True)
class Schedule:
    """Nanoseconds that a thread ran, and that it was ready but waited for a processor."""

    ran_ns: int
    waited_ns: int


@dataclass(frozen=True)
class Reading:
    """One look: monotonic seconds, the node's status, its worker threads by number."""

    at: float
    status: Mapping[str, Any]
    threads: Mapping[int, Schedule]


def threads(pid: int, proc: Path = Path("/proc")) -> dict[int, Schedule]:
    """The worker threads of a data plane; empty where /proc does not tell."""
    found: dict[int, Schedule] = {}
    try:
        tasks = list((proc / str(pid) / "task").iterdir())
    except OSError:
        return found
    for task in tasks:
        try:
            name = (task / "comm").read_text().strip()
            words = (task / "schedstat").read_text().split()
            if name.startswith(THREAD):
                found[int(name.removeprefix(THREAD))] = Schedule(int(words[0]), int(words[1]))
        except (OSError, ValueError, IndexError):
            continue  # it has just ended, or the kernel keeps no such account
    return found


def read(status: Mapping[str, Any]) -> Reading:
    """A look now."""
    return Reading(time.monotonic(), status, threads(int(status["dataplane"]["pid"])))


# ---- differences -----------------------------------------------------------------------------


def _delta(new: Mapping[str, int], old: Mapping[str, int]) -> dict[str, int]:
    return {name: value - old.get(name, 0) for name, value in new.items()}


def _lateness(new: Buckets, old: Buckets) -> dict[str, float | int | None]:
    """Quantiles in microseconds of the departures between; None where there were none, or where
    they lie in the last bucket, which has no bound."""
    before = {bound: count for bound, count in old}
    counts = [(bound, count - before.get(bound, 0)) for bound, count in new]
    counts.sort(key=lambda row: float("inf") if row[0] is None else row[0])
    total = sum(count for _, count in counts)

    def quantile(share: float) -> float | None:
        seen = 0
        for bound, count in counts:
            seen += count
            if count and seen >= share * total:
                return None if bound is None else float(bound)
        return None

    return {
        "departures": total,
        "p50_us": quantile(0.5),
        "p99_us": quantile(0.99),
        "p999_us": quantile(0.999),
        "max_us": quantile(1.0),
    }


def _share(nanoseconds: int | None, span_s: float) -> float | None:
    return None if nanoseconds is None else round(min(1.0, nanoseconds / 1e9 / span_s), 4)


def _worker(
    index: int,
    new: Mapping[str, Any],
    old: Mapping[str, Any],
    schedules: tuple[Schedule | None, Schedule | None],
    span_s: float,
) -> dict[str, Any]:
    counters = _delta(new["counters"], old.get("counters", {}))
    now, before = schedules
    ran = waited = None
    if now is not None and before is not None and now.ran_ns >= before.ran_ns:
        ran, waited = now.ran_ns - before.ran_ns, now.waited_ns - before.waited_ns
    late = _lateness(
        new.get("lateness", {}).get("buckets", ()), old.get("lateness", {}).get("buckets", ())
    )
    kicks = counters.get("tx_kicks", 0)

    def rate(name: str) -> float:
        return round(counters.get(name, 0) / span_s, 1)

    return {
        "worker": index,
        "rx_per_s": rate("rx"),
        "tx_per_s": rate("transmitted"),
        "cpu": _share(ran, span_s),
        "ready": _share(waited, span_s),
        "work": _share(counters.get("worked_ns"), span_s),
        "spin": _share(counters.get("spun_ns"), span_s),
        "sleep": _share(counters.get("blocked_ns"), span_s),
        "wakeups_per_s": rate("wakeups"),
        "loops_per_s": rate("loops"),
        "tx_per_kick": round(counters.get("transmitted", 0) / kicks, 1) if kicks else None,
        "queued": new["counters"].get("queued", 0),
        "lateness": late,
    }


def _drops(new: Mapping[str, Any], old: Mapping[str, Any], span_s: float) -> dict[str, float]:
    """Drops a second by reason, of workers, copies and steering; only those that happened."""
    found: dict[str, float] = {}
    parts: list[tuple[str, Mapping[str, int], Mapping[str, int]]] = [
        ("", new.get("drops", {}), old.get("drops", {})),
        ("copy ", new.get("copy_drops", {}), old.get("copy_drops", {})),
    ]
    for name in ("verdicts", "select_verdicts"):
        verdicts = new.get("steering", {}).get(name, {})
        dropped = {label: count for label, count in verdicts.items() if "drop_" in label}
        parts.append(("steering ", dropped, old.get("steering", {}).get(name, {})))
    for prefix, now, before in parts:
        for reason, count in _delta(now, before).items():
            if count > 0:
                label = prefix + reason.removeprefix("drop_").replace("_", " ")
                found[label] = round(found.get(label, 0.0) + count / span_s, 1)
    return dict(sorted(found.items(), key=lambda row: -row[1]))


def between(old: Reading, new: Reading) -> dict[str, Any]:
    """The document of one interval.  After a restart of the data plane its counters began anew,
    and are taken as they are (`restarted`)."""
    span_s = max(new.at - old.at, 1e-3)
    status, was = new.status, old.status
    restarted = status["dataplane"]["pid"] != was["dataplane"]["pid"]
    was = {"counters": {}} if restarted else was
    counters = _delta(status["counters"], was["counters"])
    workers_before = was.get("workers", [])
    steering_before = old.status.get("steering", {})  # its maps outlive the data plane
    return {
        "node": status["node"],
        "path": status["path"],
        "uptime_s": status["uptime_s"],
        "interval_s": round(span_s, 3),
        "restarted": restarted,
        "rx_per_s": round(counters["rx"] / span_s, 1),
        "rx_bits_per_s": round(8 * counters["rx_bytes"] / span_s, 1),
        "tx_per_s": round(counters["transmitted"] / span_s, 1),
        "tx_bits_per_s": round(8 * counters["tx_bytes"] / span_s, 1),
        "queued": status["counters"]["queued"],
        "rooms": dict(status["rooms"]),
        "legs": {name: status["legs"][name] for name in ("count", "live")},
        "lateness": _lateness(
            status.get("lateness", {}).get("buckets", ()),
            was.get("lateness", {}).get("buckets", ()),
        ),
        "drops_per_s": _drops(status, {**was, "steering": steering_before}, span_s),
        "workers": [
            _worker(
                index,
                worker,
                workers_before[index] if index < len(workers_before) else {},
                (new.threads.get(index), None if restarted else old.threads.get(index)),
                span_s,
            )
            for index, worker in enumerate(status["workers"])
        ],
    }


# ---- eighty columns --------------------------------------------------------------------------


def number(value: float) -> str:
    """At most six characters: 999, 9,999, 68.8k, 1.21M."""
    if value < 9999.5:
        return f"{value:,.0f}"
    for divisor, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        scaled = value / divisor
        if scaled < 999.5:
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{value:.0e}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _micro(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _uptime(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days} d ' if days else ''}{hours}:{minutes:02}:{left:02}"


_COLUMNS: Final = (
    ("worker", 6),
    ("in/s", 6),
    ("out/s", 6),
    ("cpu%", 6),
    ("work%", 6),
    ("spin%", 6),
    ("ready%", 6),
    ("wake/s", 6),
    ("loop/s", 6),
    ("/kick", 6),
    ("p99 us", 7),
)


def lines(view: Mapping[str, Any]) -> list[str]:
    """The document for people: no line is wider than WIDTH."""
    late, rooms, legs = view["lateness"], view["rooms"], view["legs"]
    head = f"{view['node']}  {view['path']}  up {_uptime(view['uptime_s'])}"
    head += f"  over {view['interval_s']:.2f} s"
    if view["restarted"]:
        head += "  data plane restarted"
    out = [
        head,
        f"in  {number(view['rx_per_s']):>6} packets/s {number(view['rx_bits_per_s']):>6} bit/s    "
        f"out {number(view['tx_per_s']):>6} packets/s {number(view['tx_bits_per_s']):>6} bit/s",
        f"rooms {number(rooms['count'])}  participants {number(rooms['participants'])}  "
        f"legs {number(legs['live'])} live of {number(legs['count'])}  "
        f"queued {number(view['queued'])}",
        f"late by  p50 {_micro(late['p50_us'])} us  p99 {_micro(late['p99_us'])} us  "
        f"p99.9 {_micro(late['p999_us'])} us  max {_micro(late['max_us'])} us"
        if late["departures"]
        else "late by  - (nothing left by the wheel)",
        " ".join(name.rjust(width) for name, width in _COLUMNS),
    ]
    for worker in view["workers"]:
        kick = worker["tx_per_kick"]
        cells = (
            str(worker["worker"]),
            number(worker["rx_per_s"]),
            number(worker["tx_per_s"]),
            _percent(worker["cpu"]),
            _percent(worker["work"]),
            _percent(worker["spin"]),
            _percent(worker["ready"]),
            number(worker["wakeups_per_s"]),
            number(worker["loops_per_s"]),
            "-" if kick is None else f"{kick:.1f}",
            _micro(worker["lateness"]["p99_us"]),
        )
        row = zip(cells, _COLUMNS, strict=True)
        out.append(" ".join(cell.rjust(width) for cell, (_, width) in row))
    drops = ", ".join(f"{name} {number(rate)}/s" for name, rate in view["drops_per_s"].items())
    told = textwrap.wrap(f"drops  {drops or 'none'}", WIDTH, subsequent_indent="       ")
    out += told[:DROP_LINES]
    return [line[:WIDTH] for line in out]
