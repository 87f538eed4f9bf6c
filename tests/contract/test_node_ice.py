"""Addresses of clients on a whole node: a NAT that rebinds, forged checks, consent that ends."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from bare_peer import stun_check
from node_kit import PATIENCE_S, Call, Site, call_on, node_of, until

from forwarder.client import Client
from forwarder.clock import ManualClock
from forwarder.ice.lite import CONSENT_S
from forwarder.ids import ParticipantId
from forwarder.supervisor.node import Node
from forwarder.table import Tuple5


class World:
    def __init__(self, site: Site, node: Node, call: Call, clock: ManualClock) -> None:
        self.site, self.node, self.call, self.clock = site, node, call, clock

    def nominated(self, client: Client) -> Tuple5 | None:
        assert client.welcome is not None
        me = self.node.rooms.participant(ParticipantId(client.welcome.participant_id))
        return None if me.nominated is None else me.tuples[me.nominated]

    async def ice(self) -> dict[str, int]:
        return dict((await self.node.status())["ice"])

    def undisturbed(self) -> None:
        for client in (self.call.publisher, self.call.subscriber):
            assert (client.resumed, client.rejoined) == (0, 0)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock(time.monotonic(), time.time())
    site = Site(tmp_path)
    async with node_of(site, clock) as node, call_on(site) as call:
        yield World(site, node, call, clock)


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        yield sock


def rebind(client: Client) -> int:
    """What a NAT does: from now on the client's media comes from another port.  Its old one."""
    media = client.media
    old, remote = media._socket, media._remote
    assert old is not None and remote is not None
    loop, port = asyncio.get_running_loop(), old.getsockname()[1]
    loop.remove_reader(old.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as fresh:
        fresh.setblocking(False)
        fresh.connect(remote)
        os.dup2(fresh.fileno(), old.fileno())
    loop.add_reader(old.fileno(), media._readable)
    assert old.getsockname()[1] != port
    return int(port)


@pytest.mark.parametrize("who", ["publisher", "subscriber"])
async def test_a_nat_rebinds(world: World, who: str) -> None:
    """The next check moves the leg; media goes on with the same keys, without a word of QUIC."""
    client: Client = getattr(world.call, who)
    old = rebind(client)
    new = client.media._socket.getsockname()[1]  # type: ignore[union-attr]

    def moved() -> bool:
        at = world.nominated(client)
        return at is not None and at.remote_port == new

    await until(moved, "the leg is nominated anew")
    assert old != new
    await world.call.flows()
    world.undisturbed()
    status = await world.node.status()
    assert status["balanced"], status["imbalance"]
    assert status["drops"]["auth_failed"] == status["drops"]["replayed"] == 0


async def test_forged_checks_change_nothing(world: World, stranger: socket.socket) -> None:
    call = world.call
    assert call.subscriber.welcome is not None
    offer = call.subscriber.welcome.media
    assert offer is not None
    user = f"{offer.ufrag}:x"
    before = world.nominated(call.subscriber)
    node = ("127.0.0.1", world.site.port)
    forged = [
        stun_check(user, "not the password of this leg"),
        stun_check("nobody:x", offer.password),
        stun_check(user, offer.password)[:-8],
        stun_check(user, offer.password).replace(b"\x00\x25", b"\x00\x26"),
    ]
    had = sum((await world.ice()).values())
    for message in forged:
        stranger.sendto(message, node)
    counted = world.node._ice.counters
    await until(lambda: sum(counted.values()) >= had + len(forged), "they are counted")
    ice = await world.ice()
    assert ice["bad_integrity"] >= 1 and ice["unknown_ufrag"] == 1
    with pytest.raises(BlockingIOError):
        stranger.recv(2048)  # the node is no reflector
    assert world.nominated(call.subscriber) == before
    await call.flows()
    await call.end()
    assert call.lost() == []
    world.undisturbed()


async def test_a_second_address_does_not_draw_media_unless_nominated(
    world: World, stranger: socket.socket
) -> None:
    """With the right password but without USE-CANDIDATE an address is valid, no more."""
    call = world.call
    assert call.subscriber.welcome is not None
    offer = call.subscriber.welcome.media
    assert offer is not None
    user = f"{offer.ufrag}:x"
    node, loop = ("127.0.0.1", world.site.port), asyncio.get_running_loop()
    before = world.nominated(call.subscriber)
    stranger.sendto(stun_check(user, offer.password, nominate=False), node)
    answer = await asyncio.wait_for(loop.sock_recv(stranger, 2048), PATIENCE_S)
    assert answer[0] < 4
    await call.flows()
    assert world.nominated(call.subscriber) == before
    with pytest.raises(BlockingIOError):
        stranger.recv(2048)
    stranger.sendto(stun_check(user, offer.password), node)
    port = stranger.getsockname()[1]
    await until(lambda: world.nominated(call.subscriber).remote_port == port, "it moves")  # type: ignore[union-attr]
    seen = [await asyncio.wait_for(loop.sock_recv(stranger, 2048), PATIENCE_S) for _ in range(5)]
    assert any(128 <= datagram[0] <= 191 for datagram in seen), "media follows the nomination"
    # The client's own next check takes the leg back.
    await until(lambda: world.nominated(call.subscriber) == before, "the client has it back")
    await call.flows()
    world.undisturbed()


async def test_media_of_strangers_is_dropped(world: World, stranger: socket.socket) -> None:
    before = (await world.node.status())["counters"]["routed"]
    await world.call.end()
    for _ in range(50):
        stranger.sendto(b"\x80\x6f" + bytes(60), ("127.0.0.1", world.site.port))

    async def dropped() -> int:
        status = await world.node.status()
        verdicts = status["steering"]["select_verdicts"].get("drop_unknown_flow", 0)
        return int(status["drops"]["unknown_flow"] + verdicts)

    async with asyncio.timeout(PATIENCE_S):
        while await dropped() < 50:
            await asyncio.sleep(0.02)
    status = await world.node.status()
    assert status["counters"]["routed"] >= before and status["balanced"]
    assert status["slow_path"].get("media", 0) == 0
    assert world.call.lost() == []


async def test_consent_that_ends_withdraws_the_flow(world: World) -> None:
    """RFC 7675: without a check nothing is sent; a check brings it back without a rejoin."""
    call = world.call
    media = call.subscriber.media
    assert media._checker is not None
    media._checker.cancel()
    world.clock.advance(CONSENT_S - 5)
    # The publisher goes on with its checks; wait for one of them, so that it stays.
    answered = (await world.ice())["answered"]
    async with asyncio.timeout(PATIENCE_S):
        while (await world.ice())["answered"] == answered:
            await asyncio.sleep(0.02)
    assert world.nominated(call.subscriber) is not None
    world.clock.advance(6)
    await until(lambda: world.nominated(call.subscriber) is None, "the leg has no address")
    await until(lambda: not call.subscriber.live.is_set(), "the client is told")
    assert world.nominated(call.publisher) is not None
    assert (await world.ice())["consent_expired"] == 1
    # What was under way has arrived; from here on nothing comes.
    had = len(call.numbers)
    sent = call.sent
    await until(lambda: call.sent > sent + 50, "the publisher sends on")
    assert all(n < sent for n in call.numbers[had:])
    media._checker = asyncio.get_running_loop().create_task(media._check())
    await until(call.subscriber.live.is_set, "the leg lives again")
    await call.flows()
    world.undisturbed()
