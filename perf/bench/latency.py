"""Suite `latency`: residence time and end to end delay by load, from 1 % to 95 % of capacity.

One stream, evenly paced in small bursts, 1:10, 1200 B, GCM.  End to end is from the generator's
clock before its system call to the departure on the wire; residence is the data plane's own
queueing delay (arrival to departure, the mean of each leg); the bare GCM loop is beside.
"""

from __future__ import annotations

import time
from typing import Any

from perf.bench import stats, vcfwd
from perf.bench.capacity import HISTORY
from perf.bench.jitter import POINTS
from perf.bench.lab import Lab, say
from perf.bench.relay import BareXdpGcm, Case, Relay
from perf.bench.trials import FIRST_OUT, FULL, QUICK, Timing, Trials

LOADS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
LOADS_QUICK = (0.01, 0.25, 0.5, 0.9)
STAMPED = 2
"""Receivers whose departures are stamped: the stamps' cost stays small against the copies'."""
KINDS: tuple[type[Relay], ...] = (vcfwd.Xsk, vcfwd.XskUnpaced, vcfwd.SocketsUnpaced, BareXdpGcm)


def make(kind: type[Relay], lab: Lab) -> Relay:
    return kind(lab, Case(), **HISTORY) if issubclass(kind, vcfwd.Vcfwd) else kind(lab, Case())


def queueing(relay: Relay) -> float | None:
    """Mean over the receiving legs of the data plane's own figure, microseconds."""
    if not isinstance(relay, vcfwd.Vcfwd):
        return None
    first = relay.case.publishers
    legs = range(first, first + relay.case.receivers)
    values = [relay.plane.leg_stats(0, leg).queue_delay_ns / 1e3 for leg in legs]
    return stats.digits(sum(values) / len(values))


def at_load(relay: Relay, rate: float, seconds: float) -> dict[str, Any]:
    """One point of the curve; microseconds."""
    times = relay.lab.folder / "latency.times"
    relay.offered(rate)
    with relay.receiver(times=times, stamp_ports=STAMPED, ring_mb=64) as receiver:
        generator = relay.generate(rate=rate, seconds=seconds + 0.1, times=times)
        time.sleep(0.1)
        receiver.ask("measure")
        sent = relay.finish(generator)
        resident = queueing(relay)
        answer = receiver.ask("finish")
    seen = answer["measured"]
    return {
        "in_pps": round(sent["pps"]),
        "end_to_end": {point: seen["delay"][point] for point in POINTS},
        "residence_mean": resident,
        "records": seen["records"],
        "lost": seen["lost"],
        "unmatched": seen["unmatched"],
        "stamps_lost": answer["lost_stamps"],
    }


def curve(kind: type[Relay], lab: Lab, loads: tuple[float, ...], timing: Timing) -> dict[str, Any]:
    """Capacity of a relay, and its delays at shares of it."""
    relay = make(kind, lab)
    relay.start()
    try:
        with relay.receiver() as receiver:
            best = Trials(relay, receiver).search(FIRST_OUT / relay.case.copies, timing)
        points = [
            {"load": load, **at_load(relay, max(200.0, best.rate * load), 2 * timing.confirm)}
            for load in loads
        ]
    finally:
        relay.stop()
    shown = ", ".join(
        f"{p['load']:.0%} {p['end_to_end']['p50']:.0f}/{p['end_to_end']['p99']:.0f}" for p in points
    )
    say(f"  {kind.name}: {best.out:,.0f} out/s; p50/p99 in us at load: {shown}")
    return {"capacity_in_pps": round(best.rate), "points": points}


def run(quick: bool) -> dict[str, Any]:
    """The suite's record."""
    began = time.monotonic()
    loads, timing = (LOADS_QUICK, QUICK) if quick else (LOADS, FULL)
    with Lab() as lab:
        curves = {kind.name: curve(kind, lab, loads, timing) for kind in KINDS}
    half = next(p for p in curves[vcfwd.Xsk.name]["points"] if p["load"] == 0.5)
    return {
        "end_to_end_p50_us_at_half": half["end_to_end"]["p50"],
        "end_to_end_p99_us_at_half": half["end_to_end"]["p99"],
        "residence_mean_us_at_half": half["residence_mean"],
        "curves": curves,
        "config": {"case": "1:10, 1200 B, GCM", "stamped_receivers": STAMPED},
        "seconds": round(time.monotonic() - began, 1),
    }
