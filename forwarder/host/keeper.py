"""The loop of `vcfwd tune watch`: looks, waits for links to change, tells."""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from forwarder.host import evidence
from forwarder.host.audit import Audit
from forwarder.host.journal import Journal
from forwarder.host.root import Host
from forwarder.host.stage import Site
from forwarder.host.watch import Latency, Watcher
from forwarder.net.netlink import RTM_DELLINK, RTM_NEWLINK, Notices

SETTLE_S = 1.0
"""After a link changed: a driver that resets goes on for a while."""


def keep(
    host: Host,
    journal: Journal,
    audit: Audit,
    cpus: Sequence[int],
    survey: Callable[[Sequence[str]], Site],
    *,
    interval: float,
    count: int,
    spin_ms: int,
    json_: bool,
) -> None:
    """Until SIGINT or SIGTERM, or for `count` looks.  `survey`: the host anew, for these NICs."""
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
            looks, woken = 0, "link"
            while woken != "end":
                again = watcher.look(time.monotonic())
                renewed = watcher.renew(survey) if woken == "link" else 0
                now = evidence.read(host, cpus)
                counts = {"reapplied": again, "renewed": renewed}
                _tell(last, now, told, counts, cpus, spin_ms if host.live else 0, json_)
                told.clear()
                last, looks = now, looks + 1
                if count and looks >= count:
                    return
                woken = _wait(ended, notices, interval)
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if notices is not None:
            notices.close()
        ended.close()
        wake.close()


def _wait(ended: socket.socket, notices: Notices | None, interval: float) -> str:
    """What ended it: `end` a signal, `link` a notice of a link, which shortens the wait to
    SETTLE_S, or `time`."""
    woken = "time"
    until = time.monotonic() + interval
    while (left := until - time.monotonic()) > 0:
        sources = [ended.fileno()] + ([notices.fileno()] if notices is not None else [])
        ready, _, _ = select.select(sources, [], [], left)
        if ended.fileno() in ready:
            return "end"
        if notices is not None and ready:
            messages = notices.read()
            links = messages is None or any(
                message["header"]["type"] in (RTM_NEWLINK, RTM_DELLINK) for message in messages
            )
            if links:
                woken = "link"
                until = min(until, time.monotonic() + SETTLE_S)
    return woken


def _tell(
    last: dict[int, evidence.Core],
    now: dict[int, evidence.Core],
    told: list[str],
    counts: dict[str, int],
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
        print(json.dumps({**counts, "told": told, "cores": cores}), flush=True)
        return
    for sentence in told:
        print(sentence, flush=True)
    for name, core in cores.items():
        words = ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in core.items())
        print(f"core {name}: {words}", flush=True)
