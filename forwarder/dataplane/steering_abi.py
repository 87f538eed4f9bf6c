"""Keys and values of the steering maps as Python values (ebpf/abi.h; test_abi holds the sizes).

Addresses are 16 bytes (IPv4 mapped), ports in network byte order, all else in host order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields

from forwarder.dataplane.addresses import pack_ip, unpack_ip
from forwarder.table import Tuple5

ABI_VERSION = 1
FLOWS_MAX = 262144
LISTEN_MAX = 256
PORTS_MAX = 256
XSKS_MAX = 1024
GROUP_MAX = 17

FLOW_KEY = struct.Struct("=16s16s2s2s")
FLOW_HEAD = struct.Struct("=IIQII")  # leg, worker, bytes_per_s, packets_per_s, pad
BUCKET_BYTES = 24
FLOW_BYTES = FLOW_HEAD.size + 4 * BUCKET_BYTES
GUARD_BYTES = 2 * BUCKET_BYTES
LISTEN_KEY = struct.Struct("=16s2sH")
META = struct.Struct("=II32s")
U32 = struct.Struct("=I")


def _pack_port(port: int) -> bytes:
    return port.to_bytes(2, "big")


def pack_flow_key(flow: Tuple5) -> bytes:
    """struct vc_flow_key."""
    return FLOW_KEY.pack(
        pack_ip(flow.remote_ip),
        pack_ip(flow.local_ip),
        _pack_port(flow.remote_port),
        _pack_port(flow.local_port),
    )


def unpack_flow_key(raw: bytes) -> Tuple5:
    """The reverse of pack_flow_key."""
    remote, local, remote_port, local_port = FLOW_KEY.unpack(raw)
    return Tuple5(
        unpack_ip(remote),
        int.from_bytes(remote_port, "big"),
        unpack_ip(local),
        int.from_bytes(local_port, "big"),
    )


def pack_listen(ip: str, port: int) -> bytes:
    """struct vc_listen_key."""
    return LISTEN_KEY.pack(pack_ip(ip), _pack_port(port), 0)


@dataclass(frozen=True, slots=True)
class Flow:
    """What user space sets of a flow; a rate of 0 takes the program's default."""

    leg: int
    worker: int
    bytes_per_s: int = 0
    packets_per_s: int = 0

    def pack_head(self) -> bytes:
        """The part of struct vc_flow before its buckets."""
        return FLOW_HEAD.pack(self.leg, self.worker, self.bytes_per_s, self.packets_per_s, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> Flow:
        """From struct vc_flow."""
        leg, worker, bytes_per_s, packets_per_s, _ = FLOW_HEAD.unpack_from(raw)
        return cls(leg, worker, bytes_per_s, packets_per_s)


# Depths are kept in 1/1000 packet in 32 bits, and the socket path doubles them (guard.h).
BURST_PACKETS_MAX = 2_000_000
FLOW_BURST_BYTES_MIN = 262_144


@dataclass(frozen=True, slots=True)
class Rates:
    """Load-time limits of the guard (ebpf/guard.h `vc_<name>`): per second, and depths.

    flow: media of one known flow. control: everything else of a known flow. admitted: a 5-tuple
    that the supervisor vouches for. prefix: anybody else, for each /24 or /56 and class.
    """

    flow_bytes_per_s: int = 12_500_000
    flow_burst_bytes: int = 524_288
    flow_packets_per_s: int = 20_000
    flow_burst_packets: int = 8_192
    control_packets_per_s: int = 2_000
    control_burst_packets: int = 4_000
    admitted_packets_per_s: int = 2_000
    admitted_burst_packets: int = 4_000
    prefix_packets_per_s: int = 2_000
    prefix_burst_packets: int = 4_000

    def __post_init__(self) -> None:
        for name, value in self.globals().items():
            if name.endswith("_burst_packets") and not 1 <= value <= BURST_PACKETS_MAX:
                raise ValueError(f"{name}={value}: must be 1 to {BURST_PACKETS_MAX}")
            if not 1 <= value <= 1 << 40 or (name.endswith("packets_per_s") and value >= 1 << 32):
                raise ValueError(f"{name}={value}: out of range")
        if self.flow_burst_bytes < FLOW_BURST_BYTES_MIN:
            raise ValueError(
                f"flow_burst_bytes={self.flow_burst_bytes}: a key frame needs "
                f"{FLOW_BURST_BYTES_MIN} or more"
            )

    def globals(self) -> dict[str, int]:
        """Name of the program's global -> value."""
        return {f"vc_{field.name}": getattr(self, field.name) for field in fields(self)}
