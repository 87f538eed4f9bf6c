"""Which NICs carry the frames of an interface: a bond's slaves, a VLAN's parent.

The data path attaches to those and `vcfwd tune` plans for those.  Where XDP cannot bypass the
kernel (bridge, macvlan, ipvlan, tunnel) the sentence names the interface to use instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from forwarder.config import Config
from forwarder.configchecks import INTERFACES_MAX
from forwarder.errors import HostError
from forwarder.host import facts
from forwarder.host.facts import Nic
from forwarder.host.root import Host

REFUSED = ("bridge", "macvlan", "ipvlan", "tunnel")


class NoSuchNic(HostError):
    """An interface that is not there, or cannot be tuned, was asked for."""


def carriers(nics: Mapping[str, Nic], nic: Nic, depth: int = 0) -> list[str]:
    """The interfaces that carry the frames of one; a VLAN may lie on a bond.  NoSuchNic: none."""
    if nic.kind == "bond":
        below = [other for other in nics.values() if other.master == nic.name]
    elif nic.kind == "vlan":
        below = [nics[name] for name in nic.lower if name in nics]
    elif nic.kind in REFUSED:
        raise NoSuchNic(refusal(nics, nic))
    else:
        return [nic.name]
    if not below or depth > len(nics):
        raise NoSuchNic(f"{nic.name} is a {nic.kind} without an interface below it: add one first")
    return [name for other in below for name in carriers(nics, other, depth + 1)]


def refusal(nics: Mapping[str, Nic], nic: Nic) -> str:
    ports = [name for name in nics if nics[name].master == nic.name] or list(nic.lower)
    ports = ports or [name for name, other in nics.items() if other.kind == "physical"]
    use = f"use {' or '.join(ports)}" if ports else "use the physical interface below it"
    article = "an" if nic.kind.startswith("i") else "a"
    return f"{nic.name} is {article} {nic.kind}: XDP cannot bypass the kernel there; {use}"


def carried(config: Config, host: Host) -> Config:
    """The configuration with the interfaces that carry those it names, each with the NUMA node that
    was told.  NoSuchNic: one is refused; one that is not there is left for who attaches."""
    network = config.network
    if network.path == "udp" or not network.interfaces:
        return config
    there = [name for name in network.interfaces if name in host.interfaces()]
    if all(facts.nic(host, name).kind not in ("bond", "vlan", *REFUSED) for name in there):
        return config
    nics = {name: facts.nic(host, name) for name in host.interfaces()}
    told = network.numa_nodes or (0,) * len(network.interfaces)
    found: dict[str, int] = {}
    for name, node in zip(network.interfaces, told, strict=True):
        for carrier in carriers(nics, nics[name]) if name in nics else [name]:
            found.setdefault(carrier, node)
    if len(found) > INTERFACES_MAX:
        raise HostError(
            f"network.interfaces stand for {len(found)} NICs, at most {INTERFACES_MAX} are served"
        )
    nodes = tuple(found.values()) if network.numa_nodes else ()
    return replace(config, network=replace(network, interfaces=tuple(found), numa_nodes=nodes))
