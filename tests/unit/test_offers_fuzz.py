"""No offer that is taken can hold up the table: whatever is agreed on has a plan, commands that can
be written, and a data plane that takes them.  A round that fails would keep everybody else out.

`VCFWD_FUZZ_CASES=100000 .venv/bin/python -m pytest tests/unit/test_offers_fuzz.py --timeout=0` runs
for long; a case that fails is named by its number.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from dtls_kit import make_certificate
from fuzz_kit import cases, mutated_text
from rooms_kit import make_rooms, tuple5
from test_browsers import CLAIMS
from test_browsers import World as Browsing
from test_rooms_browsers import KEYS, World
from test_sdp import offer
from test_sdp_fuzz import ALL_TERMS, SMALL

from forwarder.dataplane.encode import encode
from forwarder.errors import ProtocolError, Refused
from forwarder.ice.dtls import Identity
from forwarder.rooms.roles import Role
from forwarder.rooms.snapshot import snapshot
from forwarder.signaling.sdp import SESSION, WHEP, negotiate, parse_offer
from forwarder.supervisor.offers import check_session, peer_of, slot_spec, track_specs
from forwarder.table import Table

PEOPLE_MAX = 6
LINES = (
    b"a=ssrc-group:SIM %d %d",
    b"a=ssrc-group:FID %d %d",
    b"a=ssrc:%d cname:%d",
    b"a=rtpmap:%d rtx/90000\r\na=fmtp:%d apt=96",
    b"a=fmtp:%d apt=%d",
    b"a=extmap:%d urn:ietf:params:rtp-hdrext:sdes:mid %d",
    b"a=extmap:%d urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id %d",
    b"a=rid:%d send pt=%d",
    b"a=simulcast:send %d;%d",
)


def offered(chance: random.Random) -> bytes:
    """A mutation, and often lines about streams that are at odds with one another."""
    data = mutated_text(chance, SMALL)
    known = [int(word) for word in re.findall(rb"(?<=ssrc:)\d+|(?<=FID )\d+", data)] or [7]
    for _ in range(chance.randrange(6)):
        numbers = tuple(
            chance.choice([*known, 0, 1, 2, 14, 15, 96, 97, 127, 2**32 - 1]) for _ in range(2)
        )
        line = chance.choice(LINES) % numbers
        data = data.replace(b"a=rtcp-mux\r\n", b"a=rtcp-mux\r\n" + line + b"\r\n", 2)
    return data


def check_sources(table: Table) -> None:
    """What c_helpers/src/commands_source.c refuses, and the model of rooms_kit does not."""
    for leg in table.legs:
        mine = [source for source in table.sources.values() if source.leg == leg]
        ssrcs = [ssrc for s in mine for ssrc in (s.ssrc, s.rtx_ssrc) if ssrc is not None]
        assert len(set(ssrcs)) == len(ssrcs), f"an SSRC of two streams: {ssrcs}"
        assert all(0 < s.clock_hz <= 1_000_000 for s in mine)
        labels = [(s.mid, s.rid) for s in mine if s.ssrc is None and not s.by_pt]
        assert len(set(labels)) == len(labels), f"a label of two streams: {labels}"


def test_what_is_agreed_on_has_a_plan() -> None:
    rooms = make_rooms(3, workers=2)
    rooms.create_room("r", now=0.0)
    world = World(rooms)
    taken = refused = 0
    for case in cases(1500):
        chance = random.Random(case)
        terms = chance.choice(ALL_TERMS)
        people = list(rooms.participants())
        if len(people) >= PEOPLE_MAX:
            rooms.leave(chance.choice(people).id, "bye", 0.0)
        try:
            made = negotiate(parse_offer(offered(chance)), terms)
            if terms is SESSION:
                check_session(made)
            way = "BOTH" if terms is SESSION else "SEND" if terms is WHEP else "RECEIVE"
            who = rooms.join_peer(
                "r",
                name="n",
                role=Role.ACTIVE,
                peer=peer_of(made, way),
                tracks=track_specs(made),
                places=[slot_spec(item) for item in made.send],
                now=0.0,
            )
        except (ProtocolError, Refused):
            refused += 1
            continue
        taken += 1
        rooms.set_keys(who.id, KEYS)
        rooms.set_tuples(who.id, [tuple5(case % 60000 + 1)], 0)
        try:
            for _ in range(2):
                world.round()
                for number, command in enumerate(world.commands):
                    encode(command, number + 1)
            assert not world.refused
            check_sources(world.plane.table)
        except Exception as error:
            pytest.fail(f"case {case}: {type(error).__name__}: {error}")
    assert taken > 100
    assert refused > 100


def again(chance: random.Random, text: str) -> str:
    """A further offer of the same page: now and then sound, now and then at odds with the first."""
    lines = text.split("m=")
    if chance.random() < 0.4:  # a sender or a place rests, or turns round
        at = chance.randrange(1, len(lines))
        ways = ("a=sendonly", "a=recvonly", "a=inactive", "a=sendrecv")
        lines[at] = re.sub("a=(sendonly|recvonly)", chance.choice(ways), lines[at])
    if chance.random() < 0.4:  # more of them
        more = chance.choice(lines[1:])
        lines.append(re.sub("a=mid:[^\r]*", f"a=mid:x{chance.randrange(9)}", more))
    data = "m=".join(lines).encode()
    return (mutated_text(chance, [data]) if chance.random() < 0.4 else data).decode(
        errors="replace"
    )


async def test_further_offers_change_all_or_nothing() -> None:
    """What is refused leaves the rooms as they were; what is taken has a plan."""
    node = Browsing(Identity(*make_certificate("node")))
    text = b"m=".join(offer("chromium-session").split(b"m=")[:7]).decode()
    me, _ = await node.browsers.join(replace(CLAIMS, role=Role.ACTIVE), text)
    node.rooms.set_keys(me.id, KEYS)
    world = World(node.rooms)
    taken = refused = 0
    for case in cases(500):
        chance = random.Random(case)
        before = snapshot(node.rooms)
        try:
            await node.browsers.again(me.id, again(chance, text))
            taken += 1
        except (ProtocolError, Refused):
            assert snapshot(node.rooms) == before, case
            refused += 1
        try:
            world.settle()
            check_sources(world.plane.table)
        except Exception as error:
            pytest.fail(f"case {case}: {type(error).__name__}: {error}")
    assert taken > 50
    assert refused > 50
    node.browsers.close()
