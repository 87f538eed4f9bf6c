"""The two parts of the load that speak with the node: `publish` and `audience`.

`publish`: one participant with TRACKS streams of 1200-byte packets.  It joins and keeps the session
and the leg; its packets come from the performance rig's generator (perf/c/generator.c), which
sends through the very socket of the leg: Python could not fill half of a core.
`audience`: deaf receivers of all of them, and one participant that joins and leaves without end,
which keeps the supervisor busy.  The order comes as JSON in VCFWD_LOAD; stdin is the lead.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

from forwarder.client.bot import emit_json
from forwarder.client.control import ClientError
from forwarder.client.join import Client
from forwarder.client.publish import VIDEO_PT, LocalTrack
from forwarder.client.quic import SessionLost
from forwarder.client.subscribe import DecodeMode
from forwarder.errors import HostError
from forwarder.rtp.codecs import Codec
from forwarder.rtp.suites import Suite

TRACKS: Final = 8  # a stream faster than its history is shed, so the load is spread
RATE: Final = 8000  # packets a second, all streams together, at first
RATE_MAX: Final = 48_000  # what the histories of demo/load.py can hold of them
PACKET_BYTES: Final = 1200  # RTP header and payload, as it is before SRTP
TICK_US: Final = 1000  # packets leave in bursts: a wake-up for each would cost more than they do
END_S: Final = 5.0
JOIN_GAP_S: Final = 0.1
VIDEO_CLOCK_HZ: Final = 90_000


def _client(order: dict[str, Any], name: str) -> Client:
    return Client(
        order["url"],
        order["token"],
        cert_hash=order["cert_hash"],
        name=name,
        suites=(Suite.GCM,),
        decode=DecodeMode.NONE,
    )


class Lead:
    """Numbers on stdin, each the rate from then on, packets a second; its end ends all."""

    def __init__(self) -> None:
        self.news, self.end = asyncio.Event(), asyncio.Event()
        self.rate = 0
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)

    def _read(self) -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        for word in data.decode(errors="replace").split():
            if word.isdecimal():
                self.rate = min(max(int(word), 1), RATE_MAX)
                self.news.set()
        if not data:
            self.news.set()
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.end.set()


class Generator:
    """The rig's generator on a leg's socket; `run` starts it, or starts it anew at another rate."""

    def __init__(self, program: str, client: Client, first_ssrc: int) -> None:
        assert client.welcome is not None and client.welcome.media is not None
        media = client.welcome.media
        key = base64.b64decode(media.send_key)
        line = f"{key[: media.suite.key_size].hex()} {key[media.suite.key_size :].hex()}\n"
        # Sealing keys stay in memory: no file has them, and no command line.
        self._keys = os.memfd_create("vcfwd-load-keys")
        os.write(self._keys, line.encode() * TRACKS)
        self._socket = client.media.fileno()
        self._command = [
            program, "--fd", str(self._socket), "--flows", str(TRACKS), "--ssrc", str(first_ssrc),
            "--payload-type", str(VIDEO_PT), "--size", str(PACKET_BYTES), "--h264",
            "--tick-us", str(TICK_US), "--suite", "gcm", "--keys", f"/proc/self/fd/{self._keys}",
        ]  # fmt: skip
        self._index = 256  # a key frame
        self._child: asyncio.subprocess.Process | None = None
        self.sent = 0

    async def run(self, rate: int) -> None:
        """`rate`: packets a second of all streams together."""
        await self.stop()
        self._child = await asyncio.create_subprocess_exec(
            *self._command, "--rate", str(rate), "--index", str(self._index),
            pass_fds=(self._socket, self._keys), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def stop(self) -> None:
        """The next one goes on with its numbers.  HostError when it ended by itself."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)
        async with asyncio.timeout(END_S):
            out, _ = await child.communicate()
        if child.returncode:
            raise HostError(f"the generator ended with status {child.returncode}")
        said = json.loads(out)
        self._index = said["next_index"]
        self.sent += said["sent"]


async def publish(order: dict[str, Any], lead: Lead) -> dict[str, Any]:
    """Sends from the first rate to the end."""
    rng = random.Random(1)
    tracks = [
        LocalTrack(f"load{i}", Codec.H264, VIDEO_PT, VIDEO_CLOCK_HZ, rng) for i in range(TRACKS)
    ]
    for i, track in enumerate(tracks):
        track.ssrc = tracks[0].ssrc + i  # as the generator numbers them
    async with _client(order, "load-publisher") as client:
        await client.publish(tracks)
        await client.live.wait()
        emit_json({"event": "published"})
        generator = Generator(order["generator"], client, tracks[0].ssrc)
        while not lead.end.is_set():
            await lead.news.wait()
            lead.news.clear()
            if not lead.end.is_set():
                await generator.run(lead.rate)
                emit_json({"event": "sending", "rate": lead.rate})
        await generator.stop()
    return {"sent": generator.sent}


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
                async with asyncio.timeout(JOIN_GAP_S):
                    await lead.end.wait()
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
