"""Joining by WHIP and WHEP: each participant publishes on one association and views each of the
others on one more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from forwarder.demo.browser.cast import Actor, gather
from forwarder.demo.browser.options import BrowserOptions
from forwarder.demo.node import ROOM, Node
from forwarder.demo.options import DemoError
from forwarder.rooms.roles import Role

JOIN_S = 20.0  # POST to connected, and POST to the first picture
FOUND_S = 10.0  # a publisher's tracks show up in the room
POLL_S = 0.2


async def join_all(actors: Sequence[Actor], node: Node, options: BrowserOptions) -> None:
    """Everybody publishes; then everybody views everybody else."""
    await gather(*(publish(actor, node, options) for actor in actors))
    await find_tracks(actors, node)
    await gather(
        *(
            view(actor, other, node, options)
            for actor in actors
            for other in actors
            if other is not actor
        )
    )


async def publish(actor: Actor, node: Node, options: BrowserOptions) -> None:
    """WHIP."""
    where = {
        "url": f"{node.url(actor.gate)}/whip/{ROOM}",
        "token": node.token(actor.name, Role.ACTIVE),
    }
    await _join(actor, "publish", {**where, **media(actor, options)})


async def find_tracks(actors: Sequence[Actor], node: Node) -> None:
    """Waits until everybody's tracks are in the room; then who is who is known."""
    until = time.monotonic() + FOUND_S
    while True:
        room = await node.request("GET", f"/v1/rooms/{ROOM}")
        ids = {p["name"]: p["id"] for p in room["participants"]}
        kinds = {(t["participant_id"], t["kind"]) for t in room["tracks"]}
        for actor in actors:
            actor.participant = ids.get(actor.name, "")
        wanted = {(a.participant, kind) for a in actors for kind in ("audio", "video")}
        if wanted <= kinds:
            return
        if time.monotonic() > until:
            raise DemoError(f"not everybody's tracks are in the room: {room}")
        await asyncio.sleep(POLL_S)


async def view(actor: Actor, other: Actor, node: Node, options: BrowserOptions) -> None:
    """WHEP, pinned to the other participant."""
    where = {
        "from": other.id,
        "url": f"{node.url(actor.gate)}/whep/{ROOM}?participant={other.participant}",
        "token": node.token(f"{actor.name}-views-{other.id}", Role.PASSIVE),
    }
    await _join(actor, "view", {**where, **media(actor, options)})


def media(actor: Actor, options: BrowserOptions) -> dict[str, Any]:
    """What the page must know of the call."""
    return {
        "codec": options.codec,
        "encodings": options.encodings(actor.id),
        "repair": options.repair,
        "feedback": options.feedback,
        "timeoutMs": JOIN_S * 1000,
    }


async def _join(actor: Actor, method: str, what: dict[str, Any]) -> None:
    found = await actor.browser.call(method, what, timeout_s=2 * JOIN_S + 5)
    actor.join_ms.append(found["join_ms"])
