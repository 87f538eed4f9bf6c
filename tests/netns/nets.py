"""Network namespaces for tests: two hosts joined by a veth pair."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def ip(*args: str, netns: str | None = None) -> str:
    """Runs ip(8), in a namespace; answers its output."""
    where = ["-n", netns] if netns else []
    done = subprocess.run(["ip", *where, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(args)}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def entered(netns: str) -> Iterator[None]:
    """This thread is in the namespace meanwhile: sockets made here stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _libc.setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert _libc.setns(home, _CLONE_NEWNET) == 0
        os.close(home)
        os.close(there)


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    """So named, with their loopback up; gone afterwards, however far it came."""
    made = []
    try:
        for netns in names:
            ip("netns", "add", netns)
            made.append(netns)
            ip("link", "set", "lo", "up", netns=netns)
        yield
    finally:
        for netns in made:
            ip("netns", "del", netns)


@dataclass(frozen=True)
class Pair:
    """Namespaces `near` and `far`; interface v0 in each: 10.77.0.1 and .2, fd77::1 and ::2."""

    near: str
    far: str


@contextlib.contextmanager
def veth_pair(prefix: str, queues: int = 1) -> Iterator[Pair]:
    """Two namespaces joined by a veth pair with so many queues each way, gone afterwards."""
    name = f"{prefix}{os.getpid()}-{next(_numbers)}"
    pair = Pair(f"{name}n", f"{name}f")
    with namespaces(pair.near, pair.far):
        many = ("numrxqueues", str(queues), "numtxqueues", str(queues))
        ip("link", "add", "v0", *many, "type", "veth", "peer", "name", "v0", *many,
           "netns", pair.far, netns=pair.near)  # fmt: skip
        for last, netns in enumerate((pair.near, pair.far), 1):
            ip("addr", "add", f"10.77.0.{last}/24", "dev", "v0", netns=netns)
            ip("addr", "add", f"fd77::{last}/64", "dev", "v0", "nodad", netns=netns)
            ip("link", "set", "v0", "up", netns=netns)
        yield pair
