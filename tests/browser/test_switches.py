"""Switches of layers: what a viewer sees of them, and what they ask of the publisher."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from browser_kit import marks
from clock_kit import Heard, compare, kept, read
from scene_kit import (
    Scene,
    height,
    join_viewers,
    patient,
    published,
    scene,
    state,
    steady,
    view_of,
)

from forwarder.demo.browser import capture, session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS
from forwarder.demo.children import Child
from forwarder.rooms.roles import Role

pytestmark = marks
HERE = Path(__file__).parent
SWITCHES = 20
OFF_S = 0.045
PCAP = "publisher.pcap"
KNOWN_SHARE = {"video": 0.9, "audio": 0.5}
"""So many of the packets that came are placed by a report, and are found among those that were
sent.  Of sound Chromium reports each 5 s alone, and a steady tone may repeat itself."""
CLOCK_HZ = {"video": 90_000, "audio": 48_000}


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["vp8", "vp9", "h264", "av1"])
@patient
async def test_twenty_switches_of_layers(tmp_path: Path, codec: str, fps: int = FPS) -> None:
    """Nothing freezes, each switch is seen, and asks for one key frame at most."""
    async with scene(tmp_path, simulcast_by=1, codec=codec, fps=fps) as call:
        sender, viewer = call.actors
        await join_viewers(call, sender, (viewer,))

        async def both() -> bool:
            video = [r for r in (await published(sender))["rtp"] if r["kind"] == "video"]
            return len(video) == 2 and all(r["framesEncoded"] > 10 for r in video)

        await call.until("both layers are sent", both, 20, pace=True)
        slots = (await session.about(viewer))["slots"]
        mid = next(s["mid"] for s in slots if s["kind"] == "video" and s["state"] == "playing")
        before, asked = await state(viewer, sender), [await key_frames_asked(sender)]
        for turn in range(SWITCHES):
            layer = turn % 2
            await viewer.browser.evaluate(
                "(mid, layer) => lab.session.control.request('layer', { mid, layer })", mid, layer
            )
            wanted = 360 if layer else 180

            async def seen(wanted: int = wanted) -> bool:
                return await height(viewer, sender) == wanted

            await call.until(f"switch {turn} to {wanted} lines", seen, 10, pace=True)
            asked.append(await key_frames_asked(sender))
        frozen = (await state(viewer, sender))["freezes"] - before["freezes"]
        steady(frozen == 0, f"{frozen} freezes")
        each = [now - then for then, now in pairwise(asked)]
        print(f"{codec}: key frames asked for by each switch: {each}")
        # An encoder that does not answer in time is asked again.
        steady(max(each) <= 1, f"key frames asked for by each switch: {each}")
        view = view_of(await viewer.browser.call("snapshot"), sender)
        assert (view["wrong"], view["wrong_seen"]) == (0, [])


async def key_frames_asked(sender: Actor) -> int:
    rtp = (await published(sender))["rtp"]
    return sum(r.get("pliCount", 0) + r.get("firCount", 0) for r in rtp)


@pytest.mark.slow
async def test_sound_and_picture_keep_their_distance(tmp_path: Path) -> None:
    """Twenty switches of what Chromium sends, by a viewer that is none: it maps both RTP clocks to
    the sender's by the reports that are forwarded to it.  Chromium's own packets and reports, read
    off its link, put sound and picture at the same distance."""
    async with (
        scene(tmp_path, participants=1, simulcast_by=1) as call,
        AsyncExitStack() as made,
    ):
        (sender,) = call.actors
        tap = await listen(made, call, tmp_path)
        await session.join(sender, call.node, call.options)
        gate, file = call.lab.fwd_addresses[1], tmp_path / "seat.json"
        order = {
            "address": gate,
            "url": call.node.url(gate),
            "cert_hash": call.node.cert_hash,
            "switches": SWITCHES,
            "file": str(file),
        }
        command = [sys.executable, str(HERE / "seat_reports.py"), json.dumps(order)]
        kits = {"PYTHONPATH": f"{HERE.parent}:{HERE.parent / 'contract'}"}
        seat = await Child.start("seat", call.lab.sub, command, tmp_path / "seat.log", kits)
        made.push_async_callback(seat.end)
        seat.tell(call.node.token("seat", Role.PASSIVE))
        done = await seat.wait_for("done", 90)
        record = (await kept(call))[sender.participant]
        tap.hang_up()
        assert (await tap.wait_for("summary", 20))["missed"] == 0
        account = read(tmp_path / PCAP, call.node.port, record)
    assert (done["unopened"], account.unopened) == (0, 0)
    assert done["layers"][-SWITCHES:] == [180, 360] * (SWITCHES // 2)
    noted = json.loads(file.read_text())
    heard = compare(account, noted["packets"], noted["reports"], CLOCK_HZ)
    kinds = Counter(kind for kind, *_ in noted["packets"])
    check_distances(heard, kinds)


async def listen(made: AsyncExitStack, call: Scene, folder: Path) -> Child:
    """Takes down what the publisher sends, from its first datagram on."""
    command = [sys.executable, "-m", capture.__name__, "pub0", str(folder / PCAP)]
    child = await Child.start("capture", call.lab.pub, command, folder / "capture.log")
    made.push_async_callback(child.end)
    await child.wait_for("ready", 20)
    return child


def check_distances(heard: Sequence[Heard], kinds: Mapping[str, int]) -> None:
    """Each picture, before, during and after each switch, against the sound that came last."""
    told = Counter(packet.kind for packet in heard)
    assert all(told[kind] > KNOWN_SHARE[kind] * count for kind, count in kinds.items()), (
        told,
        kinds,
    )
    pictures = [packet for packet in heard if packet.kind == "video"]
    turns = sum(one.ssrc != other.ssrc for one, other in pairwise(pictures))
    assert turns >= SWITCHES
    sound_s, newest_s, apart = None, float("-inf"), []
    for packet in heard:
        if packet.kind == "audio":
            sound_s = packet.error_s
        elif sound_s is not None:
            distance = packet.error_s - sound_s
            apart.append(distance)
            # One that comes after a younger one is shown late, whatever its time stamp.
            late = packet.own_s < newest_s and 0 < distance < newest_s - packet.own_s + OFF_S
            assert abs(distance) < OFF_S or late, f"{packet} is {distance:.3f} s off"
            newest_s = max(newest_s, packet.own_s)
    print(
        f"sound against picture: {min(apart) * 1000:.1f} to {max(apart) * 1000:.1f} ms off, "
        f"{dict(told)} of {dict(kinds)} packets"
    )
    assert sum(abs(distance) < OFF_S for distance in apart) > KNOWN_SHARE["video"] * len(apart)
