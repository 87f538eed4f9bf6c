"""Datagrams lost on purpose between browsers and node: one seeded BPF program (loss.bpf.c) for
each direction of each link, on the browsers' hosts, so that the node's own programs stay alone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from forwarder.dataplane import bpf
from forwarder.demo.namespaces import Host, run
from forwarder.demo.options import DemoError

OBJECT = Path(__file__).parents[3] / "build" / "demo" / "loss.bpf.o"
SEED = 20261123  # of every run: what is lost is the same for the same packets
WAYS = ("ingress", "egress")
_OFFERED, _DROPPED = 0, 1


@dataclass(frozen=True)
class Lost:
    offered: int = 0
    dropped: int = 0


class Losses:
    """Programs on some links; closing them gives the maps back, the links go with their hosts."""

    def __init__(self, pins: Path, port: int, share: float, seed: int = SEED) -> None:
        """`pins` lies on a bpffs; `share` of 0 to 1 is lost each way."""
        if not OBJECT.exists():
            raise DemoError(f"there is no {OBJECT}: run 'make build' once")
        self._pins, self._port, self._share, self._seed = pins, port, share, seed
        self._maps: list[int] = []
        self._made = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._made.close()

    def add(self, host: Host, interface: str) -> None:
        """Both ways of that interface."""
        run(*host.command("tc", "qdisc", "add", "dev", interface, "clsact"))
        for way in WAYS:
            program = self._made.enter_context(bpf.BpfObject(OBJECT))
            number = len(self._maps)
            for name, value in (
                ("port", self._port),
                ("seed", (self._seed + number) % 2**24),
                ("threshold", min(round(self._share * 2**32), 2**32 - 1)),
            ):
                program.set_global(name, value)
            program.load()
            pin = self._pins / f"loss{number}"
            bpf.pin(program.prog_fd, pin)
            self._made.callback(pin.unlink)
            attach = ("tc", "filter", "add", "dev", interface, way, "bpf", "direct-action")
            run(*host.command(*attach, "object-pinned", str(pin)))
            self._maps.append(program.map_fd("counters"))

    def read(self) -> Lost:
        """So far, over all links and ways."""
        return Lost(self._sum(_OFFERED), self._sum(_DROPPED))

    def _sum(self, index: int) -> int:
        total = 0
        for fd in self._maps:
            value = bpf.lookup(fd, index.to_bytes(4, "little"), 8)
            total += int.from_bytes(value or b"", "little")
        return total
