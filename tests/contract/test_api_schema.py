"""Property tests of the HTTP API by its own OpenAPI document (schemathesis), against a real node.

What is asked for follows from the document, and so does what is right: no request ends in 500, each
status, content type, header and body is one that the document names, what the document forbids is
refused, what it allows is taken, and nothing is given without a token.

WHIP and WHEP are asked with tokens of each role and with offers of real clients, so that sessions
are made; each ends before the next request, and in the end nobody is left.

The cases are the same in each run.  VCFWD_SCHEMA_EXAMPLES makes it run for longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from node_kit import Site, node_of
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from signaling_world import MemoryBackend

from forwarder.clock import SystemClock
from forwarder.ids import RoomId
from forwarder.rooms.roles import Role
from forwarder.signaling import api
from forwarder.signaling.tokens import ROOM_ID, SigningKey, Tokens
from forwarder.signaling.whip import FRAGMENT, SDP

EXAMPLES = int(os.environ.get("VCFWD_SCHEMA_EXAMPLES", "12"))
START_S = 60.0
OPEN = "/v1/health"
LAST = "/v1/drain"  # after it nobody is let in any more: the last case of the last test
ROOM = "calls"
MINE = "mine"  # stands for a session that is made for the case
FIXTURES = Path(__file__).parents[1] / "unit" / "sdp"


def offers(*names: str) -> list[bytes]:
    return [(FIXTURES / f"{name}.sdp").read_bytes().replace(b"\n", b"\r\n") for name in names]


OFFERS = {
    "whip": offers("chromium-publish", "chromium-simulcast", "firefox-publish", "aiortc-publish"),
    "whep": offers("chromium-view", "firefox-view", "safari-view", "gstreamer-view"),
}
UFRAG = {
    kind: next(line for line in OFFERS[kind][0].split() if line.startswith(b"a=ice-ufrag:"))
    for kind in OFFERS
}
PASSWORD = b"a=ice-pwd:0a1b2c3d4e5f60718293a4b5c6d7e8f9"
TRICKLED = b"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=end-of-candidates\r\n"
FRAGMENTS = {
    kind: [
        b"\r\n".join((ufrag, PASSWORD, TRICKLED)) for ufrag in (UFRAG[kind], b"a=ice-ufrag:New1")
    ]
    for kind in OFFERS
}
"""What trickles, and an ICE restart."""
REACHED = {
    "POST /whip/{room}": {201},
    "POST /whep/{room}": {201},
    "GET /whip/{room}": {204},
    "GET /whep/{room}": {204},
    "OPTIONS /whip/{room}": {200},
    "OPTIONS /whep/{room}": {200},
    "PATCH /whip/{room}/{resource}": {200, 204},
    "PATCH /whep/{room}/{resource}": {200, 204},
    "DELETE /whip/{room}/{resource}": {200},
    "DELETE /whep/{room}/{resource}": {200},
    "GET /whip/{room}/{resource}": {204},
    "GET /whep/{room}/{resource}": {204},
    "OPTIONS /whip/{room}/{resource}": {200},
    "OPTIONS /whep/{room}/{resource}": {200},
}
"""What the cases of the document must have been answered at least once."""


CONFIG = schemathesis.Config.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}}
)
"""Schemathesis itself would not take 412 for a wrong ETag and 413 for a long body."""


class Nobody:
    """Routes are declared where there is somebody to serve WHIP and WHEP; none is called."""


def document() -> schemathesis.BaseSchema:
    webrtc: Any = Nobody()
    tokens = Tokens([SigningKey("k", b"s" * 32)], clock=SystemClock())
    app = api.build(MemoryBackend(), tokens, webrtc=webrtc)
    made = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    return schemathesis.openapi.from_dict(made.raw_schema, config=CONFIG)


@schemathesis.serializer(SDP, FRAGMENT)
def as_it_is(_: schemathesis.SerializationContext, value: object) -> bytes:
    text = value if isinstance(value, str | bytes) else json.dumps(value, default=str)
    return text.encode(errors="replace") if isinstance(text, str) else text


OPERATIONS = sorted(
    (found.ok() for found in document().get_all_operations() if isinstance(found, Ok)),
    key=lambda operation: operation.path == LAST,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node in a thread of its own."""
    made = Site(tmp_path_factory.mktemp("node"))
    ready, done = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    async def run() -> None:
        async with node_of(made):
            ready.set()
            await asyncio.to_thread(done.wait)

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(START_S)
        assert not failed, failed
        yield made
    finally:
        done.set()
        thread.join(START_S)


@pytest.fixture(scope="module")
def session(site: Site) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        made.verify = str(certificate(site))
        token, _ = site.tokens().create_admin(subject="schema")
        made.headers["authorization"] = f"Bearer {token}"
        for room in ("0", ROOM):
            made.post(f"{site.url()}/v1/rooms", json={"id": room}).raise_for_status()
        del made.headers["authorization"]
        yield made


def certificate(site: Site) -> Path:
    (found,) = [p for p in (site.base / "state").glob("*.pem") if "PRIVATE" not in p.read_text()]
    return found


def kind_of(operation: schemathesis.APIOperation) -> str:
    """ "whip", "whep", or neither."""
    return str(operation.path.split("/")[1])


CASES = [
    (operation, mode)
    for operation in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.path != OPEN  # nothing can be wrong there
    if kind_of(operation) not in OFFERS
]
CALLS = [
    (operation, mode)
    for operation in OPERATIONS
    for mode in GenerationMode
    if kind_of(operation) in OFFERS
]


class Guest:
    """Someone with tokens, who makes sessions and leaves none behind."""

    def __init__(self, site: Site, session: requests.Session, kind: str) -> None:
        self._site, self._session, self._kind = site, session, kind
        self._made: str | None = None

    def headers(self, case: Case, role: Role) -> dict[str, str]:
        room = str(case.path_parameters.get("room"))
        room = room if ROOM_ID.match(room) else ROOM
        return self._bearer(RoomId(room), role)

    def _bearer(self, room: RoomId, role: Role) -> dict[str, str]:
        token, _ = self._site.tokens().create_join(room, role=role, name="schema")
        return {"Authorization": f"Bearer {token}"}

    def come(self, case: Case) -> None:
        """The session that the case means, if it means one."""
        if case.path_parameters.get("resource") != MINE:
            return
        url = f"{self._site.url()}/{self._kind}/{ROOM}"
        headers = self._bearer(RoomId(ROOM), Role.ACTIVE) | {"Content-Type": SDP}
        answer = self._session.post(url, data=OFFERS[self._kind][0], headers=headers)
        assert answer.status_code == 201, answer.text
        self._made = answer.headers["location"]
        case.path_parameters["resource"] = self._made.rpartition("/")[2]

    def go(self, location: str | None) -> None:
        for path in (location, self._made):
            if path is not None:
                headers = self._bearer(RoomId(path.split("/")[2]), Role.ACTIVE)
                answer = self._session.delete(f"{self._site.url()}{path}", headers=headers)
                assert answer.status_code in (200, 404)
        self._made = None


def of_calls(
    operation: schemathesis.APIOperation, mode: GenerationMode, kind: str
) -> st.SearchStrategy[Case]:
    """What WHIP and WHEP are asked: as the document has it, and of sessions that are there."""
    fixed: dict[str, Any] = {}
    if "{resource}" in operation.path:
        fixed["path_parameters"] = {"room": ROOM, "resource": MINE}
    elif mode is GenerationMode.POSITIVE:
        fixed["path_parameters"] = {"room": ROOM}
    if mode is GenerationMode.NEGATIVE:
        return operation.as_strategy(mode) | operation.as_strategy(mode, **fixed)
    if operation.method.upper() == "PATCH":
        fixed |= {"headers": {"If-Match": "*"}, "media_type": FRAGMENT}
    elif operation.method.upper() == "POST":
        fixed |= {"media_type": SDP}
    bodies = {"PATCH": FRAGMENTS, "POST": OFFERS}.get(operation.method.upper())
    if bodies is None:
        return operation.as_strategy(mode) | operation.as_strategy(mode, **fixed)
    elsewhere = {name: what for name, what in fixed.items() if name != "path_parameters"}
    return st.one_of(
        operation.as_strategy(mode, body=body, **where)
        for body in bodies[kind]
        for where in (fixed, elsewhere)
    )


def run(cases: st.SearchStrategy[Any], one: Callable[[Any], None]) -> None:
    """As many as VCFWD_SCHEMA_EXAMPLES says, the same ones each time."""
    made = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def check(case: Any) -> None:
        nonlocal made
        made += 1
        one(case)

    check()
    assert made


@pytest.mark.parametrize(
    ("operation", "mode"), CALLS, ids=[f"{o.method} {o.path} {m.value}" for o, m in CALLS]
)
def test_the_document_holds_for_calls(
    operation: schemathesis.APIOperation,
    mode: GenerationMode,
    site: Site,
    session: requests.Session,
) -> None:
    kind = kind_of(operation)
    guest = Guest(site, session, kind)
    seen: Counter[int] = Counter()

    def one(asked: tuple[Case, Role]) -> None:
        case, role = asked
        guest.come(case)
        location = None
        try:
            answer = case.call_and_validate(
                base_url=site.url(),
                session=session,
                headers=guest.headers(case, role),
                timeout=30,
                verify=session.verify,
            )
            seen[answer.status_code] += 1
            location = answer.headers.get("location", [None])[0]
        finally:
            guest.go(location)

    run(st.tuples(of_calls(operation, mode, kind), st.sampled_from(Role)), one)
    if mode is GenerationMode.POSITIVE:
        assert REACHED[operation.label] <= set(seen)
    here = [room for room in site.request("GET", "/v1/rooms") if room["active"] + room["passive"]]
    assert here == []


@pytest.mark.parametrize(
    ("operation", "mode"), CASES, ids=[f"{o.method} {o.path} {m.value}" for o, m in CASES]
)
def test_the_document_holds(
    operation: schemathesis.APIOperation,
    mode: GenerationMode,
    site: Site,
    session: requests.Session,
) -> None:
    token, _ = site.tokens().create_admin(subject="schema")
    headers = {"Authorization": f"Bearer {token}"}

    def one(case: Case) -> None:
        case.call_and_validate(
            base_url=site.url(),
            session=session,
            headers=headers,
            timeout=30,
            verify=session.verify,
        )

    run(operation.as_strategy(generation_mode=mode), one)
