"""The parts of ethtool that have no netlink form on older kernels: SIOCETHTOOL.

Driver, RSS indirection table, hash fields of UDP, ntuple rules that send a UDP port to a queue.
Layouts: include/uapi/linux/ethtool.h.  Reading needs no privileges, setting CAP_NET_ADMIN; errors
are OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_GDRVINFO, _GRXFH, _SRXFH, _GRXRINGS = 0x03, 0x29, 0x2A, 0x2D
_RULE_COUNT, _RULE_GET, _RULE_ALL, _RULE_DELETE, _RULE_INSERT = 0x2E, 0x2F, 0x30, 0x31, 0x32
_GRSSH, _SRSSH = 0x46, 0x47
_LOCATION_SPECIAL, _LOCATION_ANY = 0x80000000, 0xFFFFFFFF
RULES_MAX: Final = 4096
"""Rules of an interface that are looked at."""
_FLOWS: Final = {"udp4": 0x02, "udp6": 0x06}
_LETTERS: Final = {"m": 1 << 1, "v": 1 << 2, "t": 1 << 3, "s": 1 << 4, "d": 1 << 5,
                   "f": 1 << 6, "n": 1 << 7}  # fmt: skip
_NFC_SIZE, _SPEC, _COOKIE, _LOCATION, _COUNT, _LOCATIONS = 192, 16, 168, 176, 184, 188
_H_PORT, _M_PORT = _SPEC + 4 + 10, _SPEC + 76 + 10  # be16 pdst of ethtool_tcpip4_spec


def _call(nic: str, buffer: ctypes.Array[ctypes.c_char]) -> None:
    if len(nic.encode()) > 15:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    request = struct.pack("16sP16x", nic.encode(), ctypes.addressof(buffer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, request)


def _nfc(command: int, flow: int = 0, data: int = 0, extra: int = 0) -> ctypes.Array[ctypes.c_char]:
    buffer = ctypes.create_string_buffer(_NFC_SIZE + extra)
    struct.pack_into("=IIQ", buffer, 0, command, flow, data)
    return buffer


def driver(nic: str) -> dict[str, str]:
    """`driver` and `bus` (the PCI address); the firmware's version is left out: it is a trace."""
    buffer = ctypes.create_string_buffer(196)
    struct.pack_into("=I", buffer, 0, _GDRVINFO)
    try:
        _call(nic, buffer)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return {"driver": ""}
    name, _, _, bus = struct.unpack_from("=32s32s32s32s", buffer, 4)
    return {"driver": name.split(b"\0")[0].decode(), "bus": bus.split(b"\0")[0].decode()}


def indirection(nic: str) -> dict[str, list[int]]:
    """`table`: for each hash bucket its queue."""
    sizes = ctypes.create_string_buffer(24)
    struct.pack_into("=I", sizes, 0, _GRSSH)
    _call(nic, sizes)
    count, key = struct.unpack_from("=II", sizes, 8)
    if not 0 < count <= 1 << 16:
        return {}
    buffer = ctypes.create_string_buffer(24 + 4 * count + key)
    struct.pack_into("=IIII", buffer, 0, _GRSSH, 0, count, key)
    _call(nic, buffer)
    return {"table": list(struct.unpack_from(f"={count}I", buffer, 24))}


def set_indirection(nic: str, table: list[int]) -> None:
    buffer = ctypes.create_string_buffer(24 + 4 * len(table))
    struct.pack_into("=IIII", buffer, 0, _SRSSH, 0, len(table), 0)
    struct.pack_into("=B", buffer, 16, 0)  # the hash function stays
    struct.pack_into(f"={len(table)}I", buffer, 24, *table)
    _call(nic, buffer)


def hash_fields(nic: str) -> dict[str, str]:
    """udp4, udp6 -> letters as `ethtool -N X rx-flow-hash` takes them (sdfn: with the ports)."""
    found = {}
    for name, flow in _FLOWS.items():
        buffer = _nfc(_GRXFH, flow)
        _call(nic, buffer)
        (bits,) = struct.unpack_from("=Q", buffer, 8)
        letters = "".join(letter for letter, bit in _LETTERS.items() if bits & bit)
        if letters:  # virtio_net without RSS answers, with nothing
            found[name] = letters
    return found


def set_hash_fields(nic: str, name: str, letters: str) -> None:
    bits = sum(_LETTERS[letter] for letter in letters)
    _call(nic, _nfc(_SRXFH, _FLOWS[name], bits))


def rules(nic: str) -> dict[str, str]:
    """UDP destination port -> queue, of the ntuple rules that ask for nothing but the port."""
    return {str(port): str(queue) for _, port, queue in _rules(nic)}


def _rules(nic: str) -> list[tuple[int, int, int]]:
    counted = _nfc(_RULE_COUNT)
    _call(nic, counted)
    (count,) = struct.unpack_from("=I", counted, _COUNT)
    if not count:
        return []
    count = min(count, RULES_MAX)
    every = _nfc(_RULE_ALL, extra=4 * count)
    struct.pack_into("=I", every, _COUNT, count)
    _call(nic, every)
    found = []
    for location in struct.unpack_from(f"={count}I", every, _LOCATIONS):
        one = _nfc(_RULE_GET)
        struct.pack_into("=I", one, _LOCATION, location)
        _call(nic, one)
        (flow,) = struct.unpack_from("=I", one, _SPEC)
        (port,), (mask,) = (struct.unpack_from(">H", one, at) for at in (_H_PORT, _M_PORT))
        (queue,) = struct.unpack_from("=Q", one, _COOKIE)
        if flow == _FLOWS["udp4"] and mask == 0xFFFF:
            found.append((location, port, queue))
    return found


def set_rule(nic: str, port: int, queue: str) -> None:
    """A rule for the port (its queue), or none for it any more (`none`)."""
    for location, there, _ in _rules(nic):
        if there == port:
            gone = _nfc(_RULE_DELETE)
            struct.pack_into("=I", gone, _LOCATION, location)
            _call(nic, gone)
    if queue == "none":
        return
    counted = _nfc(_RULE_COUNT)
    _call(nic, counted)
    (data,) = struct.unpack_from("=Q", counted, 8)
    taken = {location for location, _, _ in _rules(nic)}
    size = data & ~_LOCATION_SPECIAL or 1
    place = next((at for at in range(size - 1, -1, -1) if at not in taken), 0)
    rule = _nfc(_RULE_INSERT)
    struct.pack_into("=I", rule, _SPEC, _FLOWS["udp4"])
    struct.pack_into(">H", rule, _H_PORT, port)
    struct.pack_into(">H", rule, _M_PORT, 0xFFFF)
    struct.pack_into("=Q", rule, _COOKIE, int(queue))
    special = data & _LOCATION_SPECIAL
    struct.pack_into("=I", rule, _LOCATION, _LOCATION_ANY if special else place)
    _call(nic, rule)
