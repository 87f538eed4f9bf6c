"""Two network namespaces joined by a veth pair: a client and a node. Removed afterwards."""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

CLIENT4, NODE4 = "10.99.0.1", "10.99.0.2"
CLIENT6, NODE6 = "fd99::1", "fd99::2"
PATIENCE_S = 5.0

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def inside(path: str) -> Iterator[None]:
    """This thread in the namespace at `path`; sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(path, os.O_RDONLY)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"enter {path}")
        yield
    finally:
        _libc.setns(home, _CLONE_NEWNET)
        os.close(there)
        os.close(home)


class Pair:
    """`client` and `node` name namespaces; their interfaces are `client_if` and `node_if`."""

    def __init__(self) -> None:
        tag = f"vcE{os.getpid()}x{next(_numbers)}"
        self.client, self.node = f"{tag}c", f"{tag}n"
        self.client_if, self.node_if = "vcEc", "vcEn"
        self.sockets: list[socket.socket] = []

    def up(self) -> None:
        for name in (self.client, self.node):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        self.add_link()

    def add_link(self) -> None:
        """The pair with its addresses; checksums by software, so that the bytes are true."""
        _run(
            *("ip", "-n", self.node, "link", "add", "numrxqueues", "2", "name", self.node_if),
            *("type", "veth", "peer", "name", self.client_if, "netns", self.client),
        )
        for name, device, v4, v6 in (
            (self.client, self.client_if, CLIENT4, CLIENT6),
            (self.node, self.node_if, NODE4, NODE6),
        ):
            _run("ip", "-n", name, "address", "add", f"{v4}/24", "dev", device)
            _run("ip", "-n", name, "address", "add", f"{v6}/64", "dev", device, "nodad")
            _run("ip", "-n", name, "link", "set", device, "up")
            with inside(self.path(name)):
                _run("ethtool", "-K", device, "tx", "off")

    def remove_link(self) -> None:
        _run("ip", "-n", self.node, "link", "delete", self.node_if)

    def down(self) -> None:
        for sock in self.sockets:
            sock.close()
        for name in (self.client, self.node):
            subprocess.run(("ip", "netns", "delete", name), check=False, capture_output=True)

    @staticmethod
    def path(name: str) -> str:
        return f"/run/netns/{name}"

    def at_node(self) -> AbstractContextManager[None]:
        """Context: this thread in the node's namespace."""
        return inside(self.path(self.node))

    def udp(self, at: str, ip: str, port: int = 0, *, shared: bool = False) -> socket.socket:
        """A bound UDP socket in namespace `at`, with a receive timeout."""
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        with inside(self.path(at)):
            sock = socket.socket(family, socket.SOCK_DGRAM)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((ip, port))
        sock.settimeout(PATIENCE_S)
        self.sockets.append(sock)
        return sock


@contextmanager
def pair() -> Iterator[Pair]:
    """A Pair that is up."""
    made = Pair()
    try:
        made.up()
        yield made
    finally:
        made.down()


def waiting(sock: socket.socket) -> list[bytes]:
    """What lies in the socket now, without waiting."""
    found = []
    patience = sock.gettimeout()
    sock.setblocking(False)
    try:
        while True:
            found.append(sock.recv(2048))
    except BlockingIOError:
        return found
    finally:
        sock.settimeout(patience)


def compile_program(out: Path, name: str, text: str) -> Path:
    """Build a BPF program; answers the object."""
    machine = subprocess.run(
        ("gcc", "-dumpmachine"), check=True, capture_output=True, text=True
    ).stdout.strip()
    source, built = out / f"{name}.bpf.c", out / f"{name}.bpf.o"
    source.write_text(text)
    _run(
        *("clang", "-O2", "-g", "-target", "bpf", "-Wall", "-Wextra", "-Werror"),
        *("-idirafter", f"/usr/include/{machine}", "-c", str(source), "-o", str(built)),
    )
    return built


def compile_foreign(out: Path) -> Path:
    """Build foreign.bpf.c; answers the object."""
    return compile_program(out, "foreign", Path(__file__).with_name("foreign.bpf.c").read_text())
