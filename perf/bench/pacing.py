"""What pacing costs and how late it is: one 2.5 Mb/s stream to ten receivers.

    .venv/bin/python -m perf.bench.pacing [--seconds 5] [--rate 20000000] [--unlike]

Four rows: AF_XDP in the usual scheduling class and in the real-time one (priority 2), each alone
and with a CPU-bound process on each core.  A row: wake-ups and transmit calls a second, the share
of a core (thread time; softirq not included) and how it was spent, the wheel's lateness, and the
deviation of inter-departure times at the receiver.  --unlike: ten rates, from a fifth of --rate to
all of it (then the deviation is from the highest, and says nothing).  Prints JSON lines; asserts
nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from forwarder.commands import LegRate
from forwarder.dataplane.lateness import quantile_us
from forwarder.dataplane.scheduling import Scheduling
from forwarder.dataplane.tally import Snapshot
from perf.bench import classes, vcfwd
from perf.bench.gatherings import HD_SIZE, START_RATE
from perf.bench.jitter import IDLE, NEIGHBOUR, neighbours
from perf.bench.lab import Lab
from perf.bench.relay import Case

COPIES = 10
STREAM = {"frames": 30, "per_frame": 10}
WARM_S = 0.5
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def thread_s(relay: vcfwd.Vcfwd) -> float:
    """CPU time of the workers so far, seconds."""
    task = Path(f"/proc/{relay.plane.pid}/task")
    stats = ((task / str(tid) / "schedstat").read_text() for tid in relay.threads())
    return sum(int(stat.split()[0]) for stat in stats) / 1e9


def row(before: Snapshot, after: Snapshot, cpu_s: float, span_s: float) -> dict[str, Any]:
    """What happened between two snapshots."""
    late = [b - a for a, b in zip(before.lateness, after.lateness, strict=True)]

    def rate(name: str) -> float:
        return (after[name] - before[name]) / span_s

    return {
        "wakeups_s": round(rate("wakeups")),
        "kicks_s": round(rate("tx_kicks")),
        "copies_s": round(rate("transmitted")),
        "core_share": round(cpu_s / span_s, 4),
        **{
            f"{how}_share": round(rate(f"{how}_ns") / 1e9, 4)
            for how in ("worked", "spun", "blocked")
        },
        "lateness_us": {name: quantile_us(late, share) for name, share in QUANTILES.items()},
    }


def measure(
    lab: Lab, scheduling: Scheduling, condition: str, rates: list[int], seconds: float
) -> dict[str, Any]:
    """One row."""
    relay = vcfwd.Xsk(lab, Case(COPIES, HD_SIZE))
    relay.scheduling = scheduling
    relay.start()
    times = lab.folder / "pacing.times"
    options = {"times": times, "stamp_ports": COPIES, "spacing_bps": max(rates)}
    try:
        first = relay.case.publishers
        relay.apply([LegRate(first + i, rate) for i, rate in enumerate(rates)])
        with relay.receiver(**options) as receiver, neighbours(lab, condition):
            generator = relay.generate(times=times, seconds=seconds + 2 * WARM_S, **STREAM)
            time.sleep(WARM_S)
            receiver.ask("measure")
            before, cpu_s, began = relay.counters(), thread_s(relay), time.monotonic()
            time.sleep(seconds)
            after, cpu_s = relay.counters(), thread_s(relay) - cpu_s
            found = row(before, after, cpu_s, time.monotonic() - began)
            relay.finish(generator)
            seen = receiver.ask("finish")["measured"]
    finally:
        relay.stop()
    return found | {"ipd_us": {name: seen["ipd"][name] for name in ("p50", "p99", "p999")}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=int, default=START_RATE, help="of each leg, bits a second")
    parser.add_argument("--unlike", action="store_true", help="ten rates")
    args = parser.parse_args()
    low = args.rate // 5 if args.unlike else args.rate
    rates = [low + (args.rate - low) * i // (COPIES - 1) for i in range(COPIES)]
    for scheduling in (classes.OTHER, classes.fifo()):
        for condition in (IDLE, NEIGHBOUR):
            with Lab() as lab:
                found = measure(lab, scheduling, condition, rates, args.seconds)
            print(
                json.dumps({"class": scheduling.name, "condition": condition, **found}), flush=True
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
