"""IP addresses as 16 bytes: IPv6, or IPv4 mapped (::ffff:a.b.c.d), as C and BPF keep them."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address


@lru_cache(maxsize=65536)
def pack_ip(address: str) -> bytes:
    """16 bytes of an address (a scope is left out).  ValueError when it is none."""
    ip = ip_address(address.partition("%")[0])
    return ip.packed if ip.version == 6 else b"\0" * 10 + b"\xff\xff" + ip.packed


def unpack_ip(raw: bytes) -> str:
    """The reverse of pack_ip; a mapped address comes back as IPv4."""
    ip = IPv6Address(raw)
    return str(ip.ipv4_mapped or ip)
