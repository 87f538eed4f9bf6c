"""A viewer by session that is no browser: it asks for the low and the high layer in turn, and notes
what is sent to it.

    python seat_reports.py '{"address", "url", "cert_hash", "switches", "file"}'

with `tests` and `tests/contract` in PYTHONPATH, the token on stdin.  Says {"event": "done",
"layers": [lines of each that came], "unopened"} and writes to the file, as clock_kit.compare wants
them, {"packets": [[kind, SSRC, timestamp, mark, reports before]], "reports": [[SSRC, NTP s,
timestamp]]}, in order.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from bare_peer import OPUS, VP8
from clock_kit import mark
from layer_kit import CLOCK_AHEAD_S, Seat
from node_kit import until

from forwarder.client.rtp import RtpPacket

PACKETS = 30  # that a layer plays before the next is asked for
HEIGHTS = (180, 360)
KINDS = {VP8: "video", OPUS: "audio"}
START_CODE = b"\x9d\x01\x2a"


@dataclass
class Door:
    """What a Seat knows of its node."""

    address: str
    base: str
    cert_hash: str
    key: str

    def url(self) -> str:
        return self.base

    def token(self, name: str, role: Any) -> str:
        return self.key


def lines_of(packet: RtpPacket) -> int | None:
    """The height that a VP8 key frame tells (RFC 6386 section 9.1); None: it is none."""
    at = packet.payload.find(START_CODE, 3, 16)
    if at < 0 or packet.payload[at - 3] & 1 or not packet.payload[0] & 0x10:
        return None
    return int.from_bytes(packet.payload[at + 5 : at + 7], "little") & 0x3FFF


class Screen(Seat):
    """Knows the layer by its key frames' size."""

    def __init__(self, door: Door) -> None:
        super().__init__(door, "seat")  # type: ignore[arg-type]
        self.door = door
        self.layers: list[int] = []
        self.since = 0
        """Packets of the picture since the layer changed."""

    def accept(self, answer: str, location: str = "") -> None:
        super().accept(answer, location)
        at = re.escape(self.door.address)
        found = re.search(rf"^a=candidate:\S+ 1 udp \d+ {at} (\d+) typ host", answer, re.M | re.I)
        assert found, answer
        self.node = (self.door.address, int(found[1]))

    def take(self, data: bytes) -> None:
        before = len(self.packets)
        super().take(data)
        for packet in self.packets[before:]:
            if packet.pt != VP8:
                continue
            lines = lines_of(packet)
            if lines is not None and self.layers[-1:] != [lines]:
                self.layers.append(lines)
                self.since = 0
            self.since += 1

    async def shows(self, lines: int) -> None:
        await until(
            lambda: self.layers[-1:] == [lines] and self.since >= PACKETS,
            f"{lines} lines come (so far: {self.layers})",
        )


def write(file: str, seat: Screen) -> None:
    came = [report.packets for report in seat.reports]
    packets = [
        [KINDS[packet.pt], packet.ssrc, packet.timestamp, mark(packet.payload), before]
        for number, packet in enumerate(seat.packets)
        if packet.pt in KINDS and (before := bisect_right(came, number))
    ]
    # A Seat takes the sender's clock for a studio's.
    reports = [[r.ssrc, r.ntp_s + CLOCK_AHEAD_S, r.timestamp] for r in seat.reports]
    Path(file).write_text(json.dumps({"packets": packets, "reports": reports}))


async def main(order: dict[str, Any], token: str) -> None:
    async with Screen(Door(order["address"], order["url"], order["cert_hash"], token)) as seat:
        async with httpx.AsyncClient() as unused:
            await seat.connect(unused)
        await seat.shows(HEIGHTS[1])
        for turn in range(order["switches"]):
            await seat.wish(turn % 2)
            await seat.shows(HEIGHTS[turn % 2])
        await seat.leave()
        write(order["file"], seat)
        done = {"layers": seat.layers, "unopened": seat.unopened}
        print(json.dumps({"event": "done", **done}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), sys.stdin.readline().strip()))
