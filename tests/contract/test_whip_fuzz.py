"""WHIP and WHEP by a client of bad manners: whatever it sends, it is told what is wrong with that,
as the OpenAPI document has it, and nobody else notices.

`VCFWD_FUZZ_CASES=20000 .venv/bin/python -m pytest tests/contract/test_whip_fuzz.py --timeout=0`
runs for long; a case that fails is named by its number.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import httpx
from bare_peer import Peer
from node_kit import Site, call_on, node_of
from test_api_schema import OPERATIONS
from webrtc_kit import FRAGMENT, SDP, http

from forwarder.rooms.roles import Role

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from fuzz_kit import WORDS, cases, mutated_text

OFFERS = [
    path.read_bytes().replace(b"\n", b"\r\n")
    for path in sorted((Path(__file__).parents[1] / "unit" / "sdp").glob("*.sdp"))
    if path.stat().st_size < 8000
]
FRAGMENTS = [
    b"a=ice-ufrag:1e10\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    b"a=candidate:1 1 udp 1 198.51.100.1 5000 typ host\r\n"
    b"a=candidate:2 1 tcp 1 x.local 9 typ host tcptype active\r\na=end-of-candidates\r\n"
]
METHODS = ("POST",) * 8 + ("PATCH",) * 5 + ("DELETE", "OPTIONS", "GET")
ROOMS = ("r",) * 15 + ("none", "..", "%2e%2e/v1", "a" * 300)
TYPES = (SDP.encode(),) * 15 + (
    b"application/SDP; charset=utf-8",
    b"text/plain",
    b"\xff/\xff",
    b";",
)
QUERIES = ("",) * 6 + ("?layer=low", "?participant=", "?layer=" + "9" * 2000, "?%00=%ff", "?&=;#")
TOLD = {400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428}
"""What a client may be told; 429 and 503 are for what is too much."""
DECLARED = {one.label: {int(s) for s in one.definition.raw["responses"]} for one in OPERATIONS}


def declared(request: httpx.Request) -> set[int]:
    """What the document names for the request."""
    kind, _, rest = request.url.raw_path.decode().partition("?")[0].strip("/").partition("/")
    last = "/{resource}" if "/" in rest else ""
    return DECLARED.get(f"{request.method} /{kind}/{{room}}{last}", {404, 405})


class Rude:
    """Makes requests out of a case's number."""

    def __init__(self, site: Site) -> None:
        self._tokens = [site.token("n", role) for role in (Role.ACTIVE, Role.PASSIVE)]
        self.locations = ["/whip/r/x"]

    def request(self, client: httpx.AsyncClient, case: int) -> httpx.Request:
        chance = random.Random(case)
        method, kind = chance.choice(METHODS), chance.choice(("whip", "whep"))
        path = f"/{kind}/{chance.choice(ROOMS)}"
        body = mutated_text(chance, OFFERS if method == "POST" else FRAGMENTS)
        if method != "POST" and chance.random() < 0.9:
            path = chance.choice(self.locations[-4:])
        if chance.random() < 0.03:
            body = chance.randbytes(chance.randrange(100_000))
        token = chance.choice(self._tokens).encode()
        headers = {
            b"authorization": chance.choice((b"Bearer " + token,) * 18 + (token, b"Bearer \xff")),
            b"content-type": chance.choice(TYPES) if method == "POST" else FRAGMENT.encode(),
            b"accept": chance.choice((b"*/*", b"application/sdp", b"", b";;q=,", b"text/html")),
            b"if-match": chance.choice((b"*",) * 8 + (b'"x"', b",,", b'W/"*"', b"\xfe" * 200)),
            b"origin": chance.choice((b"https://a.example", b"null", b"\xff")),
        }
        for name in list(headers):
            if chance.random() < 0.02:
                headers[name] = chance.choice(WORDS[:9])
        target = path + chance.choice(QUERIES)
        return client.build_request(method, target, content=body, headers=list(headers.items()))


async def test_no_request_is_a_fault_of_the_node(tmp_path: Path) -> None:
    site = Site(tmp_path)
    seen: Counter[int] = Counter()
    async with node_of(site) as node, call_on(site, "others") as call, http(site) as client:
        await site.room()
        rude = Rude(site)
        for case in cases(150):
            answer = await client.send(rude.request(client, case))
            seen[answer.status_code] += 1
            assert answer.status_code in declared(answer.request), (case, answer.text)
            assert answer.status_code in TOLD | {200, 201, 204, 429, 503}, (case, answer.text)
            if answer.status_code in TOLD and answer.status_code != 405:
                assert len(answer.json()["message"]) > 10, (case, answer.text)
            if answer.status_code == 201:
                rude.locations.append(answer.headers["location"])
                assert answer.text.startswith("v=0\r\n"), case
        assert {200, 201, 400, 401, 404, 405, 406, 415, 422} <= set(seen), seen
        for person in [p for p in node.rooms.participants() if p.room_id == "r"]:
            node.rooms.leave(person.id, "enough", node._clock.now())
        node._backend.announce()
        async with Peer("whep", site.token("eve", Role.PASSIVE)) as honest:
            await honest.connect(client)
        await call.flows()
        await call.end()
        assert call.lost() == []
        status = await node.status()
        assert status["balanced"], status["imbalance"]
