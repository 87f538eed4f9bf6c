"""Promotion to the stage and back, through a real node: nobody is sent SDP for it, slots stay the
streams that they were, and nothing that comes while a role may not publish is ever forwarded."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from bare_peer import OPUS, VP8, rtp
from media_kit import Ears, labelled, picture
from node_kit import Call, Site, Up, node_of, until, up
from session_kit import Page
from test_slots import Watcher
from webrtc_kit import Picture, http, impatient, on_loopback

from forwarder.cli.admin import AdminError
from forwarder.client.control import ClientError
from forwarder.errors import ErrorCode
from forwarder.rooms.roles import Role
from forwarder.signaling import messages as m
from forwarder.supervisor.node import Node

__all__ = ["impatient", "on_loopback"]
FIRST = 65_500  # sequence numbers begin anew, and the roll-over counter is 1, before any demotion


async def set_role(site: Site, who: str, role: Role, room: str = "r") -> dict[str, Any]:
    """As an admin does."""
    where = f"/v1/rooms/{room}/participants/{who}"
    found = await asyncio.to_thread(site.request, "PATCH", where, {"role": role.value})
    assert (found["id"], found["role"]) == (who, role.value)
    return dict(found)


def named(node: Node, name: str) -> str:
    return next(p.id for p in node.rooms.participants() if p.name == name)


class Film:
    """What a WHIP publisher sends, whatever its role; a packet ends in the number of its frame."""

    def __init__(self, peer: Ears) -> None:
        self.peer = peer
        self.number = FIRST
        self.running = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self.running.wait()
            number = self.number
            mark = struct.pack("!I", number)
            shown = picture(number, key=number % 15 == 0)[:-4] + mark
            self.peer.send_rtp(labelled(VP8, 0xC0, number, shown, mid="1"))
            self.peer.send_rtp(rtp(OPUS, 0xA0, number, bytes(40) + mark, mid="0", level=127))
            self.number += 1
            await asyncio.sleep(1 / 30)

    async def sends(self, frames: int) -> None:
        """So many more."""
        start = self.number
        self.running.set()
        await until(lambda: self.number >= start + frames, f"{frames} frames are sent")

    async def pause(self, node: Node) -> None:
        """Until the node has read everything that was sent."""
        self.running.clear()
        while (await node.status())["counters"]["rx_socket"] < 2 * (self.number - FIRST):
            await asyncio.sleep(0.02)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def numbers(eve: Ears, pt: int) -> list[int]:
    """Of the frames that came."""
    return [int(struct.unpack("!I", packet.payload[-4:])[0]) for packet in eve.of(pt)]


def without_sdp(told: list[Any]) -> bool:
    return not [message for message in told if "sdp" in type(message).model_fields]


@pytest.mark.usefixtures("on_loopback")
@pytest.mark.parametrize("workers", [1, 2])
async def test_what_a_demoted_publisher_sends_reaches_nobody(tmp_path: Path, workers: int) -> None:
    """A WHIP client knows of no role and sends on: it stays, unheard, and goes on the air again by
    a word of the admin's, twice over.  The viewer's slots are the same streams, without a gap."""
    site = Site(tmp_path, change={"dataplane": {"workers": workers}})
    async with (
        node_of(site) as node,
        http(site) as client,
        Watcher(site) as eve,
        Ears("whip", site.token("cam")) as cam,
    ):
        await site.room()
        await eve.connect(client)
        await cam.connect(client)
        film, who = Film(cam), named(node, "cam")
        me = node.rooms.participant(eve.id)
        answered = [(s.spec, s.out_ssrc, s.rtx_ssrc, s.route) for s in me.slots]
        silence: list[range] = []
        try:
            for role in (Role.PASSIVE, Role.BACKSTAGE):
                await film.sends(45)  # past the roll-over
                await until(lambda: numbers(eve, VP8)[-1:] > [film.number - 5], "it is seen")
                await set_role(site, who, role)
                down = film.number
                await film.sends(45)
                await film.pause(node)
                silence.append(range(down, film.number))
                await set_role(site, who, Role.ACTIVE)
                await film.sends(45)
                for pt in (VP8, OPUS):
                    await until(
                        lambda pt=pt: numbers(eve, pt)[-1:] > [silence[-1].stop + 10],  # type: ignore[misc]
                        "it is there again",
                    )
        finally:
            await film.end()
        assert all(len(unheard) >= 45 for unheard in silence)
        for pt in (VP8, OPUS):
            came = set(numbers(eve, pt))
            assert [sorted(came.intersection(unheard)) for unheard in silence] == [[], []]
            seqs = [packet.seq for packet in eve.of(pt)]
            assert all((b - a) & 0xFFFF == 1 for a, b in pairwise(seqs)), (pt, seqs)
        assert [(s.spec, s.out_ssrc, s.rtx_ssrc, s.route) for s in me.slots] == answered
        sound, pictures, _ = eve.ssrcs
        assert {(p.ssrc, p.pt) for p in eve.packets} == {(sound, OPUS), (pictures, VP8)}
        assert without_sdp(eve.told)
        states = [(x.kind, x.state) for x in eve.told if isinstance(x, m.SlotChanged)]
        played = [state for kind, state in states if kind == "video"]
        assert played == ["playing", "waiting", "playing", "waiting", "playing"]
        words = [x for x in eve.told if getattr(x, "participant_id", "") == who]
        roles = [x.role for x in words if isinstance(x, m.RoleChanged)]
        assert roles == [Role.PASSIVE, Role.ACTIVE]  # backstage is told of as one that left
        assert [x.reason for x in words if isinstance(x, m.ParticipantLeft)] == [
            "it is backstage now"
        ]
        status = await node.status()
        assert status["balanced"], status["imbalance"]
        assert status["drops"].get("auth", 0) == 0, status["drops"]
        assert status["table"].get("refused", 0) == 0
        await eve.control.leave()
        eve.control.close()
        assert (await client.delete(cam.location, headers=cam.headers)).status_code == 200


async def seen(eve: Page, who: Page, brightness: int) -> m.SlotInfo:
    slot = await eve.shows(who.id)
    await eve.sees(slot.mid, brightness)
    return slot


@pytest.mark.usefixtures("on_loopback", "impatient")
async def test_a_page_is_promoted_demoted_and_promoted_again(tmp_path: Path) -> None:
    """The first time it publishes by an offer of its own; from then on by the m-lines that it has.
    Demoted, its offers are taken as before, and what would publish more is refused."""
    site = Site(tmp_path)
    bob, eve = (Page(site, name, Role.PASSIVE, pairs=1) for name in ("bob", "eve"))
    async with node_of(site) as node, contextlib.AsyncExitStack() as here:
        await site.room()
        for one in (bob, eve):
            here.push_async_callback(one.close)
        await bob.join()
        first = await eve.join()
        assert bob.welcome is not None and bob.welcome.role is Role.PASSIVE
        await set_role(site, bob.id, Role.ACTIVE)
        await until(lambda: bob.of(m.RoleChanged), "it is told")
        assert bob.of(m.RoleChanged)[0] == m.RoleChanged(participant_id=bob.id, role=Role.ACTIVE)
        bob.add(Picture(220))
        await bob.offer_again()
        slot = await seen(eve, bob, 220)
        (track,) = node.rooms.show_room("r").tracks

        await set_role(site, bob.id, Role.PASSIVE)
        await until(lambda: eve.slot_of(bob.id) is None, "its slot is empty")
        had = len(eve.seen[slot.mid])
        bob.grow(1)
        await bob.offer_again()
        assert len(node.rooms.participant(bob.id).slots) == 4
        more = bob.add(Picture(60))
        with pytest.raises(ClientError) as refused:
            await bob.control.request(m.Offer, sdp=await bob.offer())
        assert refused.value.code is ErrorCode.FORBIDDEN
        assert node.rooms.show_room("r").tracks == ()
        more.direction = "inactive"

        offers = bob.control._next_id  # requests of its own
        await set_role(site, bob.id, Role.ACTIVE)
        assert (await seen(eve, bob, 220)).mid == slot.mid
        assert len(eve.seen[slot.mid]) > had
        assert [t.id for t in node.rooms.show_room("r").tracks] == [track.id]
        assert bob.control._next_id == offers and len(bob.welcomes) == 1
        for one in (bob, eve):
            assert without_sdp(one.told) and one.pc.connectionState == "connected"
        (mine,) = [s for s in first.slots if s.mid == slot.mid]
        assert (slot.pair, slot.kind) == (mine.pair, mine.kind)
        status = await node.status()
        assert status["balanced"], status["imbalance"]


@pytest.mark.usefixtures("on_loopback")
async def test_the_client_waits_for_its_role_and_goes_on(tmp_path: Path) -> None:
    """It sends nothing that would be for nobody; nothing else has to be done by its user."""
    site = Site(tmp_path)
    async with node_of(site) as node:
        await site.room()
        call = Call(site)
        async with call.publisher as publisher, call.subscriber as subscriber:
            assert (publisher.role, subscriber.role) == (Role.ACTIVE, Role.PASSIVE)
            await call.begin()
            who = publisher.welcome.participant_id  # type: ignore[union-attr]
            await set_role(site, who, Role.PASSIVE)
            await until(lambda: publisher.role is Role.PASSIVE, "it is told")
            refused, sent = call.track.refused, call.sent
            await until(lambda: call.track.refused > refused + 20, "it holds back")
            assert call.sent == sent and not subscriber.room_tracks
            with pytest.raises(ClientError) as forbidden:
                await publisher.publish([call.track])
            assert forbidden.value.code is ErrorCode.FORBIDDEN
            await set_role(site, who, Role.HOST)
            await call.flows(50)
            assert publisher.role is Role.HOST
            await call.end()
            lost = call.lost()  # before it heard of one role, or before the other was in force
            assert lost == list(range(lost[0], lost[-1] + 1)) if lost else True, lost
            status = await node.status()
            assert status["balanced"], status["imbalance"]


async def test_a_role_outlives_the_supervisor(tmp_path: Path) -> None:
    """kill -9: who resumes has the role that it was given, who joins anew that of its token."""
    site = Site(tmp_path)
    with up(site) as first:
        await site.room(max_active=2)
        call = Call(site)
        async with (
            call.publisher as down,
            call.subscriber as viewer,
            site.client("up", Role.PASSIVE) as raised,
        ):
            await call.begin()
            ids = {c: c.welcome.participant_id for c in (down, raised)}  # type: ignore[union-attr]
            await set_role(site, ids[raised], Role.ACTIVE)
            await set_role(site, ids[down], Role.PASSIVE)
            await until(lambda: down.role is Role.PASSIVE and raised.role is Role.ACTIVE, "told")
            first.kill()
            second = Up(site)
            try:
                await asyncio.to_thread(second.ready)
                back = [down, viewer, raised]
                await until(lambda: [c.resumed for c in back] == [1, 1, 1], "all are back")
                assert [c.role for c in back] == [Role.PASSIVE, Role.PASSIVE, Role.ACTIVE]
                room = await asyncio.to_thread(site.request, "GET", "/v1/rooms/r")
                assert (room["active"], room["passive"], room["tracks"]) == (1, 2, [])
                async with site.client("up", Role.PASSIVE) as anew:
                    assert anew.role is Role.PASSIVE
                await set_role(site, ids[down], Role.ACTIVE)
                await call.flows(50)
                await call.stop_sending()
                assert [c.rejoined for c in back] == [0, 0, 0]
                status = await asyncio.to_thread(site.status)
                assert status["balanced"], status["imbalance"]
            finally:
                second.clean_up()


async def test_what_an_admin_is_refused(tmp_path: Path) -> None:
    """A full stage, somebody who is not there, or no longer: each in a sentence."""
    site = Site(tmp_path)
    async with node_of(site):
        await site.room(max_active=1, max_passive=1)
        async with site.client("ada") as ada, site.client("eve", Role.PASSIVE) as eve:
            ids = [c.welcome.participant_id for c in (ada, eve)]  # type: ignore[union-attr]
            for who, role, room, sentence in (
                (ids[1], Role.ACTIVE, "r", "has 1 active"),
                (ids[0], Role.PASSIVE, "r", "has 1 passive"),
                ("nobody", Role.ACTIVE, "r", "there is nobody 'nobody' in room r"),
                (ids[1], Role.ACTIVE, "none", "there is no room 'none'"),
            ):
                with pytest.raises(AdminError, match=sentence):
                    await set_role(site, who, role, room)
            await ada.close()
            await set_role(site, ids[1], Role.ACTIVE)
            with pytest.raises(AdminError, match="there is nobody"):
                await set_role(site, ids[0], Role.PASSIVE)
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(site.run_dir / "api.sock")),
            base_url="http://node",
        ) as plain:
            for body in ({}, {"role": "king"}, {"role": "active", "more": 1}, []):
                answer = await plain.patch("/v1/rooms/r/participants/p", json=body)
                assert answer.status_code == 400, body
