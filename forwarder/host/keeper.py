"""The loop of `vcfwd tune watch`: looks, waits for links to change, tells."""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from forwarder.host import evidence
from forwarder.host.audit import Audit
from forwarder.host.journal import Journal
from forwarder.host.root import Host
from forwarder.host.watch import Latency, Watcher
from forwarder.net.netlink import RTM_DELLINK, RTM_NEWLINK, Notices

SETTLE_S = 1.0
"""After a link changed: a driver that resets goes on for a while."""


def keep(
    host: Host,
    journal: Journal,
    audit: Audit,
    cpus: Sequence[int],
    *,
    interval: float,
    count: int,
    spin_ms: int,
    json_: bool,
) -> None:
    """Until SIGINT or SIGTERM, or for `count` looks."""
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    before_fd = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    handlers = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGINT, signal.SIGTERM)}
    told: list[str] = []
    watcher = Watcher(host, journal, audit, told.append)
    notices = Notices() if host.live else None
    try:
        with Latency(host) as latency:
            if latency.why_not:
                told.append(latency.why_not)
            last = evidence.read(host, cpus)
            looks = 0
            while True:
                again = watcher.look(time.monotonic())
                now = evidence.read(host, cpus)
                _tell(last, now, told, again, cpus, spin_ms if host.live else 0, json_)
                told.clear()
                last, looks = now, looks + 1
                if (count and looks >= count) or _wait(ended, notices, interval):
                    return
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if notices is not None:
            notices.close()
        ended.close()
        wake.close()


def _wait(ended: socket.socket, notices: Notices | None, interval: float) -> bool:
    """True: a signal came.  A notice of a link shortens the wait to SETTLE_S."""

    until = time.monotonic() + interval
    while (left := until - time.monotonic()) > 0:
        sources = [ended.fileno()] + ([notices.fileno()] if notices is not None else [])
        ready, _, _ = select.select(sources, [], [], left)
        if ended.fileno() in ready:
            return True
        if notices is not None and ready:
            messages = notices.read()
            links = messages is None or any(
                message["header"]["type"] in (RTM_NEWLINK, RTM_DELLINK) for message in messages
            )
            if links:
                until = min(until, time.monotonic() + SETTLE_S)
    return False


def _tell(
    last: dict[int, evidence.Core],
    now: dict[int, evidence.Core],
    told: list[str],
    again: int,
    cpus: Sequence[int],
    spin_ms: int,
    json_: bool,
) -> None:
    cores: dict[str, dict[str, Any]] = {
        str(cpu): asdict(core) for cpu, core in evidence.between(last, now).items()
    }
    for cpu in cpus if spin_ms else ():
        try:
            cores[str(cpu)]["spin_gaps"] = evidence.spin_gaps(cpu, spin_ms)
        except OSError as error:
            told.append(f"core {cpu}: spin gaps cannot be measured: {error.strerror}")
    if json_:
        print(json.dumps({"reapplied": again, "told": told, "cores": cores}), flush=True)
        return
    for sentence in told:
        print(sentence, flush=True)
    for name, core in cores.items():
        counts = ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in core.items())
        print(f"core {name}: {counts}", flush=True)
