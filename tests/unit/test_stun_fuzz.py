"""STUN from anybody: no exception leaves IceLite, nothing is believed without the password, and
answers are small.

For long runs: VCFWD_FUZZ_CASES (fuzz_kit).
"""

from __future__ import annotations

import random
import struct
from binascii import crc32

from aioice import stun
from fuzz_kit import cases, mutated_bytes
from test_ice_lite import ALICE, PASSWORD, at, check

from forwarder.ice import IceLite

ANSWER_MAX = 20 + 12 + 24 + 8 + 24  # header, address (or error), integrity, fingerprint, slack
COUNTED = {
    *("oversize", "malformed", "no_fingerprint", "not_binding", "not_request"),
    *("no_username", "unknown_ufrag", "bad_integrity", "role_conflict", "answered"),
    *("tuple_evicted",),
}


def repaired(data: bytes) -> bytes:
    """With the length and the fingerprint that its bytes call for, so that it is read further."""
    body = data[20:]
    body = body[: len(body) // 4 * 4][:1200]
    head = data[:2] + struct.pack("!H", len(body) + 8) + data[4:20]
    value = crc32(head + body) ^ 0x5354554E
    return head + body + struct.pack("!HHI", 0x8028, 4, value)


def bare(data: bytes) -> bytes:
    """Without its fingerprint: what comes after a wrong one is not read."""
    return data[:-8]


def signed(data: bytes) -> bytes:
    """By somebody who knows the password and sends nonsense."""
    body = data[20:][:1100]
    body += bytes(-len(body) % 4)
    whole = data[:2] + struct.pack("!H", len(body)) + data[4:20] + body
    mac = stun.message_integrity(whole, PASSWORD.encode())
    return repaired(whole + struct.pack("!HH", 8, 20) + mac)


def originals() -> list[bytes]:
    made = [check(), check(nominate=False), check(role="ICE-CONTROLLED"), check(ufrag="nobody00")]
    rich = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    rich.attributes["USERNAME"] = "alicefrag:x"
    rich.attributes["ERROR-CODE"] = (400, "no")
    rich.attributes["XOR-MAPPED-ADDRESS"] = ("2001:db8::1", 1)
    rich.attributes["MAPPED-ADDRESS"] = ("192.0.2.1", 1)
    rich.attributes["SOFTWARE"] = "é"
    rich.attributes["LIFETIME"] = 1
    rich.attributes["CHANNEL-NUMBER"] = 1
    rich.add_message_integrity(b"another")
    other = stun.Message(stun.Method.BINDING, stun.Class.INDICATION)
    other.add_message_integrity(PASSWORD.encode())
    return [*made, bytes(rich), bytes(other)]


def test_mutated_checks() -> None:
    seeds = originals()
    ice = IceLite()
    ice.add(ALICE, "alicefrag", PASSWORD)
    ran = 0
    for case in cases(6000):
        chance = random.Random(case)
        data = chance.choice(seeds)
        how = chance.randrange(4)
        data = mutated_bytes(chance, data if how == 0 else bare(data)[: -24 if how == 3 else None])
        if how in (1, 2) and len(data) >= 20:
            data = repaired(data)
        elif how == 3 and len(data) >= 20:
            data = signed(data)
        before = ice.counters.total()
        answer, changed = ice.receive(data, at(1024 + case % 50), float(case))
        counted = ice.counters.total() - before
        assert counted >= 1, case
        if answer is not None:
            assert len(answer) <= ANSWER_MAX, case
            assert authentic(data), case
        else:
            assert not changed, case
        ran += 1
    assert set(ice.counters) <= COUNTED
    # Each reason was met: the mutations go deep.
    for reason in COUNTED - {"oversize", "not_binding"}:
        assert ice.counters[reason] > ran // 1000, reason


def authentic(data: bytes) -> bool:
    """Read anew: it is a check under the password, whatever else was changed in it."""
    message = stun.parse_message(data)
    return message.check_message_integrity(PASSWORD.encode())


def test_noise() -> None:
    ice = IceLite()
    ice.add(ALICE, "alicefrag", PASSWORD)
    for case in cases(3000):
        chance = random.Random(case)
        data = bytes([chance.randrange(4)]) + chance.randbytes(chance.randrange(1400))
        if len(data) >= 20 and case % 2:
            data = repaired(data[:4] + struct.pack("!I", stun.COOKIE) + data[8:])
        assert ice.receive(data, at(5000), 1.0) == (None, [])
    assert ice.holder(at(5000)) is None
