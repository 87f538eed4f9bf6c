"""Packets of one interface into a pcap file.

    python -m forwarder.demo.browser.capture INTERFACE FILE

Run on a browser's host: XDP takes packets away before a tap on the node's side could see them.
Says {"event":"ready"} when it listens; ends at the end of its stdin with a summary.
"""

from __future__ import annotations

import heapq
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKETS_MAX = 2_000_000
SNAP = 65535
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _SO_RCVBUFFORCE = 263, 6, 33
# Nanosecond timestamps, Ethernet.
_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, SNAP, 1)
_RECORD = struct.Struct("<IIII")


def main(interface: str, file: str) -> None:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 * 1024 * 1024)
    tap.bind((interface, 0))
    tap.setblocking(False)
    packets, ending = 0, False
    with Path(file).open("wb") as out:
        out.write(_HEADER)
        print(json.dumps({"event": "ready"}), flush=True)
        while True:
            waiting = [tap] if ending else [tap, sys.stdin]
            readable, _, _ = select.select(waiting, [], [], 0 if ending else None)
            if sys.stdin in readable and not sys.stdin.readline():
                ending = True
            if tap in readable:
                frame = tap.recv(SNAP)
                if packets < PACKETS_MAX:
                    packets += 1
                    seconds, ns = divmod(time.time_ns(), 1_000_000_000)
                    out.write(_RECORD.pack(seconds, ns, len(frame), len(frame)) + frame)
            elif ending:
                break
    _, missed = struct.unpack("II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    print(json.dumps({"event": "summary", "packets": packets, "missed": missed}), flush=True)


def merge(files: Sequence[Path], into: Path) -> int:
    """Writes the packets of all files into one, in order of time; how many."""
    count = 0
    with into.open("wb") as out:
        out.write(_HEADER)
        for _, _, record in heapq.merge(*(_records(file) for file in files)):
            out.write(record)
            count += 1
    return count


def _records(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """(seconds, ns, record) of what `main` wrote; a record that was cut off ends it."""
    with file.open("rb") as packets:
        packets.read(len(_HEADER))
        while len(head := packets.read(_RECORD.size)) == _RECORD.size:
            seconds, ns, size, _ = _RECORD.unpack(head)
            data = packets.read(size)
            if len(data) < size:
                return
            yield seconds, ns, head + data


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
