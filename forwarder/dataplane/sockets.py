"""The SO_REUSEPORT group of each local address: one slow socket, then a media socket a worker.

Law: the order in which sockets are bound is their index in the group, and the group's selector
counts on it; so a socket is never closed and bound anew while the node lives, but handed from
process to process.  Only concrete addresses: which addresses a wildcard stands for is the
netlink mirror's matter.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder.dataplane.setup import Local
from forwarder.errors import HostError

MEDIA_RCVBUF = 8 << 20
"""Bytes asked for a media socket: about 50 ms at 1 Gb/s, so that a restart of the data plane
loses little.  The kernel caps it at net.core.rmem_max without CAP_NET_ADMIN."""
SLOW_RCVBUF = 1 << 20
SNDBUF = 4 << 20


@dataclass(frozen=True)
class Group:
    """The sockets of one local address; `media[w]` belongs to worker w."""

    local: Local
    slow: socket.socket
    media: tuple[socket.socket, ...]

    @property
    def sockets(self) -> list[socket.socket]:
        """In the order of their index in the group."""
        return [self.slow, *self.media]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def _buffer(sock: socket.socket, size: int, force: int, plain: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, plain, size)


_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


def _open(local: Local, receive: int) -> socket.socket:
    version = ip_address(local.ip).version
    sock = socket.socket(
        socket.AF_INET6 if version == 6 else socket.AF_INET,
        socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
    )
    try:
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _buffer(sock, receive, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _buffer(sock, SNDBUF, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        sock.bind((local.ip, local.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_shared(local: Local) -> None:
    """SO_REUSEPORT would let us into another node's group, and take its packets."""
    if local.port == 0:
        return
    family = socket.AF_INET6 if ip_address(local.ip).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.bind((local.ip, local.port))


def _explain(local: Local, error: OSError) -> str:
    where = f"UDP {local.ip} port {local.port}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot bind {where}: no interface has this address; correct network.addresses"
    if error.errno == errno.EADDRINUSE:
        return f"cannot bind {where}: another program has it; end that one or choose another port"
    if error.errno == errno.EACCES:
        return f"cannot bind {where}: a port below 1024 needs root or CAP_NET_BIND_SERVICE"
    return f"cannot bind {where}: {error.strerror}"


def open_group(
    local: Local, workers: int, on_group: Callable[[Group], None] | None = None
) -> Group:
    """Opens and binds the group of one address; `on_group` attaches the selector.

    Port 0 takes a free one: the group's `local` then tells which.  Raises HostError.
    """
    if ip_address(local.ip).is_unspecified:
        raise HostError(f"{local.ip} is a wildcard: name the addresses to listen on")
    opened: list[socket.socket] = []
    try:
        _refuse_shared(local)
        for i in range(1 + workers):
            opened.append(_open(local, MEDIA_RCVBUF if i else SLOW_RCVBUF))
            local = Local(local.ip, opened[0].getsockname()[1])
        group = Group(local, opened[0], tuple(opened[1:]))
        if on_group is not None:
            on_group(group)
    except OSError as error:
        for sock in opened:
            sock.close()
        raise HostError(_explain(local, error)) from error
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return group


def adopt_group(local: Local, slow_fd: int, media_fds: Sequence[int]) -> Group:
    """The group of sockets that came from a living data plane; takes the descriptors over."""
    media = tuple(socket.socket(fileno=fd) for fd in media_fds)
    return Group(local, socket.socket(fileno=slow_fd), media)
