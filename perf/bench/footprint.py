"""Suite `footprint`: what a stream, a leg, a subscription and a room cost.

Data plane: pool bytes in use over 1, 10, 100 and 1,000 of each, by the worker's own gauges; the
slope is the cost (the slope of process memory is beside).
CPU: one 2.5 Mb/s stream to ten receivers, paced as shipped, CPU time of the data plane process, and
the meter's gap result.  Supervisor: `vcfwd up` with 1, 1,000 and 5,000 rooms.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from forwarder.commands import Command, LegSet, RouteSet, SourceSet
from forwarder.dataplane.abi import COUNTERS
from forwarder.table import Queue, Route, Source
from perf.bench import meter as meters
from perf.bench import stats, vcfwd
from perf.bench.gatherings import HD, HD_SIZE, START_RATE
from perf.bench.lab import Lab, PerfError, say
from perf.bench.nodes import rooms
from perf.bench.processes import cpu_s, resident
from perf.bench.relay import Case
from perf.bench.table import FanOut, leg

STEPS = (1, 10, 100, 1000)
GAUGE_S = 3.0
FIRST = 100
"""Ids from here on are the footprint's own; below lie the case's."""
POOLS = ("leg_bytes", "source_bytes", "history_bytes", "route_bytes")


class Grown:
    """A relay whose table grows; gauges are read once the worker has published them."""

    def __init__(self, relay: vcfwd.Xsk) -> None:
        self.relay = relay
        self.out = relay.table.out if isinstance(relay.table, FanOut) else relay.table.port

    def gauges(self, name: str, wanted: int) -> dict[str, int]:
        end = time.monotonic() + GAUGE_S
        while time.monotonic() < end:
            snapshot = self.relay.counters()
            if snapshot[name] == wanted:
                return dict(snapshot.counters)
            time.sleep(0.005)
        raise PerfError(f"the worker's gauge {name} is {snapshot[name]} and not {wanted}")

    def grow(
        self, gauge: str, pools: tuple[str, ...], make: Callable[[int], Command]
    ) -> dict[str, Any]:
        """Slopes of the pools' bytes, and of process memory, over the number of objects."""
        start = self.relay.counters()[gauge]
        xs: list[float] = []
        ys: list[float] = []
        memory: list[float] = []
        done = 0
        for step in STEPS:
            self.relay.apply([make(FIRST + i) for i in range(done, step)])
            done = step
            gauges = self.gauges(gauge, start + step)
            xs.append(step)
            ys.append(sum(gauges[pool] for pool in pools))
            memory.append(resident(self.relay.plane.pid))
        return {
            "bytes": round(stats.slope(xs, ys), 1),
            "process_bytes": round(stats.slope(xs, memory), 1),
            "over": list(STEPS),
        }


def pools(lab: Lab) -> dict[str, Any]:
    """Bytes for each leg, HD stream and subscription."""
    assert set(POOLS) <= {name for name, _ in COUNTERS}
    top = 2 * STEPS[-1]
    sizes = {"legs_max": 2048, "sources_max": 2048, "routes_max": 8192, "history_video": top}
    relay = vcfwd.Xsk(lab, Case(1, HD_SIZE), **sizes)
    relay.start()
    try:
        grown, suite = Grown(relay), relay.case.suite

        def make_leg(i: int) -> Command:
            return LegSet(leg(i, 0, suite, grown.out, 10000 + i))

        def make_source(i: int) -> Command:
            return SourceSet(Source(id=i, leg=FIRST, ssrc=0x200000 + i, queue=Queue.VIDEO))

        def make_route(i: int) -> Command:
            return RouteSet(
                Route(id=i, leg=i, source=FIRST, source_worker=0, out_ssrc=0x300000 + i)
            )

        return {
            "leg": grown.grow("legs", ("leg_bytes",), make_leg),
            "hd_stream": grown.grow("sources", ("source_bytes", "history_bytes"), make_source),
            "subscription": grown.grow("routes", ("route_bytes",), make_route),
        }
    finally:
        relay.stop()


def cpu_1to10(lab: Lab, meter: meters.Meter, seconds: float) -> dict[str, Any]:
    """Share of a core for one HD stream to ten receivers, and of the idle data plane."""
    relay = vcfwd.Xsk(lab, Case(10, HD_SIZE))
    relay.start()
    try:
        relay.set_rate(START_RATE)
        pid = relay.plane.pid
        time.sleep(0.2)
        before, at = cpu_s(pid), time.monotonic()
        time.sleep(seconds)
        idle = (cpu_s(pid) - before) / (time.monotonic() - at)
        with relay.receiver() as receiver:
            got = receiver.packets()
            generator = relay.generate(seconds=seconds + 0.6, **HD)
            time.sleep(0.3)
            first = relay.counters()
            before, at = cpu_s(pid), time.monotonic()
            time.sleep(seconds)
            share = (cpu_s(pid) - before) / (time.monotonic() - at)
            wakeups = (relay.counters()["wakeups"] - first["wakeups"]) / (time.monotonic() - at)
            sent = relay.finish(generator)["sent"]
            lost = sent * 10 - (receiver.settled() - got)
            generator = relay.generate(seconds=seconds + 0.6, **HD)
            time.sleep(0.3)
            metered = meter.measure(seconds).relay
            relay.finish(generator)
    finally:
        relay.stop()
    say(
        f"  1:10: {share:.1%} of a core, {wakeups:.0f} wake-ups a second, {lost} lost; "
        f"idle {idle:.2%}"
    )
    return {
        "share": round(share, 4),
        "metered_relay_core": round(metered, 4),
        "wakeups_per_s": round(wakeups),
        "lost": lost,
        "idle_dataplane_share": round(idle, 5),
    }


def run(quick: bool) -> dict[str, Any]:
    """The suite's record."""
    began = time.monotonic()
    with Lab() as lab:
        meter = meters.Meter(lab)
        bytes_of = pools(lab)
        for name, each in bytes_of.items():
            say(
                f"  {name}: {each['bytes']:.0f} B in pools, "
                f"{each['process_bytes']:.0f} B of process"
            )
        cpu = cpu_1to10(lab, meter, 2.0 if quick else 10.0)
        node = rooms(lab, (1, 1000, 5000), creates=200 if quick else 1000, joins=5 if quick else 30,
                     idle_s=2.0 if quick else 10.0)  # fmt: skip
    return {
        "bytes_per_hd_stream": bytes_of["hd_stream"]["bytes"],
        "bytes_per_leg": bytes_of["leg"]["bytes"],
        "bytes_per_subscription": bytes_of["subscription"]["bytes"],
        "bytes_per_room": node["bytes_per_room"],
        "idle_cpu_share": node["idle_cpu_share"],
        "cpu_share_1to10": cpu["share"],
        "supervisor_idle_mb": node["supervisor_idle_mb"],
        "create_room_p99_ms": node["levels"][-1]["create_p99_ms"],
        "pools": bytes_of,
        "one_to_ten": cpu,
        "node": node,
        "seconds": round(time.monotonic() - began, 1),
    }
