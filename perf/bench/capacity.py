"""Suite `capacity`: packets out a second with the relay's core full, side by side, round by round.

Rows: (a) vcfwd on AF_XDP, (b) vcfwd on sockets, each paced (every leg at twice its share of what is
offered) and unpaced, (b) with GSO unpaced, (c) bare AF_XDP, (g) the same with GCM, (d) bare
sockets, (h) the same with GCM, (e) rtpengine with SRTP GCM, ten publishers, (f) asyncio.
Every round runs every row once; ratios are taken within a round.  Other fan-outs, sizes and ciphers
are the suite `matrix`.

One stream fills the core, which no camera does: the histories of (a) and (b) get the slots that a
second of such a stream needs (HISTORY_SLOTS), and every relay runs in the usual scheduling class;
all else is as shipped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perf.bench import classes, stats, vcfwd
from perf.bench import meter as meters
from perf.bench.gatherings import active50, fan1000
from perf.bench.lab import BUILD, PORT, SOURCE_CORE, Lab, Receiver, flags, need, say
from perf.bench.relay import Asyncio, BareSockets, BareSocketsGcm, BareXdp, BareXdpGcm, Case, Relay
from perf.bench.rtpengine import Rtpengine
from perf.bench.trials import FIRST_OUT, FULL, LEAST_RATE, QUICK, Timing, Trials

HISTORY_SLOTS = 131072
HISTORY = {"video_slots": HISTORY_SLOTS, "history_video": 1, "history_audio": 1}
HISTORY_TO_ONE = HISTORY | {"video_slots": 4 * HISTORY_SLOTS}
"""1:1 the stream is as fast as the source: a full history refuses packets, and after 2^15 of them
in a row SRTP's roll-over counter is lost for good (RFC 3711 section 3.3.1)."""
A, A_FREE, B, B_FREE, B_GSO = (
    vcfwd.Xsk.name, vcfwd.XskUnpaced.name, vcfwd.Sockets.name,
    vcfwd.SocketsUnpaced.name, vcfwd.SocketsGso.name,
)  # fmt: skip
KINDS: dict[str, type[Relay]] = {
    kind.name: kind
    for kind in (
        vcfwd.Xsk, vcfwd.Sockets, BareXdpGcm, Rtpengine, Asyncio, BareXdp, vcfwd.XskUnpaced,
        vcfwd.SocketsGso, vcfwd.SocketsUnpaced, BareSockets, BareSocketsGcm,
    )
}  # fmt: skip
QUICK_ROWS = (A, B, BareXdpGcm.name, Rtpengine.name, Asyncio.name, BareXdp.name, A_FREE, B_GSO)
COST_RATE, COST_TICK_US = 8000, 1000
"""The cost run: packets in a second, in bursts every so often (perf/peers/README.md)."""
COST_RATE_SLOW = 2000
"""For relays that cannot do more (asyncio, rtpengine)."""
RATIOS = {
    "ratio_vs_bare_xdp": (A, BareXdp.name),
    "ratio_vs_bare_xdp_gcm": (A, BareXdpGcm.name),
    "ratio_vs_own_sockets": (A, B),
    "ratio_vs_gso_sockets": (A_FREE, B_GSO),
    "ratio_vs_rtpengine_srtp": (A, Rtpengine.name),
    "ratio_vs_asyncio": (A, Asyncio.name),
}


@dataclass
class Row:
    """What the rounds gave for one relay; None where the source was the limit."""

    out_pps: list[float] = field(default_factory=list)
    cpu_s_per_million: list[float] = field(default_factory=list)
    source_limited: bool = False

    def record(self) -> dict[str, Any]:
        out = stats.spread(self.out_pps)
        cpu = stats.spread(self.cpu_s_per_million)
        per_core = [1e6 / value for value in self.cpu_s_per_million if value > 0]
        return {
            "out_pps": out,
            "cpu_s_per_million": cpu,
            "out_per_core_s": stats.spread(per_core),
            "source_limited": self.source_limited,
        }


@dataclass
class Round:
    """What all rows of a round share."""

    lab: Lab
    case: Case
    timing: Timing
    meter: meters.Meter
    alone: dict[int, float]
    """The source against an XDP drop: CPU seconds a second, by its rate."""


def make(kind: type[Relay], lab: Lab, case: Case) -> Relay:
    """In the usual scheduling class, which is that of peers/run_baselines.py: at a full core under
    SCHED_FIFO vcfwd's workers yield to others, and the baselines yield nothing."""
    history = HISTORY_TO_ONE if case.copies == 1 else HISTORY
    more = history if issubclass(kind, vcfwd.Vcfwd) else {}
    if kind is Rtpengine:
        case = Case(case.copies, case.size, case.suite, publishers=10)
    relay = kind(lab, case, **more)
    relay.scheduling = classes.OTHER
    return relay


def source_alone(lab: Lab, case: Case, timing: Timing, meter: meters.Meter, rate: int) -> float:
    """CPU seconds a second of the source alone: its packets are dropped at the forwarder's door."""
    with Receiver(lab, 1, place="fwd", base=PORT):
        argv = [need(BUILD / "generator"), *flags({
            "dst_ip": lab.names["in_ip"], "dst_port": PORT, "rate": rate, "size": case.size,
            "tick_us": COST_TICK_US, "seconds": timing.cost + 0.4,
        })]  # fmt: skip
        generator = lab.start("pub", argv, core=SOURCE_CORE)
        time.sleep(0.2)
        both = meter.measure(timing.cost).both
        lab.result(generator)
    return both


def cost_rate(kind: type[Relay], case: Case) -> int:
    """The same work a second for every fan-out up to 1:10, then less packets in."""
    rate = COST_RATE_SLOW if kind in (Asyncio, Rtpengine) else COST_RATE
    return max(20, min(rate, rate * 10 // case.copies))


def cpu_per_million(relay: Relay, receiver: Receiver, at: Round) -> float:
    """CPU seconds for a million packets out, softirq included, the source's own cost taken off."""
    rate = cost_rate(type(relay), at.case)
    if relay.fresh:
        relay.renew()
    relay.offered(rate)
    generator = relay.generate(rate=rate, tick_us=COST_TICK_US, seconds=at.timing.cost + 0.4)
    time.sleep(0.2)
    first = receiver.ask("count")
    both = at.meter.measure(at.timing.cost).both
    last = receiver.ask("count")
    relay.finish(generator)
    pps = (last["packets"] - first["packets"]) / (last["at_ns"] - first["at_ns"]) * 1e9
    return (both - at.alone[rate]) / pps * 1e6 if pps > 0 else 0.0


def one(kind: type[Relay], at: Round, row: Row, start: float, first: bool) -> float:
    """One row of one round; the rate to begin with next time."""
    relay = make(kind, at.lab, at.case)
    relay.start()
    try:
        with relay.receiver() as receiver:
            trials = Trials(relay, receiver, first=first)
            best = trials.search(start, at.timing)
            row.cpu_s_per_million.append(round(cpu_per_million(relay, receiver, at), 3))
        row.out_pps.append(round(best.out))
        row.source_limited |= best.source_limited
    finally:
        relay.stop()
    limited = " (source-limited)" if best.source_limited else ""
    say(f"  {kind.name}: {best.out:,.0f} out/s, {row.cpu_s_per_million[-1]} CPU s/M{limited}")
    return max(best.rate * 0.97, LEAST_RATE * 2)


def compare(
    lab: Lab, case: Case, names: Sequence[str], rounds: int, timing: Timing, meter: meters.Meter
) -> dict[str, Row]:
    """All rows, `rounds` times in turn."""
    rows = {name: Row() for name in names}
    slow = (Asyncio, Rtpengine)
    starts = {
        name: min(100_000.0, FIRST_OUT / (3 if KINDS[name] in slow else 1) / case.copies)
        for name in names
    }
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}: 1:{case.copies}, {case.size} B, {case.suite}")
        rates = {cost_rate(KINDS[name], case) for name in names}
        alone = {rate: source_alone(lab, case, timing, meter, rate) for rate in rates}
        at = Round(lab, case, timing, meter, alone)
        for name in names:
            starts[name] = one(KINDS[name], at, rows[name], starts[name], number == 0)
    return rows


def ratio_fields(rows: dict[str, Row]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """(fields, spreads, reasons for null)."""
    fields: dict[str, Any] = {}
    spreads: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name, (over, under) in RATIOS.items():
        a, b = rows.get(over), rows.get(under)
        fields[name] = None
        if a is None or b is None:
            reasons[name] = f"{over if a is None else under} was not measured"
        elif a.source_limited or b.source_limited:
            limited = over if a.source_limited else under
            reasons[name] = f"the source was the limit of {limited}"
        else:
            values = stats.ratios(a.out_pps, b.out_pps)
            fields[name], spreads[name] = stats.median(values), stats.spread(values)
    a, c = rows.get(A), rows.get(BareXdp.name)
    limited = [name for name in (A, BareXdp.name) if name in rows and rows[name].source_limited]
    if a and c and not limited and all(a.out_pps) and all(c.out_pps):
        added = [1e9 / x - 1e9 / y for x, y in zip(a.out_pps, c.out_pps, strict=True)]
        fields["added_ns_per_copy"] = stats.median(added)
        spreads["added_ns_per_copy"] = stats.spread(added)
    else:
        fields["added_ns_per_copy"] = None
        reasons["added_ns_per_copy"] = (
            f"the source was the limit of {limited[0]}"
            if limited
            else "a row without a rate that passes"
        )
    return fields, spreads, reasons


def ceiling(lab: Lab, case: Case, seconds: float) -> dict[str, float]:
    """All the sealed packets that the generator can send, against a drop at the relay's door."""
    relay = vcfwd.Xsk(lab, case)  # never started: its keys and destination alone are used
    with Receiver(lab, 1, place="fwd", base=PORT) as receiver:
        before = receiver.packets()
        sent = relay.finish(relay.generate(rate=2_000_000, seconds=seconds))
        got = receiver.packets() - before
    return {"in_pps": round(sent["pps"]), "received_pps": round(got / sent["seconds"])}


def verified(lab: Lab, case: Case) -> dict[str, int]:
    """Samples of (a)'s output, opened and compared with what was sent."""
    relay = vcfwd.Xsk(lab, case)
    relay.start()
    try:
        times = lab.folder / "verify.times"
        relay.offered(400)
        options = {"times": times, "keys": relay.key_file(), "sample_every": 7}
        with relay.receiver(**options) as receiver:
            generator = relay.generate(rate=400, seconds=0.6, times=times)
            time.sleep(0.2)
            receiver.ask("measure")
            relay.finish(generator)
            answer = receiver.ask("finish")
    finally:
        relay.stop()
    names = ("verified", "not_authentic", "wrong_payload", "verify_unmatched")
    return {name: int(answer[name]) for name in names}


def run(quick: bool) -> dict[str, Any]:
    """The suite's record."""
    began = time.monotonic()
    timing, rounds = (QUICK, 3) if quick else (FULL, 5)
    case = Case()
    with Lab() as lab:
        samples = verified(lab, case)
        meter = meters.Meter(lab)
        names = QUICK_ROWS if quick else tuple(KINDS)
        rows = compare(lab, case, names, rounds, timing, meter)
        limit = ceiling(lab, case, timing.confirm)
        fan = fan1000(lab, meter, 3.0 if quick else 10.0)
        active = active50(lab, meter, 3.0 if quick else 10.0)
    fields, spreads, reasons = ratio_fields(rows)
    return {
        **fields,
        "scheduling": classes.OTHER.name,
        "scheduling_why": "the class of peers/run_baselines.py; fan1000 and active50 as shipped",
        "fan1000_lost": fan["lost"],
        "active50_lost": active["lost"],
        "spread": spreads,
        "reasons": reasons,
        "rows": {name: row.record() for name, row in rows.items()},
        "generator_ceiling": limit,
        "samples": samples,
        "fan1000": fan,
        "active50": active,
        "config": {
            "copies": case.copies, "size": case.size, "suite": case.suite, "rounds": rounds,
            "pace_factor": vcfwd.Vcfwd.PACE_FACTOR, "history_slots": HISTORY_SLOTS,
        },
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
