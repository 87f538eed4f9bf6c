"""A viewer comes onto the stage, is taken off it and comes back: by its own offer once, and without
a word of SDP to anybody from then on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser_kit import marks
from scene_kit import Scene, patient, scene, view_of

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS
from forwarder.demo.node import ROOM
from forwarder.rooms.roles import Role

pytestmark = marks
# A page that hears nothing at all would restart ICE, which is an offer.
DEAF = "() => clearInterval(lab.session.listening)"
ARRIVED = """async () => [...(await lab.session.pc.getStats()).values()]
  .filter((entry) => entry.type === "inbound-rtp" && entry.packetsReceived)
  .map((entry) => [entry.ssrc, entry.packetsReceived])"""
PUBLISH = "(how) => { lab.addMedia(lab.session.pc, how); return lab.session.negotiate(); }"


async def set_role(call: Scene, actor: Actor, role: Role) -> None:
    where = f"/v1/rooms/{ROOM}/participants/{actor.participant}"
    found = await call.node.request("PATCH", where, {"role": role.value})
    assert found == {"id": actor.participant, "name": actor.name, "role": role.value}


async def arrived(viewer: Actor) -> dict[str, int]:
    """Packets of pictures and sound so far, by SSRC."""
    return dict(map(tuple, await viewer.browser.evaluate(ARRIVED)))


async def slot_of(viewer: Actor, publisher: Actor) -> dict[str, Any] | None:
    for slot in (await session.about(viewer))["slots"]:
        mine = (slot.get("participant_id"), slot["kind"]) == (publisher.participant, "video")
        if mine and slot["state"] == "playing":
            return dict(slot)
    return None


async def offers(actor: Actor) -> int:
    """Answers to them, that of the join included."""
    return int(await actor.browser.evaluate("() => lab.session.answers.length"))


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
@patient
async def test_onto_the_stage_and_off_it(tmp_path: Path, kind: str, fps: int = FPS) -> None:
    async with scene(tmp_path, fps=fps, participants=2, browsers=(kind, "chromium")) as call:
        star, viewer = call.actors
        await session.join(viewer, call.node, call.options)
        passive = {"publish": False, "token": call.node.token(star.name, Role.PASSIVE)}
        await session.join(star, call.node, call.options, **passive)
        await session.pictures(star, [viewer])
        for one in call.actors:
            await one.browser.evaluate(DEAF)

        await set_role(call, star, Role.ACTIVE)
        await star.browser.evaluate(PUBLISH, {"codec": call.options.codec})
        await session.pictures(viewer, [star])
        await call.frames(viewer, star)
        first, ssrcs = await slot_of(viewer, star), set(await arrived(viewer))
        assert first is not None and len(ssrcs) == 2

        async def came() -> int:
            return int((await call.node.status())["counters"]["rx"])

        async def both_send_on() -> None:
            start = await came()

            async def met() -> bool:
                return await came() > start + 60

            await call.until("both send on", met)

        for _ in range(2):
            await set_role(call, star, Role.PASSIVE)

            async def empty() -> bool:
                return await slot_of(viewer, star) is None

            await call.until("the slot is empty", empty)
            await both_send_on()  # and what was on its way has come, and is in the statistics
            before = await arrived(viewer)
            await both_send_on()
            assert await arrived(viewer) == before
            await set_role(call, star, Role.ACTIVE)
            await call.frames(viewer, star)
            assert await slot_of(viewer, star) == first
            assert set(await arrived(viewer)) == ssrcs
        assert [await offers(one) for one in (star, viewer)] == [2, 1]
        view = view_of(await viewer.browser.call("snapshot"), star)
        assert (view["wrong"], view["wrong_seen"]) == (0, [])
        status = await call.node.status()
        assert status["balanced"], status["imbalance"]
