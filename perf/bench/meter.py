"""What a core really lost, and how quiet the machine is.

The meter is perf/peers/cpu_meter: an idle-priority loop that sums its own pauses (its gap result),
because process times leave out softirq on kernels without IRQ time accounting.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.bench.lab import RELAY_CORE, SOURCE_CORE, Lab

CORES = f"{SOURCE_CORE},{RELAY_CORE}"


@dataclass(frozen=True)
class Cost:
    """CPU seconds lost in each second, both cores together and the relay's alone."""

    both: float
    relay: float


class Meter:
    """Calibrated once in a lab (2 s): only the loop result needs it, but the tool insists."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._file = lab, lab.folder / "cpu_meter.cal"
        argv = [lab.peer("cpu_meter"), "--calibrate", "--cores", CORES, "--file", self._file]
        lab.result(lab.start(None, argv))

    def measure(self, seconds: float) -> Cost:
        return cost(self.result(seconds))

    def result(self, seconds: float) -> dict[str, Any]:
        argv = [self._lab.peer("cpu_meter"), "--cores", CORES, "--seconds", seconds]
        return self._lab.result(self._lab.start(None, [*argv, "--file", self._file]))


def cost(result: dict[str, Any]) -> Cost:
    """From the tool's answer."""
    lost = {int(core): float(each["lost_gap_s"]) for core, each in result["cores"].items()}
    seconds = float(result["seconds"])
    return Cost(sum(lost.values()) / seconds, lost[RELAY_CORE] / seconds)


def busy_share(wait_s: float) -> float:
    """Share of all cores' time that somebody uses now (/proc/stat)."""

    def read() -> tuple[int, int]:
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4], sum(fields)

    busy0, all0 = read()
    time.sleep(wait_s)
    busy1, all1 = read()
    return (busy1 - busy0) / max(1, all1 - all0)


def spin_gaps(seconds: float, core: int = RELAY_CORE) -> dict[str, float]:
    """The noise floor: pauses of a spinning process on a core, in microseconds, and the share of
    time that pauses above 20 us took."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    gaps = []
    try:
        end = time.monotonic_ns() + int(seconds * 1e9)
        last = time.monotonic_ns()
        while last < end:
            now = time.monotonic_ns()
            if now - last > 20_000:
                gaps.append(now - last)
            last = now
    finally:
        os.sched_setaffinity(0, before)
    gaps.sort()
    return {
        "share": round(sum(gaps) / (seconds * 1e9), 5),
        "count_per_s": round(len(gaps) / seconds, 1),
        "p99_us": round(gaps[int(len(gaps) * 0.99)] / 1e3, 1) if gaps else 0.0,
        "max_us": round(gaps[-1] / 1e3, 1) if gaps else 0.0,
    }
