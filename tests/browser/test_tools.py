"""Tools that are no browsers: GStreamer publishes, aiortc views and writes, FFmpeg reads."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import av
import numpy as np
import pytest
from browser_kit import marks
from scene_kit import Scene, scene

from forwarder.demo.children import Child
from forwarder.demo.node import ROOM
from forwarder.rooms.roles import Role

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
WHIP_CLIENT = shutil.which("whip-client")
SECONDS = 6
LEAVE_S = 10  # consent would end it too, after 30
PICTURE = (
    "videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=180,framerate=15/1"
    " ! videoconvert ! vp8enc deadline=1 keyframe-max-dist=30 ! rtpvp8pay pt=96"
    " ! application/x-rtp,media=video,encoding-name=VP8,payload=96 ! queue"
)
SOUND = (
    "audiotestsrc is-live=true wave=sine ! audioconvert ! audioresample ! opusenc"
    " ! rtpopuspay pt=97 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! queue"
)


async def tracks(call: Scene) -> int:
    room = await call.node.request("GET", f"/v1/rooms/{ROOM}")
    return len(room["tracks"])


async def record(call: Scene, publisher: Child, folder: Path) -> tuple[Path, int]:
    """What a viewer wrote of both tracks, once the publisher has them in the room, and how many
    pictures: as they came, so FFmpeg reads the bytes that crossed the node."""

    async def met() -> bool:
        assert not publisher.ended, publisher.tail()
        return await tracks(call) == 2

    await call.until(f"{publisher.name}'s tracks are in the room", met, 20)
    file, tool = folder / "seen.mkv", str(HERE / "whep_record.py")
    url = f"{call.node.url(call.lab.fwd_addresses[1])}/whep/{ROOM}"
    command = [sys.executable, tool, url, str(file), str(SECONDS)]
    viewer = await Child.start("recorder", call.lab.sub, command, folder / "whep.log")
    try:
        viewer.tell(call.node.token("recorder", Role.PASSIVE))
        done = await viewer.wait_for("done", SECONDS + 30)
    finally:
        await viewer.end()
    assert done["audio"] > 50 * SECONDS / 2
    assert done["video"] > 15 * SECONDS / 2
    return file, int(done["frames"])


def assert_red_and_sounding(file: Path, frames: int) -> None:
    """FFmpeg decodes each picture and the sound."""
    with av.open(str(file)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == frames > 15 * SECONDS / 3
    red, green, blue = np.stack(pictures).mean(axis=(0, 1, 2))
    assert red > 180
    assert max(green, blue) < 60
    with av.open(str(file)) as container:
        sound = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert np.abs(sound.astype(float)).max() > 0.01


async def test_gstreamer_publishes_and_ffmpeg_reads_what_a_viewer_wrote(tmp_path: Path) -> None:
    async with scene(tmp_path, participants=0, browsers=()) as call, AsyncExitStack() as made:
        url = f"{call.node.url(call.lab.fwd_addresses[0])}/whip/{ROOM}"
        command = [SYSTEM_PYTHON, str(HERE / "gst_publish.py"), url, PICTURE, SOUND]
        publisher = await Child.start("GStreamer", call.lab.pub, command, tmp_path / "whip.log")
        made.push_async_callback(publisher.end)
        publisher.tell(call.node.token("gstreamer", Role.ACTIVE))
        seen = await record(call, publisher, tmp_path)
    assert_red_and_sounding(*seen)


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    """A folder with what Debian's whip-client needs another one of: no_upnp.c tells why."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    library = str(folder / "libgupnp-igd-1.0.so.4")
    build = ["gcc", "-shared", "-fPIC", "-o", library, str(HERE / "no_upnp.c")]
    subprocess.run(build, check=True, timeout=30)
    return folder


@pytest.mark.skipif(
    WHIP_CLIENT is None,
    reason="simple-whip-client is not there: run 'make browser-debs' as root once",
)
async def test_simple_whip_client_publishes_is_seen_and_leaves(
    tmp_path: Path, libraries: Path
) -> None:
    async with scene(tmp_path, participants=0, browsers=()) as call, AsyncExitStack() as made:
        url = f"{call.node.url(call.lab.fwd_addresses[0])}/whip/{ROOM}"
        token = call.node.token("whip-client", Role.ACTIVE)
        options = ["--url", url, "--token", token, "--video", PICTURE, "--audio", SOUND]
        talk = ["--disable-colors", "--log-level", "5"]
        command = ["/bin/sh", "-c", 'exec "$@" >&2', "sh", str(WHIP_CLIENT), *talk, *options]
        said, env = tmp_path / "whip.log", {"LD_LIBRARY_PATH": str(libraries)}
        publisher = await Child.start("whip-client", call.lab.pub, command, said, env)
        made.push_async_callback(publisher.end)
        seen = await record(call, publisher, tmp_path)
        publisher.signal(signal.SIGTERM)  # it deletes its session
        assert await publisher.wait(LEAVE_S) == 0, publisher.tail()

        async def left() -> bool:
            return await tracks(call) == 0

        await call.until("whip-client has left", left, LEAVE_S)
    lines = said.read_text().splitlines()
    assert "[WHIP] Sending candidates: end-of-candidates" in lines
    # It warns of each answer to POST, PATCH and DELETE that it does not like.
    assert not [line for line in lines if line.startswith(("[ERR]", "[WARN]"))]
    assert_red_and_sounding(*seen)
