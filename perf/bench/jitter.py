"""Suite `jitter`: one 2.5 Mb/s, 30 fps stream to 50 receivers, under three load conditions.

    (i)   forwarding: vcfwd unpaced, AF_XDP against sockets without GSO: PDV and IPDV
    (ii)  pacing: vcfwd paced on AF_XDP as shipped against sockets, unpaced: departure spacing
    (iii) why: paced and unpaced through a shallow bottleneck (bottleneck.py)

Everything is measured in two scheduling classes, the same for every relay: the one that is shipped
(what dataplane.scheduler chooses on this machine), whose fields these are, and SCHED_OTHER or
SCHED_FIFO beside.

Beside: sockets with GSO, sockets paced by the same timer, and (full run) bare sockets.  Every row
has the same stream, core, buffers and scheduling class; rounds go A B A B.  A receiver's PDV is
taken against its own least delay, then all receivers are pooled.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from forwarder.dataplane.lateness import quantile_us
from forwarder.dataplane.scheduling import Scheduling
from perf.bench import bottleneck, classes, stats, vcfwd
from perf.bench.gatherings import HD, HD_SIZE, START_RATE
from perf.bench.lab import RELAY_CORE, SOURCE_CORE, Lab, Receiver, say
from perf.bench.relay import BareSockets, Case, Relay

A, A_FREE, B, B_FREE, B_GSO = (
    vcfwd.Xsk, vcfwd.XskUnpaced, vcfwd.Sockets, vcfwd.SocketsUnpaced, vcfwd.SocketsGso,
)  # fmt: skip
RECEIVERS = 50
BULK_PPS = 1000
"""The bulk room: 1,200-byte packets of another publisher to 50 other receivers."""
IDLE, NEIGHBOUR, BULK = "idle", "neighbour", "bulk"
CONDITIONS = (IDLE, NEIGHBOUR, BULK)
STREAM = HD | {"key_every": 30}
METRICS = ("delay", "pdv", "ipdv", "ipd", "gap", "frame")
SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
POINTS = ("min", "p50", "p99", "p999", "max")


@contextmanager
def neighbours(lab: Lab, condition: str) -> Iterator[None]:
    """A CPU-bound process on each core, when the condition is that."""
    found: list[subprocess.Popen[str]] = []
    try:
        if condition == NEIGHBOUR:
            for core in (SOURCE_CORE, RELAY_CORE):
                found.append(lab.start(None, ["sh", "-c", "while :; do :; done"], core=core))
        yield
    finally:
        for each in found:
            lab.end(each)


def departures(relay: Relay) -> tuple[int, ...]:
    """The wheel's own lateness histogram so far: the clock after a kick less the due time."""
    return relay.counters().lateness if isinstance(relay, vcfwd.Vcfwd) else ()


def window(relay: Relay, receiver: Receiver, condition: str, seconds: float) -> dict[str, Any]:
    """One measurement; microseconds."""
    lab, times = relay.lab, relay.lab.folder / "jitter.times"
    warm = 0.25
    with neighbours(lab, condition):
        bulk = None
        if condition == BULK:
            bulk = relay.generate(first=1, rate=BULK_PPS, size=1200, seconds=seconds + warm + 0.1)
        generator = relay.generate(flows=1, times=times, seconds=seconds + warm, **STREAM)
        time.sleep(warm)
        receiver.ask("measure")
        before = departures(relay)
        sent = relay.finish(generator)
        late = [now - then for now, then in zip(departures(relay), before, strict=True)]
        answer = receiver.ask("finish")
        if bulk is not None:
            relay.finish(bulk)
    seen = answer["measured"]
    return {
        "records": seen["records"],
        "lost": seen["lost"] + answer["lost_stamps"],
        "unmatched": seen["unmatched"],
        "reordered": seen["reordered"],
        "jitter_rfc3550": seen["jitter"],
        "source_late_max": sent["late_max_us"],
        "lateness": {
            name: quantile_us(late, share) if any(late) else None for name, share in SHARES.items()
        },
        **{name: {point: seen[name][point] for point in POINTS} for name in METRICS},
    }


def make(kind: type[Relay], lab: Lab, scheduling: Scheduling) -> Relay:
    """A relay that runs, in its scheduling class."""
    publishers = 2 if issubclass(kind, vcfwd.Vcfwd) else 1
    relay = kind(lab, Case(RECEIVERS, HD_SIZE, publishers=publishers))
    relay.scheduling = scheduling
    relay.start()
    return relay


def one(
    kind: type[Relay], lab: Lab, seconds: float, scheduling: Scheduling
) -> dict[str, dict[str, Any]]:
    """The conditions of a row in a round, in one scheduling class."""
    relay = make(kind, lab, scheduling)
    found = {}
    try:
        if isinstance(relay, vcfwd.Vcfwd):
            relay.set_rate(START_RATE if relay.paced else 0)
        options = {
            "times": lab.folder / "jitter.times", "stamp_ports": RECEIVERS,
            "spacing_bps": START_RATE,
        }  # fmt: skip
        with relay.receiver(**options) as receiver:
            for condition in CONDITIONS:
                if condition == BULK and relay.case.publishers == 1:
                    continue
                found[condition] = window(relay, receiver, condition, seconds)
    finally:
        relay.stop()
    points = ", ".join(
        f"{name} {each['pdv']['p99']:.0f}/{each['ipd']['p99']:.0f}" for name, each in found.items()
    )
    say(f"  {kind.name}, {scheduling.name}: pdv/ipd p99 in us: {points}")
    return found


Windows = dict[str, dict[str, list[dict[str, Any]]]]


def p99(windows: Windows, name: str, condition: str, metric: str) -> list[float]:
    return [each[metric]["p99"] for each in windows.get(name, {}).get(condition, [])]


def summary(windows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the rounds, and the spread of the p99s."""
    found: dict[str, Any] = {
        key: sum(each[key] for each in windows)
        for key in ("records", "lost", "unmatched", "reordered")
    }
    for metric in METRICS:
        found[metric] = {
            point: stats.median([each[metric][point] for each in windows]) for point in POINTS
        }
        found[metric]["p99_spread"] = stats.spread([each[metric]["p99"] for each in windows])
    found["lateness"] = {
        point: stats.median([e["lateness"][point] for e in windows if e["lateness"][point]])
        for point in SHARES
    }
    found["jitter_rfc3550"] = stats.median([each["jitter_rfc3550"] for each in windows])
    return found


def fields(windows: Windows) -> dict[str, Any]:
    """(i) and (ii) by condition, and the worst of each; shares, 0.3 is 30 % lower."""
    conditions: dict[str, Any] = {}
    for condition in CONDITIONS:
        forwarding = stats.reductions(
            p99(windows, A_FREE.name, condition, "pdv"), p99(windows, B_FREE.name, condition, "pdv")
        )
        pacing = stats.reductions(
            p99(windows, A.name, condition, "ipd"), p99(windows, B_FREE.name, condition, "ipd")
        )
        beside = stats.ratios(
            p99(windows, A.name, condition, "ipd"), p99(windows, B.name, condition, "ipd")
        )
        varying = stats.reductions(
            p99(windows, A_FREE.name, condition, "ipdv"),
            p99(windows, B_FREE.name, condition, "ipdv"),
        )
        conditions[condition] = {
            "pdv_p99_reduction": stats.median(forwarding),
            "ipdv_p99_reduction": stats.median(varying),
            "ipd_p99_reduction": stats.median(pacing),
            "ipd_p99_vs_paced_sockets": stats.median(beside),
            "spread": {
                "pdv_p99_reduction": stats.spread(forwarding),
                "ipdv_p99_reduction": stats.spread(varying),
                "ipd_p99_reduction": stats.spread(pacing),
                "ipd_p99_vs_paced_sockets": stats.spread(beside),
            },
            "rows": {
                name: summary(each[condition])
                for name, each in windows.items()
                if condition in each
            },
        }

    def worst(name: str, least: bool = True) -> float | None:
        values = [conditions[condition][name] for condition in CONDITIONS]
        known = [value for value in values if value is not None]
        return (min if least else max)(known) if known else None

    return {
        "pdv_p99_reduction": worst("pdv_p99_reduction"),
        "ipd_p99_reduction": worst("ipd_p99_reduction"),
        "ipd_p99_vs_paced_sockets": worst("ipd_p99_vs_paced_sockets", least=False),
        "conditions": conditions,
    }


def run(quick: bool) -> dict[str, Any]:
    """The suite's record."""
    began = time.monotonic()
    rounds, seconds = (3, 1.2) if quick else (5, 3.0)
    kinds: list[type[Relay]] = [A_FREE, B_FREE, A, B, B_GSO]
    kinds += [] if quick else [BareSockets]
    shipped = classes.shipped()
    every = [shipped, *(c for c in (classes.OTHER, classes.fifo()) if c.name != shipped.name)]
    windows: dict[str, Windows] = {each.name: {} for each in every}
    with Lab() as lab:
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for each in every:
                for kind in kinds if each is shipped else kinds[:3]:
                    row = windows[each.name].setdefault(kind.name, {})
                    for condition, seen in one(kind, lab, seconds, each).items():
                        row.setdefault(condition, []).append(seen)
        narrow = bottleneck.measure(lab, 4.0 if quick else 20.0)
    by_class = {name: fields(found) for name, found in windows.items()}
    found = by_class.pop(shipped.name)
    return {
        **found,
        "bottleneck_lost_paced": narrow["paced"]["lost"],
        "bottleneck_lost_unpaced": narrow["unpaced"]["lost"],
        "spread": {name: each["spread"] for name, each in found["conditions"].items()},
        "other_classes": by_class,
        "bottleneck": narrow,
        "config": {
            "receivers": RECEIVERS, "size": HD_SIZE, "stream": STREAM, "leg_rate_bps": START_RATE,
            "window_s": seconds, "rounds": rounds, "bulk_pps": BULK_PPS,
        },
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
