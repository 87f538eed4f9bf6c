"""Rates: feedback to publishers, a viewer on a weak link.

The links are slow by token buckets in a router of their own; pictures are random pixels, so that
the encoder takes what it may.  Each test shows first that the unlimited sender exceeds the link.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from browser_kit import marks
from scene_kit import (
    Scene,
    height,
    join_viewers,
    patient,
    picture,
    published,
    scene,
    state,
    view_of,
)

from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS

pytestmark = marks
FREE_BPS, WIDE_BPS, NARROW_BPS = 50_000_000, 4_000_000, 800_000
WIDE = "2 Mb/s on a link of 4 Mb/s"


async def estimate(actor: Actor) -> float:
    return float((await published(actor)).get("availableOutgoingBitrate") or 0)


async def sent_bytes(actor: Actor) -> int:
    return sum(rtp["bytesSent"] for rtp in (await published(actor))["rtp"])


async def rate(actor: Actor, seconds: float = 2.0) -> float:
    """Bits a second that it sends."""
    began, before = time.monotonic(), await sent_bytes(actor)
    await asyncio.sleep(seconds)  # a rate is over a time
    return 8 * (await sent_bytes(actor) - before) / (time.monotonic() - began)


async def received(viewer: Actor, publisher: Actor) -> tuple[int, int]:
    """(packets received, packets lost for good) of the picture."""
    view = view_of(await viewer.browser.call("snapshot"), publisher)
    found = picture(view["statistics"]["rtp"])
    return int(found["packetsReceived"]), int(found["packetsLost"])


async def follow(call: Scene) -> None:
    """Up on a wide link, down on a narrow one, and back."""
    one, two = call.actors
    assert call.link is not None
    call.link.up(WIDE_BPS)
    await call.join()

    async def wide() -> bool:
        return await estimate(one) > 2_000_000

    await call.until(WIDE, wide, 10)
    assert await rate(one) > NARROW_BPS

    call.link.up(NARROW_BPS)

    async def settled() -> bool:
        got, lost = await received(two, one)
        below = await rate(one, 1.0) < NARROW_BPS
        more, lost_more = await received(two, one)
        share = (lost_more - lost) / max(1, more - got + lost_more - lost)
        return below and await estimate(one) < NARROW_BPS and share < 0.02

    await call.until("below 800 kb/s with less than 2 % loss", settled, 10)
    call.link.up(WIDE_BPS)
    await call.until("2 Mb/s again", wide, 15)


@pytest.mark.slow
@patient
async def test_a_publisher_follows_its_link(tmp_path: Path, fps: int = FPS) -> None:
    """Feedback from receive times."""
    async with scene(tmp_path, slow=True, noise=True, max_bitrate=3_000_000, fps=fps) as call:
        await follow(call)


@pytest.mark.slow
async def test_without_feedback_it_does_not(tmp_path: Path) -> None:
    """The same call, of a page that does not offer transport-wide numbers."""
    wish: dict[str, Any] = {"noise": True, "max_bitrate": 3_000_000, "feedback": False}
    async with scene(tmp_path, slow=True, **wish) as call:
        with pytest.raises(AssertionError, match=WIDE):
            await follow(call)
        # It is not the call that failed: the picture is there.
        await call.frames(call.actors[1], call.actors[0])


@pytest.mark.slow
@patient
async def test_a_viewer_on_a_weak_link_gets_the_low_layer(tmp_path: Path, fps: int = FPS) -> None:
    """Browser 1 views over 700 kb/s what browser 2 sends in two layers; browser 4 sees the best."""
    async with scene(
        tmp_path, slow=True, noise=True, simulcast_by=2, participants=3, fps=fps
    ) as call:
        weak, sender, strong = call.actors[0], call.actors[1], call.actors[2]
        assert call.link is not None
        call.link.down(FREE_BPS)
        await join_viewers(call, sender, (weak, strong))

        async def top() -> bool:
            return await rate(sender, 1.0) > 1_000_000

        await call.until("the top layer is above 1 Mb/s", top, 20)
        call.link.down(700_000)

        async def low() -> bool:
            return await height(weak, sender) == 180

        await call.until("the weak viewer has the low layer", low, 15)
        before = await state(weak, sender)
        await call.frames(weak, sender, 150)
        after = await state(weak, sender)
        assert after["freezes"] - before["freezes"] <= 1
        audio = after["audio"] - before["audio"], after["audio_lost"] - before["audio_lost"]
        assert audio[1] < 0.01 * audio[0]
        assert await height(strong, sender) == 360
