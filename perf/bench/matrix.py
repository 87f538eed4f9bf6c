"""Suite `matrix`: capacity at the other fan-outs, sizes and ciphers, and with two workers.

Rows, method and ratios are those of `capacity`, with its shorter trials: (a) and (b) paced and
unpaced, (b) with GSO, (c) and (g); three rounds of each case (--quick: one, and fewer cases).  It
ends after LIMIT_S: what was not measured by then is null with that reason.
"""

from __future__ import annotations

import time
from typing import Any

from perf.bench import meter as meters
from perf.bench.capacity import A_FREE, B_GSO, A, B, compare, ratio_fields
from perf.bench.lab import Lab, say
from perf.bench.relay import BareXdp, BareXdpGcm, Case
from perf.bench.trials import QUICK, Timing

LIMIT_S = 660.0
TIMING = Timing(step=0.1, halve=0.12, confirm=0.3, slot=1.2, cost=0.4)
ROWS = (A, B, A_FREE, B_GSO, BareXdp.name, BareXdpGcm.name)
CASES = (
    *(Case(copies, size) for copies in (1, 10, 50, 1000) for size in (160, 1200)),
    Case(10, 160, "sha1"), Case(10, 1200, "sha1"), Case(10, 1200, workers=2),
)  # fmt: skip
QUICK_CASES = (Case(1, 1200), Case(50, 1200), Case(10, 160, "sha1"))


def one(case: Case, rounds: int, timing: Timing) -> dict[str, Any]:
    """A case; two workers share a core with the generator on two cores, so only (a) and (b)."""
    names = ROWS if case.workers == 1 else (A, B)
    with Lab(queues=case.workers) as lab:
        rows = compare(lab, case, names, rounds, timing, meters.Meter(lab))
    fields, spreads, reasons = ratio_fields(rows)
    return {
        **fields, "spread": spreads, "reasons": reasons,
        "rows": {name: row.record() for name, row in rows.items()},
    }  # fmt: skip


def run(quick: bool) -> dict[str, Any]:
    """The suite's record."""
    began = time.monotonic()
    rounds, timing = (1, QUICK) if quick else (3, TIMING)
    found, longest = [], 0.0
    for case in QUICK_CASES if quick else CASES:
        if case == Case():
            continue  # the suite `capacity` itself
        at = time.monotonic()
        about = {
            "copies": case.copies, "size": case.size, "suite": case.suite, "workers": case.workers,
        }  # fmt: skip
        if at - began + longest > LIMIT_S:
            found.append(about | {"reasons": {"all": f"the suite ends after {LIMIT_S:g} s"}})
            say(f"  no time for 1:{case.copies}, {case.size} B, {case.suite}")
            continue
        found.append(about | one(case, rounds, timing))
        longest = max(longest, time.monotonic() - at)
    return {
        "cases": found,
        "config": {"rounds": rounds, "limit_s": LIMIT_S},
        "seconds": round(time.monotonic() - began, 1),
    }
