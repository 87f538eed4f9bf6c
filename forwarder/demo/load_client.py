"""The two parts of the load that speak with the node: `publish` and `audience`.

`publish`: one participant with TRACKS streams of 1200-byte packets, in bursts of a millisecond.
`audience`: deaf receivers of all of them, and one participant that joins and leaves without end,
which keeps the supervisor busy.  The order comes as JSON in VCFWD_LOAD; stdin is the lead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Final

from forwarder.client.bot import emit_json
from forwarder.client.control import ClientError
from forwarder.client.join import Client
from forwarder.client.publish import VIDEO_PT, LocalTrack
from forwarder.client.quic import SessionLost
from forwarder.client.rtp import HEADER_SIZE
from forwarder.client.subscribe import DecodeMode
from forwarder.rtp.codecs import Codec
from forwarder.rtp.suites import Suite

TRACKS: Final = 8  # a stream faster than its history is shed, so the load is spread
BURST: Final = 1  # packets of each stream every TICK_S at first: 8,000 packets a second in all
BURST_MAX: Final = 4  # about what a Python process can seal
TICK_S: Final = 0.001
PACKET_BYTES: Final = 1200  # RTP header and payload, as it is before SRTP
FLOWING_PACKETS: Final = 500
JOIN_GAP_S: Final = 0.1
VIDEO_CLOCK_HZ: Final = 90_000
IDR: Final = b"\x65\x88"  # NAL type 5, first_mb_in_slice 0: a picture starts (H.264 7.3.2.8)
INTER: Final = b"\x41\x9a"


def _client(order: dict[str, Any], name: str) -> Client:
    return Client(
        order["url"],
        order["token"],
        cert_hash=order["cert_hash"],
        name=name,
        suites=(Suite.GCM,),
        decode=DecodeMode.NONE,
    )


def _payload(start: bytes) -> bytes:
    return start.ljust(PACKET_BYTES - HEADER_SIZE, b"\xa5")


class Lead:
    """Words on stdin: `start`, and numbers, which are the burst from then on; its end ends all."""

    def __init__(self) -> None:
        self.start, self.end = asyncio.Event(), asyncio.Event()
        self.burst = BURST
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)

    def _read(self) -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        for word in data.decode(errors="replace").split():
            if word.isdecimal():
                self.burst = min(max(int(word), 1), BURST_MAX)
            elif word == "start":
                self.start.set()
        if not data:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.end.set()


async def publish(order: dict[str, Any], lead: Lead) -> dict[str, Any]:
    """Sends from `start` to the end."""
    rng = random.Random(1)
    tracks = [
        LocalTrack(f"load{i}", Codec.H264, VIDEO_PT, VIDEO_CLOCK_HZ, rng) for i in range(TRACKS)
    ]
    sent, told = 0, False
    async with _client(order, "load-publisher") as client:
        await client.publish(tracks)
        await client.live.wait()
        emit_json({"event": "published"})
        await lead.start.wait()
        start = time.monotonic()
        due = start
        while not lead.end.is_set():
            t = time.monotonic() - start
            for track in tracks:
                head = INTER
                if track.keyframe_wanted.is_set() or sent == 0:
                    track.keyframe_wanted.clear()
                    head = IDR
                payload = _payload(head)
                for _ in range(lead.burst):  # each a picture of one packet: no gaps within
                    await track.send(client.media, [payload], t, None)
            sent += lead.burst * TRACKS
            if not told and sent >= FLOWING_PACKETS:
                told = True
                emit_json({"event": "flowing"})
            due = max(due + TICK_S, time.monotonic() - TICK_S)  # never catches up by a burst
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    return {"sent": sent}


async def audience(order: dict[str, Any], lead: Lead) -> dict[str, Any]:
    """Receives with closed ears, and joins again and again."""
    joins, refused = 0, 0
    async with AsyncExitStack() as made:
        for index in range(order["receivers"]):
            client = await made.enter_async_context(_client(order, f"load-receiver-{index}"))
            await client.subscribe(auto=True)
            await client.live.wait()
            client.media.stop_reading()
        emit_json({"event": "live"})
        while not lead.end.is_set():
            try:
                async with _client(order, "load-joiner"):
                    joins += 1
            except (ClientError, SessionLost, TimeoutError):
                refused += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lead.end.wait(), JOIN_GAP_S)
    return {"joins": joins, "joins_refused": refused}


async def _run(order: dict[str, Any]) -> None:
    lead = Lead()
    part = publish if order["part"] == "publish" else audience
    emit_json({"event": "summary"} | await part(order, lead))


def main() -> int:
    """One part, as the order says."""
    asyncio.run(_run(json.loads(os.environ["VCFWD_LOAD"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
