"""Interfaces and addresses, as the kernel tells them.  Pure: messages in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
ARPHRD_ETHER = 1


@dataclass(frozen=True)
class Link:
    """An interface.  `parent` and `vlan` of a VLAN interface, else None; `usable`: up, with a
    carrier; `master`: what it is a slave or port of; `active`: of a bond the slave that sends
    (0: each may), else None."""

    ifindex: int
    name: str
    mac: bytes
    usable: bool
    ethernet: bool
    parent: int | None = None
    vlan: int | None = None
    master: int | None = None
    active: int | None = None


@dataclass(frozen=True)
class Address:
    """An address of this host."""

    ifindex: int
    ip: str


def read_link(message: Any) -> Link:
    """A link of an RTM_NEWLINK or RTM_DELLINK message."""
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    data = info.get_attr("IFLA_INFO_DATA") if kind in ("vlan", "bond") else None
    vlan = data.get_attr("IFLA_VLAN_ID") if kind == "vlan" and data is not None else None
    active = None
    if kind == "bond":
        active = (data.get_attr("IFLA_BOND_ACTIVE_SLAVE") if data is not None else None) or 0
    mac = message.get_attr("IFLA_ADDRESS") or ""
    flags = message["flags"]
    return Link(
        ifindex=message["index"],
        name=message.get_attr("IFLA_IFNAME") or "",
        mac=bytes.fromhex(mac.replace(":", "")),
        usable=bool(flags & IFF_UP and flags & IFF_LOWER_UP),
        ethernet=message["ifi_type"] == ARPHRD_ETHER,
        parent=message.get_attr("IFLA_LINK") if vlan is not None else None,
        vlan=vlan,
        master=message.get_attr("IFLA_MASTER"),
        active=active,
    )


def read_address(message: Any) -> Address:
    """An address of an RTM_NEWADDR or RTM_DELADDR message (the local one of a point-to-point)."""
    ip = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return Address(message["index"], str(ip_address(ip)))
