"""Addresses that change under a call: nobody joins anew, the gap is short and is printed."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from browser_kit import marks
from scene_kit import Scene, patient, scene, steady, view_of

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor
from forwarder.demo.browser.losses import Nat
from forwarder.demo.browser.options import FPS
from forwarder.demo.namespaces import Bpffs, run

pytestmark = marks
GAP_MAX_S = 3.0  # Chromium checks a stable pair each 2.7 s
REBIND = 0x0FF0


async def gap(viewer: Actor, publisher: Actor, fps: int) -> float:
    """The longest time for which the viewer read no frame of the publisher, in seconds."""
    view = view_of(await viewer.browser.call("snapshot"), publisher)
    assert (view["wrong"], view["wrong_seen"]) == (0, [])
    numbers = sorted(number for _, number in view["rendered"])
    return max(b - a for a, b in pairwise(numbers)) / fps


async def check_call(call: Scene, what: str) -> None:
    """Media both ways, by the same participants; the gaps."""
    one, two = call.actors
    await call.frames(one, two, 15)
    await call.frames(two, one, 15)
    for actor, other in ((one, two), (two, one)):
        about = await session.about(actor)
        assert about["participant_id"] == actor.participant
        seconds = await gap(actor, other, call.options.fps)
        print(f"{what}: {other.id} to {actor.id}: a gap of {seconds:.2f} s")
        steady(seconds <= GAP_MAX_S, f"{other.id} to {actor.id}: a gap of {seconds:.2f} s")


@patient
async def test_a_nat_binds_anew(tmp_path: Path, fps: int = FPS) -> None:
    async with scene(tmp_path, fps=fps) as call:
        pins = call.node.base / "nat"
        with Bpffs(pins), Nat(pins, call.node.port, call.lab.pub, "pub0") as nat:
            await call.join()
            await call.frames(call.actors[1], call.actors[0], 15)
            nat.rebind(REBIND)
            await check_call(call, "NAT rebinding")


@pytest.mark.slow
@patient
async def test_an_address_changes(tmp_path: Path, fps: int = FPS) -> None:
    async with scene(tmp_path, fps=fps) as call:
        one, host = call.actors[0], call.lab.pub
        setting = "net.ipv4.conf.pub0.promote_secondaries=1"
        run(*host.command("sysctl", "-qw", setting))
        await call.join()
        await call.frames(call.actors[1], one, 15)
        other = f"{host.address.rpartition('.')[0]}.77/24"
        run("ip", "-n", host.name, "addr", "add", other, "dev", "pub0")
        run("ip", "-n", host.name, "addr", "del", f"{host.address}/24", "dev", "pub0")
        await check_call(call, "address change")


@pytest.mark.slow
@patient
async def test_a_dual_stack_browser_stays_where_it_is(tmp_path: Path, fps: int = FPS) -> None:
    """Checks go on over several pairs; media does not flap between them."""
    async with scene(tmp_path, fps=fps) as call:
        for host, near in ((call.lab.pub, "pub0"), (call.lab.sub, "sub0")):
            width = ("dev", near, "nodad")
            run("ip", "-n", host.name, "addr", "add", "fd99::2/64", *width)
        await call.join()
        before = [(await a.browser.call("snapshot"))["publish"]["transport"] for a in call.actors]
        await asyncio.sleep(60)  # what is claimed is claimed for so long
        await check_call(call, "dual stack")
        after = [(await a.browser.call("snapshot"))["publish"]["transport"] for a in call.actors]
        changes = "selectedCandidatePairChanges"
        assert [t[changes] for t in before] == [t[changes] for t in after]
