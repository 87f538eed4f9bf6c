"""What the steering tests share: built objects, a BPF file system, a loaded program, a harness."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forwarder.dataplane import bpf
from forwarder.dataplane.steering import Rates, Steering, SteeringError, ensure_bpffs

from .packets import frame

ROOT = Path(__file__).resolve().parents[2]
BPFFS = Path(f"/run/vcfwd-test-ebpf-{os.getpid()}")

XDP_DROP, XDP_PASS, XDP_REDIRECT = 1, 2, 4
LOOPBACK = 1  # ifindex

CLIENT4, NODE4 = "198.51.100.7", "192.0.2.1"
CLIENT6, NODE6 = "2001:db8:1::7", "2001:db8:2::1"
CLIENT_PORT, NODE_PORT = 50000, 4433
FAMILIES = ((CLIENT4, NODE4), (CLIENT6, NODE6))

MEDIA, STUN = b"\x80" + bytes(range(40)), b"\x00\x01" + bytes(20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What loads BPF needs root; the rest (classic selector, pure judgements) runs for anybody."""
    here = Path(__file__).parent
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if here in item.path.parents and ("bpffs" in fixtures or "netns" in fixtures):
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root: BPF and network namespaces"))


@pytest.fixture(scope="session")
def bpffs() -> Iterator[Path]:
    """A BPF file system of our own, with the objects built. Skips where BPF is not allowed."""
    subprocess.run(["make", "-s", "-C", str(ROOT / "ebpf")], check=True)
    try:
        ensure_bpffs(BPFFS)
    except SteeringError as error:
        pytest.skip(str(error))
    yield BPFFS
    subprocess.run(["umount", str(BPFFS)], check=True)
    BPFFS.rmdir()


_numbers = itertools.count()


@pytest.fixture
def pin_dir(bpffs: Path) -> Path:
    """A fresh directory for pins."""
    return bpffs / f"case{next(_numbers)}"


Loader = Callable[..., Steering]


@pytest.fixture
def load(bpffs: Path, pin_dir: Path) -> Iterator[Loader]:
    """load(rates=..., pin_dir=...) -> Steering; everything is unloaded afterwards."""
    made: list[Steering] = []

    def loader(rates: Rates | None = None, pins: Path | None = None) -> Steering:
        steering = Steering.load(pins or pin_dir, rates)
        made.append(steering)
        return steering

    yield loader
    for steering in reversed(made):
        steering.unload()


Spare = Callable[[], int]


@pytest.fixture
def spare() -> Spare:
    """How many tokens may have come back since the test began, where a bucket gets one a second."""
    began = time.monotonic()
    return lambda: int(time.monotonic() - began) + 1


class Harness:
    """Runs frames through the program and holds verdict, bytes and counters against what is due."""

    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        for node in (NODE4, NODE6):
            steering.add_listen(node, NODE_PORT)

    def run(self, data: bytes) -> int:
        """The verdict; the bytes that came out are those that went in."""
        verdict, out = bpf.test_run(self.steering._prog_fd, data, LOOPBACK)
        assert out == data
        return verdict

    def burst(self, data: bytes, count: int) -> int:
        """How many of `count` copies were not dropped."""
        return sum(self.run(data) != XDP_DROP for _ in range(count))

    def expect(self, data: bytes, verdict: int, label: str) -> None:
        """This verdict, and exactly one counter moved by exactly one: `label`."""
        before = self.steering.verdicts()
        assert self.run(data) == verdict, label
        after = self.steering.verdicts()
        assert {k: after[k] - before[k] for k in after if after[k] != before[k]} == {label: 1}


@pytest.fixture
def harness(load: Loader) -> Harness:
    """With the default rates, listening on NODE4 and NODE6 port NODE_PORT."""
    return Harness(load())


def ours(src: str, dst: str, payload: bytes, vlans: tuple[int, ...] = ()) -> bytes:
    """A frame from CLIENT_PORT to NODE_PORT."""
    return frame(src, dst, CLIENT_PORT, NODE_PORT, payload, vlans)
