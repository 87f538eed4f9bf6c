"""A WHEP client that writes what it receives, as it came: aiortc on the host it is started on.

    python whep_record.py URL FILE SECONDS     the token on stdin; FILE.mkv

aiortc's depayloaders put the frames together and nothing decodes them: the bytes of VP8 and Opus
that crossed the node are those in the file.  Says {"event": "done", "audio": packets,
"video": packets, "frames": pictures written} at the end.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import threading
from fractions import Fraction
from typing import Any, NamedTuple

import av
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtcrtpreceiver

CONNECT_S = 20.0
PATIENCE = 32  # packets
CLOCK_HZ = {"VP8": 90_000, "opus": 48_000}
_JitterBuffer = rtcrtpreceiver.JitterBuffer


class Frame(NamedTuple):
    codec: str
    timestamp: int  # of its clock; the first of its kind is at 0
    data: bytes

    @property
    def when_s(self) -> float:
        return self.timestamp / CLOCK_HZ[self.codec]

    @property
    def key(self) -> bool:
        """RFC 6386 section 9.1; sound begins anywhere."""
        return self.codec == "opus" or not self.data[0] & 1


received: list[Frame] = []


def impatient(capacity: int, **options: Any) -> Any:
    """aiortc waits for what it missed before its first packet until 512 others came."""
    return _JitterBuffer(capacity=min(capacity, PATIENCE), **options)


def keep(
    loop: asyncio.AbstractEventLoop,
    coming: queue.Queue[Any],
    played: asyncio.Queue[Any],
    _: threading.Event,
) -> None:
    """Stands where aiortc's decoder would, in its thread."""
    while (task := coming.get()) is not None:
        codec, frame = task
        received.append(Frame(codec.name, frame.timestamp, bytes(frame.data)))
    asyncio.run_coroutine_threadsafe(played.put(None), loop)


def write(file: str, frames: list[Frame]) -> int:
    """Matroska, from the first key frame on; how many pictures."""
    pictures = [frame for frame in frames if frame.codec == "VP8"]
    while not pictures[0].key:
        del pictures[0]
    width, height = (
        int.from_bytes(pictures[0].data[at : at + 2], "little") & 0x3FFF for at in (6, 8)
    )
    sound = [frame for frame in frames if frame.codec == "opus"]
    with av.open(file, "w") as container:
        streams = {
            "VP8": container.add_mux_stream("vp8", width=width, height=height),
            "opus": container.add_mux_stream("opus", rate=CLOCK_HZ["opus"]),
        }
        for frame in sorted(pictures + sound, key=lambda frame: frame.when_s):
            packet = av.Packet(frame.data)
            packet.stream = streams[frame.codec]
            packet.time_base = Fraction(1, CLOCK_HZ[frame.codec])
            packet.pts = packet.dts = frame.timestamp
            packet.is_keyframe = frame.key
            container.mux(packet)
    return len(pictures)


async def main(url: str, file: str, seconds: float, token: str) -> None:
    rtcrtpreceiver.JitterBuffer = impatient
    rtcrtpreceiver.decoder_worker = keep
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind in ("audio", "video"):
        pc.addTransceiver(kind, direction="recvonly")
    await pc.setLocalDescription(await pc.createOffer())
    headers = {"authorization": f"Bearer {token}"}
    # The node's certificate is its own; what the media says is the test's matter.
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=CONNECT_S) as client:
        made = await client.post(
            url,
            content=pc.localDescription.sdp,
            headers=headers | {"content-type": "application/sdp"},
        )
        made.raise_for_status()
        await pc.setRemoteDescription(RTCSessionDescription(made.text, "answer"))
        await asyncio.sleep(seconds)  # a recording is as long as it is
        report = await pc.getStats()
        found = {
            entry.kind: entry.packetsReceived
            for entry in report.values()
            if entry.type == "inbound-rtp"
        }
        where = httpx.URL(url).join(made.headers["location"])
        (await client.delete(where, headers=headers)).raise_for_status()
    await pc.close()
    found["frames"] = write(file, received)
    print(json.dumps({"event": "done", **found}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.stdin.readline().strip()))
