"""Queueing disciplines, as the kernel tells them: do they hold packets until their time?

Only `fq` honours the departure time of a packet (SO_TXTIME, ebpf/edt.bpf.c) on any NIC; others
send it at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

from forwarder.errors import HostError
from forwarder.net.links import Address, Link, read_address, read_link
from forwarder.net.netlink import RTM_GETADDR, RTM_GETLINK, RTM_GETQDISC, Requests

ROOT = 0xFFFFFFFF
"""TC_H_ROOT."""
CLSACT = 0xFFFFFFF1
"""TC_H_CLSACT (TC_H_INGRESS): classifies, sends nothing."""
PER_QUEUE = frozenset({"mq", "mqprio"})
"""Roots that only hold one discipline for each queue of the NIC."""


def leaves(found: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """The kinds that an interface sends by, sorted, of its (parent, kind) pairs."""
    pairs = [(parent, kind) for parent, kind in found if parent != CLSACT]
    roots = {kind for parent, kind in pairs if parent == ROOT}
    if roots and roots <= PER_QUEUE:
        return tuple(sorted({kind for parent, kind in pairs if parent != ROOT} or roots))
    return tuple(sorted(roots))


def _all(requests: Requests) -> dict[int, list[tuple[int, str]]]:
    found: dict[int, list[tuple[int, str]]] = {}
    for message in requests.dump(RTM_GETQDISC):
        kind = message.get_attr("TCA_KIND") or ""
        found.setdefault(message["index"], []).append((message["parent"], kind))
    return found


def kinds(ifindex: int) -> tuple[str, ...]:
    """What the interface sends by: ("fq",); () when it has none.  Raises HostError, OSError."""
    requests = Requests()
    try:
        return leaves(_all(requests).get(ifindex, ()))
    finally:
        requests.close()


def judge(
    ips: Sequence[str],
    links: Iterable[Link],
    addresses: Iterable[Address],
    found: Mapping[int, Sequence[tuple[int, str]]],
) -> str:
    """Why what these local addresses send is not held until its time; "" when it is."""
    names = {link.ifindex: link.name for link in links}
    places = {ip_address(each.ip): each.ifindex for each in addresses}
    for ip in ips:
        ifindex = places.get(ip_address(ip))
        if ifindex is None:
            return f"no interface has the address {ip}"
        sends_by = leaves(found.get(ifindex, ()))
        if sends_by != ("fq",):
            name = names.get(ifindex, f"interface {ifindex}")
            return f"{name} sends by {', '.join(sends_by) or 'no discipline'}, not by fq"
    return ""


def why_not_held(ips: Sequence[str]) -> str:
    """The same, asked of the kernel."""
    try:
        requests = Requests()
    except OSError as error:
        return f"netlink: {error.strerror or error}"
    try:
        links = [read_link(message) for message in requests.dump(RTM_GETLINK)]
        addresses = [read_address(message) for message in requests.dump(RTM_GETADDR)]
        return judge(ips, links, addresses, _all(requests))
    except (HostError, OSError) as error:
        return f"the queueing disciplines cannot be read: {error}"
    finally:
        requests.close()
