"""A call between browsers that a test leads step by step."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forwarder.demo.browser import session
from forwarder.demo.browser.cast import Actor, open_browsers
from forwarder.demo.browser.machine import cpu_times, idle_share
from forwarder.demo.browser.options import FPS, LARGE_HEIGHT, BrowserOptions
from forwarder.demo.browser.pace import Seen
from forwarder.demo.browser.pace import slow as slow_machine
from forwarder.demo.browser.result import lost_or_wrong, other_codecs
from forwarder.demo.browser.run import stage
from forwarder.demo.browser.slowlink import SlowLink
from forwarder.demo.namespaces import Lab
from forwarder.demo.node import Node
from forwarder.demo.options import DemoError

POLL_S = 0.2

Test = Callable[..., Awaitable[None]]


class Unsteady(AssertionError):
    """Something came too late, too seldom or not at all, as on a machine that is too slow."""


class TooSlow(AssertionError):
    """The case was unsteady and nothing else, and the machine was too slow for it."""


def steady(met: bool, what: object) -> None:
    """Asserts what a slow machine may keep from being so: rates, freezes, gaps, packets lost,
    frames too few.  All else is asserted plainly: a case is not done once more for it."""
    if not met:
        raise Unsteady(str(what))


def patient(test: Test) -> Test:
    """Runs a case once more at half the frame rate when it was Unsteady, nothing worse is to be
    seen, and the machine was too slow for it.  The test hands its keyword `fps` to scene()."""

    @functools.wraps(test)
    async def run(*arguments: Any, **more: Any) -> None:
        try:
            await test(*arguments, **more)
        except TooSlow as error:
            print(f"excused once: {error.__cause__}\nmachine too slow: {error}")
            print(f"once more at {FPS // 2} frames a second")
            await test(*arguments, **more, fps=FPS // 2)

    return run


@dataclass
class Scene:
    lab: Lab
    node: Node
    options: BrowserOptions
    actors: list[Actor]
    link: SlowLink | None

    async def join(self) -> None:
        await session.join_all(self.actors, self.node, self.options)

    async def until(
        self,
        what: str,
        met: Callable[[], Awaitable[Any]],
        timeout_s: float = 20.0,
        *,
        pace: bool = False,
    ) -> Any:
        """The first true value of `met()`; `pace`: one that a slow machine may keep from coming."""
        end = time.monotonic() + timeout_s
        while not (found := await met()):
            if time.monotonic() >= end:
                raise (Unsteady if pace else AssertionError)(f"{what}: not within {timeout_s:g} s")
            await asyncio.sleep(POLL_S)
        return found

    async def frames(self, viewer: Actor, publisher: Actor, more: int = 10) -> None:
        """Waits until the viewer has read so many more frames of the publisher."""

        async def read() -> int:
            counts = await viewer.browser.call("counts")
            return int(dict(map(tuple, counts["rendered"])).get(publisher.id, 0))

        before = await read()

        async def met() -> bool:
            return await read() >= before + more

        what = f"{publisher.id} to {viewer.id}: {more} frames"
        await self.until(what, met, 20 + more / 5, pace=True)

    async def seen(self) -> list[Seen]:
        """What the browsers know by now, those that still answer."""
        found = []
        for actor in self.actors:
            with contextlib.suppress(DemoError):
                snapshot = await actor.browser.call("snapshot")
                found.append(Seen(actor.id, actor.browser.kind, "", snapshot, [], actor.sends))
        return found

    async def broken(self, seen: list[Seen]) -> list[str]:
        """What is wrong by now on whatever machine."""
        codec = self.options.codec
        wrong = [fault for one in seen for fault in lost_or_wrong(one) + other_codecs(one, codec)]
        with contextlib.suppress(DemoError):
            status = await self.node.status()
            if not status["balanced"]:
                wrong.append(f"the node's own books: {status['imbalance']}")
            if self.options.path != "udp" and (count := status["counters"]["rx_socket"]):
                wrong.append(f"media on the kernel's way: {count}")
        return wrong


@asynccontextmanager
async def scene(out: Path, *, slow: bool = False, **options: Any) -> AsyncIterator[Scene]:
    """Node and browsers are up; nobody has joined.  `slow`: a router before browser 1's host."""
    chosen = BrowserOptions(out=out, **options)
    async with AsyncExitStack() as made:
        lab, node = stage(made, chosen)
        link = made.enter_context(SlowLink(lab)) if slow else None
        made.push_async_callback(node.clean_up)
        await node.start()
        opened = await made.enter_async_context(AsyncExitStack())
        actors = await open_browsers(opened, chosen, lab, node.base)
        # One that vanished is in the room until its consent runs out.
        await node.create_room(chosen.participants + 2)
        began = cpu_times()
        call = Scene(lab, node, chosen, actors, link)
        try:
            yield call
        except Unsteady as error:
            idle, seen = idle_share(began, cpu_times()), await call.seen()
            if wrong := await call.broken(seen):
                raise AssertionError(f"{error}; and: {'; '.join(wrong)}") from error
            senders = [one for one in seen if one.sends]  # the others paint nothing
            if why := slow_machine(senders, chosen.fps, idle):
                raise TooSlow("; ".join(why)) from error
            raise


def view_of(snapshot: dict[str, Any], publisher: Actor) -> dict[str, Any]:
    """The viewer's account of that publisher."""
    return next(view for view in snapshot["views"] if view["from"] == publisher.id)


def picture(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The statistics of the picture that plays."""
    return next(r for r in entries if r["kind"] == "video" and r.get("framesDecoded"))


async def published(actor: Actor) -> dict[str, Any]:
    return dict(await actor.browser.call("published"))


async def join_viewers(call: Scene, sender: Actor, viewers: Sequence[Actor]) -> None:
    await session.join(sender, call.node, call.options)
    await watch(call, sender, viewers)


async def watch(call: Scene, sender: Actor, viewers: Sequence[Actor]) -> None:
    """These join, send nothing, and have a picture of the sender; they paint no more either."""
    for viewer in viewers:
        await viewer.browser.evaluate("() => lab.painter.stop()")
        await session.join(viewer, call.node, call.options, publish=False)
        viewer.sends = False
    for viewer in viewers:
        await session.pictures(viewer, [sender])


async def height(viewer: Actor, sender: Actor) -> int:
    view = view_of(await viewer.browser.call("snapshot"), sender)
    return int(picture(view["statistics"]["rtp"])["frameHeight"])


async def state(viewer: Actor, sender: Actor) -> dict[str, int]:
    """Of what the viewer got of the sender since it joined: freezes, frames read of either layer,
    packets of sound."""
    view = view_of(await viewer.browser.call("snapshot"), sender)
    rtp, layers = view["statistics"]["rtp"], view["layers"]
    audio = next(r for r in rtp if r["kind"] == "audio")
    return {
        "freezes": picture(rtp)["freezeCount"],
        "low": layers.get(str(LARGE_HEIGHT // 2), 0),
        "high": layers.get(str(LARGE_HEIGHT), 0),
        "audio": audio["packetsReceived"],
        "audio_lost": audio["packetsLost"],
    }
