"""Addresses that change under a call: nobody joins anew, the gap is short and is printed."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from browser_kit import marks
from clock_kit import kept
from scene_kit import Scene, patient, scene, steady, view_of

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.losses import Nat
from forwarder.demo.browser.options import FPS
from forwarder.demo.namespaces import Bpffs, run

pytestmark = marks
GAP_MAX_S = 10.0
"""What ends a gap is the browser's own: its next check, 2.7 s later, and an encoder's key frame.
The node's part is to need no more than one check; a second one that it waited for would show."""
REBIND = 0x0FF0
STABLE = 8  # answers; Chromium wants 5 round trips alike, and checks each 2.7 s from then on
STAYS_S = 60.0

WATCH = """(from) => {
    const { view } = lab.views.get(from), take = view.take;
    view.readMs = [performance.now()];
    view.take = (...about) => {
        const before = view.rendered.size;
        take.apply(view, about);
        if (view.rendered.size > before) view.readMs.push(performance.now());
    };
}"""


ANSWERED = """async () => [...(await lab.publishing.getStats()).values()]
    .find(({ type, nominated }) => type === "candidate-pair" && nominated).responsesReceived"""


async def stable(call: Scene) -> None:
    """Until each pair was checked so often that its browser takes it for stable."""

    async def met() -> bool:
        counts = [int(await actor.browser.evaluate(ANSWERED)) for actor in call.actors]
        return min(counts) >= STABLE

    await call.until(f"{STABLE} checks are answered", met, pace=True)


async def watch(call: Scene) -> None:
    """From now on it is noted when frames are read, by the clock."""
    one, two = call.actors
    await one.browser.evaluate(WATCH, two.id)
    await two.browser.evaluate(WATCH, one.id)


async def gap(viewer: Actor, publisher: Actor) -> float:
    """The longest time for which the viewer read no frame of the publisher since watch(), s."""
    view = view_of(await viewer.browser.call("snapshot"), publisher)
    assert (view["wrong"], view["wrong_seen"]) == (0, [])
    times = await viewer.browser.evaluate("(id) => lab.views.get(id).view.readMs", publisher.id)
    return float(max(b - a for a, b in pairwise(times))) / 1000


async def check_call(call: Scene, what: str, capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Media both ways, by the same participants and peer connections; the gaps.  How often each
    page restarted ICE."""
    one, two = call.actors
    await call.frames(one, two, 15)
    await call.frames(two, one, 15)
    restarts = []
    for actor, other in ((one, two), (two, one)):
        about = await session.about(actor)
        assert about["participant_id"] == actor.participant
        # With its address a session by QUIC goes too, and comes back.
        assert all(again["resumed"] for again in about["resumes"]), about["resumes"]
        restarts.append(about["restarts"])
        seconds = await gap(actor, other)
        with capsys.disabled():
            print(f"\n{what}: {other.id} to {actor.id}: a gap of {seconds:.2f} s")
        steady(seconds <= GAP_MAX_S, f"{other.id} to {actor.id}: a gap of {seconds:.2f} s")
    return restarts


@pytest.mark.parametrize("helped", [False, True], ids=["browser alone", "page restarts ICE"])
@patient
async def test_a_nat_binds_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], helped: bool, fps: int = FPS
) -> None:
    """Chromium's own checks find the way; a page that listens for silence is sooner."""
    async with scene(tmp_path, fps=fps) as call:
        pins = call.node.base / "nat"
        with Bpffs(pins), Nat(pins, call.node.port, call.lab.pub, "pub0") as nat:
            await call.join()
            await call.frames(call.actors[1], call.actors[0], 15)
            if not helped:
                await stable(call)
                for actor in call.actors:
                    await actor.browser.evaluate("() => clearInterval(lab.session.listening)")
            before = await places(call)
            await watch(call)
            nat.rebind(REBIND)
            how = "a page that helps" if helped else "Chromium alone"
            restarts = await check_call(call, f"NAT rebinding, {how}", capsys)
            assert helped or restarts == [0, 0]
            after = await places(call)
            assert after[0].nominated != before[0].nominated
            assert after[1].nominated == before[1].nominated


@pytest.mark.slow
@patient
async def test_an_address_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fps: int = FPS
) -> None:
    async with scene(tmp_path, fps=fps) as call:
        one, host = call.actors[0], call.lab.pub
        setting = "net.ipv4.conf.pub0.promote_secondaries=1"
        run(*host.command("sysctl", "-qw", setting))
        await call.join()
        await call.frames(call.actors[1], one, 15)
        await watch(call)
        other = f"{host.address.rpartition('.')[0]}.77/24"
        run("ip", "-n", host.name, "addr", "add", other, "dev", "pub0")
        run("ip", "-n", host.name, "addr", "del", f"{host.address}/24", "dev", "pub0")
        await check_call(call, "address change", capsys)


@pytest.mark.slow
@patient
async def test_a_dual_stack_browser_stays_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fps: int = FPS
) -> None:
    """IPv4 and IPv6 at both ends: checks go on over several pairs, and media does not flap."""
    async with scene(tmp_path, fps=fps, dual=True) as call:
        await call.join()
        chosen = await call.until("pairs of both families", lambda: of_both_families(call))
        pairs = await chosen_pairs(call)
        answered = (await call.node.status())["ice"]["answered"]
        await watch(call)
        until = time.monotonic() + STAYS_S

        async def over() -> bool:
            now = [place.nominated for place in await places(call)]
            steady(now == chosen, f"a move from {chosen} to {now}")
            return time.monotonic() >= until

        await call.until("the time is over", over, STAYS_S + 10)
        now = await of_both_families(call)
        steady(now == chosen, f"a move from {chosen} to {now}")
        more = (await call.node.status())["ice"]["answered"] - answered
        restarts = await check_call(call, "dual stack", capsys)
        moved = await chosen_pairs(call)
        steady((restarts, moved) == ([0, 0], pairs), f"{restarts} restarts; {pairs}, then {moved}")
        with capsys.disabled():
            print(f"{more} checks answered in {STAYS_S:g} s: {await places(call)}")


class Place(NamedTuple):
    """Where the node sees a participant: the validated 5-tuples ("address port address port", the
    node's own last), and the nominated one."""

    tuples: list[str]
    nominated: str


async def places(call: Scene) -> list[Place]:
    """Of each actor."""
    known, found = await kept(call), []
    for record in (known[actor.participant] for actor in call.actors):
        tuples = record.tuples.split("\n") if record.tuples else []
        at = record.nominated
        found.append(Place(tuples, "" if at is None else tuples[at]))
    return found


async def of_both_families(call: Scene) -> list[str] | None:
    """The nominated ones, once each leg has validated pairs of IPv4 and of IPv6."""
    found = await places(call)
    both = all({":" in one for one in place.tuples} == {False, True} for place in found)
    return [place.nominated for place in found] if both else None


async def chosen_pairs(call: Scene) -> list[int]:
    """How often each browser has changed the pair that it sends over."""
    seen = [await actor.browser.call("published") for actor in call.actors]
    return [one["transport"]["selectedCandidatePairChanges"] for one in seen]
