"""Ethernet, VLAN, IP and UDP headers of a leg, as bytes.  Pure.

Lengths and checksums are left 0: the worker completes them for each packet (src/net.h), and
writes the DSCP.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

_ETH_IPV4, _ETH_IPV6, _ETH_VLAN = 0x0800, 0x86DD, 0x8100
_UDP = 17
TTL = 64


def build_header(
    source_mac: bytes,
    target_mac: bytes,
    vlan: int | None,
    local: tuple[str, int],
    remote: tuple[str, int],
) -> tuple[int, bytes]:
    """(bytes before the IP header, header); `local` and `remote` are (address, port)."""
    source, target = ip_address(local[0]), ip_address(remote[0])
    ether = target_mac + source_mac
    if vlan is not None:
        ether += struct.pack("!HH", _ETH_VLAN, vlan & 0x0FFF)
    ether += struct.pack("!H", _ETH_IPV4 if source.version == 4 else _ETH_IPV6)
    if source.version == 4:  # RFC 791; don't fragment
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0x4000, TTL, _UDP, 0)
    else:  # RFC 8200
        ip = struct.pack("!IHBB", 6 << 28, 0, _UDP, TTL)
    ip += source.packed + target.packed
    return len(ether), ether + ip + struct.pack("!HHHH", local[1], remote[1], 0, 0)
