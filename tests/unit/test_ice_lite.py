"""ICE-lite: authenticated checks add 5-tuples, USE-CANDIDATE nominates, garbage is counted."""

from __future__ import annotations

import random

import pytest
from aioice import stun

from forwarder.ice import IceLite, TuplesChanged
from forwarder.ice.lite import CONSENT_S, TUPLES_MAX
from forwarder.ids import ParticipantId
from forwarder.table import Tuple5

PASSWORD = "p" * 24
ALICE, BOB = ParticipantId("alice"), ParticipantId("bob")


def at(port: int, ip: str = "192.0.2.7") -> Tuple5:
    return Tuple5(ip, port, "198.51.100.1", 4433)


def check(
    ufrag: str = "alicefrag",
    password: str = PASSWORD,
    nominate: bool = True,
    role: str = "ICE-CONTROLLING",
) -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{ufrag}:client"
    message.attributes["PRIORITY"] = 1
    message.attributes[role] = 42
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(password.encode())
    return bytes(message)


def plain(method: stun.Method, message_class: stun.Class) -> bytes:
    message = stun.Message(method, message_class)
    message.add_fingerprint()
    return bytes(message)


@pytest.fixture
def ice() -> IceLite:
    lite = IceLite()
    lite.add(ALICE, "alicefrag", PASSWORD)
    lite.add(BOB, "bobfrag00", PASSWORD)
    return lite


def test_a_check_validates_and_is_answered_under_the_password(ice: IceLite) -> None:
    request = check()
    answer, changes = ice.receive(request, at(5000), 1.0)
    assert answer is not None
    parsed = stun.parse_message(answer)
    assert parsed.check_message_integrity(PASSWORD.encode())
    assert parsed.transaction_id == stun.parse_message(request).transaction_id
    assert parsed.attributes["XOR-MAPPED-ADDRESS"] == ("192.0.2.7", 5000)
    assert changes == [TuplesChanged(ALICE, (at(5000),), 0, (at(5000),), ())]


def test_ipv6_is_mapped_back(ice: IceLite) -> None:
    where = Tuple5("2001:db8::7", 5000, "2001:db8::1", 4433)
    answer, _ = ice.receive(check(), where, 1.0)
    assert answer is not None
    assert stun.parse_message(answer).attributes["XOR-MAPPED-ADDRESS"] == ("2001:db8::7", 5000)


def test_repeated_checks_change_nothing(ice: IceLite) -> None:
    ice.receive(check(), at(5000), 1.0)
    answer, changes = ice.receive(check(), at(5000), 2.0)
    assert answer is not None
    assert changes == []


def test_only_use_candidate_moves_the_nomination(ice: IceLite) -> None:
    ice.receive(check(), at(5000), 1.0)
    _, changes = ice.receive(check(nominate=False), at(5001), 2.0)
    assert changes[0].nominated == 0
    _, changes = ice.receive(check(), at(5001), 3.0)
    assert changes[0].nominated == 1
    for now in range(4, 20):  # keeping both pairs alive does not flap
        assert ice.receive(check(nominate=False), at(5000 + now % 2), float(now))[1] == []


@pytest.mark.parametrize("behind", [False, True])
def test_what_stands_behind_the_integrity_says_nothing(ice: IceLite, behind: bool) -> None:
    """USE-CANDIDATE that somebody appended to an authentic check, with a FINGERPRINT that fits
    (RFC 8489 section 14.5); within the check it counts."""
    ice.receive(check(), at(5000), 1.0)
    message = stun.parse_message(check(nominate=not behind))
    message.attributes.pop("FINGERPRINT")
    if behind:
        message.attributes["USE-CANDIDATE"] = None
    message.add_fingerprint()
    data = bytes(message)
    assert (data.index(b"\0\x25\0\0") > data.index(b"\0\x08\0\x14")) is behind
    answer, (change,) = ice.receive(data, at(5001), 2.0)
    assert answer is not None
    assert change.nominated == (0 if behind else 1)


def test_a_fifth_tuple_evicts_the_oldest_that_is_not_nominated(ice: IceLite) -> None:
    for i in range(TUPLES_MAX):
        ice.receive(check(nominate=i == 0), at(5000 + i), float(i))
    _, changes = ice.receive(check(nominate=False), at(6000), 10.0)
    assert changes[0].removed == (at(5001),)
    assert len(changes[0].tuples) == TUPLES_MAX
    assert changes[0].tuples[changes[0].nominated or 0] == at(5000)


def test_a_tuple_moves_to_the_leg_that_proves_it(ice: IceLite) -> None:
    ice.receive(check(), at(5000), 1.0)
    _, changes = ice.receive(check("bobfrag00"), at(5000), 2.0)
    assert changes[0] == TuplesChanged(ALICE, (), None, (), (at(5000),))
    assert changes[1].participant_id == BOB


def test_consent_expires_and_falls_back(ice: IceLite) -> None:
    ice.receive(check(), at(5000), 0.0)
    ice.receive(check(nominate=False), at(5001), 10.0)
    assert ice.expire(CONSENT_S - 0.1) == []
    (change,) = ice.expire(CONSENT_S)
    assert change == TuplesChanged(ALICE, (at(5001),), 0, (), (at(5000),))
    (change,) = ice.expire(10.0 + CONSENT_S)
    assert change.tuples == () and change.nominated is None


def test_restored_tuples_keep_their_place_and_their_consent_begins_anew() -> None:
    lite = IceLite()
    lite.add(ALICE, "alicefrag", PASSWORD, tuples=(at(1), at(2)), nominated=1, now=100.0)
    assert lite.expire(100.0 + CONSENT_S - 1) == []
    assert lite.receive(check(), at(2), 101.0)[1] == []
    lite.wait_anew(200.0)
    assert lite.expire(200.0 + CONSENT_S - 1) == []
    (change,) = lite.expire(200.0 + CONSENT_S)
    assert change.tuples == ()


@pytest.mark.parametrize(
    ("datagram", "counter"),
    [
        (check(ufrag="nobody00"), "unknown_ufrag"),
        (check(password="q" * 24), "bad_integrity"),
        (b"\x00\x01" + bytes(9), "malformed"),
        (b"\x00" * 1400, "oversize"),
        (plain(stun.Method.BINDING, stun.Class.REQUEST), "no_username"),
        (plain(stun.Method.BINDING, stun.Class.INDICATION), "not_request"),
        (plain(stun.Method.ALLOCATE, stun.Class.REQUEST), "not_binding"),
        (bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)), "no_fingerprint"),
    ],
)
def test_what_is_not_authentic_is_counted_and_not_answered(
    ice: IceLite, datagram: bytes, counter: str
) -> None:
    assert ice.receive(datagram, at(5000), 1.0) == (None, [])
    assert ice.counters[counter] == 1


def test_a_controlled_peer_is_told_of_the_role_conflict(ice: IceLite) -> None:
    answer, changes = ice.receive(check(role="ICE-CONTROLLED"), at(5000), 1.0)
    assert answer is not None and changes == []
    assert stun.parse_message(answer).attributes["ERROR-CODE"][0] == 487


def test_a_removed_leg_is_unknown(ice: IceLite) -> None:
    ice.receive(check(), at(5000), 1.0)
    ice.remove(ALICE)
    assert ice.receive(check(), at(5000), 2.0) == (None, [])
    assert ice.expire(1000.0) == []


def test_mutated_checks_never_raise_and_never_validate(ice: IceLite) -> None:
    rng = random.Random(7)
    good = check()
    for _ in range(5000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = bytes(data[: rng.randint(0, len(data))])
        if cut == good:
            continue
        answer, changes = ice.receive(cut, at(5000), 1.0)
        # Mutations behind MESSAGE-INTEGRITY (the fingerprint) are rejected by the fingerprint.
        assert answer is None and changes == []


def test_who_holds_a_5_tuple_is_known_after_a_check(ice: IceLite) -> None:
    assert ice.holder(at(5000)) is None
    ice.receive(check(), at(5000), 1.0)
    assert (ice.holder(at(5000)), ice.holder(at(5001))) == (ALICE, None)
    ice.receive(check("bobfrag00"), at(5000), 2.0)
    assert ice.holder(at(5000)) == BOB
    ice.remove(BOB)
    assert ice.holder(at(5000)) is None


def test_a_restart_ends_the_old_credentials_and_keeps_the_addresses(ice: IceLite) -> None:
    ice.receive(check(), at(5000), 1.0)
    ice.restart(ALICE, "newfrag0", "n" * 24, 20.0)
    assert ice.receive(check(), at(5001), 21.0) == (None, [])
    assert ice.counters["unknown_ufrag"] == 1
    assert ice.holder(at(5000)) == ALICE
    assert ice.expire(1.0 + CONSENT_S) == []  # consent began anew
    answer, (change,) = ice.receive(check("newfrag0", "n" * 24), at(5001), 22.0)
    assert answer is not None
    assert change.tuples == (at(5000), at(5001))
    assert change.nominated == 1
