"""What OPTIONS tells of WHIP and WHEP: to clients, and to browsers that ask for a page of another
origin (CORS), on a node that lets pages call and on one that does not (RFC 9725 section 4.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from node_kit import Site, node_of
from webrtc_kit import FRAGMENT, SDP, http

ORIGIN = "https://app.example"
ENDPOINTS = [("/whip/r", "POST"), ("/whep/r", "POST")]
SESSIONS = [(f"/{kind}/r/x", method) for kind in ("whip", "whep") for method in ("PATCH", "DELETE")]
ALLOW = "access-control-allow-"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[True, False])
async def calls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[bool, httpx.AsyncClient]]:
    """Whether pages may call, and a client."""
    change = {"api": {"cors_origins": [ORIGIN]}} if request.param else {}
    site = Site(tmp_path_factory.mktemp("node"), change=change)
    async with node_of(site), http(site) as client:
        yield request.param, client


Calls = tuple[bool, httpx.AsyncClient]


def told(answer: httpx.Response) -> tuple[str | None, str | None]:
    return answer.headers.get("accept-post"), answer.headers.get("accept-patch")


def wish(method: str, origin: str = ORIGIN) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,content-type,if-match",
    }


@pytest.mark.parametrize(("path", "method"), ENDPOINTS + SESSIONS)
async def test_it_tells_what_may_be_sent(calls: Calls, path: str, method: str) -> None:
    _, client = calls
    answer = await client.options(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert told(answer) == ((None, FRAGMENT) if path.count("/") == 3 else (SDP, None))
    assert not [name for name in answer.headers if name.startswith(ALLOW)]


@pytest.mark.parametrize(("path", "method"), ENDPOINTS + SESSIONS)
async def test_it_tells_a_browser_too(calls: Calls, path: str, method: str) -> None:
    """A node without origins answers as to anybody, and so the browser lets no page call."""
    pages, client = calls
    answer = await client.options(path, headers=wish(method))
    assert answer.status_code == 200
    assert told(answer) == ((None, FRAGMENT) if path.count("/") == 3 else (SDP, None))
    assert answer.headers.get(ALLOW + "origin") == (ORIGIN if pages else None)
    if pages:
        assert method in answer.headers[ALLOW + "methods"].split(", ")
        asked = {"authorization", "content-type", "if-match"}
        assert asked <= {name.lower() for name in answer.headers[ALLOW + "headers"].split(", ")}


async def test_a_page_that_may_not_call(calls: Calls) -> None:
    pages, client = calls
    answer = await client.options("/whip/r", headers=wish("POST", "https://e.vil"))
    assert ALLOW + "origin" not in answer.headers
    if pages:
        assert (answer.status_code, answer.json()["code"]) == (400, "forbidden")
        assert "api.cors_origins" in answer.json()["message"]
        assert "Origin" in answer.headers["vary"]
    else:
        assert answer.status_code == 200


async def test_methods_and_headers_that_nobody_needs(calls: Calls) -> None:
    pages, client = calls
    for more in (
        {"access-control-request-method": "TRACE"},
        {"access-control-request-headers": "x-more"},
    ):
        answer = await client.options("/whip/r", headers=wish("POST") | more)
        assert answer.status_code == (400 if pages else 200)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "DELETE"])
async def test_each_method_may_be_asked_for(calls: Calls, method: str) -> None:
    _, client = calls
    assert (await client.options("/whip/r/x", headers=wish(method))).status_code == 200


@pytest.mark.parametrize("path", ["/v1/rooms", "/whip", "/whip/r/x/y", "/whipr/r", "/whep//x"])
async def test_other_paths_tell_nothing(calls: Calls, path: str) -> None:
    pages, client = calls
    for headers in ({}, wish("POST")):
        answer = await client.options(path, headers=headers)
        assert told(answer) == (None, None)
        expected = (200,) if headers and pages else (404, 405)
        assert answer.status_code in expected


async def test_a_room_that_cannot_be(calls: Calls) -> None:
    _, client = calls
    answer = await client.options("/whip/a%20b")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_message")


async def test_servers_are_told_to_no_preflight(tmp_path: Path) -> None:
    """RFC 9725 section 4.6: a browser would not show them to its page, and they cost work."""
    secret = tmp_path / "secret"
    secret.write_text("what the TURN servers know, too\n")
    ice = {"urls": ["turn:turn.example:3478?transport=udp"], "secret_file": str(secret)}
    site = Site(tmp_path / "node", change={"ice": ice})
    async with node_of(site), http(site) as client:
        bearer = {"authorization": f"Bearer {site.token()}"}
        for headers, count in ((bearer, 1), ({}, 0), (bearer | wish("POST"), 0)):
            answer = await client.options("/whip/r", headers=headers)
            assert (answer.status_code, len(answer.headers.get_list("link"))) == (200, count)
