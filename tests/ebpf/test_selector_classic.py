"""The classic-BPF selector on real sockets of the loopback interface; needs no privilege."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from forwarder.dataplane import selector
from forwarder.errors import HostError

from .netns_env import PATIENCE_S, waiting

WORKERS = 3


@pytest.fixture(params=["127.0.0.1", "::1"])
def group(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    """One slow and three media sockets, with the selector attached."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with ExitStack() as stack:
        made: list[socket.socket] = []
        for _ in range(1 + WORKERS):
            sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((request.param, made[0].getsockname()[1] if made else 0))
            sock.settimeout(PATIENCE_S)
            made.append(sock)
        selector.attach_classic(made)
        yield made


def client_of(group: list[socket.socket]) -> socket.socket:
    sock = socket.socket(group[0].family, socket.SOCK_DGRAM)
    sock.bind((group[0].getsockname()[0], 0))
    return sock


def test_every_first_byte(group: list[socket.socket]) -> None:
    slow, *media = group
    with client_of(group) as sender:
        mine = media[sender.getsockname()[1] % WORKERS]
        for first in range(256):
            data = bytes([first]) + b"rest"
            sender.sendto(data, slow.getsockname())
            wanted = mine if 128 <= first <= 191 else slow
            assert wanted.recv(64) == data, first
        sender.sendto(b"", slow.getsockname())
        assert slow.recv(64) == b""
    assert all(waiting(sock) == [] for sock in group)


def test_each_sender_has_one_worker_and_all_workers_are_used(group: list[socket.socket]) -> None:
    slow, *media = group
    seen: set[int] = set()
    for _ in range(64):
        with client_of(group) as sender:
            worker = sender.getsockname()[1] % WORKERS
            for n in range(3):
                sender.sendto(b"\x80%d" % n, slow.getsockname())
            assert [media[worker].recv(64) for _ in range(3)] == [b"\x800", b"\x801", b"\x802"]
            seen.add(worker)
    assert seen == set(range(WORKERS))
    assert waiting(slow) == []


@pytest.mark.parametrize("workers", [0, 17])
def test_wrong_number_of_workers(workers: int) -> None:
    with pytest.raises(ValueError, match="1 to 16"):
        selector.classic_program(socket.AF_INET, workers)


def test_sockets_that_are_no_group() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        with pytest.raises(HostError, match="SO_REUSEPORT"):
            selector.attach_classic([one, one])
