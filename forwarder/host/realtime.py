"""Whether the workers are in the real-time class: what the host's real-time settings go by.

A class that the configuration names is that one.  `auto` is what the workers of the data plane that
runs are in, as the kernel tells it; while none runs, what dataplane/scheduling.py will choose on
the cores of the plan.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from forwarder.config import Config
from forwarder.dataplane import scheduling
from forwarder.dataplane.setup import Scheduler
from forwarder.host.cpuset import WORKER
from forwarder.host.facts import Facts
from forwarder.host.layout import Layout
from forwarder.host.root import Host

_DATAPLANE = "vcfwd-dataplane"


@dataclass(frozen=True)
class Class:
    """`asked`: the configuration names it; `why`: a sentence where it was not asked for."""

    fifo: bool
    asked: bool
    why: str = ""


def of(host: Host, config: Config, facts: Facts, layout: Layout, count: int) -> Class:
    """`count`: workers of the data plane; 0: as many as the plan has.  Needs no privileges."""
    plane = config.dataplane
    if plane.scheduler != scheduling.AUTO:
        return Class(plane.scheduler == "fifo", asked=True)
    found = running(config.node.run_dir) if host.live else None
    if found is not None:
        why = 'dataplane.scheduler = "auto": the workers of the data plane that runs are '
        return Class(found is Scheduler.FIFO, asked=False, why=f"{why}{found.name.lower()}")
    cpus = layout.cpus if count in (0, len(layout.cpus)) else plane.cpus
    # Its own unit lets it under systemd; else whoever is not root cannot tell for those who are.
    asks = host.live and not facts.systemd and os.geteuid() == 0
    chosen = scheduling.choose(
        plane.scheduler, plane.priority, count or len(cpus), cpus,
        allowed=[cpu.number for cpu in facts.cpus],
        refused=scheduling.refusal if asks else lambda _: None,
    )  # fmt: skip
    why = f'dataplane.scheduler = "auto": the workers will be {chosen.name}: {chosen.why}'
    return Class(chosen.scheduler is Scheduler.FIFO, asked=False, why=why)


def running(run_dir: str) -> Scheduler | None:
    """The class of the workers of the data plane that serves this directory; None: none does."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        words = _text(f"/proc/{pid}/cmdline").split("\0")
        if _text(f"/proc/{pid}/comm").strip() != _DATAPLANE or run_dir not in words:
            continue
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            if _text(f"/proc/{pid}/task/{thread}/comm").startswith(WORKER):
                try:
                    policy = os.sched_getscheduler(int(thread))
                except OSError:
                    continue
                return Scheduler.FIFO if policy & 0xFF == os.SCHED_FIFO else Scheduler.OTHER
    return None


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
