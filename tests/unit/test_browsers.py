"""The supervisor's side of a browser: keys before the last flight, deadlines, grace, limits."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from aioice import stun
from dtls_kit import Peer, make_certificate
from rooms_kit import SeededSecrets

from forwarder.clock import ManualClock
from forwarder.errors import ErrorCode, Refused
from forwarder.ice import IceLite, dtls
from forwarder.ice.dtls import DtlsServer, Identity
from forwarder.ids import RoomId
from forwarder.rooms.admission import Limits
from forwarder.rooms.core import Rooms
from forwarder.rooms.roles import Role
from forwarder.rooms.room import LegState, Participant, ParticipantState
from forwarder.rooms.snapshot import restore, snapshot
from forwarder.rtp.suites import Suite
from forwarder.signaling.sdp import Way
from forwarder.signaling.tokens import Claims
from forwarder.supervisor.browsers import Browsers
from forwarder.supervisor.offers import resource_id
from forwarder.table import Tuple5

FIXTURES = Path(__file__).parent / "sdp"
PUBLISH = (FIXTURES / "chromium-publish.sdp").read_text()
VIEW = (FIXTURES / "safari-view.sdp").read_text()
AT = Tuple5("192.0.2.7", 5000, "127.0.0.1", 4433)
CLAIMS = Claims(RoomId("r"), Role.ACTIVE, "n", "n", 0.0, 1e9)


class Table:
    """Settles when it is let; notes what was in force by then."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.settled = 0

    async def settle(self) -> None:
        await self.gate.wait()
        self.settled += 1


class World:
    def __init__(self, identity: Identity) -> None:
        self.clock = ManualClock()
        self.rooms = Rooms(Limits(), SeededSecrets())
        self.rooms.create_room("r", now=0.0)
        self.ice, self.dtls, self.table = IceLite(), DtlsServer(identity), Table()
        self.browsers = self.make()
        self.sent: list[bytes] = []

    def make(self) -> Browsers:
        return Browsers(
            self.rooms,
            self.ice,
            self.dtls,
            self.table,
            self.clock,
            announce=self.announce,
            addresses=[("127.0.0.1", 4433)],
        )

    def announce(self) -> None:
        for event in self.rooms.drain_events():
            self.browsers.on_event(event)

    async def offer(self, peer: Peer | None = None, way: Way = Way.RECEIVE) -> Participant:
        text = PUBLISH if way is Way.RECEIVE else VIEW
        if peer is not None:
            lines = [
                f"a=fingerprint:sha-256 {peer.fingerprint}" if "a=fingerprint" in line else line
                for line in text.splitlines()
            ]
            text = "\r\n".join(lines)
        role = Role.ACTIVE if way is Way.RECEIVE else Role.PASSIVE
        made = await self.browsers.offer(way, replace(CLAIMS, role=role), text.encode())
        return next(p for p in self.rooms.participants() if resource_id(p) == made.resource)

    def check(self, who: Participant, at: Tuple5 = AT) -> None:
        """An authenticated STUN check, and what follows from it."""
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{who.ufrag}:x"
        request.attributes["USE-CANDIDATE"] = None
        request.add_message_integrity(who.password.encode())
        _, changes = self.ice.receive(bytes(request), at, self.clock.now())
        for change in changes:
            self.rooms.set_tuples(change.participant_id, change.tuples, change.nominated)
        self.announce()

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def exchange(self, peer: Peer, flight: list[bytes]) -> None:
        """Hands datagrams over until neither side says anything."""
        while flight:
            for data in flight:
                self.browsers.datagram(data, AT, self.send)
            answers, self.sent = self.sent, []
            flight = [d for data in answers for d in peer.step(data)]


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity(*make_certificate("node"))


async def turns() -> None:
    """Whatever is ready to run has run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_last_flight_waits_for_the_keys(identity: Identity) -> None:
    """However often the client asks for it."""
    world, peer = World(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    who = await world.offer(peer)
    world.check(who)
    world.table.gate.clear()
    world.exchange(peer, peer.step())
    await turns()
    assert who.keyed and world.dtls.counters["completed"] == 1
    assert (who.rx_key, who.rx_salt, who.tx_key, who.tx_salt) == peer.keys(Suite.GCM)
    await asyncio.sleep(peer.timeout())  # the timer is OpenSSL's
    again = peer.again()
    assert again
    for data in again:
        world.browsers.datagram(data, AT, world.send)
    await turns()
    assert world.sent == [] and not peer.done
    world.table.gate.set()
    await turns()
    for data in world.sent:
        peer.step(data)
    assert peer.done


async def test_a_flight_that_was_lost_is_sent_again(identity: Identity) -> None:
    """By the node's own timer: the client says nothing more."""
    world, peer = World(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    who = await world.offer(peer)
    world.check(who)
    for data in peer.step():
        world.browsers.datagram(data, AT, world.send)
    assert world.sent
    world.sent.clear()
    async with asyncio.timeout(20):
        while not world.sent:  # the timer is OpenSSL's
            await asyncio.sleep(0.05)
    world.exchange(peer, [d for data in world.sent for d in peer.step(data)])
    await turns()
    for data in world.sent:
        peer.step(data)
    assert peer.done and who.keyed
    world.browsers.close()


async def test_who_leaves_before_the_keys_are_in_force_gets_nothing(identity: Identity) -> None:
    world, peer = World(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    who = await world.offer(peer)
    world.check(who)
    world.exchange(peer, peer.step())
    world.rooms.leave(who.id, "bye", 0.0)
    world.announce()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not peer.done
    assert not world.sent
    with pytest.raises(Refused):
        await world.browsers.leave(Way.RECEIVE, RoomId("r"), resource_id(who))


async def test_without_a_check_there_is_no_handshake(identity: Identity) -> None:
    world, peer = World(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    who = await world.offer(peer)
    world.exchange(peer, peer.step())
    assert world.dtls.counters == {"no_check": 1}
    world.check(who)
    other = Tuple5("192.0.2.8", 5000, "127.0.0.1", 4433)
    world.browsers.datagram(peer.step()[0] if peer.step() else b"\x16" * 60, other, world.send)
    assert world.dtls.counters == {"no_check": 2}


async def test_addresses_that_are_lost_begin_the_grace_period(identity: Identity) -> None:
    world, peer = World(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    who = await world.offer(peer)
    world.check(who)
    world.exchange(peer, peer.step())
    await asyncio.sleep(0)
    world.clock.advance(31.0)
    for change in world.ice.expire(world.clock.now()):
        world.rooms.set_tuples(change.participant_id, change.tuples, change.nominated)
    world.announce()
    assert (who.state, who.leg_state) == (ParticipantState.AWAY, LegState.LOST)
    world.check(who)
    assert (who.state, who.leg_state) == (ParticipantState.JOINED, LegState.LIVE)
    world.rooms.tick(1e6)
    assert list(world.rooms.participants()) == [who]


async def test_after_a_restart_urls_lead_to_the_same_calls(identity: Identity) -> None:
    world, peer = World(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    who = await world.offer(peer)
    world.check(who)
    world.exchange(peer, peer.step())
    await asyncio.sleep(0)
    half = await world.offer(way=Way.SEND)
    world.rooms, faults = restore(snapshot(world.rooms), Limits(), SeededSecrets(2), 5.0)
    assert any(half.id in fault for fault in faults)
    world.ice, world.dtls = IceLite(), DtlsServer(identity)
    world.browsers = world.make()
    again = world.rooms.participant(who.id)
    world.ice.add(again.id, again.ufrag, again.password, tuples=again.tuples, nominated=0)
    world.browsers.take_up()
    assert again.state is ParticipantState.JOINED
    etag = world.browsers.etag(Way.RECEIVE, RoomId("r"), resource_id(who))
    assert etag == f'"{who.ufrag}"'
    await world.browsers.leave(Way.RECEIVE, RoomId("r"), resource_id(who))
    assert not list(world.rooms.participants())


def resident_mib() -> float:
    """Now: the peak of this process may be that of another test."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def test_ten_thousand_half_open_sessions_cost_little(identity: Identity) -> None:
    world, chance = World(identity), random.Random(3)
    hello = Peer(b"SRTP_AEAD_AES_128_GCM").step()[0]
    gc.collect()
    before = most = resident_mib()
    refused = 0
    for n in range(10_000):
        if n % 100 == 0:
            most = max(most, resident_mib())
        try:
            who = await world.offer(way=Way.SEND)
        except Refused as error:
            assert error.code is ErrorCode.UNAVAILABLE
            refused += 1
            if chance.random() < 0.001:
                world.clock.advance(dtls.DEADLINE_S)
                world.browsers.tick()
            continue
        at = Tuple5("192.0.2.7", 1024 + n, "127.0.0.1", 4433)
        world.check(who, at)
        world.browsers.datagram(hello, at, world.send)
        world.sent.clear()
    assert refused > 1000
    assert world.dtls.half_open <= dtls.HALF_OPEN_MAX
    assert world.dtls.counters["expired"] > 1000
    print(f"it grew by {most - before:.0f} MiB at most")
    assert most - before < 100, f"it grew by {most - before:.0f} MiB"
    world.browsers.close()


async def test_the_deadline_of_one_that_left_keeps_nobody_else(identity: Identity) -> None:
    """Nobody was told that it left: the others' deadlines count all the same."""
    world = World(identity)
    gone, late = [await world.offer(way=Way.SEND) for _ in range(2)]
    world.rooms.leave(gone.id, "bye", 0.0)
    world.clock.advance(dtls.DEADLINE_S)
    world.browsers.tick()
    assert not list(world.rooms.participants())
    assert world.dtls.counters["expired"] == 2
    with pytest.raises(Refused):
        await world.browsers.leave(Way.SEND, RoomId("r"), resource_id(late))


async def test_a_session_whose_sender_begins_anew_publishes_another_track(
    identity: Identity,
) -> None:
    world = World(identity)
    text = (FIXTURES / "chromium-session.sdp").read_text()
    me, _ = await world.browsers.join(CLAIMS, text)
    (old,) = (track for track in me.tracks.values() if track.spec.ssrcs)
    (ssrc,) = old.spec.ssrcs
    await world.browsers.again(me.id, text.replace(f"a=ssrc:{ssrc} ", f"a=ssrc:{ssrc ^ 1} "))
    assert old.id not in me.tracks
    (new,) = (track for track in me.tracks.values() if track.spec.ssrcs)
    assert (new.spec.mid, new.spec.ssrcs) == (old.spec.mid, [ssrc ^ 1])
    assert new.source != old.source


async def test_a_call_is_told_the_certificate_that_it_began_with(identity: Identity) -> None:
    """By a supervisor that has another one too, and when ICE restarts; who comes gets the other."""
    world, peer = World(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    text = re.sub(
        r"(?<=a=fingerprint:sha-256 ).*?(?=\r?\n)",
        peer.fingerprint,
        (FIXTURES / "chromium-session.sdp").read_text(),
    )
    me, answer = await world.browsers.join(CLAIMS, text)
    world.check(me)
    world.exchange(peer, peer.step())
    await turns()
    assert me.keyed
    assert fingerprints(answer) == {identity.fingerprint}

    taken, other = snapshot(world.rooms), Identity(*make_certificate("renewed"))
    world.rooms, faults = restore(taken, Limits(), SeededSecrets(2), 5.0)
    assert not faults
    world.ice, world.dtls = IceLite(), DtlsServer(other)
    world.browsers = world.make()
    kept = world.rooms.participant(me.id)
    world.ice.add(kept.id, kept.ufrag, kept.password, tuples=kept.tuples, nominated=0)
    keys = kept.key_id, kept.rx_key, kept.tx_key
    restarted = re.sub(r"(?<=a=ice-ufrag:)\w+", "anew", text)
    for offer in (text, restarted, restarted):
        assert fingerprints(await world.browsers.again(me.id, offer)) == {identity.fingerprint}
    assert (kept.key_id, kept.rx_key, kept.tx_key) == keys
    assert kept.peer is not None and kept.peer.ufrag == "anew"
    made = await world.browsers.offer(Way.RECEIVE, CLAIMS, PUBLISH.encode())
    assert fingerprints(made.sdp) == {other.fingerprint} != {identity.fingerprint}


def fingerprints(answer: str) -> set[str]:
    return set(re.findall(r"^a=fingerprint:sha-256 (\S+)\r?$", answer, re.MULTILINE))
