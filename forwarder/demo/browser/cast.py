"""The participants of the browser lab: who they are, where they live, how they are opened."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder.demo.browser.chromium import Chromium, playwright
from forwarder.demo.browser.driven import Driven
from forwarder.demo.browser.firefox import Firefox
from forwarder.demo.browser.options import (
    HEIGHT,
    LARGE_HEIGHT,
    LARGE_WIDTH,
    WIDTH,
    BrowserOptions,
)
from forwarder.demo.namespaces import Host, Lab


@dataclass
class Actor:
    """One participant: a browser that publishes and views everybody else."""

    id: int
    host: Host
    gate: str  # the node's address as seen from there
    browser: Driven
    participant: str = ""  # its id in the room
    sends: bool = True  # a picture
    join_ms: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"participant-{self.id}"


def kind_of(number: int, kinds: Sequence[str]) -> str:
    """The kind of browser of a participant (from 1 on): in order, and round again."""
    return kinds[(number - 1) % len(kinds)]


async def open_browsers(
    opened: AsyncExitStack, options: BrowserOptions, lab: Lab, base: Path
) -> list[Actor]:
    """All browsers with their cameras running, one on this host, the next on the other; or the
    first on this one and all the others on that (`first_alone`)."""
    driver = None
    if "chromium" in options.browsers:
        driver = await opened.enter_async_context(playwright())
    places = [(lab.pub, lab.fwd_addresses[0]), (lab.sub, lab.fwd_addresses[1])]

    async def one(number: int) -> Actor:
        host, gate = places[min(number - 1, 1) if options.first_alone else (number - 1) % 2]
        name, profile = f"browser {number}", base / f"profile-{number}"
        browser: Driven
        if kind_of(number, options.browsers) == "firefox":
            browser = await Firefox.open(opened, name, host, profile)
        else:
            assert driver is not None
            browser = await Chromium.open(opened, driver, name, host, profile)
        actor = Actor(number, host, gate, browser)
        width, height = (LARGE_WIDTH, LARGE_HEIGHT) if options.large(number) else (WIDTH, HEIGHT)
        picture = {"width": width, "height": height, "fps": options.fps, "noise": options.noise}
        await browser.call("start", {"id": number, "name": actor.name, **picture})
        return actor

    return list(await gather(*(one(number) for number in range(1, options.participants + 1))))


async def gather(*things: Any) -> list[Any]:
    """Like asyncio's, but the first failure ends the others before it is raised."""
    tasks = [asyncio.ensure_future(thing) for thing in things]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
