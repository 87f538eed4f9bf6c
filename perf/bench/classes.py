"""The scheduling class of the relays: as shipped, and the same for every relay of a comparison."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from forwarder.config import defaults
from forwarder.dataplane.scheduling import Scheduling, choose
from forwarder.dataplane.setup import Scheduler
from perf.bench.lab import RELAY_CORE, SOURCE_CORE, PerfError

OTHER: Final = Scheduling(Scheduler.OTHER, 0, "asked for")
CORES: Final = (RELAY_CORE, SOURCE_CORE)
"""Of the workers, in order."""


def priority() -> int:
    """Of SCHED_FIFO, as shipped."""
    return int(defaults()["dataplane"]["priority"])


def fifo() -> Scheduling:
    """SCHED_FIFO at the shipped priority, asked for."""
    return Scheduling(Scheduler.FIFO, priority(), "asked for")


def shipped(workers: int = 1) -> Scheduling:
    """What the shipped configuration chooses here, workers pinned as the rig pins them."""
    wanted = str(defaults()["dataplane"]["scheduler"])
    return choose(wanted, priority(), workers, CORES[:workers])


def take(scheduling: Scheduling, threads: Iterable[int]) -> None:
    """Puts threads that run into the class: those of a baseline."""
    if scheduling.scheduler is Scheduler.OTHER:
        return
    for thread in threads:
        try:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(scheduling.priority))
        except OSError as error:
            raise PerfError(f"put thread {thread} into SCHED_FIFO: {error.strerror}") from error
