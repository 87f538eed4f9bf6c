"""Frames for the steering tests, built one header at a time. Checksums are right."""

from __future__ import annotations

import ipaddress
import struct

ETH_IPV4, ETH_IPV6, ETH_ARP, ETH_VLAN, ETH_QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
UDP, TCP = 17, 6
IPV6_EXTENSIONS = (0, 43, 44, 50, 51, 60, 135, 139, 140)

DST_MAC, SRC_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def eth(proto: int, body: bytes, vlans: tuple[int, ...] = ()) -> bytes:
    """`vlans`: tag protocols, outermost first."""
    head = DST_MAC + SRC_MAC
    for number, tag in enumerate(vlans):
        head += struct.pack("!HH", tag, 100 + number)
    return head + struct.pack("!H", proto) + body


def ipv4(
    src: str, dst: str, body: bytes, *, proto: int = UDP, options: bytes = b"", fragment: int = 0
) -> bytes:
    """`fragment`: the flags and offset word (0x4000: do not fragment)."""
    size = 20 + len(options)
    addresses = ipaddress.IPv4Address(src).packed + ipaddress.IPv4Address(dst).packed
    fields = (0x40 | size // 4, 0, size + len(body), 1, fragment, 64, proto)
    head = struct.pack("!BBHHHBB", *fields)
    total = checksum(head + b"\0\0" + addresses + options)
    return head + struct.pack("!H", total) + addresses + options + body


def ipv6(src: str, dst: str, body: bytes, *, proto: int = UDP) -> bytes:
    """No extension headers, unless `proto` and `body` say so."""
    addresses = ipaddress.IPv6Address(src).packed + ipaddress.IPv6Address(dst).packed
    return struct.pack("!IHBB", 6 << 28, len(body), proto, 64) + addresses + body


def udp(src: str, dst: str, sport: int, dport: int, payload: bytes) -> bytes:
    """With its checksum over the pseudo header."""
    size = 8 + len(payload)
    source, target = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    pseudo = source.packed + target.packed + struct.pack("!II", size, UDP)
    head = struct.pack("!HHH", sport, dport, size)
    total = checksum(pseudo + head + b"\0\0" + payload) or 0xFFFF
    return head + struct.pack("!H", total) + payload


def frame(
    src: str,
    dst: str,
    sport: int,
    dport: int,
    payload: bytes,
    vlans: tuple[int, ...] = (),
) -> bytes:
    """A whole frame of the family of its addresses."""
    datagram = udp(src, dst, sport, dport, payload)
    if ipaddress.ip_address(src).version == 4:
        return eth(ETH_IPV4, ipv4(src, dst, datagram), vlans)
    return eth(ETH_IPV6, ipv6(src, dst, datagram), vlans)
