"""A data plane that somebody else started, or of another build: taken over, or left alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from planes import SETUP, find_real

pytest.importorskip("forwarder.dataplane.abi", reason="_ring is not built")
from forwarder.dataplane import contract, spawn
from forwarder.dataplane.contract import Build
from forwarder.dataplane.process import DataPlane
from forwarder.dataplane.selector import attach_classic
from forwarder.errors import DataPlaneError

PATIENCE_S = 20.0


def made(run_dir: Path, **options) -> DataPlane:
    find_real()
    return DataPlane(run_dir, on_group=lambda group: attach_classic(group.sockets), **options)


@asynccontextmanager
async def at_work(run_dir: Path) -> AsyncIterator[int]:
    """A data plane that was set up and has lost its supervisor; answers its pid."""
    plane = made(run_dir)
    pid = (await plane.start(SETUP)).pid
    await plane.close()
    try:
        yield pid
    finally:
        again = made(run_dir)
        await again.start(SETUP)
        await again.shutdown()


def rewrite(run_dir: Path, build: Build) -> None:
    text = f"version {build.version}\ncontract {build.contract}\n"
    (run_dir / contract.VERSION_NAME).write_text(text)


def test_program_and_library_are_of_one_contract() -> None:
    find_real()
    binary = spawn.find_binary()
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    assert contract.parse(told).contract == contract.installed()
    assert contract.version_of(binary) == contract.parse(told).version != ""


def test_a_version_file_may_be_anything() -> None:
    assert contract.parse("") == Build()
    assert contract.parse("version\ncontract  x \nnew thing\n\0\n") == Build("", "x")
    assert contract.version_of(Path("/nonexistent")) == ""


async def test_the_one_that_runs_says_which_it_is(tmp_path: Path) -> None:
    assert contract.running(tmp_path) is None
    async with at_work(tmp_path):
        found = contract.running(tmp_path)
        assert found is not None and found.contract == contract.installed()
    assert (tmp_path / contract.VERSION_NAME).exists()
    assert contract.running(tmp_path) is None  # what is left behind speaks for nobody


async def test_another_version_of_the_same_contract_is_adopted(tmp_path: Path) -> None:
    async with at_work(tmp_path) as pid:
        rewrite(tmp_path, Build("0.0.9", contract.installed()))
        plane = made(tmp_path)
        started = await plane.start(SETUP)
        await plane.close()
        here = contract.version_of(spawn.find_binary())
        assert started.adopted and started.pid == pid
        assert started.changed == f"running 0.0.9, installed {here}"


async def test_another_contract_is_refused_and_not_touched(tmp_path: Path) -> None:
    async with at_work(tmp_path) as pid:
        before = contract.running(tmp_path)
        assert before is not None
        rewrite(tmp_path, Build("9.9", "abi999-0-steer9"))
        plane = made(tmp_path)
        with pytest.raises(DataPlaneError, match=r"9\.9.*abi999-0-steer9.*vcfwd drain"):
            await plane.start(SETUP)
        await plane.close()
        os.kill(pid, 0)  # raises when it is gone
        rewrite(tmp_path, before)


class Manager:
    """Starts a data plane, and again when it was killed: as a service manager does."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._running: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def _start(self) -> None:
        self.starts += 1
        self._running = subprocess.Popen(
            [spawn.find_binary(), "--run-dir", self._run_dir], stderr=subprocess.DEVNULL
        )

    async def keep(self) -> None:
        while self._running is None or self._running.returncode != 0:
            self._start()
            while self._running is not None and self._running.poll() is None:
                await asyncio.sleep(0.005)

    def end(self) -> None:
        if self._running is not None and self._running.poll() is None:
            self._running.kill()
            self._running.wait()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made_one = Manager(tmp_path)
    yield made_one
    made_one.end()


async def test_a_service_is_waited_for_and_left_to_its_manager(
    tmp_path: Path, manager: Manager
) -> None:
    back = asyncio.Event()
    plane = made(tmp_path, service=True, on_restarted=lambda gap_ms: back.set())
    starting = asyncio.create_task(plane.start(SETUP))
    keeping = asyncio.create_task(manager.keep())
    async with asyncio.timeout(PATIENCE_S):
        first = (await starting).pid
        assert manager.starts == 1
        await plane.restart("the test wants it")
        await back.wait()
        assert manager.starts == 2 and plane.pid != first
        second = plane.pid
        await plane.close()
        later = made(tmp_path, service=True)
        assert (await later.start(SETUP)).adopted and later.pid == second
        await later.shutdown(again=True)  # ends it so that its manager starts another
        third = await later.start(SETUP)
        assert not third.adopted and third.pid != second
        await later.shutdown()  # for good
        await keeping
        assert manager.starts == 3


async def test_a_service_that_does_not_come_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "SERVED_S", 0.05)
    plane = made(tmp_path, service=True)
    with pytest.raises(DataPlaneError, match=r"systemctl status vcfwd-dataplane"):
        await plane.start(SETUP)
    await plane.close()
