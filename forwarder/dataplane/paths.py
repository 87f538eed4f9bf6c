"""Which data path a node uses: probed best first, chosen, explained.

A path belongs to an interface: `xdp-zerocopy`, `xdp-native`, `xdp-generic`, `udp` (best first).
The socket path is always usable.  Nothing here attaches, binds or changes anything.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forwarder.dataplane.steering_errors import SteeringError
from forwarder.dataplane.steering_probe import PathProbe, probe

UDP = "udp"
XDP_PATHS = ("xdp-zerocopy", "xdp-native", "xdp-generic")
PATHS = (*XDP_PATHS, UDP)

Prober = Callable[[str], list[PathProbe]]


@dataclass(frozen=True)
class InterfacePaths:
    """The four paths of one interface, best first, each with a sentence."""

    name: str
    paths: tuple[PathProbe, ...]


@dataclass(frozen=True)
class Choice:
    """The path of the node and, for each better one that was not taken, why."""

    path: str
    why: str


def interfaces() -> list[str]:
    """Every interface of this network namespace."""
    return [name for _, name in socket.if_nameindex()]


def examine(name: str, prober: Prober = probe) -> InterfacePaths:
    """All paths of one interface.  SteeringError when there is no such interface."""
    sockets = PathProbe(UDP, True, "the kernel's sockets: any interface, no privileges")
    return InterfacePaths(name, (*prober(name), sockets))


def choose(wanted: str, names: Sequence[str], prober: Prober = probe) -> Choice:
    """The best path that all the named interfaces can use, within what is wanted.

    `wanted`: auto, xdp (the best of the XDP paths) or one path by name.  SteeringError, with a
    sentence for each interface, when it asks for XDP and an interface cannot.  `prober`: of a
    loaded Steering, which knows its own program; by default every program is somebody else's.
    """
    if wanted == UDP:
        return Choice(UDP, "the configuration asks for it (network.path)")
    if not names:
        return Choice(UDP, "no interface is configured for XDP (network.interfaces is empty)")
    candidates = XDP_PATHS if wanted in ("auto", "xdp") else (wanted,)
    examined = [examine(name, prober) for name in names]
    reasons: list[str] = []
    for path in candidates:
        refused = [
            f"{item.name}: {entry.why}"
            for item in examined
            for entry in item.paths
            if entry.name == path and not entry.usable
        ]
        if not refused:
            better = "; ".join(reasons)
            return Choice(path, f"best usable; {better}" if better else "the best there is")
        reasons.append(f"not {path}: {', '.join(refused)}")
    if wanted == "auto":
        return Choice(UDP, "; ".join(reasons))
    raise SteeringError(
        f"network.path = {wanted!r} cannot be had: {'; '.join(reasons)}. "
        "Run `vcfwd doctor` for each interface, or set network.path to auto or udp"
    )
