"""What a suite knows of any relay, and the baselines of perf/peers behind it.

A relay takes the streams of `case.publishers` flows and sends each packet to `case.copies`
receivers.  It lives on RELAY_CORE between start() and stop().
"""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from perf.bench import classes, keys
from perf.bench.lab import (
    BUILD,
    PEERS,
    PORT,
    PORT_BASE,
    RELAY_CORE,
    SOURCE_CORE,
    SOURCE_PORT,
    Lab,
    Receiver,
    need,
)
from perf.bench.lab import flags as flags_of
from perf.bench.table import SSRC

RCVBUF = 8 << 20
"""Bytes of receive buffer, the same for every relay on sockets (sockets.py MEDIA_RCVBUF)."""


@dataclass(frozen=True)
class Case:
    """`size` is the RTP packet in clear, bytes; `suite` gcm or sha1."""

    copies: int = 10
    size: int = 1200
    suite: str = "gcm"
    publishers: int = 1
    workers: int = 1

    @property
    def receivers(self) -> int:
        return self.copies * self.publishers

    @property
    def sealed_bytes(self) -> int:
        """UDP payload of one sealed packet."""
        return self.size + keys.TAGS[self.suite]


class Relay(ABC):
    """One relay in one lab; start() before anything else, stop() at the end."""

    name: ClassVar[str]
    fresh: ClassVar[bool] = False
    """Needs a call of its own for each trial (`renew`)."""
    sealed_in: ClassVar[bool] = False
    """Takes SRTP; else RTP in clear."""

    def __init__(self, lab: Lab, case: Case) -> None:
        self.lab, self.case = lab, case
        self.index = 0
        """SRTP index of the next packet of each flow."""
        self.base = PORT_BASE
        self.scheduling = classes.shipped(case.workers)
        """Class of the threads that carry packets; to be set before start()."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> dict[str, Any]:
        """Ends it; its own counters."""

    def renew(self) -> None:  # noqa: B027
        """A fresh call, when `fresh`; else there is nothing to do."""

    def offered(self, rate: float) -> None:  # noqa: B027
        """All flows together will send that many packets a second: paced relays set rates."""

    def destination(self) -> dict[str, Any]:
        """Where the generator sends to: its options."""
        return {"dst_ip": self.lab.names["in_ip"], "dst_port": PORT, "src_port": SOURCE_PORT}

    def threads(self) -> list[int]:
        """Thread ids that carry packets."""
        return []

    def take_class(self) -> None:
        """A baseline's threads go into the class of the comparison."""
        classes.take(self.scheduling, self.threads())

    def generate(
        self, *, first: int = 0, flows: int | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Starts the generator with the flows from `first` on; `finish` gives its result."""
        case, extra = self.case, {}
        flows = case.publishers - first if flows is None else flows
        if self.sealed_in:
            path = self.lab.folder / f"generator-{case.suite}-{first}-{flows}.keys"
            if not path.exists():
                keys.generator_file(path, case.suite, range(first, first + flows))
            extra = {"suite": case.suite, "keys": path}
        to = self.destination()
        if first:
            to |= {"src_port": to["src_port"] + first, "ssrc": SSRC + first}
        options = {
            "flows": flows, "size": case.size, "index": self.index, **to, **extra, **options,
        }  # fmt: skip
        argv = [need(BUILD / "generator"), *flags_of(options)]
        return self.lab.start("pub", argv, core=SOURCE_CORE)

    def finish(self, generator: subprocess.Popen[str]) -> dict[str, Any]:
        """Waits for the generator's end; the next one goes on with its index."""
        sent = self.lab.result(generator)
        self.index = max(self.index, int(sent["next_index"]))
        return sent

    def key_file(self) -> Path | None:
        """What the receiver opens samples with; None where nothing is sealed with known keys."""
        return None

    def receiver(self, **options: Any) -> Receiver:
        return Receiver(self.lab, self.case.receivers, base=self.base, **options)


class Peer(Relay):
    """A relay of perf/peers: a process with options of its own."""

    tool: ClassVar[str]
    options: ClassVar[list[object]] = []

    def start(self) -> None:
        n = self.lab.names
        argv: list[object] = self.program()
        argv += ["--listen-port", PORT, "--src-ip", n["out_ip"], "--dst-ip", n["sub_ip"]]
        argv += ["--dst-port-base", self.base, "--copies", self.case.copies, *self.options]
        self._child = self.lab.start("fwd", argv, core=RELAY_CORE, ready=True)
        self.take_class()

    def program(self) -> list[object]:
        return [self.lab.peer(self.tool), "--rcvbuf", RCVBUF]

    def threads(self) -> list[int]:
        return [int(task) for task in os.listdir(f"/proc/{self._child.pid}/task")]

    def stop(self) -> dict[str, Any]:
        return self.lab.stop(self._child)


class BareXdp(Peer):
    name, tool = "xdp", "xdp_fanout"

    def program(self) -> list[object]:
        n = self.lab.names
        where = ["--in", n["in_if"], "--out", n["out_if"], "--dst-mac", n["sub_mac"]]
        return [self.lab.peer(self.tool), *where]


class BareXdpGcm(BareXdp):
    name = "xdp+gcm"
    options: ClassVar[list[object]] = ["--seal", "gcm"]


class BareSockets(Peer):
    name, tool = "sockets", "socket_fanout"


class BareSocketsGcm(Peer):
    name, tool = "sockets+gcm", "socket_fanout"
    options: ClassVar[list[object]] = ["--seal", "gcm"]


class Asyncio(Peer):
    name, tool = "asyncio", "asyncio_fanout.py"

    def program(self) -> list[object]:
        return [sys.executable, PEERS / self.tool, "--rcvbuf", RCVBUF]
