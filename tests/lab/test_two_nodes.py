"""Both NICs at once, each on a NUMA node of its own: a worker a node, and copies that cross over.

    pub, one subscriber --- br0 - lt0 === NIC 0, node 0, core 1: worker 0
    two subscribers     --- br1 - lt1 === NIC 1, node 1, core 2: worker 1

Where a thread runs and where packet memory lies is asked of the kernel.  Whose memory it is, is
told by what lies in it: frames with the hardware address of one NIC.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from forwarder.demo.run import find_clip
from tests.lab.machine import Machine
from tests.lab.outside import Outside
from tests.lab.report import placed, reading
from tests.lab.service import Result, call, check
from tests.lab.test_zerocopy import native, sockets
from tests.lab.tuning import Tuned

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

CALL_S = 8.0
HUGE_KB = 2048
FRAMES, FRAME_SZ = 8192, 4096  # dataplane.frames of default.toml; zero-copy takes whole pages
_AREAS = """
import json, re, sys
pid, size, macs = sys.argv[1], int(sys.argv[2]), [bytes.fromhex(m) for m in sys.argv[3:]]
areas, at = {}, None
for line in open(f"/proc/{pid}/smaps"):
    head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
    if head:
        at = [int(word, 16) for word in head.groups()]
    elif line.startswith("VmFlags:") and "dd" in line.split() and at[1] - at[0] == size:
        areas[at[0]] = {}
for line in open(f"/proc/{pid}/numa_maps"):
    start, *words = line.split()
    if int(start, 16) in areas:
        found = dict(word.split("=") for word in words if "=" in word)
        pages = {int(key[1:]): int(n) for key, n in found.items() if re.fullmatch(r"N\\d+", key)}
        areas[int(start, 16)] = {"pages": pages, "page_kb": int(found["kernelpagesize_kB"])}
with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
    for start, area in areas.items():
        memory.seek(start)
        text = memory.read(size)
        area["frames"] = [text.count(mac) for mac in macs]
print(json.dumps(list(areas.values())))
"""
"""Runs on the node: what of the process's mappings of this size lies where, and how often the
hardware address of each NIC is in it.  `dd`: left out of core dumps, as packet memory is."""


def numa_of(node: Machine, name: str) -> int:
    return int(node.ssh(f"cat /sys/class/net/{name}/device/numa_node"))


def cores_of(node: Machine, numa: int) -> set[int]:
    listed = node.ssh(f"cd /sys/devices/system/node/node{numa}; ls -d cpu[0-9]*").split()
    return {int(name[3:]) for name in listed}


def packet_memory(node: Machine, names: list[str]) -> list[dict[str, Any]]:
    """Of each worker: {"pages": {NUMA node: count}, "page_kb", "frames": of each NIC}."""
    macs = " ".join(
        node.ssh(f"cat /sys/class/net/{name}/address").strip().replace(":", "") for name in names
    )
    said = node.ssh(
        f"python3 - $(pidof vcfwd-dataplane) {FRAMES * FRAME_SZ} {macs}",
        data=_AREAS.encode(),
        timeout_s=240,
    )
    reading("packet-memory.json", said)
    reading("numa_maps.txt", node.ssh("cat /proc/$(pidof vcfwd-dataplane)/numa_maps"))
    found: list[dict[str, Any]] = json.loads(said)
    return found


def test_a_worker_for_each_node_and_copies_that_cross(two_nics: Outside, tmp_path: Path) -> None:
    node = two_nics.machine
    tuned = Tuned(node)
    tuned.changed()
    service, names = tuned.service, tuned.names
    homes = [numa_of(node, name) for name in names]
    assert sorted(homes) == [0, 1]
    service.start()
    service.create_room()

    async def talk() -> Result:
        clip = find_clip(None)
        async with call(service, two_nics, clip, tmp_path, subscribers=2, beside=1) as running:
            await asyncio.sleep(CALL_S)
            return await running.end()

    outcome = asyncio.run(talk())
    status = check(service, outcome)
    assert status["path"] == "xdp-zerocopy"
    assert sorted(sockets(node)) == sorted((name, 0, True) for name in names)
    assert all(native(node, name) for name in names)

    # All media came in by NIC 0; two of three copies of it left by NIC 1, whose worker sent them.
    near, far = (worker["counters"] for worker in status["workers"])
    sent = outcome.expected // 3
    assert near["routed"] >= sent and far["routed"] == 0
    assert near["transmitted"] >= sent and far["transmitted"] >= 2 * sent
    assert status["counters"]["rx_wrong_queue"] == 0

    threads = tuned.threads()
    reading("threads.txt", repr(threads))
    for worker, home in enumerate(homes):
        allowed, last = threads[f"vcfwd-w{worker}"]
        assert len(allowed) == 1 and last in allowed
        assert allowed <= cores_of(node, home)

    areas = packet_memory(node, names)
    assert len(areas) == len(names)
    looked, misplaced = 0, 0
    for nic, home in enumerate(homes):
        own = [area for area in areas if area["frames"][nic] > 0]
        assert len(own) == 1, areas  # frames of a NIC lie in one worker's memory
        pages = {int(numa): count for numa, count in own[0]["pages"].items()}
        assert own[0]["page_kb"] == HUGE_KB  # what `tune apply` kept for it is what it took
        assert sum(pages.values()) * HUGE_KB == FRAMES * FRAME_SZ // 1024
        looked += sum(pages.values())
        misplaced += sum(count for numa, count in pages.items() if numa != home)
    placed("pages", looked, misplaced)
    assert misplaced == 0, areas
