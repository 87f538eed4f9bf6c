"""A WHEP client that writes what it receives: aiortc on the host it is started on.

    python whep_record.py URL FILE SECONDS     the token on stdin; FILE.webm or FILE.mkv

Says {"event": "done", "audio": packets, "video": packets} at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import av
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtcrtpreceiver
from aiortc.mediastreams import MediaStreamError

CONNECT_S = 20.0
PATIENCE = 32  # packets
_JitterBuffer = rtcrtpreceiver.JitterBuffer


def impatient(capacity: int, **options: Any) -> Any:
    """aiortc waits for what it missed before its first packet until 512 others came."""
    return _JitterBuffer(capacity=min(capacity, PATIENCE), **options)


async def take(track: Any, into: list[Any]) -> None:
    with contextlib.suppress(MediaStreamError):
        while True:
            into.append(await track.recv())


def write(file: str, frames: dict[str, list[Any]]) -> None:
    """Matroska with VP8 and Opus."""
    with av.open(file, "w") as container:
        picture = container.add_stream("libvpx", rate=15)
        first = frames["video"][0]
        picture.width, picture.height, picture.pix_fmt = first.width, first.height, "yuv420p"
        sound = container.add_stream("libopus", rate=48000)
        for stream, kind in ((picture, "video"), (sound, "audio")):
            for frame in [*frames[kind], None]:
                container.mux(stream.encode(frame))


async def main(url: str, file: str, seconds: float, token: str) -> None:
    rtcrtpreceiver.JitterBuffer = impatient
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    frames: dict[str, list[Any]] = {"audio": [], "video": []}
    tasks = []
    pc.on("track", lambda track: tasks.append(asyncio.create_task(take(track, frames[track.kind]))))
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
    await asyncio.gather(*tasks)
    write(file, frames)
    print(json.dumps({"event": "done", **found}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.stdin.readline().strip()))
