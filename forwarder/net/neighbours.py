"""Neighbours: who answers at the next hop, and how to make the kernel find out."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

NUD_INCOMPLETE, NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE = 0x01, 0x02, 0x04, 0x08, 0x10
NUD_FAILED, NUD_NOARP, NUD_PERMANENT = 0x20, 0x40, 0x80
USABLE = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT

PROBE_HOST_S = 1.0
"""Seconds between two probes of one next hop."""
PROBE_BURST = 50
PROBE_RATE = 50.0
"""Probes a second in all, after a burst of PROBE_BURST."""
PROBES_MAX = 65536
"""Next hops that are remembered for PROBE_HOST_S; more of them wait."""
_DISCARD_PORT = 9

NextHop = tuple[int, str]
"""ifindex, address."""


@dataclass(frozen=True)
class Neighbour:
    """A next hop; `mac` is None while it does not answer."""

    hop: NextHop
    mac: bytes | None
    state: int


def read_neighbour(message: Any) -> Neighbour | None:
    """A neighbour of an RTM_NEWNEIGH or RTM_DELNEIGH message; None for a bridge's entries."""
    ip = message.get_attr("NDA_DST")
    if message["family"] not in (socket.AF_INET, socket.AF_INET6) or ip is None:
        return None
    lladdr = message.get_attr("NDA_LLADDR")
    usable = bool(message["state"] & USABLE) and lladdr is not None
    mac = bytes.fromhex(lladdr.replace(":", "")) if usable else None
    return Neighbour((message["ifindex"], str(ip_address(ip))), mac, message["state"])


class Prober:
    """Makes the kernel resolve next hops, by an empty UDP datagram with TTL 1 to the discard
    port: it needs no privilege, and no router passes it on.  Limited for each host and in all.
    """

    def __init__(self) -> None:
        self._last: dict[NextHop, float] = {}
        self._tokens, self._filled = float(PROBE_BURST), 0.0
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socks: dict[int, socket.socket] = {}
        v4 = socket.socket(socket.AF_INET, kind)
        v4.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        self._socks[4] = v4
        with contextlib.suppress(OSError):  # a host without IPv6
            v6 = socket.socket(socket.AF_INET6, kind)
            v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            self._socks[6] = v6

    def probe(self, hop: NextHop, now: float) -> bool:
        """Probes unless a limit stands against it; `now` in seconds, monotonic."""
        last = self._last.get(hop)
        if last is not None and now - last < PROBE_HOST_S:
            return False
        self._tokens = min(PROBE_BURST, self._tokens + (now - self._filled) * PROBE_RATE)
        self._filled = now
        if self._tokens < 1:
            return False
        if len(self._last) >= PROBES_MAX:
            self._last = {h: t for h, t in self._last.items() if now - t < PROBE_HOST_S}
            if len(self._last) >= PROBES_MAX:
                return False
        self._tokens -= 1
        self._last[hop] = now
        ifindex, ip = hop
        version = ip_address(ip).version
        address = (ip, _DISCARD_PORT) if version == 4 else (ip, _DISCARD_PORT, 0, ifindex)
        with contextlib.suppress(OSError, KeyError):  # unreachable now: asked again later
            self._socks[version].sendto(b"", address)
        return True

    def close(self) -> None:
        for sock in self._socks.values():
            sock.close()
