"""Suite `latency`: residence time and end to end delay by load, from 1 % to 95 % of capacity.

One stream, evenly paced in small bursts, 1:10, 1200 B, GCM.  End to end is from the generator's
clock before its system call to the departure on the wire (the first STAMPED copies of a packet).
Residence, RX to TX: the same source is stamped once more at the forwarder's door, by the receiver's
XDP program on its ingress interface, and the mean of that way is taken off the end to end mean.
The bare GCM loop is beside.
"""

from __future__ import annotations

import time
from typing import Any

from perf.bench import stats, vcfwd
from perf.bench.capacity import HISTORY
from perf.bench.jitter import POINTS
from perf.bench.lab import PORT, Lab, Receiver, say
from perf.bench.relay import BareXdpGcm, Case, Relay
from perf.bench.trials import FIRST_OUT, FULL, QUICK, Timing, Trials

LOADS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
LOADS_QUICK = (0.01, 0.25, 0.5, 0.9)
STAMPED = 2
"""Receivers whose departures are stamped: the stamps' cost stays small against the copies'."""
KINDS: tuple[type[Relay], ...] = (vcfwd.Xsk, vcfwd.XskUnpaced, vcfwd.SocketsUnpaced, BareXdpGcm)


def make(kind: type[Relay], lab: Lab) -> Relay:
    return kind(lab, Case(), **HISTORY) if issubclass(kind, vcfwd.Vcfwd) else kind(lab, Case())


class Door(Relay):
    """No relay: what arrives at the forwarder's ingress interface is stamped and dropped there."""

    name = "door"

    def start(self) -> None:
        pass

    def stop(self) -> dict[str, Any]:
        return {}

    def receiver(self, **options: Any) -> Receiver:
        return Receiver(self.lab, 1, place="fwd", base=PORT, **options)


def at_load(relay: Relay, rate: float, seconds: float) -> dict[str, Any]:
    """One point of the curve; microseconds."""
    times = relay.lab.folder / "latency.times"
    relay.offered(rate)
    with relay.receiver(times=times, stamp_ports=STAMPED, ring_mb=64) as receiver:
        generator = relay.generate(rate=rate, seconds=seconds + 0.1, times=times)
        time.sleep(0.1)
        receiver.ask("measure")
        sent = relay.finish(generator)
        answer = receiver.ask("finish")
    seen = answer["measured"]
    return {
        "in_pps": round(sent["pps"]),
        "end_to_end": {point: seen["delay"][point] for point in (*POINTS, "mean")},
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
    door = Door(lab, Case())
    for point in points:
        at_door = at_load(door, point["in_pps"], 2 * timing.confirm)["end_to_end"]["mean"]
        point["door_mean"] = at_door
        point["residence_mean"] = stats.digits(point["end_to_end"]["mean"] - at_door)
    shown = ", ".join(
        f"{p['load']:.0%} {p['end_to_end']['p50']:.0f}/{p['end_to_end']['p99']:.0f}"
        f"/{p['residence_mean']:.0f}"
        for p in points
    )
    say(f"  {kind.name}: {best.out:,.0f} out/s; p50/p99/mean residence in us at load: {shown}")
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
