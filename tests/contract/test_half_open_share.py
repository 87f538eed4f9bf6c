"""Who may join one room fills that room's share of the half-open handshakes of a node with its
defaults: the others' rooms go on, and are joined, by WHIP, by WHEP and by sessions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from bare_peer import Peer, talk
from node_kit import Site, node_of
from webrtc_kit import http

from forwarder.client.control import ClientError, Control
from forwarder.client.quic import Target, parse_hash
from forwarder.config import defaults
from forwarder.errors import ErrorCode
from forwarder.ice import dtls
from forwarder.rooms.roles import Role
from forwarder.rtp.suites import Suite

MOST, SHARE = 512, 384  # places of a node, and of them those of one room
FOR_EVER_S = 3600.0  # nothing comes free by itself, however slow the machine


class Greedy(Peer):
    """One token of a room, and offers without end that nothing follows."""

    def __init__(self, site: Site, room: str) -> None:
        super().__init__("whep", site.token("greedy", Role.PASSIVE, room), room)
        self.urls: list[str] = []

    async def fill(self, client: httpx.AsyncClient) -> httpx.Response:
        """The answer that is none."""
        while (made := await self.post(client)).status_code == 201:
            self.urls.append(made.headers["location"])
        return made


def session(site: Site, room: str) -> Peer:
    """A participant that both sends and receives, by the join protocol."""
    token = site.token("page", room=room)
    peer = Peer("whip", token, room)
    peer.control = Control(
        Target(site.url(), parse_hash(site.cert_hash)),
        token,
        name="page",
        suites=[Suite.GCM],
        on_message=lambda message: None,
        on_back=nothing,
    )
    return peer


async def nothing(_: object) -> None:
    """There is no session to come back to."""


def refused(answer: httpx.Response, words: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "10"
    assert words in answer.json()["message"]


async def test_one_room_keeps_nobody_out_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtls, "DEADLINE_S", FOR_EVER_S)
    site = Site(tmp_path)
    assert defaults()["ice"]["max_half_open"] == MOST
    async with (
        node_of(site) as node,
        http(site) as client,
        Greedy(site, "greedy") as greedy,
        Greedy(site, "third") as third,
        Peer("whip", site.token("late", room="greedy"), "greedy") as late,
        session(site, "greedy") as shut_out,
        Peer("whip", site.token("talker")) as talker,
        Peer("whep", site.token("viewer", Role.PASSIVE)) as viewer,
        session(site, "r") as page,
    ):
        for room in ("greedy", "third", "r"):
            await site.room(room)
        refused(await greedy.fill(client), f"{SHARE} handshakes of this room are under way")
        assert len(greedy.urls) == SHARE
        refused(await late.post(client), "its share")
        with pytest.raises(ClientError) as words:
            await shut_out.connect(client)
        assert words.value.code is ErrorCode.UNAVAILABLE

        await talker.connect(client)
        talking = asyncio.create_task(talk(talker, 0xA000))
        await viewer.connect(client)
        await viewer.hears()
        await page.connect(client)

        refused(await third.fill(client), f"{MOST} handshakes are under way, the most")
        assert len(third.urls) == MOST - SHARE
        gone = await client.delete(greedy.urls.pop(), headers=greedy.headers)
        assert gone.status_code == 200
        refused(await greedy.fill(client), "the most")
        assert len(greedy.urls) == SHARE
        await viewer.hears()

        status = await node.status()
        counted = {name: status["dtls"][name] for name in ("room_full", "full", "completed")}
        assert counted == {"room_full": 3, "full": 2, "completed": 3}
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        for one in (page, shut_out):
            assert one.control is not None
            one.control.close()
