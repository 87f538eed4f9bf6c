"""The real process: what dies, what comes back, what is refused.  On loopback, without root."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from planes import SETUP, find_real, leg, real_world, route, source
from stream import Stream

pytest.importorskip("forwarder.dataplane.abi", reason="_ring is not built")
from forwarder.commands import Begin, LegSet, RouteSet, SourceSet
from forwarder.dataplane.commands import CommandClient
from forwarder.dataplane.control import Control
from forwarder.dataplane.process import DataPlane
from forwarder.dataplane.selector import attach_classic
from forwarder.dataplane.setup import Interface
from forwarder.dataplane.tally import imbalance
from forwarder.errors import DataPlaneError, HostError
from forwarder.table import Suite

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "build" / "faults" / "vcfwd-dataplane"


@pytest_asyncio.fixture
async def plane(tmp_path: Path) -> AsyncIterator[DataPlane]:
    """A data plane that is not started yet."""
    find_real()
    made = DataPlane(tmp_path, on_group=lambda group: attach_classic(group.sockets))
    yield made
    await made.shutdown()


class Replayed:
    """A client whose table is replayed after each restart."""

    def __init__(self, plane: DataPlane, stream: Stream) -> None:
        self.client = CommandClient(plane)
        self.back = asyncio.Event()
        self._stream = stream
        self._tasks: list[asyncio.Task[None]] = []
        plane.on_restarted = self._on_restarted

    def _on_restarted(self, gap_ms: float) -> None:
        assert gap_ms > 0
        self._tasks.append(asyncio.create_task(self._replay()))

    async def _replay(self) -> None:
        await self.client.apply(self._stream.commands())
        await self.client.apply([Begin()])
        self.back.set()

    async def came_back(self) -> None:
        async with asyncio.timeout(20):
            await self.back.wait()


async def broken_stream(plane: DataPlane, stream: Stream, harm) -> list[range]:
    """Sends before, during and after `harm`; answers the runs of lost packets."""
    replayed = Replayed(plane, stream)
    try:
        await replayed.client.apply(stream.commands())
        await stream.send(400)
        await stream.until_received(399)
        sending = asyncio.create_task(stream.send(1000))
        harm()
        await replayed.came_back()
        await sending
        await stream.send(100)
        await stream.until_received(stream.sent - 1)
        assert plane.restarts == 1
        assert imbalance(plane.counters()) is None
        # What waited in the sockets was held until the table was whole (VC_SETUP_HOLD).
        assert plane.counters().drops["unknown_flow"] == 0
        return stream.lost_runs()
    finally:
        replayed.client.close()


@pytest.mark.parametrize("suite", [Suite.AEAD_AES_128_GCM, Suite.AES_CM_128_HMAC_SHA1_80])
@pytest.mark.parametrize("workers", [1, 2])
async def test_killed_under_a_stream(plane: DataPlane, suite: Suite, workers: int) -> None:
    """The same sockets, keys and indices: libsrtp decrypts on without a reset, and no index
    leaves twice with other bytes."""
    await plane.start(dataclasses.replace(SETUP, workers=workers))
    stream = Stream(plane.locals[0].port, suite, workers)
    pid, sockets = plane.pid, [s.getsockname() for s in plane.groups[0].sockets]
    try:
        lost = await broken_stream(plane, stream, lambda: os.kill(pid, signal.SIGKILL))
        assert len(lost) <= 1, f"lost packets are not one run: {lost}"
        assert plane.pid != pid
        assert [s.getsockname() for s in plane.groups[0].sockets] == sockets
    finally:
        stream.close()


async def test_a_stopped_process_is_restarted(plane: DataPlane) -> None:
    await plane.start(SETUP)
    stream = Stream(plane.locals[0].port)
    try:
        lost = await broken_stream(plane, stream, lambda: os.kill(plane.pid, signal.SIGSTOP))
        assert len(lost) <= 1, f"lost packets are not one run: {lost}"
    finally:
        stream.close()


async def test_a_hung_worker_is_restarted(tmp_path: Path) -> None:
    if not FAULTS.exists():
        pytest.skip("the test build is missing: make -C c_helpers FAULTS=1")
    plane = DataPlane(tmp_path, binary=FAULTS, on_group=lambda g: attach_classic(g.sockets))
    await plane.start(dataclasses.replace(SETUP, workers=2))
    stream = Stream(plane.locals[0].port, workers=2)
    try:
        lost = await broken_stream(plane, stream, lambda: os.kill(plane.pid, signal.SIGUSR1))
        assert len(lost) <= 1, f"lost packets are not one run: {lost}"
    finally:
        stream.close()
        await plane.shutdown()


def stopped(pid: int) -> bool:
    """Has every thread of the process stopped?"""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((t / "stat").read_text().rpartition(")")[2].split()[0] == "T" for t in tasks)


async def test_a_call_in_flight_learns_of_the_loss(plane: DataPlane) -> None:
    """Commands that were not answered raise; none waits for ever."""
    await plane.start(SETUP)
    client = CommandClient(plane)
    os.kill(plane.pid, signal.SIGSTOP)
    async with asyncio.timeout(20):
        while not stopped(plane.pid):  # each thread stops in its own time
            await asyncio.sleep(0)
    with pytest.raises(DataPlaneError):
        await client.apply([LegSet(leg(1))])
    client.close()


SUPERVISOR = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from planes import SETUP, leg, route, source
from forwarder.dataplane.commands import CommandClient
from forwarder.dataplane.process import DataPlane
from forwarder.dataplane.selector import attach_classic
from forwarder.commands import *
from forwarder.table import *
async def main():
    plane = DataPlane(Path(sys.argv[1]), on_group=lambda g: attach_classic(g.sockets))
    await plane.start(SETUP)
    client = CommandClient(plane)
    await client.apply([LegSet(leg(1)), LegSet(leg(2)), SourceSet(source(1)), RouteSet(route(1))])
    print(plane.pid, plane.locals[0].port, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def dead_supervisor(run_dir: Path) -> tuple[int, int]:
    """A supervisor that filled the table and was killed; (data plane's pid, port)."""
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, str(run_dir), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, port = done.stdout.split()
    return int(pid), int(port)


async def test_a_second_supervisor_adopts(plane: DataPlane) -> None:
    pid, port = await asyncio.to_thread(dead_supervisor, plane.run_dir)
    started = await plane.start(SETUP)
    assert (started.adopted, started.pid) == (True, pid)
    assert plane.setup == dataclasses.replace(SETUP, locals=plane.locals)
    assert plane.locals[0].port == port
    client = CommandClient(plane)
    assert await client.dump() == {
        "leg": {1: leg(1).digest, 2: leg(2).digest},
        "source": {1: source(1).digest},
        "route": {1: route(1).digest},
    }
    # The table is the client's to change, from the dump alone, and an adopted process is watched.
    await client.apply([RouteSet(route(2)), LegSet(leg(1))])
    back = asyncio.Event()
    plane.on_restarted = lambda gap_ms: back.set()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await back.wait()
    await client.apply([LegSet(leg(1)), SourceSet(source(1))])
    client.close()


async def test_no_packet_is_lost_while_there_is_no_supervisor(plane: DataPlane) -> None:
    await plane.start(SETUP)
    client = CommandClient(plane)
    stream = Stream(plane.locals[0].port)
    try:
        await client.apply(stream.commands())
        sending = asyncio.create_task(stream.send(500))
        await stream.until_received(50)
        client.close()
        await plane.close()
        await stream.until_received(250)
        assert (await plane.start(SETUP)).adopted
        client = CommandClient(plane)
        await client.dump()
        await client.apply(stream.commands())  # unchanged: nothing is reset
        await sending
        await stream.until_received(499)
        assert stream.numbers() == list(range(500))
        assert imbalance(plane.counters()) is None
        client.close()
    finally:
        stream.close()


async def test_a_data_plane_of_another_layout_is_not_adopted(plane: DataPlane) -> None:
    await plane.start(SETUP)
    header, pid = plane.segments[0]._header, plane.pid
    good = header.layout_hash
    fd = os.dup(plane.segments[0].memory.fd)
    await plane.close()
    offset = 8  # of layout_hash
    os.pwrite(fd, bytes(8), offset)
    with pytest.raises(DataPlaneError, match="layout hash"):
        await plane.start(SETUP)
    await plane.close()
    os.pwrite(fd, good.to_bytes(8, "little"), offset)
    os.close(fd)
    assert (await plane.start(SETUP)).pid == pid


async def test_one_that_waits_to_be_set_up_is_taken(plane: DataPlane) -> None:
    """systemd may start the program before the supervisor."""
    waiting = subprocess.Popen(  # noqa: ASYNC220
        [find_real(), "--run-dir", plane.run_dir], start_new_session=True
    )
    try:
        async with asyncio.timeout(20):
            while Control.connect(plane.run_dir) is None:
                await asyncio.sleep(0.01)
        started = await plane.start(SETUP)
        assert (started.adopted, started.pid) == (False, waiting.pid)
        ready = plane.ready
        await plane.close()
        assert (await plane.start(SETUP)).adopted
        assert plane.ready == ready is not None
        await plane.shutdown()
        assert await asyncio.to_thread(waiting.wait, 10) == 0
    finally:
        waiting.kill()


async def test_two_supervisors_cannot_share_a_run_directory(plane: DataPlane) -> None:
    await plane.start(SETUP)
    other = DataPlane(plane.run_dir)
    with pytest.raises(DataPlaneError, match="another supervisor"):
        await other.start(SETUP)
    await other.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"audio_slots": 3}, "audio"),
        ({"cpus": (1000,)}, "CPU"),
        ({"legs_max": 0}, "legs_max"),
        ({"interfaces": (Interface("x", 1, 0, False, 0, 2),)}, "x is served by 2 workers from 0"),
        (
            {"interfaces": (Interface("x", 1, 0, False, 1, 1),), "workers": 2},
            "worker 0 serves none of the interfaces",
        ),
    ],
)
async def test_a_bad_set_up_is_refused_with_a_sentence(plane: DataPlane, change, says) -> None:
    with pytest.raises(DataPlaneError, match=says):
        await plane.start(dataclasses.replace(SETUP, **change))


async def test_an_address_that_is_taken_or_not_ours(plane: DataPlane) -> None:
    from forwarder.dataplane.setup import Local

    with pytest.raises(HostError, match="no interface has this address"):
        await plane.start(dataclasses.replace(SETUP, locals=(Local("192.0.2.200", 4433),)))
    await plane.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        busy = Local("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(HostError, match="another program has it"):
            await plane.start(dataclasses.replace(SETUP, locals=(busy,)))
    await plane.close()
    with pytest.raises(HostError, match="wildcard"):
        await plane.start(dataclasses.replace(SETUP, locals=(Local("0.0.0.0", 4433),)))


async def test_an_orphan_ends_by_itself(tmp_path: Path) -> None:
    find_real()
    plane = DataPlane(tmp_path)
    await plane.start(dataclasses.replace(SETUP, orphan_s=1))
    pidfd = os.pidfd_open(plane.pid)
    await plane.close()
    await asyncio.to_thread(_wait_for_end, pidfd)


def _wait_for_end(pidfd: int) -> None:
    import select

    assert select.select([pidfd], [], [], 20)[0], "the process still lives"
    os.close(pidfd)


async def test_signals(tmp_path: Path) -> None:
    """SIGINT is the supervisor's matter; SIGTERM ends it with status 0, its socket gone."""
    find_real()
    plane = DataPlane(tmp_path)
    await plane.start(SETUP)
    child = plane._child
    assert child is not None
    client = CommandClient(plane)
    os.kill(plane.pid, signal.SIGINT)
    await client.apply([LegSet(leg(1))])
    client.close()
    await plane._stop_watching()
    os.kill(plane.pid, signal.SIGTERM)
    async with asyncio.timeout(20):
        await plane._ended.wait()
    assert child.returncode == 0
    assert not (tmp_path / "dataplane.sock").exists()
    await plane.close()


def _task_states(pid: int) -> list[dict[str, str]]:
    """/proc/PID/task/*/status of each thread."""
    files = Path(f"/proc/{pid}/task").glob("*/status")
    return [dict(line.split(":\t", 1) for line in file.read_text().splitlines()) for file in files]


async def test_privileges_are_gone(plane: DataPlane) -> None:
    await plane.start(SETUP)
    for status in _task_states(plane.pid):
        assert status["NoNewPrivs"] == "1"
        for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(status[name], 16) == 0, name
    assert (plane.run_dir / "dataplane.sock").stat().st_mode & 0o777 == 0o600


async def test_garbage_on_the_control_socket(plane: DataPlane) -> None:
    """A broken message is refused; the workers go on, and the next supervisor is served."""
    await plane.start(SETUP)
    pid = plane.pid
    await plane.close()
    for junk in (b"x", b"\0" * 16, os.urandom(64), os.urandom(9000)):
        control = Control.connect(plane.run_dir)
        assert control is not None
        control.sock.send(junk)
        assert control.sock.fileno() >= 0
        control.close()
    started = await plane.start(SETUP)
    assert (started.adopted, started.pid) == (True, pid)


async def test_a_long_run_directory(tmp_path: Path) -> None:
    find_real()
    plane = DataPlane(tmp_path / ("d" * 120))
    await plane.start(SETUP)
    await plane.close()
    assert (await plane.start(SETUP)).adopted
    await plane.shutdown()


async def test_an_idle_node_sleeps(plane: DataPlane) -> None:
    """Less than 2 % of a core, by the scheduler's account of its threads."""
    await plane.start(dataclasses.replace(SETUP, workers=2))

    def used_ns() -> int:
        tasks = Path(f"/proc/{plane.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    before, wakeups, start = used_ns(), plane.counters()["wakeups"], time.monotonic_ns()
    await asyncio.sleep(1.5)
    used, lasted = used_ns() - before, time.monotonic_ns() - start
    assert plane.counters()["wakeups"] > wakeups
    assert used < 0.02 * lasted, f"{100 * used / lasted:.1f} % of a core"


async def test_a_table_of_thousands(plane: DataPlane, tmp_path: Path) -> None:
    setup = dataclasses.replace(SETUP, legs_max=1024, routes_max=4096, workers=2)
    async with real_world(tmp_path / "big", setup) as world:
        legs = [leg(1), *(_many(i) for i in range(2, 1002))]
        routes = [route(i, leg=2 + i % 1000, out_ssrc=i + 1) for i in range(3000)]
        await world.client.apply([*map(LegSet, legs), SourceSet(source(1)), *map(RouteSet, routes)])
        dump = await world.client.dump()
        assert dump["leg"] == {item.id: item.digest for item in legs}
        assert dump["route"] == {item.id: item.digest for item in routes}
        assert world.plane.counters()["events_lost"] == 0


def _many(number: int):
    from forwarder.table import Tuple5

    tuples = (Tuple5("127.0.0.1", 20000 + number, "127.0.0.1", 4433),)
    base = leg(1)
    return dataclasses.replace(base, id=number, worker=number % 2, key_id=number, tuples=tuples)
