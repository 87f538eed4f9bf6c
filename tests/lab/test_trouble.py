"""A call while the network or the NIC misbehaves: it goes on, and everything is counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder.demo.run import find_clip
from tests.lab.machine import Machine
from tests.lab.outside import Outside, node_address
from tests.lab.report import reading
from tests.lab.service import Result, Service, call, check

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

ROUTER = "10.88.0.254"  # the second NIC's address beside vcfwd's
FAR = 9  # the network of the hosts behind the router
NETEM = "delay 20ms 5ms 25% loss 3% duplicate 2% corrupt 2% reorder 5% 50%"


def served(outside: Outside, workers: int = 2) -> Service:
    """A service on NIC 0 with a room, zero-copy, one queue for each worker."""
    service = Service(outside.machine, [0], workers)
    service.configure()
    outside.machine.ssh(f"ethtool -L {service.names[0]} combined {workers}")
    service.start()
    service.create_room()
    return service


async def disturbed(
    service: Service, outside: Outside, folder: Path, *trouble: Callable[[], object]
) -> Result:
    """A call in which each trouble is followed by media that flows again."""
    async with call(service, outside, find_clip(None), folder) as running:
        await asyncio.sleep(3.0)
        for happen in trouble:
            await asyncio.to_thread(happen)
            await running.wait_flowing()
        return await running.end()


def told(name: str, outcome: Result, service: Service) -> None:
    """Prints the gap, and keeps it with the counters."""
    line = (
        f"{name}: longest pause {outcome.pause_ms:.0f} ms, {outcome.received} of {outcome.expected}"
    )
    print(line)
    reading(f"{name}.json", json.dumps({"gap": line, "status": service.status()}, indent=1))


@pytest.mark.parametrize("end", ["carrier", "interface"])
def test_a_link_that_goes_and_comes_back(one_nic: Outside, tmp_path: Path, end: str) -> None:
    """`carrier`: the far end of the cable; `interface`: `ip link set down` on the node."""
    node, service = one_nic.machine, served(one_nic)
    name = service.names[0]

    def flap() -> None:
        if end == "carrier":
            node.monitor("set_link t0 off")
            node.ssh("sleep 2")
            node.monitor("set_link t0 on")
        else:
            node.ssh(f"ip link set {name} down; sleep 2; ip link set {name} up")

    outcome = asyncio.run(disturbed(service, one_nic, tmp_path, flap))
    told(f"link-{end}", outcome, service)
    check(service, outcome, complete=False)
    assert outcome.lost_runs <= 2 * len(outcome.accounts)


def test_queues_that_change_their_number(one_nic: Outside, tmp_path: Path) -> None:
    node, service = one_nic.machine, served(one_nic)
    name = service.names[0]
    outcome = asyncio.run(
        disturbed(
            service,
            one_nic,
            tmp_path,
            lambda: node.ssh(f"ethtool -L {name} combined 4", check=False),
            lambda: node.ssh(f"ethtool -L {name} combined 2", check=False),
        )
    )
    told("queues", outcome, service)
    check(service, outcome, complete=False)


def test_a_lossy_way(node: Machine, tmp_path: Path) -> None:
    """Client -> NIC 1, a router of the node's own -> netem -> NIC 0 with vcfwd, and back."""
    outside = Outside(node, 0, 0, far=FAR)
    outside.open(both_taps=True)
    try:
        service = served(outside)
        second = service.nic_names()[1]
        node.ssh(
            f"""
            ip netns add router
            ip link set {second} netns router
            ip -n router addr add {ROUTER}/24 dev {second}
            ip -n router addr add 10.88.{FAR}.1/24 dev {second}
            ip -n router link set {second} up
            ip netns exec router sysctl -qw net.ipv4.ip_forward=1 \
                net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.{second}.send_redirects=0
            ip route replace 10.88.{FAR}.0/24 via {ROUTER}
            """
        )
        for host in (outside.pub, outside.sub):
            outside.route(host, f"{node_address(0)}/32", f"10.88.{FAR}.1")
        damage = f"ip netns exec router tc qdisc replace dev {second} root netem {NETEM}"
        outcome = asyncio.run(disturbed(service, outside, tmp_path, lambda: node.ssh(damage)))
        told("netem", outcome, service)
        status = check(service, outcome, complete=False)
        drops = status["drops"]
        assert drops["auth_failed"] + drops["rtcp_auth_failed"] > 0
        assert drops["replayed"] > 0  # what netem sent twice
        assert 0 < outcome.received < outcome.expected
    finally:
        outside.close()


def test_departures_timed_by_fq(one_nic: Outside, tmp_path: Path) -> None:
    """The socket path where the interface's qdisc is fq: the egress program stamps each packet."""
    node = one_nic.machine
    service = Service(node, [0], 1)
    service.configure('[network]\npath = "udp"')
    node.ssh(f"tc qdisc replace dev {service.names[0]} root fq")
    service.start()
    service.create_room()
    outcome = asyncio.run(disturbed(service, one_nic, tmp_path))
    status = check(service, outcome, sockets=True)
    assert status["path"] == "udp"
    assert "departures timed by fq" in service.journal()
    throttled = node.ssh(f"tc -s qdisc show dev {service.names[0]}")
    reading("fq.txt", throttled)
    assert int(throttled.split("throttled ")[1].split()[0].strip(",")) > 0
