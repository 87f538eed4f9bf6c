"""Hosts outside the lab node: namespaces whose veth ends meet a tap of the node in a bridge.

    pub, sub --- br0 - lt0 === igb (node's NIC 0)         one NIC: both on br0
    sub     ---- br1 - lt1 === igb (node's NIC 1)         two NICs: one each

The node is 10.88.N.1 on NIC N, the hosts 10.88.N.2 and 10.88.N.3.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from forwarder.demo.namespaces import Host
from tests.lab.machine import TAPS, LabError, Machine, run

PUB, SUB = 2, 3


def node_address(nic: int) -> str:
    return f"10.88.{nic}.1"


@dataclass
class Outside:
    """The two hosts of one test; `pub_nic` and `sub_nic` say by which NIC each reaches the node."""

    machine: Machine
    pub_nic: int = 0
    sub_nic: int = 0
    far: int | None = None
    """The hosts are in this network instead, behind a router."""
    pub: Host = field(init=False)
    sub: Host = field(init=False)

    def __post_init__(self) -> None:
        name = self.machine.namespace
        pub_net, sub_net = (self.pub_nic, self.sub_nic) if self.far is None else (self.far,) * 2
        self.pub = Host(f"{name}-pub", f"10.88.{pub_net}.{PUB}")
        self.sub = Host(f"{name}-sub", f"10.88.{sub_net}.{SUB}")

    @property
    def gates(self) -> tuple[str, str]:
        """The node's address as each host sees it."""
        return node_address(self.pub_nic), node_address(self.sub_nic)

    def open(self, both_taps: bool = False) -> None:
        """`both_taps`: the first bridge joins both NICs, so that one can route for the other."""
        self.close()
        outside = self.machine.outside
        for nic in sorted({self.pub_nic, self.sub_nic}):
            outside("ip", "link", "add", f"br{nic}", "type", "bridge")
            outside("ip", "link", "set", TAPS[nic], "master", f"br{nic}", "up")
            outside("ip", "link", "set", f"br{nic}", "up")
        if both_taps:
            outside("ip", "link", "set", TAPS[1], "master", "br0", "up")
        for end, host, nic in (("p0", self.pub, self.pub_nic), ("s0", self.sub, self.sub_nic)):
            run(["ip", "netns", "add", host.name])
            outside(
                "ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", host.name
            )
            outside("ip", "link", "set", end, "master", f"br{nic}", "up")
            run(["ip", "-n", host.name, "link", "set", "lo", "up"])
            run(["ip", "-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0"])
            run(["ip", "-n", host.name, "link", "set", "eth0", "up"])
            # A veth leaves checksums to a NIC that does not exist, and the tap hands them on.
            run(host.command("ethtool", "-K", "eth0", "tx", "off"))

    def route(self, host: Host, to: str, by: str) -> None:
        run(["ip", "-n", host.name, "route", "replace", to, "via", by])

    def close(self) -> None:
        """Removes what `open` made, of an earlier test too."""
        for host in (self.pub, self.sub):
            with contextlib.suppress(LabError):
                run(["ip", "netns", "del", host.name])
        for nic in range(len(TAPS)):
            with contextlib.suppress(LabError):
                self.machine.outside("ip", "link", "del", f"br{nic}")
