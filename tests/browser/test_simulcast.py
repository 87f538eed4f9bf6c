"""A publisher sends two layers all the time; a viewer gets the one it asks for, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser_kit import FIELDS, FRAMES_MIN, PAIR_FIELDS, marks, run_lab
from scene_kit import (
    height,
    join_viewers,
    patient,
    picture,
    published,
    scene,
    state,
    steady,
    view_of,
)

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS

pytestmark = marks
SECONDS = 6
SIZES = {"l": (320, 180), "h": (640, 360)}  # by rid, the lowest first
HEIGHTS = {"l": "low", "h": "high"}  # as scene_kit.state names them
PLAYED = 45  # frames that a viewer reads of a layer before it is judged
APART = 3.0  # so many times more bytes has the one layer, in noise, than the other
ALIKE = 0.2  # share by which what is on the way may make two accounts of one stream differ


def test_a_publisher_of_two_layers(tmp_path: Path) -> None:
    """`vcfwd demo-browser --simulcast`."""
    report = run_lab(tmp_path, "--seconds", str(SECONDS), "--simulcast")
    assert set(report) == FIELDS and report["path"] == "xdp-native"
    pairs = {(pair["from"], pair["to"]): pair for pair in report["pairs"]}
    assert set(pairs) == {(1, 2), (2, 1)}
    for pair in pairs.values():
        assert set(pair) == PAIR_FIELDS
        assert (pair["codes_wrong"], pair["packets_lost"], pair["freezes"]) == (0, 0, 0)
        assert pair["codes_read"] >= FRAMES_MIN
        assert pair["audio_energy"] > 0
    size = {way: (pair["width"], pair["height"]) for way, pair in pairs.items()}
    assert size[2, 1] == (320, 180) and size[1, 2] in SIZES.values()
    assert report["accounting_balanced"] is True


async def sent(sender: Actor) -> dict[str, dict[str, Any]]:
    """The sender's own statistics of each layer, by rid."""
    found = (await published(sender))["rtp"]
    return {rtp["rid"]: rtp for rtp in found if rtp["kind"] == "video"}


async def came(viewer: Actor, sender: Actor) -> dict[str, Any]:
    """The viewer's own statistics of the picture."""
    view = view_of(await viewer.browser.call("snapshot"), sender)
    assert (view["wrong"], view["wrong_seen"]) == (0, [])
    return picture(view["statistics"]["rtp"])


def grown(before: dict[str, Any], after: dict[str, Any], what: str) -> int:
    return int(after[what] - before[what])


@patient
async def test_a_viewer_gets_the_layer_it_asks_for_alone(tmp_path: Path, fps: int = FPS) -> None:
    """Both layers are encoded and sent throughout, in their sizes; what the viewer shows and counts
    is the one.  Its account lies between two of the sender, so that no delay is taken for loss."""
    async with scene(tmp_path, simulcast_by=1, noise=True, fps=fps) as call:
        sender, viewer = call.actors
        await join_viewers(call, sender, (viewer,))

        async def both() -> bool:
            layers = await sent(sender)
            return set(layers) == set(SIZES) and all(x["framesSent"] > 10 for x in layers.values())

        await call.until("both layers are sent", both)
        slots = (await session.about(viewer))["slots"]
        mid = next(s["mid"] for s in slots if s["kind"] == "video" and s["state"] == "playing")
        for rid in ("l", "h", "l"):
            await viewer.browser.evaluate(
                "(mid, layer) => lab.session.control.request('layer', { mid, layer })",
                mid,
                list(SIZES).index(rid),
            )

            async def shown(lines: int = SIZES[rid][1]) -> bool:
                return await height(viewer, sender) == lines

            await call.until(f"layer {rid} is shown", shown)
            await call.frames(viewer, sender)

            began, first = await sent(sender), await came(viewer, sender)
            began_later, seen = await sent(sender), await state(viewer, sender)
            await call.frames(viewer, sender, PLAYED)
            ended, last = await sent(sender), await came(viewer, sender)
            ended_later, seen_last = await sent(sender), await state(viewer, sender)

            for each, size in SIZES.items():
                layer = ended[each]
                steady((layer["frameWidth"], layer["frameHeight"]) == size, layer)
                steady(grown(began_later[each], layer, "framesSent") > PLAYED / 2, layer)
            assert (last["frameWidth"], last["frameHeight"]) == SIZES[rid]
            frames = {each: grown(seen, seen_last, HEIGHTS[each]) for each in SIZES}
            (other,) = SIZES.keys() - {rid}
            assert frames[other] == 0, frames
            steady(frames[rid] > PLAYED / 2, frames)
            for up, down in (("packetsSent", "packetsReceived"), ("bytesSent", "bytesReceived")):
                least = {each: grown(began_later[each], ended[each], up) for each in SIZES}
                most = {each: grown(began[each], ended_later[each], up) for each in SIZES}
                got = grown(first, last, down)
                about = f"{rid}: {down} {got}, {up} from {least} to {most}"
                print(about)
                steady(least["h"] > APART * most["l"], about)
                steady((1 - ALIKE) * least[rid] < got < (1 + ALIKE) * most[rid], about)
