"""No room has more than its share of the half-open handshakes, however each of its own ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dtls_kit import Peer, make_certificate

from forwarder.ice import dtls
from forwarder.ice.dtls import DtlsServer, Identity
from forwarder.ids import ParticipantId, RoomId

GREEDY, OTHER = RoomId("greedy"), RoomId("other")


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity(*make_certificate("node"))


def fill(server: DtlsServer, room: RoomId, fingerprint: str = "AA") -> list[ParticipantId]:
    """As many of this room as are let in."""
    made: list[ParticipantId] = []
    while not server.full and not server.room_full(room):
        made.append(ParticipantId(f"{room}{len(made)}"))
        server.expect(made[-1], room, "sha-256", fingerprint, 0.0)
    return made


@pytest.mark.parametrize(
    ("most", "of_one"), [(dtls.HALF_OPEN_MAX, 384), (100, 75), (5, 4), (4, 3), (3, 3), (1, 1)]
)
def test_one_room_leaves_places_for_the_others(identity: Identity, most: int, of_one: int) -> None:
    server = DtlsServer(identity, most)
    assert len(fill(server, GREEDY)) == of_one == server.share
    assert len(fill(server, OTHER)) == most - of_one
    assert server.full
    assert server.room_full(GREEDY)


def finished(server: DtlsServer, who: ParticipantId, peer: Peer) -> None:
    flight = peer.step()
    while not peer.done:
        outputs = [server.receive(who, data, 0.0) for data in flight]
        flight = [d for o in outputs for data in o.datagrams for d in peer.step(data)]


def forgotten(server: DtlsServer, who: ParticipantId, peer: Peer) -> None:
    server.forget(who)
    server.forget(who)  # one place, not two


def begun_anew(server: DtlsServer, who: ParticipantId, peer: Peer) -> None:
    server.forget(who)
    for _ in range(2):  # it has one place, not two
        server.expect(ParticipantId("again"), GREEDY, "sha-256", peer.fingerprint, 0.0)
    server.forget(ParticipantId("again"))


@pytest.mark.parametrize("end", [finished, forgotten, begun_anew])
def test_each_that_ends_gives_its_place_back(
    identity: Identity, end: Callable[[DtlsServer, ParticipantId, Peer], None]
) -> None:
    server, peer = DtlsServer(identity, 8), Peer(b"SRTP_AEAD_AES_128_GCM")
    first, *_ = fill(server, GREEDY, peer.fingerprint)
    end(server, first, peer)
    assert server.half_open == server.share - 1
    server.expect(first, GREEDY, "sha-256", "AA", 0.0)
    assert server.room_full(GREEDY)
    server.forget(first)
    assert not server.room_full(GREEDY)


def test_all_come_free_at_the_deadline_and_nothing_is_kept_of_the_room(identity: Identity) -> None:
    server = DtlsServer(identity, 8)
    made = fill(server, GREEDY)
    assert server.tick(dtls.DEADLINE_S - 0.1)[1] == []
    assert server.room_full(GREEDY)
    assert server.tick(dtls.DEADLINE_S)[1] == made
    assert not server.room_full(GREEDY)
    assert not server._of_room
    fill(server, GREEDY)
    server.close()
    assert not server._of_room
    assert len(fill(server, GREEDY)) == server.share
