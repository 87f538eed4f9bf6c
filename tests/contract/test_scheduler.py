"""The real process: scheduling class, how time is spent, how late copies depart.  On loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from node_kit import Site, node_of
from planes import SETUP, find_real, real_world
from stream import Stream

pytest.importorskip("forwarder.dataplane.abi", reason="_ring is not built")
from forwarder.dataplane.lateness import summary
from forwarder.dataplane.process import DataPlane
from forwarder.dataplane.scheduling import refusal
from forwarder.dataplane.selector import attach_classic
from forwarder.dataplane.setup import Scheduler, Setup
from forwarder.errors import DataPlaneError

FIFO = dataclasses.replace(SETUP, workers=2, scheduler=Scheduler.FIFO, priority=3)


def policies(pid: int) -> dict[str, tuple[int, int]]:
    """(real-time priority, policy) of each thread by its name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[(task / "comm").read_text().strip()] = (int(fields[37]), int(fields[38]))
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="the real-time class needs root")
async def test_workers_take_the_real_time_class_and_nobody_else(tmp_path: Path) -> None:
    async with real_world(tmp_path, FIFO) as world:
        found = policies(world.plane.pid)
        assert found["vcfwd-w0"] == found["vcfwd-w1"] == (3, os.SCHED_FIFO)
        assert all(each == (0, os.SCHED_OTHER) for name, each in found.items() if "-w" not in name)


def without_nice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on data planes start without the right to the real-time class."""
    wrapper = tmp_path / "without-nice"
    wrapper.write_text(
        "#!/bin/sh\nexec setpriv --bounding-set -sys_nice --inh-caps -sys_nice "
        f'prlimit --rtprio=0 {find_real()} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("VCFWD_DATAPLANE", str(wrapper))


@pytest.mark.skipif(os.geteuid() != 0, reason="a capability can only be left out by root")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is missing")
async def test_a_class_that_cannot_be_had_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_nice(tmp_path, monkeypatch)
    plane = DataPlane(tmp_path / "run")
    try:
        with pytest.raises(DataPlaneError, match=r"real-time class with priority 3.*CAP_SYS_NICE"):
            await plane.start(FIFO)
    finally:
        await plane.shutdown()


@pytest.mark.parametrize(
    "bad", [{"scheduler": Scheduler.FIFO, "priority": 0}, {"priority": 100}], ids=["none", "high"]
)
async def test_priorities_are_checked(tmp_path: Path, bad: dict[str, int]) -> None:
    find_real()
    plane = DataPlane(tmp_path)
    try:
        with pytest.raises(DataPlaneError, match="set-up: priority is"):
            await plane.start(dataclasses.replace(SETUP, **bad))
    finally:
        await plane.shutdown()


async def test_departures_are_tallied_and_time_is_accounted_for(tmp_path: Path) -> None:
    find_real()
    plane = DataPlane(tmp_path, on_group=lambda group: attach_classic(group.sockets))
    try:
        await plane.start(SETUP)
        from forwarder.dataplane.commands import CommandClient

        stream = Stream(plane.setup.locals[0].port)
        client = CommandClient(plane)
        await client.apply(stream.commands())
        await stream.send(300)
        await stream.until_received(299)
        async with asyncio.timeout(60):  # published at the end of the cycle that sent the last
            while (counters := plane.counters())["transmitted"] < 300:
                await asyncio.sleep(0.001)
        found = summary(counters)
        assert counters["departures"] == sum(counters.lateness) == found["departures"]
        assert counters["departures"] == counters["transmitted"] == 300
        assert counters["lateness_ns"] > 0 and found["p50_us"] > 0
        assert found["p50_us"] <= found["p99_us"] <= found["p999_us"]
        assert all(counters[name] > 0 for name in ("worked_ns", "spun_ns", "blocked_ns"))
        client.close()
        stream.close()
    finally:
        await plane.shutdown()


@pytest.mark.skipif(os.geteuid() != 0, reason="a capability can only be left out by root")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is missing")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="auto takes the usual class on one CPU")
async def test_auto_never_keeps_a_node_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor may have the class and its data plane not, as under a service manager."""
    without_nice(tmp_path, monkeypatch)
    async with node_of(Site(tmp_path)) as node:
        told = (await node.status())["dataplane"]
        assert told["scheduler"] == "other"
        assert policies(told["pid"])["vcfwd-w0"] == (0, os.SCHED_OTHER)


@pytest.mark.skipif(os.geteuid() != 0, reason="a capability can only be left out by root")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is missing")
def test_the_kernel_is_asked_whether_the_class_is_allowed() -> None:
    """What `auto` decides by, with the capability and without, in processes of their own."""
    ask = "from forwarder.dataplane.scheduling import refusal; print(refusal(2))"
    without = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]
    answers = []
    for words in ([], [*without, "prlimit", "--rtprio=0"]):
        command = [*words, sys.executable, "-c", ask]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        answers.append(done.stdout.strip())
    assert answers[0] == "None"
    assert "CAP_SYS_NICE" in answers[1]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert refusal(2) is None and os.sched_getscheduler(0) == os.SCHED_OTHER


def test_the_usual_class_is_the_default() -> None:
    assert Setup(locals=()).scheduler is Scheduler.OTHER
