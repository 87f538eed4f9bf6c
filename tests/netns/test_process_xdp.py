"""The data plane process on AF_XDP over veth: a stream through its death and a link's.

The whole test runs in the forwarder's namespace, the sockets of the clients lie in the other one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from nets import Pair, entered, ip, veth_pair

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from planes import SETUP, find_real
from stream import Stream

from forwarder.commands import Begin, Command, LegHeader
from forwarder.net.mirror import Mirror
from forwarder.table import HeaderTemplate, Tuple5

pytest.importorskip("forwarder.dataplane._bpf", reason="_bpf is not built")
from forwarder.dataplane.commands import CommandClient
from forwarder.dataplane.process import DataPlane
from forwarder.dataplane.setup import Interface, Local
from forwarder.dataplane.steering import Flow, Rates, Steering, ensure_bpffs
from forwarder.dataplane.tally import imbalance
from forwarder.errors import DataPlaneError, DataPlaneLost

pytestmark = pytest.mark.root

PORT = 4433
ADDRESSES = [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")]


class Node:
    """A forwarder on AF_XDP, with a table that follows restarts and the netlink mirror."""

    def __init__(self, pair: Pair, steering: Steering, plane: DataPlane, mirror: Mirror) -> None:
        self.pair, self.steering, self.plane, self.mirror = pair, steering, plane, mirror
        self.client = CommandClient(plane)
        self.stream: Stream | None = None
        self.changed = asyncio.Event()
        self._work = asyncio.create_task(self._follow())
        plane.on_restarted = lambda gap_ms: self.changed.set()
        mirror.on_change = lambda generation: self.changed.set()

    async def _follow(self) -> None:
        """Applies the table and the headers anew whenever something changed."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            if self.stream is not None:
                # Lost under way: on_restarted follows, and then all is applied again.
                with contextlib.suppress(DataPlaneLost):
                    await self.client.apply([*self.stream.commands(), *self.headers()])
                    await self.client.apply([Begin()])

    def headers(self) -> list[Command]:
        assert self.stream is not None
        found: list[Command] = []
        for leg, sock in ((1, self.stream.sender), (2, self.stream.receiver)):
            tuple5 = self.stream.tuple5(sock)
            template = self.mirror.header_for(
                tuple5.local_ip, tuple5.remote_ip, tuple5.local_port, tuple5.remote_port
            )
            if isinstance(template, HeaderTemplate):
                found.append(LegHeader(leg, template))
        return found

    async def begin(self, stream: Stream) -> None:
        """Puts the stream's table and flows in place; waits until its headers are there."""
        self.stream = stream
        far = self.plane.setup.workers - 1
        for leg, worker, sock in ((1, 0, stream.sender), (2, far, stream.receiver)):
            t = stream.tuple5(sock)
            five = Tuple5(t.remote_ip, t.remote_port, t.local_ip, t.local_port)
            self.steering.set_flow(five, Flow(leg, worker))
        await self.client.apply(stream.commands())
        async with asyncio.timeout(20):
            while len(self.headers()) < 2:
                self.changed.clear()
                await self.changed.wait()
        await self.client.apply(self.headers())

    async def close(self) -> None:
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)
        self.client.close()


def _offloads_off(netns: str) -> None:
    """veth hands over packets whose checksums were left to hardware that is not there."""
    command = ["ip", "netns", "exec", netns, "ethtool", "-K", "v0", "tx", "off"]
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def _bpffs():
    path = Path(f"/run/vcfwd-test-process-{os.getpid()}")
    ensure_bpffs(path)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)
        path.rmdir()


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path, workers: int, queues: int, cpus: tuple[int, ...] = ()
) -> AsyncIterator[Node]:
    """A node with so many workers on an interface with so many queues."""
    find_real()
    with _bpffs() as pins, veth_pair("vcfprc", queues) as pair, entered(pair.near):
        for netns in (pair.near, pair.far):
            _offloads_off(netns)
        steering = Steering.load(pins / "case", Rates())
        attached = steering.attach("v0", "native")
        steering.set_port_base(attached.ifindex, 0)
        for address, _ in ADDRESSES:
            steering.add_listen(address, PORT)
        mirror = Mirror(["v0"])
        mirror.start()
        plane = DataPlane(tmp_path, on_group=lambda g: steering.attach_selector(g.sockets))
        setup = dataclasses.replace(
            SETUP,
            locals=tuple(Local(address, PORT) for address, _ in ADDRESSES),
            interfaces=(Interface("v0", attached.ifindex, 0),),
            workers=workers,
            cpus=cpus,
        )
        try:
            await plane.start(setup, xsks_map=steering.xsks_fd)
            made = Node(pair, steering, plane, mirror)
            yield made
            await made.close()
        finally:
            await plane.shutdown()
            mirror.close()
            steering.unload()


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running(tmp_path, workers=1, queues=1) as made:
        yield made


@contextlib.asynccontextmanager
async def streaming(node: Node, version: int) -> AsyncIterator[Stream]:
    near, far = ADDRESSES[0 if version == 4 else 1]
    with entered(node.pair.far):
        stream = Stream(PORT, workers=node.plane.setup.workers, node_ip=near, client_ip=far)
    try:
        await node.begin(stream)
        await stream.send(100)
        await stream.until_received(99)
        yield stream
    finally:
        stream.close()


async def sees_300(stream: Stream) -> None:
    """All of a stream that has begun, each once and in order."""
    await stream.send(200)
    await stream.until_received(299)
    assert stream.numbers() == list(range(300))


@pytest.mark.parametrize("version", [4, 6])
async def test_media_never_crosses_a_socket(node: Node, version: int) -> None:
    async with streaming(node, version) as stream:
        await sees_300(stream)
        counters = node.plane.counters()
        assert counters["rx_xsk"] >= 300
        assert counters["rx_socket"] == 0
        assert counters["tx_socket"] == 0
        assert counters["transmitted"] == 300
        assert imbalance(counters) is None


async def test_two_workers_on_two_queues(tmp_path: Path) -> None:
    """The kernel chooses the queue: what lands on another worker's is handed to the holder."""
    async with running(tmp_path, 2, 2) as node, streaming(node, 4) as stream:
        await sees_300(stream)
        counters = node.plane.counters()
        assert counters["rx_xsk"] >= 300
        assert counters["rx_socket"] == 0
        assert imbalance(counters) is None


async def test_more_workers_than_queues_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataPlaneError, match="queue"):
        async with running(tmp_path, 2, 1):
            pass


def _threads(pid: int) -> dict[str, int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {task.joinpath("comm").read_text().strip(): int(task.name) for task in tasks}


def _node_of(cpu: int) -> int:
    (home,) = Path(f"/sys/devices/system/cpu/cpu{cpu}").glob("node[0-9]*")
    return int(home.name.removeprefix("node"))


def _nodes_of_mappings(pid: int, least_kb: int) -> list[set[int]]:
    """Of each mapping with so much memory: the nodes where it lies."""
    found = []
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        words = dict(word.partition("=")[::2] for word in line.split()[2:])
        nodes = {int(k[1:]): int(v) for k, v in words.items() if k[0] == "N" and k[1:].isdigit()}
        if sum(nodes.values()) * int(words.get("kernelpagesize_kB", 0)) >= least_kb:
            found.append(set(nodes))
    return found


async def test_packet_memory_is_on_the_node_of_its_worker(tmp_path: Path) -> None:
    """As the kernel tells, huge pages or small ones; and the worker runs where it is pinned."""
    cpu = max(os.sched_getaffinity(0))
    async with running(tmp_path, 1, 1, (cpu,)) as node, streaming(node, 4):
        pid = node.plane.pid
        assert node.plane.ready is not None and node.plane.ready.memory == ""
        assert os.sched_getaffinity(_threads(pid)["vcfwd-w0"]) == {cpu}
        assert os.sched_getaffinity(pid) == os.sched_getaffinity(0), "it came back"
        found = _nodes_of_mappings(pid, SETUP.frames * 2)
        assert found and all(nodes == {_node_of(cpu)} for nodes in found)


async def test_only_what_a_rebind_needs_stays(node: Node) -> None:
    """See c_helpers/src/privilege.h: CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK, CAP_BPF."""
    status = _status(node.plane.pid)
    kept = {bit for bit in range(64) if int(status["CapEff"], 16) >> bit & 1}
    assert kept == {12, 13, 14, 39}
    assert status["NoNewPrivs"] == "1"


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_process_dies_under_a_stream(node: Node, harm: signal.Signals) -> None:
    """Known flows fall to the media sockets, whose buffers keep them for the next process."""
    async with streaming(node, 4) as stream:
        pid = node.plane.pid
        sending = asyncio.create_task(stream.send(1500))
        await stream.until_received(200)
        os.kill(pid, harm)
        await sending
        await stream.send(100)
        await stream.until_received(stream.sent - 1)
        assert node.plane.pid != pid and node.plane.restarts == 1
        runs = stream.lost_runs()
        assert len(runs) <= 1, f"lost packets are not one run: {runs}"
        counters = node.plane.counters()
        assert counters["rx_xsk"] > 0
        assert imbalance(counters) is None


async def test_the_interface_goes_down_and_up(node: Node) -> None:
    async with streaming(node, 4) as stream:
        sending = asyncio.create_task(stream.send(1500))
        await stream.until_received(200)
        ip("link", "set", "v0", "down", netns=node.pair.near)
        ip("link", "set", "v0", "up", netns=node.pair.near)
        await sending
        last = -1
        async with asyncio.timeout(20):
            while last not in stream.numbers():
                await stream.send(10)
                last = stream.sent - 10
        assert node.plane.restarts == 0


async def test_the_peers_mac_changes(node: Node) -> None:
    async with streaming(node, 4) as stream:
        ip("link", "set", "v0", "address", "02:00:00:00:00:77", netns=node.pair.far)
        last = -1
        async with asyncio.timeout(40):
            while last not in stream.numbers():
                await stream.send(10)
                last = stream.sent - 10
