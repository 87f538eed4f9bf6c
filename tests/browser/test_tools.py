"""Tools that are no browsers: GStreamer publishes, aiortc views and writes, FFmpeg reads."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import av
import numpy as np
import pytest
from browser_kit import marks
from scene_kit import scene

from forwarder.demo.children import Child
from forwarder.demo.node import ROOM
from forwarder.rooms.roles import Role

# Debian's whip-client cannot run: it is linked with libsoup 2, its libnice with libsoup 3.
SYSTEM_PYTHON = "/usr/bin/python3"
HERE = Path(__file__).parent
has_gstreamer = not subprocess.run(
    [SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstWebRTC', '1.0')"],
    capture_output=True,
    check=False,
).returncode
pytestmark = [
    *marks,
    pytest.mark.skipif(
        not has_gstreamer, reason="GStreamer is not there: run 'make browser-debs' as root once"
    ),
]
SECONDS = 6


async def test_gstreamer_publishes_and_ffmpeg_reads_what_a_viewer_wrote(tmp_path: Path) -> None:
    file = tmp_path / "seen.mkv"
    async with scene(tmp_path, participants=0, browsers=()) as call, AsyncExitStack() as made:
        node = call.node
        there, here = call.lab.fwd_addresses
        publish = [SYSTEM_PYTHON, str(HERE / "gst_publish.py"), f"{node.url(there)}/whip/{ROOM}"]
        publisher = await Child.start("GStreamer", call.lab.pub, publish, tmp_path / "whip.log")
        made.push_async_callback(publisher.end)
        publisher.tell(node.token("gstreamer", Role.ACTIVE))

        async def tracks() -> bool:
            assert not publisher.ended, publisher.tail()
            room = await node.request("GET", f"/v1/rooms/{ROOM}")
            return len(room["tracks"]) == 2

        await call.until("GStreamer's tracks are in the room", tracks, 20)
        tool = str(HERE / "whep_record.py")
        command = [sys.executable, tool, f"{node.url(here)}/whep/{ROOM}", str(file), str(SECONDS)]
        viewer = await Child.start("recorder", call.lab.sub, command, tmp_path / "whep.log")
        made.push_async_callback(viewer.end)
        viewer.tell(node.token("recorder", Role.PASSIVE))
        done = await viewer.wait_for("done", SECONDS + 30)
        assert done["audio"] > 50 * SECONDS / 2
        assert done["video"] > 15 * SECONDS / 2
    with av.open(str(file)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) > 15 * SECONDS / 3
    red, green, blue = np.stack(pictures).mean(axis=(0, 1, 2))
    assert red > 180
    assert max(green, blue) < 60
    with av.open(str(file)) as container:
        sound = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert np.abs(sound.astype(float)).max() > 0.01
