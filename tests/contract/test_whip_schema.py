"""Each status that the OpenAPI document names for WHIP and WHEP: a real node gives it, and its
answer is as the document says (headers, type of content, schema of the body)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from node_kit import Site, node_of, until
from schemathesis import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_api_schema import FRAGMENTS, OFFERS, OPERATIONS, kind_of
from webrtc_kit import FRAGMENT, SDP, http

from forwarder.rooms.roles import Role
from forwarder.signaling import bounds
from forwarder.supervisor.node import Node

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEGS = 4
OTHER = {"whip": "whep", "whep": "whip"}
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DECLARED = [
    (operation, int(status))
    for operation in OPERATIONS
    if kind_of(operation) in OFFERS
    for status in operation.definition.raw["responses"]
]


class World:
    def __init__(self, site: Site, node: Node, client: httpx.AsyncClient) -> None:
        self.site, self.node, self.client = site, node, client

    def bearer(self, role: Role = Role.ACTIVE, room: str = "r") -> dict[str, str]:
        return {"authorization": f"Bearer {self.site.token('n', role, room)}"}

    @asynccontextmanager
    async def session(self, kind: str) -> AsyncIterator[str]:
        """Its id."""
        headers = self.bearer() | {"content-type": SDP}
        made = await self.client.post(f"/{kind}/r", content=OFFERS[kind][0], headers=headers)
        assert made.status_code == 201, made.text
        location = made.headers["location"]
        yield location.rpartition("/")[2]
        gone = await self.client.delete(location, headers=self.bearer())
        assert gone.status_code in (200, 404)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    site = Site(tmp_path_factory.mktemp("node"), change={"dataplane": {"legs_max": LEGS}})
    async with node_of(site) as node, http(site) as client:
        await site.room()
        await site.room("full", max_passive=0)
        yield World(site, node, client)


@dataclasses.dataclass
class Wish:
    """A request that is right, until it is changed."""

    method: str
    kind: str
    headers: dict[str, str]
    body: bytes | AsyncIterator[bytes] = b""
    room: str = "r"
    resource: str | None = None

    @property
    def path(self) -> str:
        last = f"/{self.resource}" if self.resource is not None else ""
        return f"/{self.kind}/{self.room}{last}"


Change = Callable[[Wish, World, AsyncExitStack, pytest.MonkeyPatch], Any]


def malformed(wish: Wish, *_: Any) -> None:
    if wish.method in ("POST", "PATCH"):
        wish.body = b"hello"
    else:
        wish.room = "a%20b"


def forged(wish: Wish, *_: Any) -> None:
    wish.headers["authorization"] = "Bearer a.b.c"


def passive(wish: Wish, world: World, *_: Any) -> None:
    wish.headers |= world.bearer(Role.PASSIVE)


def elsewhere(wish: Wish, world: World, *_: Any) -> None:
    if wish.resource is None:
        wish.room = "none"
        wish.headers |= world.bearer(room="none")
    else:
        wish.resource = "A" * 32


def header(name: str, value: str | None) -> Change:
    def change(wish: Wish, *_: Any) -> None:
        wish.headers.pop(name, None)
        if value is not None:
            wish.headers[name] = value

    return change


def too_long(wish: Wish, *_: Any) -> None:
    wish.body = b"v=0\r\n" + bytes(bounds.BODY_MAX)


def of_the_other(wish: Wish, *_: Any) -> None:
    wish.body = OFFERS[OTHER[wish.kind]][0]


async def taken(wish: Wish, world: World, stack: AsyncExitStack, *_: Any) -> None:
    """The SSRCs, or the seats."""
    if wish.kind == "whip":
        await stack.enter_async_context(world.session("whip"))
    else:
        wish.room = "full"
        wish.headers |= world.bearer(Role.PASSIVE, "full")


async def no_leg(wish: Wish, world: World, stack: AsyncExitStack, *_: Any) -> None:
    for _ in range(LEGS):
        await stack.enter_async_context(world.session("whep"))


async def no_time(
    wish: Wish, world: World, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many handshakes; where there is none, what has changed is long not in force."""
    if wish.method == "POST":
        monkeypatch.setattr(world.node._dtls, "most", 0)
        return
    await stack.enter_async_context(world.node._reconciler._progress)
    monkeypatch.setattr(bounds, "REQUEST_TIMEOUT_S", 0.2)
    if wish.method == "PATCH":
        wish.body = FRAGMENTS[wish.kind][1]


def candidates(wish: Wish, *_: Any) -> None:
    wish.body = FRAGMENTS[wish.kind][0]


def restart(wish: Wish, *_: Any) -> None:
    wish.body = FRAGMENTS[wish.kind][1].replace(b"New1", b"New2")


def nothing(*_: Any) -> None:
    """It is right as it is."""


HOW: dict[int | tuple[str, int], Change] = {
    200: nothing,
    201: nothing,
    204: nothing,
    ("PATCH", 204): candidates,
    ("PATCH", 200): restart,
    400: malformed,
    401: forged,
    403: passive,
    404: elsewhere,
    406: header("accept", "text/html"),
    409: taken,
    412: header("if-match", '"old"'),
    413: too_long,
    415: header("content-type", "text/plain"),
    422: of_the_other,
    428: header("if-match", None),
    429: no_leg,
    503: no_time,
}


@pytest.mark.parametrize(
    ("operation", "status"), DECLARED, ids=[f"{o.label} {status}" for o, status in DECLARED]
)
async def test_each_status_is_given_as_declared(
    operation: APIOperation, status: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, kind = operation.method.upper(), kind_of(operation)
    wish = Wish(method, kind, world.bearer())
    async with AsyncExitStack() as stack:
        if method == "POST":
            wish.body = OFFERS[kind][0]
            wish.headers["content-type"] = SDP
        if method == "PATCH":
            wish.body = FRAGMENTS[kind][0]
            wish.headers |= {"content-type": FRAGMENT, "if-match": "*"}
        if "{resource}" in operation.path:
            wish.resource = await stack.enter_async_context(world.session(kind))
        async with AsyncExitStack() as changed:
            done = HOW.get((method, status), HOW.get(status))
            assert done is not None, "say how the document's status comes to be"
            more = done(wish, world, changed, monkeypatch)
            if asyncio.iscoroutine(more):
                await more
            answer = await world.client.request(
                method, wish.path, content=wish.body, headers=wish.headers
            )
        monkeypatch.undo()
        assert answer.status_code == status, answer.text
        case = operation.Case(path_parameters={"room": wish.room, "resource": wish.resource})
        case.validate_response(answer, checks=CHECKS)
        if status == 201:
            gone = await world.client.delete(answer.headers["location"], headers=world.bearer())
            assert gone.status_code == 200
    await until(lambda: not list(world.node.rooms.participants()), "everybody has left")


async def test_no_status_comes_that_is_not_declared(world: World) -> None:
    """What the table of how to be refused knows is declared where it can be."""
    declared = {status for _, status in DECLARED}
    assert declared == {key for key in HOW if isinstance(key, int)}
