"""Which interfaces keep the operator connected: they are not cut off unasked.

A management NIC carries a default route or the route to the peer of the current ssh session, or
is master, slave or parent of such a one.  The operator may name more ([tune] management).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from ipaddress import ip_address

from forwarder.host.facts import Nic
from forwarder.host.root import Host

ROUTES_MAX = 100_000
"""Lines of a routing table that are looked at."""
PARENTS_MAX = 64
"""Processes above this one that are asked for the ssh session."""


def find(host: Host, nics: dict[str, Nic], named: Iterable[str] = ()) -> dict[str, str]:
    """Interface -> why it is one."""
    found = {name: "it is named in tune.management" for name in named if name in nics}
    for name in _default_routes(host):
        if name in nics:
            found.setdefault(name, "it carries the default route")
    peer = _ssh_interface() if host.live else ""
    if peer in nics:
        found.setdefault(peer, "this ssh session runs over it")
    grown = True
    while grown:
        grown = False
        for name, nic in nics.items():
            for other in (nic.master, *nic.lower):
                if other not in nics or (other in found) == (name in found):
                    continue
                old, new = (other, name) if other in found else (name, other)
                found[new] = f"it belongs to {old}: {found[old]}"
                grown = True
    return found


def _default_routes(host: Host) -> list[str]:
    """/proc/net/route: destination and mask zero; ipv6_route: destination zero, prefix 0."""
    found = []
    for line in (host.read("/proc/net/route") or "").splitlines()[1:ROUTES_MAX]:
        words = line.split()
        if len(words) > 7 and {*words[1], *words[7]} == {"0"}:
            found.append(words[0])
    for line in (host.read("/proc/net/ipv6_route") or "").splitlines()[:ROUTES_MAX]:
        words = line.split()
        if len(words) > 9 and {*words[0], *words[1]} == {"0"} and words[9] != "lo":
            found.append(words[9])
    return found


def _parents_word(name: str) -> str:
    """A word of the environment of the nearest parent that has it: sudo and su take it away from
    us, and root may look.  Empty: none has."""
    pid = os.getpid()
    for _ in range(PARENTS_MAX):
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{pid}/environ", "rb") as file:
                words = file.read().split(b"\0")
        except PermissionError:
            continue
        except (OSError, ValueError, IndexError):
            return ""
        for word in words:
            if word.startswith(name.encode() + b"="):
                return word.decode(errors="replace").partition("=")[2]
    return ""


def _ssh_interface() -> str:
    """The interface of the route to the peer of SSH_CONNECTION; empty: none, or nobody knows."""
    words = (os.environ.get("SSH_CONNECTION") or _parents_word("SSH_CONNECTION")).split()
    if not words:
        return ""
    address, _, zone = words[0].partition("%")
    if zone:  # a link-local peer: the interface is said
        return zone
    try:
        peer = ip_address(address)
        from forwarder.net.netlink import Requests

        requests = Requests()
        try:
            family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
            route = requests.route([("RTA_DST", str(peer))], family, peer.max_prefixlen)
        finally:
            requests.close()
        return socket.if_indextoname(route.get_attr("RTA_OIF"))
    except (ValueError, OSError, TypeError):
        return ""
