"""The test page against itself: publisher and viewer in one page, without a node.

It shows what the lab relies on: codes survive each codec, a stranger's code is not taken for the
publisher's, and the painted numbers of encoded frames are known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from forwarder.demo.browser.chromium import Chromium, playwright
from forwarder.demo.browser.driven import Driven
from forwarder.demo.browser.firefox import Firefox
from forwarder.demo.browser.options import CODECS
from forwarder.demo.browser.result import frames_lost
from forwarder.demo.namespaces import Lab, run
from forwarder.demo.options import DemoError

pytestmark = [pytest.mark.root, pytest.mark.timeout(150)]
FRAMES = 20  # read before a test judges
POLL_S, PATIENCE_S = 0.3, 60.0
SOURCE = {"id": 7, "name": "seven", "width": 320, "height": 180, "fps": 15}


@pytest_asyncio.fixture(params=["chromium", "firefox"])
async def browser(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Driven]:
    with Lab(prefix="vcpage") as lab:
        # Firefox offers the address of its default route alone.
        run("ip", "-n", lab.pub.name, "route", "add", "default", "via", lab.fwd_addresses[0])
        async with AsyncExitStack() as made:
            if request.param == "firefox":
                yield await Firefox.open(made, "browser", lab.pub, tmp_path / "profile")
                return
            driver = await made.enter_async_context(playwright())
            yield await Chromium.open(made, driver, "browser", lab.pub, tmp_path / "profile")


async def watch(browser: Driven) -> dict[str, Any]:
    """The snapshot after FRAMES frames, and after the publisher has stopped."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            counts = await browser.call("counts")
            if sum(read for _, read in counts["rendered"]) >= FRAMES:
                break
            snapshot = await browser.call("snapshot")
            if snapshot["views"][0]["wrong"] >= FRAMES:
                break
            await asyncio.sleep(POLL_S)
        await browser.call("hush")
        before = None
        while (now := (await browser.call("counts"))["rendered"]) != before:
            before = now
            await asyncio.sleep(POLL_S)
    found: dict[str, Any] = await browser.call("snapshot")
    return found


@pytest.mark.parametrize("codec", CODECS)
async def test_codes_survive_the_codec(browser: Driven, codec: str) -> None:
    if codec == "h264" and browser.kind == "firefox":
        pytest.skip("Debian's Firefox has no H.264")
    assert (await browser.call("start", SOURCE))["audio"] in ("running", "fake")
    await browser.call("selfTest", {"codec": codec, "timeoutMs": 20000})
    snapshot = await watch(browser)
    (view,) = snapshot["views"]
    assert (view["wrong"], view["wrong_seen"]) == (0, [])
    assert len(view["rendered"]) >= FRAMES
    assert {number for _, number in view["rendered"]} <= set(view["decoded"])
    numbers = [number for _, number in snapshot["encoded"]]
    assert numbers == sorted(set(numbers))
    encoded, decoded = snapshot["encoded"], view["statistics"]["rtp"]
    count = next(r["framesDecoded"] for r in decoded if r["kind"] == "video")
    assert view["each_decoded"] == (browser.kind == "chromium")
    unread = view["unread"] if view["each_decoded"] else view["received"]
    assert frames_lost(encoded, view["rendered"], view["decoded"], unread, count) == 0
    gone = sorted(number for _, number in view["rendered"])[1:4]
    rest = [number for number in view["decoded"] if number not in gone]
    assert frames_lost(encoded, view["rendered"], rest, [], 0) == 3
    video = next(r for r in view["statistics"]["rtp"] if r["kind"] == "video")
    audio = next(r for r in view["statistics"]["rtp"] if r["kind"] == "audio")
    assert video["codec"].lower() == f"video/{codec}"
    assert audio["codec"] == "audio/opus"
    assert audio["totalAudioEnergy"] > 0
    assert (video["frameWidth"], video["frameHeight"]) == (320, 180)
    assert view["statistics"]["transport"]["srtpCipher"]


async def test_what_arrives_is_counted(browser: Driven) -> None:
    """The page restarts ICE when nothing comes any more: it must see that something comes."""
    await browser.call("start", SOURCE)
    await browser.call("selfTest", {"codec": "vp8", "timeoutMs": 20000})

    async def arrived() -> Any:
        return await browser.evaluate(
            "async () => arrivedBytes(await lab.views.get(7).pc.getStats())"
        )

    async with asyncio.timeout(PATIENCE_S):
        while not (first := await arrived()):
            assert first is not None
            await asyncio.sleep(POLL_S)
        while await arrived() <= first:
            await asyncio.sleep(POLL_S)


async def test_a_strangers_picture_is_a_wrong_code(browser: Driven) -> None:
    await browser.call("start", SOURCE)
    # The viewer expects 8, the canvas paints 7.
    await browser.evaluate("() => lab.painter.id = 8")
    await browser.call("selfTest", {"codec": "vp8", "timeoutMs": 20000})
    await browser.evaluate("() => lab.painter.id = 7")
    (view,) = (await watch(browser))["views"]
    assert view["wrong"] >= FRAMES
    assert {wrong["code"]["id"] for wrong in view["wrong_seen"]} <= {7, 8}
    assert any(wrong["code"]["id"] == 7 for wrong in view["wrong_seen"])


async def test_a_damaged_code_is_not_read(browser: Driven) -> None:
    """Each single cell that flips is noticed; so is a picture without a code."""
    found = await browser.evaluate(
        """() => {
          const bits = encodeCode(5, 1234, 5678);
          const flipped = bits.map((_, at) => bits.map((bit, i) => (i === at ? 1 - bit : bit)));
          const canvas = document.createElement("canvas");
          Object.assign(canvas, { width: 640, height: 360 });
          const g = canvas.getContext("2d"), reader = new Reader();
          const blank = reader.read(canvas);
          g.fillRect(0, 0, 640, 360);  // where nothing is drawn, nothing is read
          paintCode(g, 640, 360, bits);
          return { good: decodeCode(bits), bad: flipped.filter((b) => decodeCode(b)).length,
                   blank: blank ?? null, painted: reader.read(canvas) };
        }"""
    )
    code = {"id": 5, "number": 1234, "clock": 5678}
    assert found == {"good": code, "bad": 0, "blank": None, "painted": code}


async def test_a_failure_in_the_page_is_told_with_its_words(browser: Driven) -> None:
    await browser.call("start", SOURCE)
    what = {"url": "https://[fd00::1]:9/whip/demo", "token": "x", "codec": "morse"}
    with pytest.raises(DemoError, match=r"browser: publish failed.*cannot send morse"):
        await browser.call("publish", {**what, "timeoutMs": 1000})
