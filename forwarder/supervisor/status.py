"""The node's state as one dictionary: `vcfwd status --json`, /v1/status and the metrics.

node, version, pid, uptime_s, url, path, why, selector
interfaces   [{name, path}]
rooms        {count, participants, active, passive, away, tracks, subscriptions}
legs         {count, live, unresolved}
rates        packets and bits a second, in and out, over the time since the last call
             (at least 0.2 s; the last ones are repeated otherwise)
counters, drops, copy_drops       sums over the workers (VC_COUNTERS, VC_DROPS, VC_COPY_DROPS)
lateness     of departures: {departures, mean_us, p50_us, p99_us, p999_us, buckets: [[bound_us, n]]}
workers      [{counters, drops, copy_drops, lateness}]
balanced, imbalance               the conservation laws, and the one that does not hold
steering     {verdicts, select_verdicts}
slow_path, ice, dtls, quic        what the supervisor read and counted
memory       {pools: {name: {count, bytes}}, supervisor_rss_mb, dataplane_rss_mb}
dataplane    {pid, restarts, last_gap_ms, crypto, scheduler, scheduler_why, adopted}
table        commands applied, refused; replays; dumps
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forwarder import __version__
from forwarder.dataplane import counters as dataplane_counters
from forwarder.dataplane import lateness
from forwarder.dataplane.counters import Snapshot, Tally
from forwarder.rooms.core import Rooms
from forwarder.supervisor.datapath import DataPath

RATE_INTERVAL_S = 0.2

POOLS = {
    "legs": ("legs", "leg_bytes"),
    "sources": ("sources", "source_bytes"),
    "histories": ("sources", "history_bytes"),
    "routes": ("routes", "route_bytes"),
}


def version() -> str:
    """That of the code, which a package sets; there may be no distribution to ask."""
    return __version__


def rss_mb(pid: int) -> float:
    """Resident size in MiB; 0 when the process is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


@dataclass(frozen=True)
class _Sample:
    at: float
    rx: int
    rx_bytes: int
    tx: int
    tx_bytes: int


class Rates:
    """Packets and bits a second between calls."""

    def __init__(self) -> None:
        self._last: _Sample | None = None
        self._rates: dict[str, float] = {
            "rx_packets_per_s": 0.0,
            "rx_bits_per_s": 0.0,
            "tx_packets_per_s": 0.0,
            "tx_bits_per_s": 0.0,
        }

    def update(self, snapshot: Snapshot, now: float) -> dict[str, float]:
        """The rates since the call before; `now` in monotonic seconds."""
        new = _Sample(
            now,
            snapshot["rx"],
            snapshot["rx_bytes"],
            snapshot["transmitted"],
            snapshot["tx_bytes"],
        )
        old = self._last
        if old is None or new.rx < old.rx:  # the first call, or a restarted data plane
            self._last = new
        elif now - old.at >= RATE_INTERVAL_S:
            span = now - old.at
            self._rates = {
                "rx_packets_per_s": round((new.rx - old.rx) / span, 1),
                "rx_bits_per_s": round(8 * (new.rx_bytes - old.rx_bytes) / span, 1),
                "tx_packets_per_s": round((new.tx - old.tx) / span, 1),
                "tx_bits_per_s": round(8 * (new.tx_bytes - old.tx_bytes) / span, 1),
            }
            self._last = new
        return self._rates


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "counters": dict(tally.counters),
        "drops": dict(tally.drops),
        "copy_drops": dict(tally.copy_drops),
        "lateness": lateness.summary(tally),
    }


def _rooms(rooms: Rooms) -> dict[str, int]:
    found = rooms.statistics()
    return {
        "count": found.rooms,
        "participants": found.active + found.passive,
        "active": found.active,
        "passive": found.passive,
        "away": found.away,
        "tracks": found.tracks,
        "subscriptions": found.subscriptions,
    }


def _memory(snapshot: Snapshot, dataplane_pid: int) -> dict[str, Any]:
    return {
        "pools": {
            name: {"count": snapshot[count], "bytes": snapshot[size]}
            for name, (count, size) in POOLS.items()
        },
        "supervisor_rss_mb": rss_mb(os.getpid()),
        "dataplane_rss_mb": rss_mb(dataplane_pid),
    }


def datapath_part(datapath: DataPath, rates: Rates) -> dict[str, Any]:
    """What the workers and the steering program tell."""
    snapshot = dataplane_counters.snapshot(datapath.plane.segments)
    wrong = dataplane_counters.imbalance(snapshot)
    steering = datapath.steering
    return {
        "path": datapath.choice.path,
        "why": datapath.choice.why,
        "selector": datapath.selector,
        "interfaces": [
            {"name": item.name, "path": datapath.choice.path}
            for item in datapath.plane.setup.interfaces
        ],
        "rates": rates.update(snapshot, time.monotonic()),
        **_tally(snapshot),
        "workers": [_tally(worker) for worker in snapshot.workers],
        "balanced": wrong is None,
        "imbalance": wrong or "",
        "steering": {
            "verdicts": steering.verdicts() if steering else {},
            "select_verdicts": steering.select_verdicts() if steering else {},
        },
        "memory": _memory(snapshot, datapath.plane.pid),
    }


def compose(
    *,
    name: str,
    url: str,
    uptime_s: float,
    rooms: Rooms,
    datapath: DataPath,
    rates: Rates,
    unresolved: Mapping[int, str],
    slow_path: Mapping[str, int],
    ice: Mapping[str, int],
    dtls: Mapping[str, int],
    quic: Mapping[str, int],
    table: Mapping[str, int],
    last_gap_ms: float | None,
) -> dict[str, Any]:
    """The whole of it."""
    plane = datapath.plane
    return {
        "node": name,
        "version": version(),
        "pid": os.getpid(),
        "uptime_s": round(uptime_s, 3),
        "url": url,
        **datapath_part(datapath, rates),
        "rooms": _rooms(rooms),
        "legs": {
            "count": len(rooms.state.by_leg),
            "live": sum(1 for p in rooms.participants() if p.nominated is not None),
            "unresolved": {str(leg): why for leg, why in unresolved.items()},
        },
        "slow_path": dict(slow_path),
        "ice": dict(ice),
        "dtls": dict(dtls),
        "quic": dict(quic),
        "dataplane": {
            "pid": plane.pid,
            "restarts": plane.restarts,
            "last_gap_ms": last_gap_ms,
            "crypto": plane.ready.crypto if plane.ready else "",
            "scheduler": datapath.scheduling.name,
            "scheduler_why": datapath.scheduling.why,
            "adopted": datapath.adopted,
        },
        "table": dict(table),
    }
