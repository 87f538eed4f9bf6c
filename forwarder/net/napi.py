"""The NAPIs of an interface, one for each receive queue whose driver says which is its own: reads
and sets the deferral of interrupts.

Generic netlink family netdev.  The values belong to a NAPI since Linux 6.13; before, and where the
driver does not tie NAPIs to queues, there is nothing here, and sysfs sets the whole interface.
Units: empty polls, nanoseconds.  Source: Documentation/netlink/specs/netdev.yaml.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from pyroute2.netlink import genlmsg

from forwarder.errors import HostError
from forwarder.net.genl import Genl

_QUEUE_GET, _NAPI_GET, _NAPI_SET = 10, 11, 14
_RX = 0
NAMES = ("defer_hard_irqs", "gro_flush_timeout")


class _Queue(genlmsg):  # type: ignore[misc]
    nla_map = (
        ("unspec", "none"), ("id", "uint32"), ("ifindex", "uint32"), ("type", "uint32"),
        ("napi_id", "uint32"),
    )  # fmt: skip


class _Napi(genlmsg):  # type: ignore[misc]
    # The timeout comes as 4 or 8 bytes, whatever it needs; 4 are enough to set it.
    nla_map = (
        ("unspec", "none"), ("ifindex", "uint32"), ("id", "uint32"), ("irq", "uint32"),
        ("pid", "uint32"), ("defer_hard_irqs", "uint32"), ("gro_flush_timeout", "cdata"),
    )  # fmt: skip


class _Set(genlmsg):  # type: ignore[misc]
    nla_map = (*_Napi.nla_map[:6], ("gro_flush_timeout", "uint32"))


def _message(kind: Any, command: int, *attrs: tuple[str, int]) -> Any:
    message = kind()
    message["cmd"], message["version"] = command, 1
    message["attrs"] = list(attrs)
    return message


class Napis:
    """One socket; one thread.  HostError: a kernel before 6.3."""

    def __init__(self) -> None:
        self._genl = Genl("netdev", "6.3")

    def close(self) -> None:
        self._genl.close()

    def read(self, nic: str) -> dict[str, int]:
        """`QUEUE.NAME` -> value.  OSError(ENODEV): there is no such interface."""
        values = self.values(nic)
        return {
            f"{queue}.{name}": values[number][name]
            for queue, number in sorted(self._of_queues(nic).items())
            for name in NAMES
            if name in values.get(number, {})
        }

    def set(self, nic: str, name: str, value: int) -> None:
        """One value of a queue's NAPI.  OSError(EOPNOTSUPP): no NAPI is tied to the queue."""
        queue, _, what = name.partition(".")
        number = self._of_queues(nic).get(int(queue))
        if number is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self.set_of(number, what, value)

    def values(self, nic: str) -> dict[int, dict[str, int]]:
        """Id of each NAPI -> its values."""
        message = _message(_Napi, _NAPI_GET, ("ifindex", _index(nic)))
        found: dict[int, dict[str, int]] = {}
        for reply in self._genl.ask(message, _Napi, dump=True):
            values = {name: reply.get_attr(name) for name in NAMES}
            found[int(reply.get_attr("id"))] = {
                name: int.from_bytes(v, "little") if isinstance(v, bytes) else int(v)
                for name, v in values.items()
                if v is not None
            }
        return found

    def set_of(self, number: int, what: str, value: int) -> None:
        """A value of the NAPI with this id."""
        self._genl.ask(_message(_Set, _NAPI_SET, ("id", number), (what, value)), _Set)

    def _of_queues(self, nic: str) -> dict[int, int]:
        """Receive queue -> id of its NAPI: the ids change whenever the driver resets."""
        message = _message(_Queue, _QUEUE_GET, ("ifindex", _index(nic)))
        return {
            int(reply.get_attr("id")): int(reply.get_attr("napi_id"))
            for reply in self._genl.ask(message, _Queue, dump=True)
            if reply.get_attr("type") == _RX and reply.get_attr("napi_id") is not None
        }


def open_napis() -> Napis | None:
    """None: the kernel has no such family."""
    try:
        return Napis()
    except HostError:
        return None


def _index(nic: str) -> int:
    try:
        return socket.if_nametoindex(nic)
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None
