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
from forwarder.demo.browser.result import Seen
from forwarder.demo.browser.result import slow as slow_machine
from forwarder.demo.browser.run import stage
from forwarder.demo.browser.slowlink import SlowLink
from forwarder.demo.namespaces import Lab
from forwarder.demo.node import Node
from forwarder.demo.options import DemoError

POLL_S = 0.2

Test = Callable[..., Awaitable[None]]


class TooSlow(AssertionError):
    """The case failed, and so would anything on a machine as slow as this one was."""


def patient(test: Test) -> Test:
    """Runs a case once more at half the frame rate when the machine was too slow for it.  The test
    hands its keyword `fps` to scene()."""

    @functools.wraps(test)
    async def run(*arguments: Any, **more: Any) -> None:
        try:
            await test(*arguments, **more)
        except TooSlow as error:
            print(f"{error.__cause__}\nmachine too slow: {error}; once more at {FPS // 2} frames/s")
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
        self, what: str, met: Callable[[], Awaitable[Any]], timeout_s: float = 20.0
    ) -> Any:
        """The first true value of `met()`."""
        end = time.monotonic() + timeout_s
        while not (found := await met()):
            assert time.monotonic() < end, f"{what}: not within {timeout_s:g} s"
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

        await self.until(f"{publisher.id} to {viewer.id}: {more} frames", met, 20 + more / 5)


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
        try:
            yield Scene(lab, node, chosen, actors, link)
        except (AssertionError, DemoError) as error:
            idle = idle_share(began, cpu_times())
            if why := await _slow(actors, chosen.fps, idle):
                raise TooSlow("; ".join(why)) from error
            raise


async def _slow(actors: list[Actor], fps: int, idle: float) -> list[str]:
    seen = []
    for actor in (one for one in actors if one.sends):  # the others paint nothing
        with contextlib.suppress(DemoError):
            snapshot = await actor.browser.call("snapshot")
            seen.append(Seen(actor.id, actor.browser.kind, "", snapshot, []))
    return slow_machine(seen, fps, idle)


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
