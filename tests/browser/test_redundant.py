"""Opus RED (RFC 2198) between browsers: a page that prefers it sends it, Chromium gets it, Firefox,
which has none, hears the plain sound that is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser_kit import marks
from scene_kit import Scene, patient, published, scene, steady, view_of

from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS

pytestmark = marks
PACKETS = 250  # 5 s of sound
PREFER_RED = """() => {
  const add = RTCPeerConnection.prototype.addTransceiver;
  RTCPeerConnection.prototype.addTransceiver = function (what, how) {
    const made = add.call(this, what, how);
    if (what.kind !== "audio") return made;
    const known = RTCRtpSender.getCapabilities("audio").codecs;
    const red = ({ mimeType }) => mimeType === "audio/red";
    made.setCodecPreferences([...known.filter(red), ...known.filter((codec) => !red(codec))]);
    return made;
  };
}"""


def sound(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return next(entry for entry in entries if entry["kind"] == "audio")


async def heard(viewer: Actor, publisher: Actor) -> dict[str, Any]:
    view = view_of(await viewer.browser.call("snapshot"), publisher)
    return sound(view["statistics"]["rtp"])


async def first(sender: Actor) -> str:
    """What the answer has first for its sound: that is what it sends."""
    answer = await sender.browser.evaluate("() => lab.publishing.remoteDescription.sdp")
    found = re.search(r"^m=audio \d+ \S+ (\d+)", answer, re.MULTILINE)
    assert found
    name = re.search(rf"^a=rtpmap:{found[1]} (\w+)/", answer, re.MULTILINE)
    assert name
    return name[1]


async def sizes(call: Scene, sender: Actor, viewers: list[Actor]) -> list[float]:
    """Bytes of a packet of sound, as it was sent and as each viewer got it."""

    async def enough() -> bool:
        found = [await heard(viewer, sender) for viewer in viewers]
        return all(one.get("packetsReceived", 0) > PACKETS for one in found)

    await call.until(f"{PACKETS} packets of sound come to each", enough, 40, pace=True)
    sent = sound((await published(sender))["rtp"])
    got = [await heard(viewer, sender) for viewer in viewers]
    for one in got:
        assert one["totalAudioEnergy"] > 0, one
        steady(one["packetsLost"] == 0, one)
        steady(one["concealedSamples"] < 0.1 * one["totalSamplesReceived"], one)
    return [
        sent["bytesSent"] / sent["packetsSent"],
        *(one["bytesReceived"] / one["packetsReceived"] for one in got),
    ]


@pytest.mark.slow
@patient
async def test_who_takes_red_gets_it_and_who_does_not_hears_as_well(
    tmp_path: Path, fps: int = FPS
) -> None:
    kinds = ("chromium", "chromium", "firefox")
    async with scene(tmp_path, participants=3, browsers=kinds, fps=fps) as call:
        sender, takes, lacks = call.actors
        await sender.browser.evaluate(PREFER_RED)
        await call.join()
        # Statistics name the codec inside, so it is the sizes that tell.
        assert await first(sender) == "red" and await first(takes) == "opus"
        sent, red, plain = await sizes(call, sender, [takes, lacks])
        print(f"bytes of a packet: {sent:.0f} sent, {red:.0f} to Chromium, {plain:.0f} to Firefox")
        assert abs(red - sent) < 0.1 * sent, "as it was sent"
        assert plain < 0.7 * sent, "without the frame before it"
        status = await call.node.status()
        assert status["balanced"], status["imbalance"]
