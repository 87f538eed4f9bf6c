"""What a call lives through: leaving and coming back, a reload, processes that are killed."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser_kit import marks
from scene_kit import Scene, patient, picture, scene, steady, view_of

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS, HEIGHT, WIDTH

pytestmark = marks


async def freezes(viewer: Actor, publisher: Actor) -> int:
    view = view_of(await viewer.browser.call("snapshot"), publisher)
    assert (view["wrong"], view["wrong_seen"]) == (0, [])
    return int(picture(view["statistics"]["rtp"])["freezeCount"])


async def states(actor: Actor) -> list[str]:
    return [state for _, state in (await actor.browser.call("snapshot"))["states"]]


async def start(scene_: Scene, actor: Actor) -> None:
    """The camera of a page that was loaded anew."""
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "fps": scene_.options.fps}
    await actor.browser.call("start", {"id": actor.id, "name": actor.name, **size})


@patient
async def test_leave_come_back_and_reload(tmp_path: Path, fps: int = FPS) -> None:
    async with scene(tmp_path, fps=fps) as call:
        one, two = call.actors
        await call.join()
        await call.frames(one, two)
        first = two.participant

        await two.browser.call("leave")
        await call.until("the slot is free", lambda: empty(one))
        await two.browser.reload()
        await start(call, two)
        await session.join(two, call.node, call.options)
        assert two.participant != first
        await session.pictures(two, call.actors)
        await call.frames(one, two)

        # A reload says no goodbye.
        await two.browser.reload()
        await start(call, two)
        await session.join(two, call.node, call.options)
        await session.pictures(two, call.actors)
        await call.frames(one, two)
        await call.frames(two, one)
        view = view_of(await one.browser.call("snapshot"), two)
        assert (view["wrong"], view["wrong_seen"]) == (0, [])


async def empty(actor: Actor) -> bool:
    return all(slot["state"] == "waiting" for slot in (await session.about(actor))["slots"])


@patient
async def test_kill_the_supervisor(tmp_path: Path, fps: int = FPS) -> None:
    """Media goes on, nothing freezes, and the session comes back as the same participant."""
    async with scene(tmp_path, fps=fps) as call:
        one, two = call.actors
        await call.join()
        await call.frames(one, two)
        await call.frames(two, one)
        ids = [actor.participant for actor in call.actors]
        before = [await freezes(one, two), await freezes(two, one)]
        await call.node.kill_supervisor()
        for actor, known in zip(call.actors, ids, strict=True):
            about = await session.resumed(actor)
            assert about["participant_id"] == known
            assert about["resumes"][-1] == {"participant_id": known, "resumed": True}
            assert about["lost"]
        await call.frames(one, two, 30)
        await call.frames(two, one, 30)
        for actor in call.actors:
            assert await states(actor) == ["connecting", "connected"]
        frozen = [await freezes(one, two), await freezes(two, one)]
        steady(frozen == before, f"freezes {before}, then {frozen}")


@patient
async def test_kill_the_data_plane(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fps: int = FPS
) -> None:
    """Another one takes over the sockets and the indices: a gap, and nobody joins anew."""
    async with scene(tmp_path, fps=fps) as call:
        one, two = call.actors
        await call.join()
        await call.frames(one, two)
        await call.frames(two, one)
        await call.node.hit_dataplane(signal.SIGKILL)
        await call.frames(one, two, 30)
        await call.frames(two, one, 30)
        for actor, other in ((one, two), (two, one)):
            assert await states(actor) == ["connecting", "connected"]
            about = await session.about(actor)
            assert (about["participant_id"], about["resumes"]) == (actor.participant, [])
            view = view_of(await actor.browser.call("snapshot"), other)
            numbers = sorted(number for _, number in view["rendered"])
            gap = max(b - a for a, b in pairwise(numbers))
            with capsys.disabled():
                print(
                    f"\n{other.id} to {actor.id}: a gap of {gap / call.options.fps * 1000:.0f} ms"
                )
