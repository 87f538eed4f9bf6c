"""A page that has fewer slots than there are pictures: it is asked to grow, and offers again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser_kit import marks
from scene_kit import patient, picture, scene, steady, view_of

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.options import FPS

pytestmark = marks
# What a slot is called; all else of a line may be worded anew.
_IDENTITY = re.compile(r"^(m=|a=(mid|msid|ssrc|ssrc-group|rtpmap|extmap):|a=(send|recv|inactive))")


def lines(answer: str) -> dict[str, list[str]]:
    """The identity of each line of an answer, by its mid."""
    found = {}
    for part in re.split(r"^(?=m=)", answer, flags=re.MULTILINE)[1:]:
        kept = [line for line in part.splitlines() if _IDENTITY.match(line)]
        found[re.findall(r"^a=mid:(\S+)", part, re.MULTILINE)[0]] = kept
    return found


async def ssrcs(viewer: Actor) -> dict[str, int]:
    """Of what comes, by mid."""
    snapshot = await viewer.browser.call("snapshot")
    entries = [entry for view in snapshot["views"] for entry in view["statistics"]["rtp"]]
    return {entry["mid"]: entry["ssrc"] for entry in entries if entry.get("packetsReceived")}


async def shown(viewer: Actor) -> set[str | None]:
    slots = (await session.about(viewer))["slots"]
    return {slot["participant_id"] for slot in slots if slot["state"] == "playing"}


async def check_answers(viewer: Actor, pairs: int) -> None:
    """Nothing of the first answer is different in the second; more lines follow."""
    first, last = map(lines, await viewer.browser.evaluate("() => lab.session.answers"))
    # Sent sound, sent picture, and one pair; then more pairs behind them.
    assert len(first) == 4
    assert len(last) == 2 + 2 * pairs
    assert list(last)[:4] == list(first)
    assert {mid: last[mid] for mid in first} == first
    # What comes has the SSRC that the answer names for its line.
    for mid, ssrc in (await ssrcs(viewer)).items():
        assert any(line.startswith(f"a=ssrc:{ssrc} ") for line in last[mid])


async def freezes(viewer: Actor, publisher: Actor) -> int:
    view = view_of(await viewer.browser.call("snapshot"), publisher)
    assert (view["wrong"], view["wrong_seen"]) == (0, [])
    return int(picture(view["statistics"]["rtp"])["freezeCount"])


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
@patient
async def test_a_page_with_too_few_slots_grows(tmp_path: Path, kind: str, fps: int = FPS) -> None:
    kinds = (kind, "chromium", "chromium")
    async with scene(tmp_path, fps=fps, participants=3, browsers=kinds) as call:
        viewer, two, three = call.actors
        for other in (two, three):
            await session.join(other, call.node, call.options)
        few = {"pairs": 1, "voices": 0, "holdGrowth": True}
        await session.join(viewer, call.node, call.options, **few)
        await session.pictures(viewer, [two])
        await call.frames(viewer, two)
        about = await session.about(viewer)
        assert (about["messages"]["grow"], about["offers"], about["pairs"]) == (1, 0, 1)
        assert about["asked"] >= 2
        assert await shown(viewer) == {two.participant}
        before, frozen = await ssrcs(viewer), await freezes(viewer, two)
        assert len(before) == 2

        await viewer.browser.evaluate("(pairs) => lab.session.grow(pairs)", about["asked"])
        await session.pictures(viewer, [two, three])
        await call.frames(viewer, three)
        await call.frames(viewer, two)
        assert await shown(viewer) == {two.participant, three.participant}
        # Who was there first is in the same slot, of the same SSRC, and nobody noticed.
        assert before.items() < (await ssrcs(viewer)).items()
        now = [await freezes(viewer, two), await freezes(viewer, three)]
        steady(now == [frozen, 0], f"freezes {[frozen, 0]}, then {now}")
        await check_answers(viewer, about["asked"])
        assert (await session.about(viewer))["messages"]["grow"] == 1
