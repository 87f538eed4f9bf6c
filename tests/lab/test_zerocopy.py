"""Calls between hosts outside that cross the node by zero-copy AF_XDP."""

from __future__ import annotations

import asyncio
import json
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
WORKERS = 2  # and queues of the NIC
BY_ONE = 60  # packets that come by a queue on its own
RSS_PORTS = 128  # adjacent ports hit few queues; so many random ones hit all


def sockets(node: Machine) -> list[tuple[str, int, bool]]:
    """(interface, queue, zero-copy) of each AF_XDP socket, as the kernel tells it."""
    text = node.ssh("ss -f xdp -e -n")
    reading("xdp-sockets.txt", text)
    found = []
    for name, queue, rest in re.findall(r"(\w+):q(\d+)(.*?)(?=\n\S|\Z)", text, re.DOTALL):
        found.append((name, int(queue), "zc:1" in rest))
    return found


XDP_MODES = {1: "native", 2: "generic", 3: "offloaded", 4: "several"}
"""The kernel's XDP_ATTACHED_*, as `ip -json` tells them."""


def xdp_mode(node: Machine, name: str) -> str:
    """How the program sits on the interface, as the kernel tells it; empty: there is none."""
    link = json.loads(node.ssh(f"ip -json -details link show dev {name}"))[0]
    return XDP_MODES.get(link.get("xdp", {}).get("mode", 0), "")


def native(node: Machine, name: str) -> bool:
    return xdp_mode(node, name) == "native"


def enforced(node: Machine) -> None:
    """The data plane and the supervisor run as their units say, under AppArmor."""
    confined = node.ssh("cat /proc/$(pidof vcfwd-dataplane)/attr/current").strip()
    assert confined == "vcfwd-dataplane (enforce)"
    denied = node.ssh("journalctl -b -k --no-pager | grep 'apparmor=\"DENIED\"' || true")
    assert denied == ""


def worker_threads(node: Machine) -> int:
    listed = node.ssh("cat /proc/$(pidof vcfwd-dataplane)/task/*/comm").split()
    return sum(name.startswith("vcfwd-w") for name in listed)


def received(node: Machine, name: str) -> list[int]:
    """Packets of each receive queue, as the NIC counts them."""
    text = node.ssh(f"ethtool -S {name}")
    return [int(n) for n in re.findall(r"rx_queue_\d+_packets: (\d+)", text)]


async def talk(
    service: Service, outside: Outside, folder: Path, seconds: float, subscribers: int = 1
) -> Result:
    async with call(service, outside, find_clip(None), folder, subscribers) as running:
        await asyncio.sleep(seconds)
        return await running.end()


@pytest.mark.lab_quick
def test_a_call_crosses_one_nic_by_zero_copy(one_nic: Outside, tmp_path: Path) -> None:
    node = one_nic.machine
    service = Service(node, [0], WORKERS)
    service.configure()
    name = service.names[0]
    node.ssh(f"ethtool -L {name} combined {WORKERS}; ethtool -N {name} rx-flow-hash udp4 sdfn")
    service.start()
    service.create_room()
    outcome = asyncio.run(talk(service, one_nic, tmp_path, QUICK_S, subscribers=2))
    status = check(service, outcome)
    assert status["path"] == "xdp-zerocopy"
    assert sorted(sockets(node)) == [(name, queue, True) for queue in range(WORKERS)]
    assert native(node, name)
    assert worker_threads(node) == WORKERS
    enforced(node)
    # RSS is the NIC's: STUN-less datagrams of many ports to our port, read off its queue counters.
    queues = spread(service, one_nic)
    assert queues == WORKERS
    fact("xdp_mode", xdp_mode(node, name))
    fact("zerocopy", all(zerocopy for _, _, zerocopy in sockets(node)))
    fact("queues_used", queues)
    fact("workers", worker_threads(node))


def test_media_by_the_one_queue_and_by_the_other(one_nic: Outside, tmp_path: Path) -> None:
    """Each worker's own socket carries the call, the flows of which belong to either."""
    node = one_nic.machine
    service = Service(node, [0], WORKERS)
    service.configure()
    name = service.names[0]
    node.ssh(f"ethtool -L {name} combined {WORKERS}")
    service.start()
    service.create_room()

    async def steered() -> Result:
        async with call(service, one_nic, find_clip(None), tmp_path) as running:
            for queue in range(WORKERS):
                weights = " ".join(str(int(queue == each)) for each in range(WORKERS))
                await asyncio.to_thread(node.ssh, f"ethtool -X {name} weight {weights}")
                before = await asyncio.to_thread(received, node, name)
                await running.wait_flowing(BY_ONE)
                after = await asyncio.to_thread(received, node, name)
                assert after[queue] - before[queue] >= BY_ONE, (before, after)
            return await running.end()

    # A change of the table may come upon a worker that sleeps: what is lost is told.
    outcome = asyncio.run(steered())
    status = check(service, outcome, complete=False)
    lost = outcome.expected - outcome.received
    assert lost <= sum(status["drops"].values()) + sum(status["copy_drops"].values())
    assert status["counters"]["rx_socket"] == 0 and status["path"] == "xdp-zerocopy"


def spread(service: Service, outside: Outside) -> int:
    """How many receive queues of the NIC datagrams from random ports reach."""
    node, name = service.node, service.names[0]

    before = received(node, name)
    script = (
        "import random, socket\n"
        f"for port in random.Random(1).sample(range(20000, 60000), {RSS_PORTS}):\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    s.bind(('', port))\n"
        f"    s.sendto(bytes([128]) * 60, ('{node_address(outside.pub_nic)}', {PORT}))\n"
    )

    subprocess.run(outside.pub.command(sys.executable, "-c", script), check=True, timeout=60)
    return sum(
        after - b > RSS_PORTS // 8 for after, b in zip(received(node, name), before, strict=True)
    )
