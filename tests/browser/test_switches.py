"""Switches of layers: what a viewer sees of them, and what they ask of the publisher."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_kit import marks
from scene_kit import height, join_viewers, patient, published, scene, state, view_of

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS

pytestmark = marks


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

        await call.until("both layers are sent", both, 20)
        slots = (await session.about(viewer))["slots"]
        mid = next(s["mid"] for s in slots if s["kind"] == "video" and s["state"] == "playing")
        before, pli = await state(viewer, sender), await key_frames_asked(sender)
        asked = []  # (key frames, freezes) after each switch
        for turn in range(20):
            layer = turn % 2
            await viewer.browser.evaluate(
                "(mid, layer) => lab.session.control.request('layer', { mid, layer })", mid, layer
            )
            wanted = 360 if layer else 180

            async def seen(wanted: int = wanted) -> bool:
                return await height(viewer, sender) == wanted

            await call.until(f"switch {turn} to {wanted} lines", seen, 10)
            now = await state(viewer, sender)
            asked.append((await key_frames_asked(sender) - pli, now["freezes"] - before["freezes"]))
        assert asked[-1][1] == 0, asked
        assert all(keys <= turn + 1 for turn, (keys, _) in enumerate(asked)), asked
        print(f"{codec}: {asked[-1][0]} key frames were asked for")
        view = view_of(await viewer.browser.call("snapshot"), sender)
        assert (view["wrong"], view["wrong_seen"]) == (0, [])


async def key_frames_asked(sender: Actor) -> int:
    rtp = (await published(sender))["rtp"]
    return sum(r.get("pliCount", 0) + r.get("firCount", 0) for r in rtp)
