"""In which scheduling class the workers run: chosen, and explained.

`dataplane.scheduler = "auto"`: SCHED_FIFO at a low priority keeps departures on time beside busy
programs (perf/README.md), but a worker with much to do then leaves others only 6 % of its CPU.  So
it is taken where the kernel lets this process, and where a CPU stays that is no worker's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from forwarder.dataplane.setup import Scheduler

AUTO: Final = "auto"


@dataclass(frozen=True)
class Scheduling:
    """The class and its priority (0 of OTHER), and why it is this one."""

    scheduler: Scheduler
    priority: int
    why: str

    @property
    def name(self) -> str:
        """As people read it: `other`, or `fifo 2`."""
        return name_of(self.scheduler, self.priority)


def name_of(scheduler: Scheduler, priority: int) -> str:
    """`other`, or the class and its priority."""
    name = scheduler.name.lower()
    return f"{name} {priority}" if scheduler is Scheduler.FIFO else name


def refusal(priority: int) -> str | None:
    """Why the kernel gives this process no real-time thread; None when it does.

    It is asked by a thread that takes the class and ends: capabilities, RLIMIT_RTPRIO and control
    groups with real-time budgets all have a say in it.
    """
    found: list[str | None] = []

    def attempt() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
            found.append(None)
        except OSError as error:
            reason = error.strerror or str(error)
            found.append(f"the real-time class is refused ({reason}): give it CAP_SYS_NICE")

    thread = threading.Thread(target=attempt, name="vcfwd-sched")
    thread.start()
    thread.join()
    return found[0]


def choose(
    wanted: str,
    priority: int,
    workers: int,
    cpus: Sequence[int],
    *,
    allowed: Collection[int] | None = None,
    refused: Callable[[int], str | None] = refusal,
) -> Scheduling:
    """`wanted`: auto, fifo or other.  `cpus`: where the workers are pinned; none: anywhere.

    `allowed`: CPUs that this process may use (by default what the kernel says).  What is asked
    for by name is not questioned here: the data plane refuses what it cannot have.
    """
    if wanted != AUTO:
        scheduler = Scheduler[wanted.upper()]
        asked = "the configuration asks for it (dataplane.scheduler)"
        return Scheduling(scheduler, priority if scheduler is Scheduler.FIFO else 0, asked)
    allowed = os.sched_getaffinity(0) if allowed is None else allowed
    left = len(set(allowed) - set(cpus)) if cpus else len(allowed) - workers
    if left < 1:
        each = "the only worker" if workers == 1 else f"{workers} workers"
        why = f"{each} on {len(allowed)} CPU{'s' * (len(allowed) != 1)} would leave none to others"
        return Scheduling(Scheduler.OTHER, 0, why)
    if why_not := refused(priority):
        return Scheduling(Scheduler.OTHER, 0, why_not)
    spare = "1 CPU is left that is" if left == 1 else f"{left} CPUs are left that are"
    return Scheduling(Scheduler.FIFO, priority, f"it is allowed, and {spare} no worker's")
