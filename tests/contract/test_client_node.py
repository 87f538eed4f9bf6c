"""The Python client against a real node on loopback: both processes, the socket path, no root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("av", reason="PyAV (extra `client`) is not installed")
pytest.importorskip("pylibsrtp", reason="pylibsrtp (extra `client`) is not installed")

from forwarder.client import Client, ClientError, RemoteTrack, rtp
from forwarder.client.publish import LocalTrack
from forwarder.client.quic import SessionRefused
from forwarder.client.subscribe import DecodeMode
from forwarder.demo.namespaces import Host
from forwarder.demo.node import Node
from forwarder.errors import ErrorCode
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec
from forwarder.rtp.suites import Suite
from forwarder.signaling.messages import MediaOffer

PATIENCE_S = 20.0
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        not (Path(__file__).parents[2] / "build" / "vcfwd-dataplane").exists(),
        reason="build/vcfwd-dataplane is not built",
    ),
]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    base = tmp_path_factory.mktemp("node")
    found = Node(Host("", "127.0.0.1"), base, ["127.0.0.1"], [], "udp", 1, free_port())
    found.prepare()
    try:
        await found.start()
        await found.create_room(active=20)
        yield found
        assert await found.stop() == 0
    finally:
        await found.clean_up()


def client(node: Node, name: str, role: Role = Role.ACTIVE, **options: Any) -> Client:
    return Client(
        node.url("127.0.0.1"), node.token(name, role), cert_hash=node.cert_hash, **options
    )


async def until(condition: Any) -> None:
    """Polls, because media counters have no event; bounded."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def opus_track(label: str = "tone") -> LocalTrack:
    return LocalTrack(label, Codec.OPUS, 111, 48_000, random.Random())


@contextlib.asynccontextmanager
async def pair(node: Node, **options: Any) -> AsyncIterator[tuple[Client, LocalTrack, Client]]:
    """A publisher of one sound track and a subscriber of it, both live."""
    async with (
        client(node, "publisher") as here,
        client(node, "subscriber", Role.PASSIVE, decode=DecodeMode.NONE, **options) as there,
    ):
        track = opus_track()
        await here.publish([track])
        await there.subscribe([track.track_id])
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(here.live.wait(), there.live.wait())
        yield here, track, there


def leg_of(one: Client) -> MediaOffer:
    assert one.welcome is not None and one.welcome.media is not None
    return one.welcome.media


@pytest.mark.parametrize("suite", list(Suite))
async def test_packets_arrive_as_they_were_sent(node: Node, suite: Suite) -> None:
    got: list[bytes] = []

    def on_packet(track: RemoteTrack, packet: rtp.RtpPacket, arrival_ns: int) -> None:
        got.append(packet.payload)

    async with pair(node, suites=[suite], on_packet=on_packet) as (here, track, there):
        assert there.welcome is not None
        assert leg_of(there).suite is suite
        sent = [secrets.token_bytes(80) for _ in range(50)]
        for n, payload in enumerate(sent):
            await track.send(here.media, [payload], n * 0.02, None)
        await until(lambda: len(got) == len(sent))
        assert got == sent
        assert there.media.srtp is not None
        assert not there.media.srtp.failures


async def test_packets_and_sender_reports_can_be_iterated(node: Node) -> None:
    async with pair(node) as (here, track, there):
        remote = there.tracks[track.track_id]
        packets = remote.packets()
        waiting = asyncio.ensure_future(anext(packets))
        await asyncio.sleep(0)
        await track.send(here.media, [b"hello"], 0.0, None)
        async with asyncio.timeout(PATIENCE_S):
            assert (await waiting).packet.payload == b"hello"
            while not (block := remote.statistics.block(1, 2**62)) or not block.lsr:
                await track.send(here.media, [b"more"], 0.02, None)
                await asyncio.sleep(0.05)


async def test_frames_that_the_caller_makes_are_decoded_at_the_other_end(node: Node) -> None:
    import av
    import numpy as np

    async with client(node, "painter") as here, client(node, "viewer", Role.PASSIVE) as there:
        video = await here.publish_frames(Codec.H264, label="v", size=(160, 90), bitrate=200_000)
        audio = await here.publish_frames(Codec.OPUS, label="a")
        shown, heard = await there.subscribe([video.track.track_id, audio.track.track_id])
        async with asyncio.timeout(PATIENCE_S):
            await there.live.wait()
        red = np.zeros((90, 160, 3), dtype=np.uint8)
        red[:, :, 0] = 255
        tone = (np.sin(np.arange(4410) / 9) * 9000).astype(np.int16).reshape(1, -1)
        pictures = shown.frames()
        seen = asyncio.ensure_future(anext(pictures))
        async with asyncio.timeout(PATIENCE_S):
            while not seen.done() or heard.decoded.frames < 3:
                await video.send(av.VideoFrame.from_ndarray(red, format="rgb24"))
                sound = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                sound.rate = 44100
                await audio.send(sound)
                await asyncio.sleep(0.03)
        picture = seen.result().to_ndarray(format="rgb24")
        assert picture.shape == (90, 160, 3)
        assert abs(picture.mean(axis=(0, 1)) - (255, 0, 0)).max() < 20
        with pytest.raises(ValueError, match="AudioFrame"):
            await video.send(sound)
        await here.unpublish([video.track])
        await until(lambda: video.track.track_id not in there.room_tracks)


async def test_a_lost_session_resumes_on_the_same_leg_while_media_goes_on(node: Node) -> None:
    got: list[bytes] = []

    async with pair(node, on_packet=lambda t, packet, ns: got.append(packet.payload)) as (
        here,
        track,
        there,
    ):
        leg = there.welcome
        there.lose_session()
        here.lose_session()
        sent = [b"%d" % n for n in range(20)]
        for n, payload in enumerate(sent):
            await track.send(here.media, [payload], n * 0.02, None)
        await until(lambda: there.resumed == 1 and here.resumed == 1)
        await until(lambda: len(got) == len(sent))
        assert leg is not None
        assert there.welcome is not None
        assert there.welcome.participant_id == leg.participant_id
        assert there.welcome.media == leg.media
        assert (there.rejoined, here.rejoined) == (0, 0)
        await there.send_data("still here")  # requests work on the new session


async def test_a_node_that_forgot_everything_is_joined_anew_with_new_keys(tmp_path: Path) -> None:
    base = tmp_path / "node"
    base.mkdir()
    own = Node(Host("", "127.0.0.1"), base, ["127.0.0.1"], [], "udp", 1, free_port())
    own.prepare()
    got: list[bytes] = []
    try:
        await own.start()
        await own.create_room(active=4)
        async with (
            client(own, "publisher") as here,
            client(
                own, "watcher", Role.PASSIVE, on_packet=lambda t, packet, ns: got.append(packet)
            ) as there,
        ):
            track = opus_track()
            await here.publish([track])
            await there.subscribe(auto=True)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(here.live.wait(), there.live.wait())
            keys = [leg_of(one).receive_key for one in (here, there)]
            assert await own.stop() == 0
            await own.start()
            await until(lambda: here.rejoined == 1 and there.rejoined == 1)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(here.live.wait(), there.live.wait())
                while not got:
                    await track.send(here.media, [b"again"], 0.02, None)
                    await asyncio.sleep(0.02)
            assert (here.resumed, there.resumed) == (0, 0)
            assert keys != [leg_of(one).receive_key for one in (here, there)]
            # A room that is closed for good is no reason to come back for ever.
            await own.request("DELETE", "/v1/rooms/demo")
            await until(lambda: there.control.closed_by_node and here.control.closed_by_node)
        assert await own.stop() == 0
    finally:
        await own.clean_up()


async def test_a_key_frame_request_reaches_the_publisher(node: Node) -> None:
    async with client(node, "camera") as here, client(node, "viewer", Role.PASSIVE) as there:
        video = LocalTrack("video", Codec.H264, 102, 90_000, random.Random())
        await here.publish([video])
        [remote] = await there.subscribe([video.track_id])
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(here.live.wait(), there.live.wait())
        await video.send(here.media, [bytes([0x67, 1, 2, 3])], 0.0, None)  # opens the gate
        await until(lambda: remote.packets_received == 1)
        asked = video.keyframe_requests
        async with asyncio.timeout(PATIENCE_S):
            while video.keyframe_requests == asked:  # merged with others for a while
                there.send_pli(remote)
                await asyncio.sleep(0.1)
        asked = video.keyframe_requests
        async with asyncio.timeout(PATIENCE_S):
            while video.keyframe_requests == asked:
                await there.request_keyframe(remote)
                await asyncio.sleep(0.1)


async def test_auto_names_what_was_there_and_gets_what_comes(node: Node) -> None:
    async with client(node, "early") as here, client(node, "watcher", Role.PASSIVE) as there:
        first, second = opus_track("first"), opus_track("second")
        await here.publish([first])
        late = client(node, "late", Role.PASSIVE)
        async with late:
            for subscriber in (late, there):
                await subscriber.subscribe(auto=True)
            await here.publish([second])
            await until(lambda: len(late.tracks) == len(there.tracks) == 2)
            assert set(late.tracks) == {first.track_id, second.track_id}


async def test_refusals_name_their_reason(node: Node) -> None:
    async with client(node, "watcher", Role.PASSIVE) as there:
        with pytest.raises(ClientError) as refused:
            await there.publish([opus_track()])
        assert refused.value.code is ErrorCode.FORBIDDEN
        with pytest.raises(ClientError) as missing:
            await there.subscribe(["no-such-track"])
        assert missing.value.code is ErrorCode.NO_SUCH_TRACK


async def test_a_forged_token_is_refused_with_401(node: Node) -> None:
    stranger = Client(node.url("127.0.0.1"), "a.b.c", cert_hash=node.cert_hash)
    with pytest.raises(SessionRefused) as refused:
        await stranger.__aenter__()
    assert refused.value.status == 401


async def test_another_certificate_is_refused_before_joining(node: Node) -> None:
    before = (await node.status())["rooms"]["participants"]
    wrong = Client(node.url("127.0.0.1"), node.token("x", Role.ACTIVE), cert_hash=bytes(32))
    with pytest.raises(SessionRefused, match="certificate has the hash"):
        await wrong.__aenter__()
    careful = Client(node.url("127.0.0.1"), node.token("x", Role.ACTIVE))  # by the host's CAs
    with pytest.raises(Exception, match=r"certificate|does not answer"):
        await careful.__aenter__()
    assert (await node.status())["rooms"]["participants"] == before


async def test_the_bot_publishes_and_receives_and_ends_on_sigint(
    node: Node, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4")

    async def bot(*arguments: str, role: Role) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "forwarder.cli.app", "bot", *arguments),
            *("--url", node.url("127.0.0.1"), "--cert-hash", node.cert_hash, "--json"),
            env={**os.environ, "VCFWD_TOKEN": node.token("bot", role)},
            stdout=asyncio.subprocess.PIPE,
        )

    png = tmp_path / "first.png"
    publisher = await bot("publish", str(clip), "--size", "160x90", role=Role.ACTIVE)
    receiver = await bot("subscribe", "--png", str(png), role=Role.PASSIVE)
    try:
        assert receiver.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            async for line in receiver.stdout:
                if json.loads(line)["event"] == "first_frame":
                    break
            for process in (receiver, publisher):
                process.send_signal(signal.SIGINT)
            rest, _ = await receiver.communicate()
            sent, _ = await publisher.communicate()
        summary = json.loads(rest.splitlines()[-1])
        assert summary["event"] == "summary"
        assert summary["video_frames_decoded"] > 0
        assert (summary["sessions_lost"], summary["closed_by_node"]) == (0, None)
        assert png.read_bytes().startswith(b"\x89PNG")
        assert json.loads(sent.splitlines()[-1])["sent"][0]["packets"] > 0
        assert (receiver.returncode, publisher.returncode) == (0, 0)
    finally:
        for process in (receiver, publisher):
            if process.returncode is None:
                process.kill()
                await process.wait()


def make_clip(path: Path) -> Path:
    """A second of pictures without sound."""
    import av
    import numpy as np

    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        for n in range(25):
            picture = np.full((180, 320, 3), n * 10, dtype=np.uint8)
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                out.mux(packet)
        for packet in video.encode(None):
            out.mux(packet)
    return path
