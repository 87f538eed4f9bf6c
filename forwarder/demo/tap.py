"""A tap on an interface: whether an SRTP or SRTCP index ever leaves twice with other bytes.

    python -m forwarder.demo.tap INTERFACE PORT gcm|sha1

Run on the receiving host.  It watches UDP that comes from PORT, names each packet by destination
port, SSRC and index, and keeps a hash of its bytes.  Says {"event":"ready"} when it listens; at
the end of its stdin it prints its findings and ends.  For GCM a repeated index is fatal, so the
wire decides here, not anybody's counters.
"""

from __future__ import annotations

import hashlib
import json
import select
import socket
import struct
import sys
from dataclasses import dataclass, field

from forwarder.client.rtp import extend

PACKETS_MAX = 4_000_000  # packets remembered
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_OUTGOING = 263, 6, 4


def udp_of(frame: bytes) -> tuple[int, int, bytes] | None:
    """(source port, destination port, payload) of an Ethernet frame, or None."""
    if len(frame) < 14:
        return None
    kind, at = int.from_bytes(frame[12:14], "big"), 14
    if kind == 0x0800 and len(frame) >= at + 20 and frame[at + 9] == 17:
        at += 4 * (frame[at] & 0x0F)
    elif kind == 0x86DD and len(frame) >= at + 40 and frame[at + 6] == 17:
        at += 40
    else:
        return None
    if len(frame) < at + 8:
        return None
    source, destination, size, _ = struct.unpack_from("!HHHH", frame, at)
    return source, destination, frame[at + 8 : at + size]


@dataclass
class Indices:
    """Every packet seen, by its index; `reused` are those seen with two contents."""

    srtcp_tail: int  # bytes after the SRTCP index
    packets: int = 0
    repeated: int = 0  # byte-identical: a resend is allowed
    reused: int = 0
    full: bool = False
    _seen: dict[tuple[int, int, int, int], bytes] = field(default_factory=dict)
    _highest: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, port: int, packet: bytes) -> None:
        if len(packet) < 12 or packet[0] >> 6 != 2:
            return
        rtcp = 192 <= packet[1] <= 223
        if rtcp:
            ssrc = int.from_bytes(packet[4:8], "big")
            end = len(packet) - self.srtcp_tail
            index = int.from_bytes(packet[end - 4 : end], "big") & 0x7FFFFFFF
        else:
            ssrc = int.from_bytes(packet[8:12], "big")
            stream = (port, ssrc)
            index = extend(int.from_bytes(packet[2:4], "big"), self._highest.get(stream))
            self._highest[stream] = max(index, self._highest.get(stream, 0))
        self._count((port, ssrc, int(rtcp), index), hashlib.blake2b(packet, digest_size=8).digest())

    def _count(self, key: tuple[int, int, int, int], content: bytes) -> None:
        self.packets += 1
        known = self._seen.get(key)
        if known is None:
            if len(self._seen) < PACKETS_MAX:
                self._seen[key] = content
            else:
                self.full = True
        elif known == content:
            self.repeated += 1
        else:
            self.reused += 1


def main(interface: str, port: int, suite: str) -> None:
    indices = Indices(srtcp_tail=10 if suite == "sha1" else 0)
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    tap.setsockopt(socket.SOL_SOCKET, 33, 32 * 1024 * 1024)  # SO_RCVBUFFORCE
    tap.bind((interface, 0))
    tap.setblocking(False)
    print(json.dumps({"event": "ready"}), flush=True)
    ending = False
    while True:
        readable, _, _ = select.select(
            [tap] if ending else [tap, sys.stdin], [], [], 0 if ending else None
        )
        if sys.stdin in readable and not sys.stdin.readline():
            ending = True
        if tap in readable:
            frame, address = tap.recvfrom(65536)
            if address[2] == _PACKET_OUTGOING:
                continue
            udp = udp_of(frame)
            if udp is not None and udp[0] == port and udp[2] and 128 <= udp[2][0] <= 191:
                indices.add(udp[1], udp[2])
        elif ending:
            break
    _, missed = struct.unpack("II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    print(
        json.dumps(
            {
                "event": "summary",
                "packets": indices.packets,
                "repeated": indices.repeated,
                "index_reuse": indices.reused,
                "missed": missed,
                "full": indices.full,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
