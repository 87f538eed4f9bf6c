"""What `ethtool` reads and sets, by the kernel's generic netlink family and no program.

pyroute2 encodes and decodes the messages; the socket is our own (genl).  Channels, rings,
coalescing and features come this way; the driver's name, the RSS table, the hash fields and the
ntuple rules have no netlink form on the oldest kernel we run on (RSS_SET: 6.17) and come by ioctl
(ethtool_ioctl); the deferral of each queue's NAPI is the netdev family's (napi).
Units: as the kernel's (entries, microseconds, queues).  Reading needs no privileges, setting needs
CAP_NET_ADMIN.  Errors are OSError with the kernel's errno (EOPNOTSUPP: the driver has no such
thing; ENODEV: no such interface).  Source: Documentation/networking/ethtool-netlink.rst.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any

from pyroute2.netlink import genlmsg
from pyroute2.netlink.generic.ethtool import ethtoolbitset, ethtoolheader

from forwarder.net import ethtool_ioctl
from forwarder.net.genl import Genl
from forwarder.net.napi import open_napis

_FEATURES_GET, _FEATURES_SET = 11, 12

_COALESCE = (
    ("rx_usecs", "uint32"), ("rx_max_frames", "uint32"), ("rx_usecs_irq", "uint32"),
    ("rx_max_frames_irq", "uint32"), ("tx_usecs", "uint32"), ("tx_max_frames", "uint32"),
    ("tx_usecs_irq", "uint32"), ("tx_max_frames_irq", "uint32"), ("stats_block_usecs", "uint32"),
    ("use_adaptive_rx", "uint8"), ("use_adaptive_tx", "uint8"),
)  # fmt: skip
_CHANNELS = tuple(
    (f"{name}_{what}", "uint32")
    for what in ("max", "count")
    for name in ("rx", "tx", "other", "combined")
)
_RINGS = (
    ("rx_max", "uint32"), ("rx_mini_max", "uint32"), ("rx_jumbo_max", "uint32"),
    ("tx_max", "uint32"), ("rx", "uint32"), ("rx_mini", "uint32"), ("rx_jumbo", "uint32"),
    ("tx", "uint32"),
)  # fmt: skip


def _kind(fields: tuple[tuple[str, str], ...]) -> Any:
    """A message whose attributes after the header are `fields`, in the kernel's order."""

    class Message(genlmsg):  # type: ignore[misc]
        nla_map = (("unspec", "none"), ("header", "ethtoolheader"), *fields)

    Message.ethtoolheader = ethtoolheader
    Message.ethtoolbitset = ethtoolbitset
    return Message


_FEATURE_SETS = tuple((name, "ethtoolbitset") for name in ("hw", "wanted", "active", "nochange"))
# section -> (get, set, message, its fields)
_SECTIONS: dict[str, tuple[int, int, Any, tuple[tuple[str, str], ...]]] = {
    "rings": (15, 16, _kind(_RINGS), _RINGS),
    "channels": (17, 18, _kind(_CHANNELS), _CHANNELS),
    "coalesce": (19, 20, _kind(_COALESCE), _COALESCE),
}
_FEATURES = _kind(_FEATURE_SETS)


class Ethtool:
    """One socket; one thread."""

    def __init__(self) -> None:
        self._genl = Genl("ethtool", "5.6")
        self._napis = open_napis()

    def close(self) -> None:
        self._genl.close()
        if self._napis is not None:
            self._napis.close()

    # ---- reading -----------------------------------------------------------------------------

    def read(self, nic: str) -> dict[str, Any]:
        """Everything of an interface, in the form of `ethtool.json`; a section that the driver
        does not have is left out.  OSError(ENODEV): there is no such interface."""
        found: dict[str, Any] = {"driver": ethtool_ioctl.driver(nic)}
        for name, ask in self._readers(nic).items():
            try:
                value = ask()
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ENXIO):
                    raise
                continue
            if value not in ({}, None) or (name == "rules" and value == {}):
                found[name] = value  # no rules yet: the driver takes some
        return found

    def section_of(self, nic: str, name: str) -> Any:
        """One section of it; None: the driver does not have it.  OSError as `read`."""
        try:
            value = self._readers(nic)[name]()
            return value if name == "rules" else value or None
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO):
                raise
            return None

    def _readers(self, nic: str) -> dict[str, Callable[[], Any]]:
        return {
            **{name: partial(self._numbers, nic, name) for name in _SECTIONS},
            "features": partial(self.features, nic),
            "rss": partial(ethtool_ioctl.indirection, nic),
            "hash": partial(ethtool_ioctl.hash_fields, nic),
            "rules": partial(ethtool_ioctl.rules, nic),
            "napi": partial(self._napi, nic),
        }

    def _napi(self, nic: str) -> dict[str, int]:
        return self._napis.read(nic) if self._napis is not None else {}

    def _numbers(self, nic: str, section: str) -> dict[str, int]:
        command, _, kind, fields = _SECTIONS[section]
        reply = self._ask(kind, command, nic, [])
        values = {name: reply.get_attr(name) for name, _ in fields}
        return {name: int(value) for name, value in values.items() if value is not None}

    def features(self, nic: str) -> dict[str, dict[str, bool]]:
        """Name -> on, fixed (the driver lets nobody change it)."""
        reply = self._ask(_FEATURES, _FEATURES_GET, nic, [])
        sets = {name: _names(reply.get_attr(name)) for name, _ in _FEATURE_SETS}
        known = sets["hw"] | sets["active"] | sets["nochange"] | sets["wanted"]
        return {
            name: {
                "on": name in sets["active"],
                "fixed": name not in sets["hw"] or name in sets["nochange"],
            }
            for name in sorted(known)
        }

    # ---- setting -----------------------------------------------------------------------------

    def set(self, nic: str, section: str, name: str, value: str) -> None:
        """One value.  OSError with the kernel's reason; nothing changed then."""
        if section in _SECTIONS:
            _, command, kind, _ = _SECTIONS[section]
            self._ask(kind, command, nic, [(name, int(value))])
        elif section == "features":
            bit: list[tuple[str, Any]] = [("ETHTOOL_A_BITSET_BIT_NAME", name)]
            if value == "on":
                bit.append(("ETHTOOL_A_BITSET_BIT_VALUE", True))
            bits = {"attrs": [("ETHTOOL_A_BITSET_BITS_BIT", {"attrs": bit})]}
            wanted = {"attrs": [("ETHTOOL_A_BITSET_BITS", bits)]}
            self._ask(_FEATURES, _FEATURES_SET, nic, [("wanted", wanted)])
        elif section == "rss":
            ethtool_ioctl.set_indirection(nic, [int(queue) for queue in value.split()])
        elif section == "hash":
            ethtool_ioctl.set_hash_fields(nic, name, value)
        elif section == "rules":
            ethtool_ioctl.set_rule(nic, int(name), value)
        elif section == "napi" and self._napis is not None:
            self._napis.set(nic, name, int(value))
        else:
            raise OSError(errno.EOPNOTSUPP, f"no section {section}")

    def _ask(self, kind: Any, command: int, nic: str, attrs: list[tuple[str, Any]]) -> Any:
        message = kind()
        message["cmd"], message["version"] = command, 1
        header = {"attrs": [("ETHTOOL_A_HEADER_DEV_NAME", nic)]}
        message["attrs"] = [("header", header), *attrs]
        answers = self._genl.ask(message, kind)
        return answers[0] if answers else None


def _names(bitset: Any) -> set[str]:
    """The names of the bits that are set (in a list with a mask: that have a value)."""
    if bitset is None:
        return set()
    no_mask = bitset.get_attr("ETHTOOL_A_BITSET_NOMASK") is not None
    bits = bitset.get_attr("ETHTOOL_A_BITSET_BITS")
    found = set()
    for name, bit in bits["attrs"] if bits is not None else ():
        if name == "ETHTOOL_A_BITSET_BITS_BIT" and (
            no_mask or bit.get_attr("ETHTOOL_A_BITSET_BIT_VALUE") is not None
        ):
            found.add(str(bit.get_attr("ETHTOOL_A_BITSET_BIT_NAME")))
    return found
