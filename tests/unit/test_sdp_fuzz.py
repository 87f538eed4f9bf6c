"""Nothing but ProtocolError comes out of SDP, whatever goes in, and answers stay small and sound.

`VCFWD_FUZZ_CASES=1000000 .venv/bin/python -m pytest tests/unit/test_sdp_fuzz.py --timeout=0` runs
for long; a case that fails is named by its number.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from fuzz_kit import cases, mutated_text
from test_sdp import FIXTURES, LOCAL, offer

from forwarder.errors import ProtocolError
from forwarder.signaling.sdp import (
    SESSION,
    WHEP,
    WHIP,
    Stream,
    Terms,
    changes,
    negotiate,
    parse_fragment,
    parse_offer,
    render,
    render_fragment,
)

OFFERS = [offer(path.stem) for path in sorted(FIXTURES.glob("*.sdp"))]
SMALL = [text for text in OFFERS if len(text) < 8000]
ALL_TERMS: list[Terms] = [WHIP, WHEP, SESSION]
FRAGMENT = (
    b"a=ice-ufrag:1e10\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    b"a=candidate:1 1 udp 1 198.51.100.1 5000 typ host\r\n"
    b"a=candidate:2 1 tcp 1 x.local 9 typ host tcptype active\r\na=end-of-candidates\r\n"
)


def answer_of(data: bytes, terms: Terms) -> str:
    made = negotiate(parse_offer(data), terms)
    streams = {
        a.mid: Stream(1 + n, "cname", "s", f"t{n}", 1000 + n) for n, a in enumerate(made.send)
    }
    text = render(made, replace(LOCAL, streams=streams))
    assert len(text) < 2 * len(data) + 4096
    assert all(line[1:2] == "=" for line in text.split("\r\n")[:-1])
    read = parse_offer(text.encode())
    assert [m.kind for m in read.media] == [m.kind for m in made.offer.media]
    assert [m.mid for m in read.media] == [m.mid for m in made.offer.media]
    assert sum(m.port != 0 for m in read.media) == len(made.accepted)
    for item in made.accepted:
        offered = {f.pt for f in item.media.formats}
        assert {f.pt for f in read.media[item.media.index].formats} <= offered
        assert set(read.media[item.media.index].rids) == set()  # they are recv
        assert 0 < len(item.formats) <= len(terms.order)
        assert len(item.layers) <= 3
    return text


def test_offers() -> None:
    answered = refused = 0
    for case in cases(2000):
        chance = random.Random(case)
        data = mutated_text(chance, SMALL)
        terms = chance.choice(ALL_TERMS)
        try:
            answer_of(data, terms)
            answered += 1
        except ProtocolError as error:
            assert len(str(error)) < 600, case
            refused += 1
        except Exception as error:
            pytest.fail(f"case {case}: {type(error).__name__}: {error}")
    assert answered > 50
    assert refused > 50


def test_re_offers() -> None:
    answered = refused = 0
    text = next(t for t in OFFERS if b"a=simulcast" in t and t.count(b"m=") > 20)
    small = b"m=".join(text.split(b"m=")[:7])
    before = negotiate(parse_offer(small), SESSION)
    for case in cases(600):
        chance = random.Random(case)
        data = mutated_text(chance, [small])
        try:
            made = negotiate(parse_offer(data), SESSION, before)
            found = changes(made, before)
            kept = [a.mid for a in before.accepted if a not in found.ended]
            assert set(kept) <= {a.mid for a in made.accepted}, case
            assert [a.pair for a in made.send][: len(before.send)] == [
                a.pair for a in before.send
            ], case
            answered += 1
        except ProtocolError:
            refused += 1
    assert answered > 20
    assert refused > 20


def test_fragments() -> None:
    read = refused = 0
    for case in cases(500):
        chance = random.Random(case)
        try:
            found = parse_fragment(mutated_text(chance, [FRAGMENT]))
            assert len(found.ufrag) <= 256
            assert render_fragment(found.ufrag, found.password, (("audio", "0"),), ())
            read += 1
        except ProtocolError:
            refused += 1
    assert read > 50
    assert refused > 50


def test_noise() -> None:
    for case in cases(200):
        chance = random.Random(case)
        data = b"v=0\r\n" + chance.randbytes(chance.randrange(2000))
        with pytest.raises(ProtocolError):
            negotiate(parse_offer(data), WHIP)
