"""ICE-lite by its rules, with real checks at a real node: four 5-tuples a leg, one nominated;
answers leave from where they were asked; consent (RFC 7675), restart, IPv6, useless candidates."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from aioice import stun
from bare_peer import OPUS, PATIENCE_S, rtp, talk
from media_kit import Ears
from node_kit import Site, node_of, until
from webrtc_kit import FRAGMENT, http

from forwarder.clock import ManualClock
from forwarder.ice.lite import CONSENT_S, TUPLES_MAX
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant
from forwarder.supervisor.node import Node

SSRC = 0xA0
OFFERED = (  # of a browser that hides its addresses, has a TCP candidate, and worse
    "a=candidate:1 1 udp 2113937151 3c7e0f7a-2f5e-4b0a-9f1e-0d9b3a7c5e11.local 50000 typ host "
    "generation 0 network-cost 999\r\n"
    "a=candidate:2 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active\r\n"
    "a=candidate:3 1 udp 2113937151 fe80::1%eth0 50000 typ host\r\n"
    "a=candidate:4 2 udp 2113937150 192.0.2.7 50001 typ host\r\n"
    "a=candidate:5 1 ssltcp 1 nowhere 443 typ relay raddr 0.0.0.0 rport 0\r\n"
)


class Way:
    """A 5-tuple of a client: a socket that is connected to one address of the node, so that what
    comes from another never reaches it."""

    def __init__(self, client: Ears, node: tuple[str, int], sock: socket.socket | None = None):
        """`sock`: the client's own."""
        self.client, self.media = client, 0
        self._own = sock is None
        family = socket.AF_INET6 if ":" in node[0] else socket.AF_INET
        self.sock = sock or socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(node)
        self.address: tuple[str, int] = self.sock.getsockname()[:2]
        self.answers: dict[bytes, stun.Message] = {}
        self.listen()

    def listen(self) -> None:
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._readable)

    def close(self) -> None:
        if self._own and self.sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.sock.fileno())
            self.sock.close()

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                data = self.sock.recv(4096)
                if data[0] < 4:
                    answer = stun.parse_message(data)
                    self.answers[answer.transaction_id] = answer
                else:
                    self.media += 128 <= data[0] <= 191
                    self.client.take(data)

    async def check(self, *, nominate: bool = False) -> None:
        """An authentic check, answered by where it was asked and for whom it was."""
        request = self.client.binding_request(nominate=nominate)
        self.sock.send(request)
        wanted = stun.parse_message(request).transaction_id
        answer = await until(lambda: self.answers.get(wanted), "the check is answered")
        assert answer.message_class is stun.Class.RESPONSE
        assert answer.attributes["XOR-MAPPED-ADDRESS"] == self.address
        assert answer.check_message_integrity(self.client.of_answer("ice-pwd").encode())

    async def hears(self, more: int = 5) -> None:
        start = self.media
        await until(lambda: self.media >= start + more, f"media comes to {self.address}")


class World:
    """A node; ada publishes over WHIP, eve views over WHEP."""

    def __init__(self, site: Site, node: Node, client: httpx.AsyncClient) -> None:
        self.site, self.node, self.client = site, node, client
        self.ada = Ears("whip", site.token("ada"))
        self.eve = Ears("whep", site.token("eve", Role.PASSIVE))

    def person(self, name: str) -> Participant:
        return next(p for p in self.node.rooms.participants() if p.name == name)

    def nominated(self, name: str) -> tuple[str, int] | None:
        me = self.person(name)
        if me.nominated is None:
            return None
        at = me.tuples[me.nominated]
        return at.remote_ip, at.remote_port

    def unknown(self) -> int:
        """Media of no flow, dropped by the selector or by the worker."""
        steering = self.node.datapath.steering
        verdicts = steering.select_verdicts() if steering is not None else {}
        drops = self.node.datapath.plane.counters().drops["unknown_flow"]
        return int(drops + verdicts.get("drop_unknown_flow", 0))

    async def balanced(self) -> None:
        status = await self.node.status()
        assert status["balanced"], status["imbalance"]
        assert status["dtls"]["completed"] == 2  # nobody had to begin anew
        assert status["drops"]["auth_failed"] == status["drops"]["replayed"] == 0


@contextlib.asynccontextmanager
async def world_of(site: Site, clock: ManualClock | None = None) -> AsyncIterator[World]:
    async with node_of(site, clock) as node, http(site) as client, AsyncExitStack() as made:
        await site.room()
        world = World(site, node, client)
        await made.enter_async_context(world.ada)
        await made.enter_async_context(world.eve)
        yield world


@contextlib.asynccontextmanager
async def talking(world: World) -> AsyncIterator[None]:
    """Ada's sound, from her own socket."""
    task = asyncio.create_task(talk(world.ada, SSRC))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def ways_of(client: Ears, nodes: list[tuple[str, int]]) -> Iterator[list[Way]]:
    with ExitStack() as made:
        yield [made.enter_context(contextlib.closing(Way(client, node))) for node in nodes]


async def alone(ways: list[Way], one: Way) -> None:
    """Media comes to this one, and no more to the others."""
    await one.hears()
    before = [way.media for way in ways if way is not one]
    await one.hears(10)
    assert [way.media for way in ways if way is not one] == before


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.1")], ids=["IPv4", "both"]
)
async def test_answers_and_media_leave_from_the_address_that_was_asked(
    tmp_path: Path, addresses: tuple[str, str]
) -> None:
    """Two addresses of the node, two ports of a viewer, all four pairs valid: checks and DTLS are
    answered by the one that was asked; media goes where it was nominated last, and from there."""
    site = Site(tmp_path, addresses=list(addresses))
    nodes = [(ip, site.port) for ip in addresses for _ in range(2)]
    async with world_of(site) as world:
        eve = world.eve
        await world.ada.connect(world.client)
        assert world.ada.node[0] == addresses[0]
        await eve.join(world.client)
        offered = re.findall(r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ", eve.answer, re.M)
        assert {(ip, int(port)) for ip, port in offered} == set(nodes)
        with ways_of(eve, nodes) as ways:
            for way in ways:
                await way.check()
            assert world.nominated("eve") == ways[0].address, "the first valid one, until then"
            last = ways[-1]
            own, eve.sock, eve.node = eve.sock, last.sock, nodes[-1]
            await eve.handshake()  # on a connected socket: no other address can answer
            eve.sock = own
            last.listen()
            async with talking(world):
                await alone(ways, ways[0])
                for way in (ways[2], ways[1], ways[3], ways[0]):
                    await way.check(nominate=True)
                    assert world.nominated("eve") == way.address
                    for other in ways:  # as Chromium does for ever
                        await other.check()
                    await alone(ways, way)
                    assert world.nominated("eve") == way.address
            at = {(t.local_ip, t.remote_port) for t in world.person("eve").tuples}
            assert at == {(n[0], w.address[1]) for n, w in zip(nodes, ways, strict=True)}
        numbers = [packet.seq for packet in eve.of(OPUS)]
        assert all((b - a) & 0xFFFF == 1 for a, b in pairwise(numbers)), "and none is lost"
        await world.balanced()


async def test_media_is_accepted_from_each_validated_address(tmp_path: Path) -> None:
    """Four at once; a fifth takes the place of the one that was checked longest ago and is not
    nominated, whose media is a stranger's from then on."""
    async with world_of(Site(tmp_path)) as world:
        ada, eve = world.ada, world.eve
        await eve.connect(world.client)
        await ada.connect(world.client)
        number = 0

        def send(way: Way, mark: int) -> None:
            nonlocal number
            number += 1
            payload = bytes([mark]) + bytes(40)
            with contextlib.suppress(ConnectionRefusedError):  # what the node's kernel says to it
                way.sock.send(ada.seal_rtp(rtp(OPUS, SSRC, number, payload, mid="0")))

        def heard(mark: int) -> int:
            return sum(packet.payload[0] == mark for packet in eve.of(OPUS))

        async def accepted(way: Way, mark: int) -> None:
            """Once the table knows the address."""
            await until(lambda: send(way, mark) or heard(mark), f"media {mark} arrives")

        with ways_of(ada, [ada.node] * 4) as more:
            ways = [Way(ada, ada.node, ada.sock), *more]
            for n, way in enumerate(ways[:TUPLES_MAX]):
                await way.check()
                await accepted(way, n)
            assert world.nominated("ada") == ways[0].address
            for _ in range(10):
                for n, way in enumerate(ways[:TUPLES_MAX]):
                    send(way, 10 + n)
            await until(
                lambda: [heard(10 + n) for n in range(TUPLES_MAX)] == [10] * TUPLES_MAX,
                "ten of each arrive, in the order in which they were sent",
            )
            last = [packet.payload[0] for packet in eve.of(OPUS)][-4:]
            assert last == [10, 11, 12, 13]
            assert world.node._ice.counters["tuple_evicted"] == 0
            await ways[4].check()
            assert world.node._ice.counters["tuple_evicted"] == 1
            await accepted(ways[4], 4)
            ports = {at.remote_port for at in world.person("ada").tuples}
            assert ports == {ways[n].address[1] for n in (0, 2, 3, 4)}
            strange = world.unknown()
            await until(
                lambda: send(ways[1], 20) or world.unknown() >= strange + 10, "its media is dropped"
            )
            await accepted(ways[4], 21)
            assert heard(20) == 0
            assert world.nominated("ada") == ways[0].address
        await world.balanced()


async def test_only_an_authentic_use_candidate_moves_a_leg(tmp_path: Path) -> None:
    async with world_of(Site(tmp_path)) as world:
        eve = world.eve
        await world.ada.connect(world.client)
        await eve.connect(world.client)
        with ways_of(eve, [eve.node] * 2) as more:
            ways = [Way(eve, eve.node, eve.sock), *more]
            counters = world.node._ice.counters
            wrong = counters["bad_integrity"]
            forged = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
            forged.attributes["USERNAME"] = f"{eve.of_answer('ice-ufrag')}:{eve.ufrag}"
            forged.attributes["USE-CANDIDATE"] = None
            forged.add_message_integrity(b"no such password, and 22")
            ways[1].sock.send(bytes(forged))
            await until(lambda: counters["bad_integrity"] == wrong + 1, "it is counted")
            await ways[2].check()
            async with talking(world):
                await alone(ways, ways[0])
                assert {at.remote_port for at in world.person("eve").tuples} == {
                    way.address[1] for way in (ways[0], ways[2])
                }
                assert not ways[1].answers
                await ways[2].check(nominate=True)
                await alone(ways, ways[2])
        await world.balanced()


async def test_consent_ends_address_by_address(tmp_path: Path) -> None:
    """RFC 7675: the nominated one falls silent, media goes to the one that was heard of; when that
    falls silent too nothing is sent; a check brings the call back, with the same keys."""
    clock = ManualClock(time.monotonic(), time.time())
    async with world_of(Site(tmp_path), clock) as world:
        ada, eve = world.ada, world.eve
        await ada.connect(world.client)
        await eve.connect(world.client)
        with ways_of(eve, [eve.node]) as more:
            ways = [Way(eve, eve.node, eve.sock), *more]
            mine = Way(ada, ada.node, ada.sock)
            async with talking(world):
                await alone(ways, ways[0])
                clock.advance(CONSENT_S - 5)
                await ways[1].check()
                await mine.check()
                await alone(ways, ways[0])
                clock.advance(6)
                await until(lambda: world.nominated("eve") == ways[1].address, "it falls back")
                await alone(ways, ways[1])
                clock.advance(CONSENT_S - 7)
                await mine.check()
                clock.advance(2)
                await until(lambda: world.nominated("eve") is None, "no address is left")
                assert world.node._ice.counters["consent_expired"] == 2
                sent = world.node.datapath.plane.counters()["routed"]
                had = [way.media for way in ways]

                def routed() -> bool:
                    return bool(world.node.datapath.plane.counters()["routed"] > sent + 20)

                # What was under way when it ended has arrived by then.
                await until(lambda: world.person("eve").tuples == (), "it is withdrawn")
                await until(routed, "ada is heard by the node")
                assert sum(way.media for way in ways) <= sum(had) + 5
                await ways[0].check(nominate=True)
                await alone(ways, ways[0])
        await world.balanced()


async def test_who_stays_silent_is_gone_after_the_grace_period(tmp_path: Path) -> None:
    """No checks, no media, no word by HTTP, as when a phone falls into water: the rooms, ICE, the
    worker and the guard let go of everything, and the URL leads nowhere."""
    clock = ManualClock(time.monotonic(), time.time())
    site = Site(tmp_path, change={"rooms": {"resume_grace_s": 30}})
    async with world_of(site, clock) as world:
        ada, eve, node = world.ada, world.eve, world.node

        def held() -> tuple[int, int, int]:
            tally = node.datapath.plane.counters()
            return tally["legs"], tally["sources"], tally["routes"]

        await eve.connect(world.client)
        await until(lambda: held()[0] == 1, "eve has a leg")
        alone = held()
        await ada.connect(world.client)
        await until(lambda: held()[0] == 2, "and ada")
        strange = world.unknown()
        ada.send_rtp(rtp(OPUS, SSRC, 1, bytes(40), mid="0"))
        clock.advance(CONSENT_S - 1)
        await eve.check()
        clock.advance(2)
        await until(lambda: world.nominated("ada") is None, "consent has ended")
        assert held()[0] == 2, "until the grace period is over"
        clock.advance(20)
        await eve.check()
        clock.advance(11)
        await until(lambda: {p.name for p in node.rooms.participants()} == {"eve"}, "she is gone")
        await until(lambda: held() == alone, f"the worker holds {alone} again")
        assert world.person("eve").nominated is not None
        gone = await world.client.delete(ada.location, headers=ada.headers)
        assert gone.status_code == 404
        steering = node.datapath.steering
        if steering is not None:  # else there is no table to forget her in
            legs = {flow.leg for flow in steering.flows().values()}
            assert legs == {world.person("eve").leg}
        ada.send(ada.binding_request())
        await until(lambda: node._ice.counters["unknown_ufrag"] == 1, "she is nobody")
        ada.send_rtp(rtp(OPUS, SSRC, 2, bytes(40), mid="0"))
        await until(lambda: world.unknown() == strange + 1, "what she sends is a stranger's")
        async with Ears("whip", site.token("ada")) as again:
            await again.connect(world.client)
        status = await node.status()
        assert status["balanced"], status["imbalance"]


async def test_a_restart_keeps_the_call_until_new_checks_move_it(tmp_path: Path) -> None:
    """RFC 8445 section 9: the old credentials end at once, what flows goes on; a check under the
    new ones, from another address, moves the leg.  Nobody shakes hands again."""
    async with world_of(Site(tmp_path)) as world:
        eve = world.eve
        await world.ada.connect(world.client)
        await eve.connect(world.client)
        with ways_of(eve, [eve.node]) as more:
            ways = [Way(eve, eve.node, eve.sock), *more]
            async with talking(world):
                await alone(ways, ways[0])
                restarted = await world.client.patch(
                    eve.location,
                    content="a=ice-ufrag:NewU\r\na=ice-pwd:0123456789012345678901\r\n",
                    headers=eve.headers | {"content-type": FRAGMENT, "if-match": "*"},
                )
                assert restarted.status_code == 200, restarted.text
                await alone(ways, ways[0])
                unknown = world.node._ice.counters["unknown_ufrag"]
                ways[1].sock.send(eve.binding_request())
                await until(
                    lambda: world.node._ice.counters["unknown_ufrag"] == unknown + 1,
                    "the old credentials are nobody's",
                )
                assert world.nominated("eve") == ways[0].address and not ways[1].answers
                eve.answer, eve.ufrag = restarted.text, "NewU"
                await ways[1].check(nominate=True)
                await alone(ways, ways[1])
        numbers = [packet.seq for packet in eve.of(OPUS)]
        assert all((b - a) & 0xFFFF == 1 for a, b in pairwise(numbers)), "and none is lost"
        await world.balanced()


async def test_candidates_that_are_no_use_are_ignored(tmp_path: Path) -> None:
    """`.local`, TCP, another component, nonsense: in an offer and by trickle.  A lite agent learns
    addresses from checks."""

    class Hidden(Ears):
        def offer(self) -> str:
            return super().offer() + OFFERED

    async with world_of(Site(tmp_path)) as world:
        await world.ada.connect(world.client)
        async with Hidden("whep", world.site.token("eve", Role.PASSIVE)) as hidden:
            await hidden.connect(world.client)
            taken = await world.client.patch(
                hidden.location,
                content=OFFERED + "a=end-of-candidates\r\n",
                headers=hidden.headers | {"content-type": FRAGMENT, "if-match": "*"},
            )
            assert taken.status_code == 204, taken.text
            async with talking(world):
                await until(lambda: len(hidden.of(OPUS)) > 10, "sound comes", PATIENCE_S)
            assert set(world.node._ice.counters) == {"answered"}
            assert len(world.person("eve").tuples) == 1
        await world.balanced()
