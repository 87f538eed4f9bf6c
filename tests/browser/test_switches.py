"""Switches of layers: what a viewer sees of them, and what they ask of the publisher."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from browser_kit import marks
from scene_kit import height, join_viewers, patient, published, scene, state, steady, view_of

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS
from forwarder.demo.children import Child
from forwarder.rooms.roles import Role

pytestmark = marks
HERE = Path(__file__).parent
SWITCHES = 20
OFF_S = 0.045
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
        before, pli = await state(viewer, sender), await key_frames_asked(sender)
        asked = []  # (key frames, freezes) after each switch
        for turn in range(SWITCHES):
            layer = turn % 2
            await viewer.browser.evaluate(
                "(mid, layer) => lab.session.control.request('layer', { mid, layer })", mid, layer
            )
            wanted = 360 if layer else 180

            async def seen(wanted: int = wanted) -> bool:
                return await height(viewer, sender) == wanted

            await call.until(f"switch {turn} to {wanted} lines", seen, 10, pace=True)
            now = await state(viewer, sender)
            asked.append((await key_frames_asked(sender) - pli, now["freezes"] - before["freezes"]))
        steady(asked[-1][1] == 0, asked)
        assert all(keys <= turn + 1 for turn, (keys, _) in enumerate(asked)), asked
        print(f"{codec}: {asked[-1][0]} key frames were asked for")
        view = view_of(await viewer.browser.call("snapshot"), sender)
        assert (view["wrong"], view["wrong_seen"]) == (0, [])


async def key_frames_asked(sender: Actor) -> int:
    rtp = (await published(sender))["rtp"]
    return sum(r.get("pliCount", 0) + r.get("firCount", 0) for r in rtp)


@pytest.mark.slow
async def test_sound_and_picture_keep_their_distance(tmp_path: Path) -> None:
    """Twenty switches of what Chromium sends, by a viewer that is none: it maps both RTP clocks to
    the sender's by the reports that are forwarded to it.  What the two clocks show at one time of
    the sender's is as it was before the first switch, so it is as the sender's own reports say."""
    async with (
        scene(tmp_path, participants=1, simulcast_by=1) as call,
        AsyncExitStack() as made,
    ):
        (sender,) = call.actors
        await session.join(sender, call.node, call.options)
        gate = call.lab.fwd_addresses[1]
        order = {
            "address": gate,
            "url": call.node.url(gate),
            "cert_hash": call.node.cert_hash,
            "switches": SWITCHES,
        }
        command = [sys.executable, str(HERE / "seat_reports.py"), json.dumps(order)]
        kits = {"PYTHONPATH": f"{HERE.parent}:{HERE.parent / 'contract'}"}
        seat = await Child.start("seat", call.lab.sub, command, tmp_path / "seat.log", kits)
        made.push_async_callback(seat.end)
        seat.tell(call.node.token("seat", Role.PASSIVE))
        done = await seat.wait_for("done", 90)
    assert done["unopened"] == 0
    assert done["layers"][-SWITCHES:] == [180, 360] * (SWITCHES // 2)
    apart = distances(done["reports"])
    assert len(apart) > SWITCHES
    print(f"sound against picture: {min(apart) * 1000:.1f} to {max(apart) * 1000:.1f} ms")
    assert all(abs(distance) < OFF_S for distance in apart)


def distances(reports: list[tuple[str, float, int]]) -> list[float]:
    """How far picture and sound have come apart since the first reports, s, at each report of the
    picture."""
    first: dict[str, tuple[float, int]] = {}
    apart: dict[str, float] = {}
    found = []
    for kind, ntp_s, timestamp in reports:
        begin_s, begin = first.setdefault(kind, (ntp_s, timestamp))
        ticks = (timestamp - begin + (1 << 31)) % (1 << 32) - (1 << 31)
        apart[kind] = ticks / CLOCK_HZ[kind] - (ntp_s - begin_s)
        if kind == "video" and "audio" in apart:
            found.append(apart["video"] - apart["audio"])
    return found
