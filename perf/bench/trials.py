"""The best rate of a relay: the method of perf/peers/run_baselines.py.

A rate passes when 99.9 % of its copies have been delivered at the moment the source stops, so
that a backlog in a deep buffer counts as loss; the copies of one packet may be on their way, which
matters only where one packet is more than 0.1 %.  A stall of the machine may spoil one trial, not
two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from perf.bench.lab import Receiver
from perf.bench.relay import Relay

MAX_LOSS = 0.001
SOURCE_SLACK = 0.98
"""A source slower than this share of what it was to send is the limit itself."""
FIRST_OUT, TOP_RATE, LEAST_RATE = 200_000.0, 900_000.0, 20.0
"""Where a search begins (packets out), and its bounds (packets in)."""
CONFIRM_SPAN = 4.0
"""A rate that passed while stepping and whose quarter does not confirm is none: 0."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a stepping, a halving and a confirming trial, of a search, of a cost window."""

    step: float
    halve: float
    confirm: float
    slot: float
    cost: float


QUICK = Timing(0.1, 0.15, 0.3, 1.8, 0.5)
FULL = Timing(0.25, 0.4, 0.8, 5.0, 2.0)


@dataclass(frozen=True)
class Best:
    """Packets a second in and out at the highest rate that passed."""

    rate: float
    out: float
    source_limited: bool


class Trials:
    """Offers rates to one running relay; `source_limited` when the source could not follow."""

    def __init__(self, relay: Relay, receiver: Receiver, *, first: bool = True) -> None:
        self.relay, self.receiver = relay, receiver
        self.source_limited = False
        self.first = first
        """The start is a guess: take longer steps."""

    def offer(self, rate: float, seconds: float) -> tuple[bool, float]:
        """(passed, packets out a second)."""
        if self.relay.fresh:
            self.relay.renew()
        self.relay.offered(rate)
        before = self.receiver.settled()
        sent = self.relay.finish(self.relay.generate(rate=rate, seconds=seconds))
        got = self.receiver.packets() - before
        out = got / sent["seconds"]
        if sent["pps"] < SOURCE_SLACK * rate:
            self.source_limited = True
            return False, out
        self.source_limited = False
        missing = sent["sent"] * self.relay.case.copies - got
        return missing <= self.relay.case.copies * max(1.0, sent["sent"] * MAX_LOSS), out

    def twice(self, rate: float, seconds: float) -> tuple[bool, float]:
        first = self.offer(rate, seconds)
        return first if first[0] else self.offer(rate, seconds)

    def search(self, start: float, timing: Timing) -> Best:
        """Steps up or down from `start`, halves to 3 %, confirms."""
        deadline = time.monotonic() + timing.slot
        factor = 1.3 if self.first else 1.12
        self.first = False
        low: float | None = None
        high: float | None = None
        limited = False
        rate = start
        while (low is None or high is None) and LEAST_RATE < rate < TOP_RATE:
            if self.twice(rate, timing.step)[0]:
                low, rate = rate, rate * factor
            else:
                limited |= self.source_limited
                high, rate = rate, rate / factor
        low, high = low or rate, high or rate
        while high / low > 1.03 and time.monotonic() < deadline:
            rate = (low * high) ** 0.5
            if self.twice(rate, timing.halve)[0]:
                low = rate
            else:
                limited = self.source_limited
                high = rate
        rate = low
        while rate > low / CONFIRM_SPAN:
            passed, out = self.twice(rate, timing.confirm)
            if passed:
                return Best(rate, out, limited)
            rate *= 0.96
        return Best(0.0, 0.0, limited)
