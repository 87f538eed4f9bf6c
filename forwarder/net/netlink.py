"""Requests to and notices from the kernel's rtnetlink, on plain sockets.

pyroute2 encodes and decodes the messages; the sockets are our own, so that they fit any event
loop: a request is answered by the kernel before the call returns (microseconds), notices come
through a non-blocking socket.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from forwarder.errors import HostError

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE = 32, 33
RTM_GETQDISC = 38

NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3

_GROUPS = (1, 3, 5, 7, 8, 9, 11, 19)
"""RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE."""
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_NOTICE_BUFFER = 4 << 20
_RECEIVE = 1 << 18
_TIMEOUT_S = 2.0

_REQUESTS: dict[int, Any] = {
    RTM_GETLINK: ifinfmsg,
    RTM_GETADDR: ifaddrmsg,
    RTM_GETROUTE: rtmsg,
    RTM_GETNEIGH: ndmsg,
    RTM_GETQDISC: tcmsg,
}


class Requests:
    """Asks the kernel and waits for its answer; one thread."""

    def __init__(self) -> None:
        self._sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._sock.bind((0, 0))
        self._sock.settimeout(_TIMEOUT_S)
        self._marshal = MarshalRtnl()
        self._sequence = itertools.count(1)

    def _send(self, kind: int, flags: int, attrs: list[tuple[str, Any]], **fields: int) -> int:
        message = _REQUESTS[kind]()
        for name, value in fields.items():
            message[name] = value
        message["attrs"] = attrs
        sequence = next(self._sequence) & 0x7FFFFFFF
        header = message["header"]
        header["type"], header["flags"] = kind, NLM_F_REQUEST | flags
        header["sequence_number"], header["pid"] = sequence, 0
        message.encode()
        self._sock.sendto(bytes(message.data), (0, 0))
        return sequence

    def _answers(self, sequence: int) -> Iterator[Any]:
        while True:
            try:
                raw = self._sock.recv(_RECEIVE)
            except TimeoutError:
                raise HostError("the kernel did not answer a netlink request") from None
            for message in self._marshal.parse(raw):
                if message["header"]["sequence_number"] == sequence:
                    yield message

    def dump(self, kind: int) -> list[Any]:
        """All objects of a kind (RTM_GETLINK, RTM_GETADDR, RTM_GETNEIGH, RTM_GETQDISC)."""
        found: list[Any] = []
        for message in self._answers(self._send(kind, NLM_F_DUMP, [])):
            if message["header"]["type"] == NLMSG_DONE:
                return found
            if message["header"]["type"] == NLMSG_ERROR:
                raise HostError(f"netlink refused a dump: {message['header']['error']}")
            found.append(message)
        raise AssertionError("the answers never end without DONE or an error")

    def route(self, attrs: list[tuple[str, Any]], family: int, bits: int) -> Any:
        """The route that the kernel would take (`ip route get`); raises OSError with its reason."""
        sequence = self._send(
            RTM_GETROUTE, 0, attrs, family=family, dst_len=bits, src_len=bits
        )  # fmt: skip
        message = next(self._answers(sequence))
        if message["header"]["type"] == NLMSG_ERROR:
            code = getattr(message["header"]["error"], "code", errno.EINVAL)
            raise OSError(code, os.strerror(code))
        return message

    def close(self) -> None:
        self._sock.close()


class Notices:
    """What the kernel tells when links, addresses, neighbours, routes or rules change."""

    def __init__(self) -> None:
        self._sock = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NOTICE_BUFFER)
        self._sock.bind((0, 0))
        for group in _GROUPS:
            self._sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        self._marshal = MarshalRtnl()

    def fileno(self) -> int:
        return self._sock.fileno()

    def shrink(self, size: int) -> None:
        """Takes a smaller buffer (tests of lost notices)."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def read(self) -> list[Any] | None:
        """Messages that are there; None: some were lost, dump everything."""
        found: list[Any] = []
        while True:
            try:
                raw = self._sock.recv(_RECEIVE)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return None
                raise
            found += self._marshal.parse(raw)

    def close(self) -> None:
        self._sock.close()
