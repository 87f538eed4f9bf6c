"""Limits of a whole node: a typed refusal to the one who asks, the call of the others undisturbed,
and room again when somebody leaves."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio
from node_kit import Call, Site, call_on, node_of, until

from forwarder.cli.admin import AdminError
from forwarder.client import Client, ClientError
from forwarder.client.publish import LocalTrack
from forwarder.client.quic import SessionRefused
from forwarder.errors import ErrorCode
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec
from forwarder.supervisor.node import Node

LIMITS = {
    "dataplane": {"legs_max": 4, "history_video": 1, "history_audio": 3, "routes_max": 2},
    "rooms": {"max_rooms": 3},
}


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> Site:
    return Site(tmp_path, change=LIMITS)


@pytest_asyncio.fixture
async def node(site: Site) -> AsyncIterator[Node]:
    async with node_of(site) as made:
        yield made


def camera(label: str, seed: int) -> LocalTrack:
    return LocalTrack(label, Codec.H264, 96, 90_000, random.Random(seed))


def sound(label: str, seed: int) -> LocalTrack:
    return LocalTrack(label, Codec.OPUS, 111, 48_000, random.Random(seed))


async def refused(client: AbstractAsyncContextManager[Client], code: ErrorCode) -> str:
    """Joining is refused with this code."""
    with pytest.raises(ClientError) as caught:
        async with client:
            pass
    assert caught.value.code == code
    return str(caught.value)


async def undisturbed(call: Call) -> None:
    await call.flows()
    await call.end()
    assert call.lost() == []
    assert (call.subscriber.rejoined, call.publisher.rejoined) == (0, 0)


async def free(node: Node, people: int) -> None:
    """The others have left, and the data plane says so."""
    await until(lambda: node.rooms.statistics().away == 0, "nobody is away")
    await until(lambda: len(list(node.rooms.participants())) == people, f"{people} are there")


async def test_legs_max(site: Site, node: Node) -> None:
    async with call_on(site) as call:
        async with site.client("third"), site.client("fourth"):
            words = await refused(site.client("fifth"), ErrorCode.LIMIT)
            assert "dataplane.legs_max" in words
        await free(node, 2)
        for _ in range(8):  # ids are used again and again
            async with site.client("another", Role.PASSIVE) as another:
                await until(another.live.is_set, "its leg is live")
        await undisturbed(call)


async def test_a_video_history_for_one(site: Site, node: Node) -> None:
    async with call_on(site) as call, site.client("a") as a, site.client("b") as b:
        await a.publish([camera("camera", 1)])
        with pytest.raises(ClientError) as caught:
            await b.publish([camera("camera", 2)])
        assert caught.value.code == ErrorCode.LIMIT
        assert "dataplane.history_video" in str(caught.value)
        await b.publish([sound("mic", 3)])  # it goes on with what there is
        await a.close()
        await free(node, 3)
        await b.publish([camera("camera", 2)])
        await undisturbed(call)


async def test_the_second_publisher_of_an_ssrc(site: Site, node: Node) -> None:
    async with call_on(site) as call, site.client("thief") as thief:
        with pytest.raises(ClientError) as caught:
            await thief.publish([sound("mic", 7)])  # the seed, and so the SSRC, of the call's
        assert caught.value.code == ErrorCode.SSRC_IN_USE
        await undisturbed(call)


async def test_routes_max(site: Site, node: Node) -> None:
    async with call_on(site) as call, site.client("talker") as talker:
        mine = [sound("one", 21), sound("two", 22)]
        await talker.publish(mine)
        with pytest.raises(ClientError) as caught:
            await call.subscriber.subscribe([track.track_id for track in mine])
        assert caught.value.code == ErrorCode.LIMIT
        assert "dataplane.routes_max" in str(caught.value)
        await undisturbed(call)


async def test_sources_of_audio(site: Site, node: Node) -> None:
    async with call_on(site) as call, site.client("talker") as talker:
        with pytest.raises(ClientError) as caught:
            await talker.publish([sound(str(i), 30 + i) for i in range(3)])
        assert caught.value.code == ErrorCode.LIMIT
        await talker.publish([sound(str(i), 30 + i) for i in range(2)])
        await undisturbed(call)


@pytest.mark.parametrize(
    ("role", "limit"), [(Role.PASSIVE, "max_passive"), (Role.HOST, "max_active")]
)
async def test_a_full_room(site: Site, node: Node, role: Role, limit: str) -> None:
    async with call_on(site) as call:
        await site.room("small", **{limit: 1})
        async with site.client("first", role, room="small"):
            await refused(site.client("second", role, room="small"), ErrorCode.ROOM_FULL)
        await free(node, 2)
        async with site.client("second", role, room="small") as second:
            assert second.welcome is not None
        await undisturbed(call)


async def test_sessions_of_the_node(tmp_path: Path) -> None:
    """One more is refused before it is a session; the open ones go on."""
    site = Site(tmp_path, change={"signaling": {"max_sessions": 3}})
    async with node_of(site) as node, call_on(site) as call:
        async with site.client("third"):
            with pytest.raises(SessionRefused) as caught:
                async with site.client("fourth"):
                    pass
            assert caught.value.status == 503
        await free(node, 2)
        async with site.client("fourth") as fourth:
            assert fourth.welcome is not None
        await undisturbed(call)


async def test_rooms_of_the_node(site: Site, node: Node) -> None:
    for name in "abc":
        await site.room(name)
    with pytest.raises(AdminError, match=r"raise rooms\.max_rooms"):
        await site.room("d")
    with pytest.raises(AdminError, match="already"):
        await site.room("a")
