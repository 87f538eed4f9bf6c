"""The slow path: every first byte to whom it concerns (RFC 7983, RFC 9443), on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aioice import stun

from forwarder.clock import ManualClock
from forwarder.ice import IceLite, TuplesChanged
from forwarder.ids import ParticipantId
from forwarder.supervisor.slowpath import BATCH, SlowPath
from forwarder.table import Tuple5

PASSWORD = "p" * 24
Address = tuple[str, int]


def kind(first: int) -> str:
    """DESIGN.md section 3."""
    if first <= 3:
        return "stun"
    if 20 <= first <= 63:
        return "dtls"
    if 64 <= first <= 127 or first >= 192:
        return "quic"
    return "media" if first >= 128 else "bad_class"


class World:
    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.slow = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.slow.bind((address, 0))
        self.at: Address = self.slow.getsockname()[:2]
        self.client = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.client.bind((address, 0))
        self.client.connect(self.at)
        self.me: Address = self.client.getsockname()[:2]
        self.ice = IceLite()
        self.ice.add(ParticipantId("p"), "pfrag", PASSWORD)
        self.changes: list[TuplesChanged] = []
        self.quic: list[tuple[bytes, Address]] = []
        self.path = SlowPath(ManualClock(), self.ice, self.changes.append)
        self.path.add(self.slow, self)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.quic.append((data, addr))

    async def counted(self, total: int) -> None:
        async with asyncio.timeout(20):
            while sum(self.path.counters.values()) < total:
                await asyncio.sleep(0)

    def close(self) -> None:
        self.path.close()
        self.slow.close()
        self.client.close()


@pytest_asyncio.fixture(params=["127.0.0.1", "::1"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = World(request.param)
    yield made
    made.close()


async def test_every_first_byte(world: World) -> None:
    expected: dict[str, int] = {}
    for first in range(256):
        world.client.send(bytes([first]) + b"rest")
        expected[kind(first)] = expected.get(kind(first), 0) + 1
    await world.counted(256)
    assert world.path.counters == expected
    assert {data[0] for data, _ in world.quic} == {n for n in range(256) if kind(n) == "quic"}
    assert all(addr == world.me for _, addr in world.quic)
    assert world.changes == []


async def test_an_empty_datagram_is_of_no_class(world: World) -> None:
    world.client.send(b"")
    await world.counted(1)
    assert world.path.counters == {"bad_class": 1}


def check(password: str = PASSWORD) -> stun.Message:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes["USERNAME"] = "pfrag:me"
    message.attributes["PRIORITY"] = 1
    message.attributes["ICE-CONTROLLING"] = 42
    message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(password.encode())
    return message


async def test_a_check_is_answered_from_where_it_came_to(world: World) -> None:
    request = check()
    world.client.send(bytes(request))  # connected: hears nobody but the address it asked
    answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(world.client, 2048), 20)
    parsed = stun.parse_message(answer)
    assert parsed.transaction_id == request.transaction_id
    assert parsed.attributes["XOR-MAPPED-ADDRESS"] == world.me
    assert [change.tuples for change in world.changes] == [(Tuple5(*world.me, *world.at),)]


async def test_a_forged_check_is_neither_answered_nor_believed(world: World) -> None:
    world.client.send(bytes(check("another password, as long")))
    await world.counted(1)
    assert world.changes == [] and world.ice.counters["bad_integrity"] == 1
    with pytest.raises(BlockingIOError):
        world.client.recv(2048)


async def test_a_flood_does_not_keep_the_loop(world: World) -> None:
    """After BATCH datagrams others get their turn."""
    world.slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for _ in range(2 * BATCH):
        world.client.send(b"\x40quic")
    seen: list[int] = []
    while len(world.quic) < 2 * BATCH:
        seen.append(len(world.quic))
        await asyncio.sleep(0)
    assert max(b - a for a, b in zip(seen, [*seen[1:], 2 * BATCH], strict=True)) <= BATCH


async def test_what_cannot_be_sent_is_counted(world: World) -> None:
    send = world.path.sender(world.slow)
    send(b"x" * 70_000, world.me)  # longer than UDP can be
    assert world.path.counters == {"send_error": 1}
    send(b"fine", world.me)
    assert (await asyncio.get_running_loop().sock_recv(world.client, 100)) == b"fine"


async def test_after_close_the_socket_is_left_alone(world: World) -> None:
    world.path.close()
    world.client.send(b"\x40quic")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.slow.recv(100) == b"\x40quic"
