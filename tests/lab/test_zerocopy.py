"""Calls between hosts outside that cross the node by zero-copy AF_XDP."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forwarder.demo.run import find_clip
from tests.lab.machine import Machine
from tests.lab.outside import Outside, node_address
from tests.lab.report import fact, reading
from tests.lab.service import PORT, Result, Service, call, check

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

QUICK_S = 10.0
RSS_PORTS = 128  # adjacent ports hit few queues; so many random ones hit all


def sockets(node: Machine) -> list[tuple[str, int, bool]]:
    """(interface, queue, zero-copy) of each AF_XDP socket, as the kernel tells it."""
    text = node.ssh("ss -f xdp -e -n")
    reading("xdp-sockets.txt", text)
    found = []
    for name, queue, rest in re.findall(r"(\w+):q(\d+)(.*?)(?=\n\S|\Z)", text, re.DOTALL):
        found.append((name, int(queue), "zc:1" in rest))
    return found


def native(node: Machine, name: str) -> bool:
    """Whether the program sits in the driver: `xdp`, not `xdpgeneric`."""
    return re.search(r"\bxdp\b", node.ssh(f"ip -d link show dev {name}")) is not None


async def talk(
    service: Service, outside: Outside, folder: Path, seconds: float, subscribers: int = 1
) -> Result:
    async with call(service, outside, find_clip(None), folder, subscribers) as running:
        await asyncio.sleep(seconds)
        return await running.end()


@pytest.mark.lab_quick
def test_a_call_crosses_one_nic_by_zero_copy(one_nic: Outside, tmp_path: Path) -> None:
    node = one_nic.machine
    service = Service(node, [0], workers=2)
    service.configure()
    name = service.names[0]
    node.ssh(f"ethtool -L {name} combined 2; ethtool -N {name} rx-flow-hash udp4 sdfn")
    service.start()
    service.create_room()
    outcome = asyncio.run(talk(service, one_nic, tmp_path, QUICK_S, subscribers=2))
    status = check(service, outcome)
    assert status["path"] == "xdp-zerocopy"
    assert sorted(sockets(node)) == [(name, 0, True), (name, 1, True)]
    assert native(node, name)
    # RSS is the NIC's: STUN-less datagrams of many ports to our port, read off its queue counters.
    queues = spread(service, one_nic)
    assert queues == 2
    fact("xdp_mode", "native")
    fact("zerocopy", all(zerocopy for _, _, zerocopy in sockets(node)))
    fact("queues_used", queues)
    fact("workers", len(status["workers"]))


def spread(service: Service, outside: Outside) -> int:
    """How many receive queues of the NIC datagrams from random ports reach."""
    node, name = service.node, service.names[0]

    def counts() -> list[int]:
        text = node.ssh(f"ethtool -S {name}")
        return [int(n) for n in re.findall(r"rx_queue_\d+_packets: (\d+)", text)]

    before = counts()
    script = (
        "import random, socket\n"
        f"for port in random.Random(1).sample(range(20000, 60000), {RSS_PORTS}):\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    s.bind(('', port))\n"
        f"    s.sendto(bytes([128]) * 60, ('{node_address(outside.pub_nic)}', {PORT}))\n"
    )

    subprocess.run(outside.pub.command(sys.executable, "-c", script), check=True, timeout=60)
    return sum(after - b > RSS_PORTS // 8 for after, b in zip(counts(), before, strict=True))
