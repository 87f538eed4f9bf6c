"""The lab's fixtures: one node a session, put back to a snapshot for each test.

The snapshot of the booted node lies beside the image in the cache; that of the node with vcfwd
installed is made once a session.  What this machine cannot do is a skip with its reason.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import deps, image
from tests.lab.machine import Machine, fingerprint
from tests.lab.outside import Outside

ROOT = Path(__file__).parents[2]
BOOTED, INSTALLED = "booted", "installed"
PACKAGES_TIMEOUT_S = 1500
INSTALL_S = 400
TUN = Path("/dev/net/tun")
MEMORY = 3 << 30  # bytes: what the node has, and QEMU's own


def packages(version: str = "") -> tuple[Path, Path]:
    """vcfwd-runtime and vcfwd, built as by `make deb`; `version`: another than the tree's."""
    line = ["make", "-s", "deb"]
    if version:
        line = ["/usr/bin/python3", "configs/debian/deb.py", "--version", version]
        line += ["--out", str(ROOT / "build" / "lab" / "deb")]
    made = subprocess.run(
        line,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PACKAGES_TIMEOUT_S,
        check=False,
    )
    if made.returncode:
        raise image.LabUnavailable(f"`{' '.join(line)}` failed:\n{made.stderr[-3000:]}")
    runtime, code = made.stdout.split()[-2:]
    return ROOT / runtime, ROOT / code


def unfit() -> str:
    """What this machine lacks and no installation mends; empty: nothing."""
    if os.geteuid() != 0:
        return "the lab needs root: it makes network interfaces and a file system"
    if not TUN.exists():
        return f"the lab needs {TUN}, by which the hosts outside reach the node"
    free = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    if free and int(free[1]) << 10 < MEMORY:
        return f"the lab needs {MEMORY >> 30} GB of memory, and {int(free[1]) >> 10} MB are free"
    return ""


def booted_disk(base: image.Image) -> Path:
    """A disk with a snapshot of the node as it is after its first boot, from the cache."""
    disk = base.folder / f"booted-{fingerprint(base)}.qcow2"
    with (base.folder / "boot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not disk.exists():
            for old in base.folder.glob("booted-*.qcow2"):
                old.unlink()
            folder = base.folder / "booting"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            machine = Machine(base, folder, f"boot{os.getpid()}")
            try:
                machine.new_disk()
                machine.start()
                machine.wait_ssh()
                machine.save(BOOTED)
                machine.stop()
                machine.disk.rename(disk)
            finally:
                machine.close()
    return disk


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The node of this session, with vcfwd installed and its services off."""
    if lack := unfit():
        pytest.skip(lack)
    wanted = deps.missing()
    if wanted:
        pytest.skip(f"the lab needs {' '.join(wanted)}: run `make lab-deps` as root once")
    folder = tmp_path_factory.mktemp("lab")
    try:
        image.room(folder, image.CACHED_ROOM)
        runtime, code = packages()
        base = image.image(runtime)
        booted = booted_disk(base)
    except image.LabUnavailable as error:
        pytest.skip(str(error))
    node = Machine(base, folder, f"{os.getpid()}")
    try:
        shutil.copy(booted, node.disk)
        node.start(restore=BOOTED)
        node.wait_ssh()
        node.set_clock()
        node.copy(code, "/root/vcfwd.deb")
        node.ssh(
            "DEBIAN_FRONTEND=noninteractive dpkg -i /root/vcfwd.deb && rm /root/vcfwd.deb",
            timeout_s=INSTALL_S,
        )
        node.save(INSTALLED)
        yield node
    finally:
        console = node.console
        if console.exists():
            kept = ROOT / "build" / "lab" / "report"
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(console, kept / "console.log")
        node.close()


@pytest.fixture
def node(machine: Machine) -> Machine:
    """The node as it was when vcfwd had just been installed."""
    machine.restore(INSTALLED)
    return machine


@pytest.fixture
def one_nic(node: Machine) -> Iterator[Outside]:
    outside = Outside(node, 0, 0)
    outside.open()
    yield outside
    outside.close()


@pytest.fixture
def two_nics(node: Machine) -> Iterator[Outside]:
    outside = Outside(node, 0, 1)
    outside.open()
    yield outside
    outside.close()
