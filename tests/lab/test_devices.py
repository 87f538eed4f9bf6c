"""A bond stands for its slaves and a VLAN for its parent: to `vcfwd tune` and to the data path.

    pub, sub --- br0 +- lt0 === NIC 0 -+ bond0, 10.88.0.1: one sends, the other takes over
                     +- lt1 === NIC 1 -+

    pub, sub --- br0 +- lt1 === NIC 1 in a router of the node's own: what comes plain leaves tagged
                     +- lt0 === NIC 0 - its VLAN 7, 10.88.0.1

What was tuned, what is attached and which frames carry a tag is asked of the kernel.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.machine import Machine
from tests.lab.outside import Outside, node_address
from tests.lab.report import reading
from tests.lab.service import CONFIG, Call, Service, check
from tests.lab.test_trouble import disturbed, past_the_kernel, told
from tests.lab.test_zerocopy import native, sockets, talk
from tests.lab.tuning import APPLY_S, Tuned, differences

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

CALL_S = 8.0
BOND, TAG = "bond0", 7
ROUTER = "10.88.0.254"
FAR = 9  # the network of the hosts behind the router
OF_NICS = ("channels", "rings", "rss", "offloads", "napi")
"""Stages whose shell lines name the NIC, each with steps for an igb."""
HOUSE = ("0", "3")
"""The housekeeping core beside each NIC, where its interrupts go."""
MOVES = re.compile(r" bond_slave state \w+ mii_status \w+ link_failure_count \d+ ")


@pytest.fixture
def hosts(node: Machine) -> Iterator[Outside]:
    """Both hosts beside both NICs."""
    outside = Outside(node, 0, 0)
    outside.open(both_taps=True)
    yield outside
    outside.close()


@pytest.fixture
def far_hosts(node: Machine) -> Iterator[Outside]:
    """Both hosts behind the router, which has a foot in both NICs' wire."""
    outside = Outside(node, 0, 0, far=FAR)
    outside.open(both_taps=True)
    yield outside
    outside.close()


def serve(service: Service, device: str) -> None:
    """The configuration names this device, and the address of NIC 0 alone."""
    for key, value in (("interfaces", device), ("addresses", node_address(0))):
        service.node.ssh(f"sed -i 's/^{key} = .*/{key} = [\"{value}\"]/' {CONFIG}")


def stop(tuned: Tuned) -> None:
    """Everything of the node ends, and the NICs are back from what that does to them."""
    tuned.node.ssh("vcfwd drain", timeout_s=APPLY_S)
    tuned.until(
        "the data plane has ended",
        lambda: tuned.node.ssh("pidof vcfwd-dataplane || echo none").strip() == "none",
    )
    tuned.until("the links are up again", tuned.links_up)


def settings(tuned: Tuned) -> dict[str, str]:
    """The host's, without what a bond counts of its slaves and which of them sends."""
    found = tuned.snapshot()
    return {
        key: MOVES.sub(" ", value) for key, value in found.items() if "/bonding_slave/" not in key
    }


def plan(tuned: Tuned, device: str) -> None:
    """The steps are for these NICs, and none for the device that they carry."""
    there = tuned.node.ssh("ls /sys/class/net").split()
    steps = tuned.plan()["steps"]
    reading(f"plan-{device}.json", json.dumps(steps, indent=1))
    found: dict[str, set[str]] = {}
    for step in steps:
        named = {name for name in there if re.search(rf"(?<![\w.]){name}(?![\w.])", step["shell"])}
        found.setdefault(step["stage"], set()).update(named)
    assert {key: found[key] for key in OF_NICS} == {key: set(tuned.names) for key in OF_NICS}
    assert not any(device in named for named in found.values())


def attached(status: dict[str, Any], node: Machine, names: list[str], device: str) -> None:
    """One zero-copy socket and the program natively on each of these, and nothing on the device."""
    assert status["path"] == "xdp-zerocopy"
    assert sorted(item["name"] for item in status["interfaces"]) == sorted(names)
    assert sorted(sockets(node)) == sorted((name, 0, True) for name in names)
    assert all(native(node, name) for name in names)
    assert not native(node, device)


# ---- a bond --------------------------------------------------------------------------------------


def bond(node: Machine, names: list[str]) -> None:
    slaves = "\n".join(
        f"ip addr flush dev {name}; ip link set {name} down; ip link set {name} master {BOND}"
        for name in names
    )
    node.ssh(
        f"ip link add {BOND} type bond mode active-backup miimon 100\n{slaves}\n"
        f"ip link set {BOND} up; ip addr add {node_address(0)}/24 dev {BOND}"
    )


def sender(node: Machine) -> str:
    """The slave that the bond sends by; empty: none."""
    return node.ssh(f"cat /sys/class/net/{BOND}/bonding/active_slave").strip()


def test_a_bond_is_its_slaves(hosts: Outside, tmp_path: Path) -> None:
    """Tuned, attached to and crossed; the call stays when the slave that sends loses its link."""
    node = hosts.machine
    tuned = Tuned(node)
    names, service = tuned.names, tuned.service
    bond(node, names)
    serve(service, BOND)
    tuned.until("both slaves are up", tuned.links_up)
    before = settings(tuned)

    plan(tuned, BOND)
    assert tuned.changed() > 20
    tuned.until("both slaves are up", tuned.links_up)
    applied = settings(tuned)
    for name, core in zip(names, HOUSE, strict=True):
        assert "Combined:\t1" in applied[f"ethtool -l {name}"].split("Current")[1]
        assert "src port" in applied[f"ethtool -n {name} rx-flow-hash udp4"]
        assert {applied[key] for key in applied if key.startswith(f"irq {name}")} == {core}

    service.start()
    service.create_room()
    outcome = asyncio.run(talk(service, hosts, tmp_path, CALL_S, subscribers=2))
    attached(check(service, outcome), node, names, BOND)
    fail_over(service, hosts, tmp_path)

    stop(tuned)
    tuned.good("revert")
    tuned.until("both slaves are up", tuned.links_up)
    assert differences(before, settings(tuned)) == []


def fail_over(service: Service, hosts: Outside, folder: Path) -> None:
    """A further call: the slave that sends loses its link, and the other one's worker has the call
    from then on, which does not notice when the link is back."""
    node = service.node
    first = sender(node)
    at = service.names.index(first)
    (second,) = set(service.names) - {first}

    def by_second() -> int:
        """Packets that the worker of the second slave sent."""
        status = service.status()
        worker = [item["name"] for item in status["interfaces"]].index(second)
        sent: int = status["workers"][worker]["counters"]["transmitted"]
        return sent

    def cut() -> None:
        node.monitor(f"set_link t{at} off")

    async def look(running: Call) -> None:
        assert sender(node) == second
        await past_the_kernel(service)(running)
        before = by_second()
        node.monitor(f"set_link t{at} on")
        await running.wait_flowing(100)
        assert by_second() > before
        assert sender(node) == second

    try:
        found = asyncio.run(disturbed(service, hosts, folder, cut, after=look))
    finally:
        node.monitor(f"set_link t{at} on")
    told("bond", found, service.status())
    check(service, found.outcome, complete=False)


# ---- a VLAN --------------------------------------------------------------------------------------


@dataclass
class Alone(Tuned):
    """NIC 0 is vcfwd's, with one worker beside it; NIC 1 is whatever else."""

    def __post_init__(self) -> None:
        self.service = Service(self.node, [0], 1)
        self.service.configure("cpus = [1]")
        self.names = self.service.names[:1]
        self.until("the link is up", self.links_up)

    def links_up(self) -> bool:
        state = self.node.ssh(f"cat /sys/class/net/{self.names[0]}/operstate")
        return state.strip() == "up"

    def tags(self) -> tuple[bool, bool]:
        """Whether the NIC takes VLAN tags off what comes, and puts them on what goes."""
        said = self.node.ssh(f"ethtool -k {self.names[0]}")
        rx, tx = (re.search(rf"^{way}-vlan-offload: (\w+)", said, re.M) for way in ("rx", "tx"))
        assert rx and tx, said
        return rx[1] == "on", tx[1] == "on"


def vlan(node: Machine, first: str, second: str) -> str:
    """NIC 0's VLAN, which has its address; NIC 1's is that of the router.  Its name."""
    device = f"{first}.{TAG}"
    node.ssh(
        f"""
        ip addr flush dev {first}
        ip link add link {first} name {device} type vlan id {TAG}
        ip link set {device} up
        ip addr add {node_address(0)}/24 dev {device}
        ip netns add router
        ip link set {second} netns router
        ip -n router link set {second} up
        ip -n router link add link {second} name tagged type vlan id {TAG}
        ip -n router link set tagged up
        ip -n router addr add 10.88.{FAR}.1/24 dev {second}
        ip -n router addr add {ROUTER}/24 dev tagged
        ip netns exec router sysctl -qw net.ipv4.ip_forward=1
        ip route replace 10.88.{FAR}.0/24 via {ROUTER}
        """
    )
    return device


def tagged(node: Machine) -> tuple[int, int]:
    """Frames of the VLAN that the router has sent and taken: it takes no others as such."""
    said = json.loads(node.ssh("ip -n router -s -j link show dev tagged"))[0]["stats64"]
    return said["tx"]["packets"], said["rx"]["packets"]


def test_a_vlan_is_its_parent_and_a_tag(far_hosts: Outside, tmp_path: Path) -> None:
    """Tags stay on for XDP to see, and vcfwd's own frames carry one."""
    node = far_hosts.machine
    tuned = Alone(node)
    service = tuned.service
    (name,) = tuned.names
    device = vlan(node, *service.names)
    serve(service, device)
    for host in (far_hosts.pub, far_hosts.sub):
        far_hosts.route(host, f"{node_address(0)}/32", f"10.88.{FAR}.1")
    tuned.until("the link is up", tuned.links_up)
    before = settings(tuned)

    plan(tuned, device)
    assert tuned.tags() == (True, True)
    assert tuned.changed() > 20
    assert tuned.tags() == (False, False)
    tuned.until("the link is up", tuned.links_up)

    service.start()
    service.create_room()
    sent, taken = tagged(node)
    outcome = asyncio.run(talk(service, far_hosts, tmp_path, CALL_S))
    status = check(service, outcome)
    attached(status, node, [name], device)
    sent, taken = (now - then for now, then in zip(tagged(node), (sent, taken), strict=True))
    assert min(sent, taken) >= outcome.received
    assert status["steering"]["verdicts"]["redirect_media"] >= outcome.received

    stop(tuned)
    tuned.good("revert")
    assert tuned.tags() == (True, True)
    tuned.until("the link is up", tuned.links_up)
    assert differences(before, settings(tuned)) == []
