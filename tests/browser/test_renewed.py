"""The DTLS certificate of the node is another one after a restart, and a page then offers again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from browser_kit import marks
from scene_kit import patient, scene, view_of

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS
from forwarder.signaling.certs import DTLS_DIR

pytestmark = marks


async def states(actor: Actor) -> list[str]:
    return [state for _, state in (await actor.browser.call("snapshot"))["states"]]


@pytest.mark.slow
@patient
async def test_a_page_outlives_the_certificate_that_it_began_with(
    tmp_path: Path, fps: int = FPS
) -> None:
    """Told another one, Chromium begins DTLS anew, and its connection is lost."""
    async with scene(tmp_path, fps=fps, participants=2) as call:
        viewer, other = call.actors
        await session.join(other, call.node, call.options)
        await session.join(viewer, call.node, call.options, pairs=1, voices=0, holdGrowth=True)
        await session.pictures(viewer, [other])
        await call.frames(viewer, other)
        shutil.rmtree(call.node.base / "state" / DTLS_DIR)
        await call.node.kill_supervisor()
        for actor in call.actors:
            assert (await session.resumed(actor))["resumes"][-1]["resumed"]
        await viewer.browser.evaluate("(pairs) => lab.session.grow(pairs)", 2)
        assert (await session.about(viewer))["offers"] == 1
        await call.frames(viewer, other, 30)
        await call.frames(other, viewer, 30)
        assert await states(viewer) == ["connecting", "connected"]
        first, last = await viewer.browser.evaluate("() => lab.session.answers")
        prints = [
            {line for line in answer.splitlines() if line.startswith("a=fingerprint:")}
            for answer in (first, last)
        ]
        assert prints[0] == prints[1]
        assert len(prints[0]) == 1
        assert view_of(await viewer.browser.call("snapshot"), other)["wrong"] == 0
