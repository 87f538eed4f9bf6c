"""Prometheus metrics, rendered from one status snapshot.

The worker counters, drops and verdicts come from X-macro lists in C; a new line there is a new
metric here without a change.  Names: `vcfwd_<what>_total` for counters, `vcfwd_<what>` for gauges,
labels `worker`, `reason`, `pool`, `kind`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

# Worker counters that go up and down (see VC_COUNTERS in c_helpers/include/vcfwd/abi.h).
GAUGES = frozenset(
    {
        "queued",
        "frames_total",
        "frames_free",
        "frames_rx",
        "frames_tx",
        "legs",
        "sources",
        "routes",
        "leg_bytes",
        "source_bytes",
        "history_bytes",
        "route_bytes",
    }
)


class _Snapshot:
    """A collector over one status dictionary (see forwarder/supervisor/status.py)."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        status = self._status
        yield _gauge("up", "1 while the supervisor runs", 1)
        yield _gauge("uptime_seconds", "Since the supervisor's start", status["uptime_s"])
        info = GaugeMetricFamily("vcfwd_info", "Version and data path", labels=["version", "path"])
        info.add_metric([status["version"], status["path"]], 1)
        yield info
        for name in ("count", "participants", "active", "passive", "tracks", "subscriptions"):
            metric = "rooms" if name == "count" else name
            yield _gauge(metric, f"Rooms: {name}", status["rooms"][name])
        yield from _workers(status["workers"])
        yield _labelled("steering_packets", "verdict", status["steering"]["verdicts"])
        yield _labelled("selector_packets", "verdict", status["steering"]["select_verdicts"])
        for part in ("slow_path", "ice", "dtls", "quic"):
            yield _labelled(f"{part}_events", "kind", status[part])
        yield CounterMetricFamily(
            "vcfwd_dataplane_restarts", "Data plane restarts", value=status["dataplane"]["restarts"]
        )
        memory = GaugeMetricFamily(
            "vcfwd_memory_bytes", "Pool bytes in use, resident sizes", labels=["pool"]
        )
        for pool, entry in status["memory"]["pools"].items():
            memory.add_metric([pool], entry["bytes"])
        for process in ("supervisor", "dataplane"):
            memory.add_metric([process], status["memory"][f"{process}_rss_mb"] * 2**20)
        yield memory


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"vcfwd_{name}", what, value=value)


def _labelled(name: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"vcfwd_{name}", f"By {label}", labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _cumulative(buckets: list[Any]) -> list[tuple[str, float]]:
    """Powers of two from 1.024 us to 67 ms, in seconds, each with all that was below it."""
    found = [
        (f"{bound / 1e6:.9g}", float(sum(n for edge, n in buckets if edge and edge <= bound)))
        for bound in (1.024 * 2**power for power in range(17))
    ]
    return [*found, ("+Inf", float(sum(n for _, n in buckets)))]


def _workers(workers: list[Mapping[str, Any]]) -> Iterable[Metric]:
    names = list(workers[0]["counters"]) if workers else []
    for name in names:
        if name in GAUGES:
            family: Metric = GaugeMetricFamily(
                f"vcfwd_worker_{name}", f"Gauge {name}", labels=["worker"]
            )
        else:
            family = CounterMetricFamily(
                f"vcfwd_worker_{name}", f"Counter {name}", labels=["worker"]
            )
        for i, worker in enumerate(workers):
            family.add_metric([str(i)], worker["counters"][name])  # type: ignore[attr-defined]
        yield family
    late = HistogramMetricFamily(
        "vcfwd_worker_lateness_seconds",
        "Departures by how late they were against the pacing wheel",
        labels=["worker"],
    )
    for i, worker in enumerate(workers):
        total_s = worker["counters"].get("lateness_ns", 0) / 1e9
        late.add_metric([str(i)], _cumulative(worker["lateness"]["buckets"]), total_s)
    yield late
    for what in ("drops", "copy_drops"):
        drops = CounterMetricFamily(
            f"vcfwd_worker_{what}", f"{what}, by reason", labels=["worker", "reason"]
        )
        for i, worker in enumerate(workers):
            for reason, value in worker[what].items():
                drops.add_metric([str(i), reason], value)
        yield drops


def render(status: Mapping[str, Any]) -> bytes:
    """The text exposition of one snapshot."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(status))
    return generate_latest(registry)
