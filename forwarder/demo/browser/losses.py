"""What the lab does to datagrams between browsers and node: a seeded loss (loss.bpf.c), and a NAT
that binds a browser's port anew (nat.bpf.c).  One BPF program for each direction of a link, on the
browsers' hosts, so that the node's own programs stay alone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from forwarder.dataplane import bpf
from forwarder.demo.namespaces import Host, run
from forwarder.demo.options import DemoError

OBJECTS = Path(__file__).parents[3] / "build" / "demo"
SEED = 20261123  # of every run: what is lost is the same for the same packets
WAYS = ("ingress", "egress")
_OFFERED, _DROPPED = 0, 1


@dataclass(frozen=True)
class Lost:
    offered: int = 0
    dropped: int = 0


class Programs:
    """Classifiers on interfaces; closing gives the maps back, the rest goes with the hosts."""

    def __init__(self, name: str, pins: Path) -> None:
        """`pins` lies on a bpffs."""
        self._object = OBJECTS / f"{name}.bpf.o"
        if not self._object.exists():
            raise DemoError(f"there is no {self._object}: run 'make build' once")
        self._name, self._pins = name, pins
        self._made = ExitStack()
        self.loaded: list[bpf.BpfObject] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._made.close()

    def attach(self, host: Host, interface: str, way: str, **settings: int) -> None:
        """One way of an interface that has a clsact qdisc."""
        program = self._made.enter_context(bpf.BpfObject(self._object))
        for name, value in settings.items():
            program.set_global(name, value)
        program.load()
        pin = self._pins / f"{self._name}{len(self.loaded)}"
        bpf.pin(program.prog_fd, pin)
        self._made.callback(pin.unlink)
        attach = ("tc", "filter", "add", "dev", interface, way, "bpf", "direct-action")
        run(*host.command(*attach, "object-pinned", str(pin)))
        self.loaded.append(program)


def classify(host: Host, interface: str) -> None:
    """Makes room for classifiers."""
    run(*host.command("tc", "qdisc", "add", "dev", interface, "clsact"))


class Losses(Programs):
    """A share of the datagrams is lost, each way."""

    def __init__(self, pins: Path, port: int, share: float, seed: int = SEED) -> None:
        super().__init__("loss", pins)
        self._port, self._share, self._seed = port, share, seed

    def add(self, host: Host, interface: str) -> None:
        """Both ways of that interface."""
        classify(host, interface)
        for way in WAYS:
            self.attach(
                *(host, interface, way),
                port=self._port,
                seed=(self._seed + len(self.loaded)) % 2**24,
                threshold=min(round(self._share * 2**32), 2**32 - 1),
            )

    def read(self) -> Lost:
        """So far, over all links and ways."""
        return Lost(self._sum(_OFFERED), self._sum(_DROPPED))

    def _sum(self, index: int) -> int:
        total = 0
        for program in self.loaded:
            value = bpf.lookup(program.map_fd("counters"), index.to_bytes(4, "little"), 8)
            total += int.from_bytes(value or b"", "little")
        return total


class Nat(Programs):
    """Between a browser and the node; transparent until rebind() is called."""

    def __init__(self, pins: Path, port: int, host: Host, interface: str) -> None:
        super().__init__("nat", pins)
        self._port, self._host, self._interface = port, host, interface

    def __enter__(self) -> Self:
        classify(self._host, self._interface)
        for number, way in enumerate(("egress", "ingress")):
            self.attach(self._host, self._interface, way, port=self._port, inbound=number)
        return self

    def rebind(self, mask: int) -> None:
        """From now on the ports outside are those inside XOR mask."""
        for program in self.loaded:
            bpf.update(program.map_fd("masks"), bytes(4), mask.to_bytes(8, "little"))
