"""Joining by session: one WebTransport session and one peer connection for each participant; what
it sees comes in slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from forwarder.demo.browser.cast import Actor, gather
from forwarder.demo.browser.options import BrowserOptions
from forwarder.demo.browser.whip import JOIN_S, POLL_S, media
from forwarder.demo.node import Node
from forwarder.demo.options import DemoError
from forwarder.rooms.roles import Role

PAIRS, VOICES = 9, 3  # receive lines of an offer: sound with picture, and sound alone
RESUME_S = 15.0


async def join_all(actors: Sequence[Actor], node: Node, options: BrowserOptions) -> None:
    """Everybody joins at once; then everybody shows everybody else."""
    await gather(*(join(actor, node, options) for actor in actors))
    await gather(*(pictures(actor, actors) for actor in actors))


async def join(actor: Actor, node: Node, options: BrowserOptions, **more: Any) -> None:
    """One participant; it sends if its browser can send the codec.  `more` goes to the page."""
    actor.sends = bool(await actor.browser.call("canSend", options.codec))
    what = {
        "url": f"{node.url(actor.gate)}/v1/join",
        "token": node.token(actor.name, Role.ACTIVE),
        "certHash": node.cert_hash,
        "pairs": PAIRS,
        "voices": VOICES,
        "publish": actor.sends,
        **media(actor, options),
        **more,
    }
    found = await actor.browser.call("joinSession", what, timeout_s=JOIN_S + 5)
    actor.participant = found["participant_id"]
    actor.join_ms.append(found["join_ms"])


async def pictures(actor: Actor, others: Sequence[Actor]) -> dict[str, float]:
    """Waits until it shows each of the others that sends, or says that it cannot; when it did, ms
    after it began to join."""
    ids = [other.id for other in others if other is not actor and other.sends]
    found = await actor.browser.call("pictures", ids, JOIN_S * 1000, timeout_s=JOIN_S + 5)
    return dict(found)


async def about(actor: Actor) -> dict[str, Any]:
    """What its session knows: participant, resumes, slots, messages."""
    return dict(await actor.browser.evaluate("() => lab.session.about()"))


async def resumed(actor: Actor, times: int = 1) -> dict[str, Any]:
    """Waits until its session has come back so often."""
    until = time.monotonic() + RESUME_S
    while len((known := await about(actor))["resumes"]) < times:
        if time.monotonic() > until:
            raise DemoError(f"{actor.name} did not resume within {RESUME_S:g} s: {known}")
        await asyncio.sleep(POLL_S)
    return known
