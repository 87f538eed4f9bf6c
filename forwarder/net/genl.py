"""Requests to one of the kernel's generic netlink families, on a socket of our own.

pyroute2 encodes and decodes the messages.  Errors are OSError with the kernel's errno; a kernel
without the family is HostError.  Source: Documentation/userspace-api/netlink/intro.rst.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import ctrlmsg

from forwarder.errors import HostError

_NETLINK_GENERIC = 16
_GENL_CTRL, _CTRL_GETFAMILY = 0x10, 3
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_TIMEOUT_S = 2.0
_RECEIVE = 1 << 16


class Genl:
    """One socket; one thread.  `since`: the first kernel that has the family, for people."""

    def __init__(self, family: str, since: str) -> None:
        self._sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC
        )
        self._sock.bind((0, 0))
        self._sock.settimeout(_TIMEOUT_S)
        self._sequence = itertools.count(1)
        try:
            self._family = self._find(family)
        except OSError:
            self._sock.close()
            raise HostError(
                f"the kernel has no {family} netlink family: Linux {since} or newer is needed"
            ) from None

    def close(self) -> None:
        self._sock.close()

    def ask(self, message: Any, kind: Any, *, dump: bool = False) -> list[Any]:
        """The answers, decoded as `kind`."""
        flags = _NLM_F_DUMP if dump else _NLM_F_ACK
        return list(self._exchange(message, self._family, kind, flags))

    def _find(self, name: str) -> int:
        message = ctrlmsg()
        message["cmd"], message["version"] = _CTRL_GETFAMILY, 1
        message["attrs"] = [("CTRL_ATTR_FAMILY_NAME", name)]
        answers = list(self._exchange(message, _GENL_CTRL, ctrlmsg, _NLM_F_ACK))
        return int(answers[0].get_attr("CTRL_ATTR_FAMILY_ID"))

    def _exchange(self, message: Any, family: int, kind: Any, flags: int) -> Iterator[Any]:
        sequence = next(self._sequence)
        header = message["header"]
        header["type"], header["flags"] = family, _NLM_F_REQUEST | flags
        header["sequence_number"], header["pid"] = sequence, 0
        message.encode()
        self._sock.sendto(bytes(message.data), (0, 0))
        while True:
            try:
                raw = self._sock.recv(_RECEIVE)
            except TimeoutError:
                raise HostError("the kernel did not answer a netlink request") from None
            offset = 0
            while offset + 16 <= len(raw):
                length = int.from_bytes(raw[offset : offset + 4], "little")
                number = int.from_bytes(raw[offset + 4 : offset + 6], "little")
                mine = int.from_bytes(raw[offset + 8 : offset + 12], "little") == sequence
                part = raw[offset : offset + length]
                offset += (length + 3) & ~3
                if not mine:
                    continue
                if number == _NLMSG_DONE:
                    return
                if number == _NLMSG_ERROR:
                    code = -int.from_bytes(part[16:20], "little", signed=True)
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                reply = kind(part)
                reply.decode()
                yield reply
