"""Slots on the wire: what a viewer was answered is what it is sent, whoever comes, goes or is
shown; who first only watched may publish by a further offer, if its role allows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from bare_peer import OPUS, VP8, rtp
from media_kit import Ears, labelled, picture
from node_kit import Site, until
from pydantic import BaseModel
from session_kit import Page
from webrtc_kit import Picture, impatient, meeting, on_loopback

from forwarder.client.control import ClientError, Control
from forwarder.client.quic import Target, parse_hash
from forwarder.errors import ErrorCode
from forwarder.rooms.roles import Role
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as m

__all__ = ["impatient", "on_loopback"]
SMALL, LARGE = 300, 900  # bytes of a picture: that of one, and of another


class Watcher(Ears):
    """A session of one pair of slots, packet by packet."""

    control: Control

    def __init__(self, site: Site) -> None:
        token = site.token("eve", Role.PASSIVE)
        super().__init__("whep", token)
        self.told: list[BaseModel] = []
        self.control = Control(
            Target(site.url(), parse_hash(site.cert_hash)),
            token,
            name="eve",
            suites=list(Suite),
            on_message=self.told.append,
            on_back=self._back,
        )

    async def _back(self, welcome: m.Welcome) -> None:
        raise AssertionError("the session was lost")

    async def view(self, *who: str) -> None:
        await self.control.request(m.View, participants=list(who) or None)

    async def sees(self, size: int) -> None:
        """Until pictures of this size come, and no others."""

        def so() -> bool:
            latest = [abs(len(p.payload) - size) < 100 for p in self.of(VP8)[-5:]]
            return len(latest) == 5 and all(latest)

        await until(so, f"pictures of {size} bytes come")


@contextlib.asynccontextmanager
async def filming(
    site: Site, client: httpx.AsyncClient, name: str, size: int
) -> AsyncIterator[Ears]:
    """A publisher by WHIP, sound and pictures, a key frame each half second."""

    async def film(peer: Ears) -> None:
        number = 0
        while True:
            data = picture(number, key=number % 15 == 0, size=size)
            peer.send_rtp(labelled(VP8, 0xC0 + size, number, data, mid="1"))
            peer.send_rtp(rtp(OPUS, 0xA0 + size, number, bytes(40), mid="0", level=127))
            number += 1
            await asyncio.sleep(1 / 30)

    async with Ears("whip", site.token(name)) as peer:
        await peer.connect(client)
        task = asyncio.create_task(film(peer))
        try:
            yield peer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            gone = await client.delete(peer.location, headers=peer.headers)
            assert gone.status_code == 200


@pytest.mark.usefixtures("on_loopback")
async def test_a_slot_is_one_stream_for_ever(tmp_path: Path) -> None:
    """Nobody there, joins, turns of the page, one that leaves, one that comes back, one that only
    watched and publishes now: the SSRCs and payload types of the answer, the numbers in a row, and
    after `welcome` no word of SDP."""
    site = Site(tmp_path)
    eve = Watcher(site)
    async with meeting(site, eve) as (node, client):
        me = node.rooms.participant(eve.id)
        answered = [(s.spec, s.out_ssrc, s.rtx_ssrc, s.route) for s in me.slots]

        def named(name: str) -> str:
            return next(p.id for p in node.rooms.participants() if p.name == name)

        async with filming(site, client, "ada", SMALL):
            await eve.sees(SMALL)
            async with filming(site, client, "bob", LARGE):
                for who, size in (("bob", LARGE), ("ada", SMALL), ("bob", LARGE)):
                    await eve.view(named(who))
                    await eve.sees(size)
                await eve.view()
            await eve.sees(SMALL)
            async with Page(site, "carl", pairs=1) as carl:
                await carl.join()
                await carl.shows(named("ada"))
                carl.add(Picture(60))
                await carl.offer_again()
                await eve.view(named("carl"))
                had = len(eve.of(VP8))
                await until(lambda: len(eve.of(VP8)) > had + 5, "carl is seen")
                await eve.view()
            await eve.sees(SMALL)
        async with filming(site, client, "ada", LARGE):
            await eve.sees(LARGE)
        assert [(s.spec, s.out_ssrc, s.rtx_ssrc, s.route) for s in me.slots] == answered
        await eve.control.leave()
        eve.control.close()
    sound, pictures, _ = eve.ssrcs  # the last one is of resends
    assert {(p.ssrc, p.pt) for p in eve.packets} == {(sound, OPUS), (pictures, VP8)}
    for pt in (OPUS, VP8):
        numbers = [packet.seq for packet in eve.of(pt)]
        assert all((b - a) & 0xFFFF == 1 for a, b in pairwise(numbers)), (pt, numbers)
    assert [message for message in eve.told if "sdp" in type(message).model_fields] == []
    asked = [message for message in eve.told if isinstance(message, m.Grow)]
    assert asked  # ahead of need; that one does not follow is no fault


@pytest.mark.usefixtures("on_loopback", "impatient")
async def test_who_may_not_publish_may_not_by_a_further_offer(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ada = Page(site, "ada", brightness=220, pairs=0)
    eve = Page(site, "eve", Role.PASSIVE, pairs=1)
    async with meeting(site, ada, eve) as (node, _):
        slot = await eve.shows(ada.id)
        me = node.rooms.participant(eve.id)
        before = (me.peer, [s.spec for s in me.slots])
        eve.grow(1)
        eve.add(Picture(60))
        with pytest.raises(ClientError) as refused:
            await eve.control.request(m.Offer, sdp=await eve.offer())
        assert refused.value.code is ErrorCode.FORBIDDEN
        assert len(node.rooms.show_room("r").tracks) == 2 and not me.tracks
        assert (me.peer, [s.spec for s in me.slots]) == before
        await eve.sees(slot.mid, 220)
