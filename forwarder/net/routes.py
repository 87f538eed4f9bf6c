"""Which way a datagram leaves: the kernel's own answer, asked when a header is built.

Asking (`ip route get`) rather than copying route tables obeys rules, metrics, multipath and VRFs
as the kernel does, and a host with a full routing table costs nothing.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder.net.netlink import Requests

_RTN_UNICAST, _RTN_LOCAL = 1, 2


@dataclass(frozen=True)
class Way:
    """Egress interface and next hop; `local`: the destination is this host."""

    ifindex: int
    next_hop: str
    local: bool


@dataclass(frozen=True)
class NoWay:
    """There is none, and why."""

    why: str


def find_way(requests: Requests, local_ip: str, remote_ip: str) -> Way | NoWay:
    """The way from a local to a remote address."""
    remote = ip_address(remote_ip)
    version = remote.version
    if ip_address(local_ip).version != version:
        return NoWay(f"{local_ip} and {remote_ip} are of different IP versions")
    family, bits = (socket.AF_INET, 32) if version == 4 else (socket.AF_INET6, 128)
    try:
        message = requests.route([("RTA_DST", remote_ip), ("RTA_SRC", local_ip)], family, bits)
    except OSError as error:
        return NoWay(f"no route from {local_ip} to {remote_ip}: {error.strerror}")
    ifindex = message.get_attr("RTA_OIF")
    if ifindex is None or message["type"] not in (_RTN_UNICAST, _RTN_LOCAL):
        return NoWay(f"the route from {local_ip} to {remote_ip} does not lead to a host")
    via = message.get_attr("RTA_VIA")
    gateway = via["addr"] if via else message.get_attr("RTA_GATEWAY")
    next_hop = str(ip_address(gateway)) if gateway else str(remote)
    return Way(ifindex, next_hop, message["type"] == _RTN_LOCAL)
