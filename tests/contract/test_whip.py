"""WHIP and WHEP over HTTP against a real node: each status code, trickle, restart, limits, CORS.

The status codes of RFC 9725, and where they are shown here:

    200  DELETE; an ICE restart; OPTIONS       201  a_publisher_gets_an_answer_and_a_session
    204  trickle; GET                          400  SDP or a fragment that is malformed
    401  no token (with WWW-Authenticate)      404  rooms and sessions that are not there
    405  methods                               406  an Accept header that leaves out the answer
    412  an ETag of another ICE session        415  other media types
    422  tracks that cannot all be taken       428  PATCH without If-Match
    503  with Retry-After: too many handshakes         (OPTIONS, CORS: test_whip_options.py)
    307  to a URL with a slash too many; 301 and 302 for nobody; 422 to a PATCH or to setup:active
         is for nodes that lack one of them: trickle, restart and setup:active are there

Beyond it: 403 for a role, 409 for a full room, 413 for a body that is too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import sdp_transform
from aioice import stun
from node_kit import SECRET, Site, node_of, until
from webrtc_kit import FRAGMENT, SDP, http

from forwarder.dataplane import bpf, steering_abi
from forwarder.ice import dtls
from forwarder.rooms.roles import Role
from forwarder.rooms.room import SlotState
from forwarder.supervisor.node import Node
from forwarder.table import Tuple5

pytestmark = pytest.mark.asyncio(loop_scope="module")
FIXTURES = Path(__file__).parents[1] / "unit" / "sdp"
PUBLISH = (FIXTURES / "chromium-publish.sdp").read_text().replace("\n", "\r\n")
VIEW = (FIXTURES / "safari-view.sdp").read_text().replace("\n", "\r\n")
SECTION = PUBLISH[PUBLISH.index("m=video") :]
TWO = PUBLISH.replace("BUNDLE 0 1", "BUNDLE 0 1 7") + "".join(
    line
    for line in SECTION.replace("a=mid:1", "a=mid:7").splitlines(keepends=True)
    if not line.startswith(("a=ssrc", "a=msid"))
)
"""A camera and a screen: WHIP knows one track of each kind (RFC 9725 section 4.4.2)."""
ORIGIN = "https://app.example"


class World:
    def __init__(self, site: Site, node: Node, client: httpx.AsyncClient) -> None:
        self.site, self.node, self.client = site, node, client

    def headers(self, role: Role = Role.ACTIVE, room: str = "r", **more: str) -> dict[str, str]:
        token = self.site.token("n", role, room)
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {"authorization": f"Bearer {token}", "content-type": SDP} | named

    async def post(self, kind: str = "whip", body: str = PUBLISH, **more: Any) -> httpx.Response:
        headers = more.pop("headers", None) or self.headers()
        return await self.client.post(f"/{kind}/r", content=body, headers=headers, **more)

    async def joined(self, kind: str = "whip", body: str = PUBLISH) -> httpx.Response:
        made = await self.post(kind, body)
        assert made.status_code == 201, made.text
        return made

    async def end(self, made: httpx.Response) -> None:
        gone = await self.client.delete(made.headers["location"], headers=self.headers())
        assert gone.status_code == 200

    async def patch(self, made: httpx.Response, body: str, **more: str) -> httpx.Response:
        headers = self.headers(content_type=FRAGMENT, **more)
        return await self.client.patch(made.headers["location"], content=body, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    site = Site(tmp_path_factory.mktemp("node"), change={"api": {"cors_origins": [ORIGIN]}})
    async with node_of(site) as node, http(site) as client:
        await site.room()
        await site.room("other")
        await site.room("tiny", max_passive=0)
        yield World(site, node, client)


async def test_a_publisher_gets_an_answer_and_a_session(world: World) -> None:
    made = await world.joined()
    assert made.headers["content-type"] == SDP
    assert made.headers["location"].startswith("/whip/r/")
    assert made.headers["etag"].startswith('"')
    assert made.headers["accept-patch"] == FRAGMENT
    answer = sdp_transform.parse(made.text)
    candidate = answer["media"][0]["candidates"][0]
    assert (candidate["ip"], candidate["port"]) == ("127.0.0.1", world.site.port)
    (me,) = world.node.rooms.participants()
    offered = [media["ssrcs"][0]["id"] for media in sdp_transform.parse(PUBLISH)["media"]]
    assert [t.spec.ssrc for t in me.tracks.values()] == offered
    assert len(made.headers["location"].rpartition("/")[2]) == 32
    assert me.id not in made.headers["location"]
    await world.end(made)
    assert (
        await world.client.delete(made.headers["location"], headers=world.headers())
    ).status_code == 404


async def test_a_viewer_may_come_first(world: World) -> None:
    made = await world.joined("whep", VIEW)
    (me,) = world.node.rooms.participants()
    ssrcs = {m["ssrcs"][0]["id"] for m in sdp_transform.parse(made.text)["media"]}
    assert ssrcs == {slot.out_ssrc for slot in me.slots}
    assert {slot.state for slot in me.slots} == {SlotState.WAITING}
    await world.end(made)


REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("no token", "whip", {"headers": {"content-type": SDP}}, 401, "unauthorized"),
    (
        "forged",
        "whip",
        {"headers": {"content-type": SDP, "authorization": "Bearer a.b.c"}},
        401,
        "unauthorized",
    ),
    ("passive publishes", "whip", {"role": Role.PASSIVE}, 403, "forbidden"),
    ("backstage publishes", "whip", {"role": Role.BACKSTAGE}, 403, "forbidden"),
    ("for another room", "whip", {"room": "other"}, 401, "unauthorized"),
    ("no type", "whip", {"content_type": ""}, 415, "bad_message"),
    ("JSON", "whip", {"content_type": "application/json"}, 415, "bad_message"),
    ("accepts JSON only", "whip", {"accept": "application/json"}, 406, "bad_message"),
    ("but SDP", "whip", {"accept": "*/*, application/sdp; q=0.0"}, 406, "bad_message"),
    ("empty", "whip", {"body": ""}, 400, "bad_message"),
    ("garbage", "whip", {"body": "v=0\r\nhello"}, 400, "bad_message"),
    ("too long", "whip", {"body": "v=0\r\n" + "a" * 70_000}, 413, "too_large"),
    ("a viewer's offer", "whip", {"body": VIEW}, 422, "codec_unsupported"),
    ("a publisher's offer", "whep", {"body": PUBLISH}, 422, "codec_unsupported"),
    (
        "codecs of another world",
        "whep",
        {"body": VIEW.replace("opus", "speex").replace("VP8", "H265").replace("H264", "H266")},
        422,
        "codec_unsupported",
    ),
    ("no such layer", "whep?layer=a%20b", {"body": VIEW}, 400, "bad_message"),
    ("two pictures", "whip", {"body": TWO}, 422, "codec_unsupported"),
    ("nobody of that name", "whep?participant=pX", {"body": VIEW}, 404, "no_such_participant"),
]


@pytest.mark.parametrize(("what", "path", "how", "status", "code"), REFUSED)
async def test_what_is_refused_has_a_code_and_changes_nothing(
    world: World, what: str, path: str, how: dict[str, Any], status: int, code: str
) -> None:
    names = ("content_type", "accept")
    headers = how.get("headers") or world.headers(
        how.get("role", Role.ACTIVE),
        how.get("room", "r"),
        **{name: how[name] for name in names if name in how},
    )
    kind, _, query = path.partition("?")
    answer = await world.client.post(
        f"/{kind}/r?{query}", content=how.get("body", PUBLISH), headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert len(answer.json()["message"]) > 10
    assert (answer.headers.get("www-authenticate") == "Bearer") is (status == 401)
    assert not list(world.node.rooms.participants())


async def test_a_slash_too_many_is_a_redirection_that_keeps_the_method(world: World) -> None:
    """RFC 9725 section 4.5: 307, since 301 and 302 would make a GET of a POST."""
    told = await world.client.post("/whip/r/", content=PUBLISH, headers=world.headers())
    assert (told.status_code, told.headers["location"]) == (307, f"{world.site.url()}/whip/r")
    made = await world.post()
    url = f"{made.headers['location']}/"
    gone = await world.client.delete(url, headers=world.headers(), follow_redirects=True)
    assert (gone.status_code, [r.status_code for r in gone.history]) == (200, [307])


@pytest.mark.parametrize("kind", ["Application/SDP", "application/sdp; charset=utf-8"])
@pytest.mark.parametrize(
    "accept", ["", "*/*", "*/*;q=0, application/*;q=0.1", "text/html, application/sdp"]
)
async def test_forms_of_headers_that_are_as_good(world: World, kind: str, accept: str) -> None:
    made = await world.post(headers=world.headers(content_type=kind, accept=accept))
    assert (made.status_code, made.headers["content-type"]) == (201, SDP)
    await world.end(made)


async def test_a_client_that_can_only_be_the_dtls_client(world: World) -> None:
    """RFC 9725 section 4.4.4 allows 422 here; this node has no need of it."""
    made = await world.joined(body=PUBLISH.replace("a=setup:actpass", "a=setup:active"))
    assert "a=setup:passive\r\n" in made.text
    await world.end(made)
    answer = await world.post(body=PUBLISH.replace("a=setup:actpass", "a=setup:passive"))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_message")


async def test_rooms_that_are_not_there_or_full(world: World) -> None:
    for room, status, code in (("none", 404, "no_such_room"), ("tiny", 409, "room_full")):
        headers = world.headers(Role.PASSIVE, room)
        answer = await world.client.post(f"/whep/{room}", content=VIEW, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_the_same_ssrc_twice_is_a_conflict(world: World) -> None:
    made = await world.joined()
    again = await world.post()
    assert (again.status_code, again.json()["code"]) == (409, "ssrc_in_use")
    await world.end(made)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_methods_of_the_endpoint(world: World, method: str) -> None:
    answer = await world.client.request(method, "/whip/r", headers=world.headers())
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"POST", "GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_methods_of_a_session(world: World, method: str) -> None:
    answer = await world.client.request(method, "/whep/r/x", headers=world.headers())
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {
        *("PATCH", "DELETE", "GET", "HEAD", "OPTIONS"),
    }


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_there_is_nothing_to_get(world: World, method: str) -> None:
    """RFC 9725 section 4.1: no representation, and no content; a session is its owner's."""
    for kind in ("whip", "whep"):
        answer = await world.client.request(method, f"/{kind}/r")
        assert (answer.status_code, answer.content) == (204, b"")
    made = await world.joined()
    for headers, status in (({}, 401), (world.headers(room="other"), 401), (world.headers(), 204)):
        answer = await world.client.request(method, made.headers["location"], headers=headers)
        assert answer.status_code == status
    await world.end(made)
    answer = await world.client.request(method, made.headers["location"], headers=world.headers())
    assert answer.status_code == 404


async def test_a_session_is_its_owners(world: World) -> None:
    made = await world.joined()
    location = made.headers["location"]
    assert (await world.client.delete(location)).status_code == 401
    other = world.headers(room="other")
    assert (await world.client.delete(location, headers=other)).status_code == 401
    for path in (
        location.replace("/r/", "/other/"),
        location.replace("/whip/", "/whep/"),
        "/whip/r/" + "A" * 32,
    ):
        room = "other" if "/other/" in path else "r"
        answer = await world.client.delete(path, headers=world.headers(room=room))
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_participant")
    await world.end(made)


UFRAG = sdp_transform.parse(PUBLISH)["media"][0]["iceUfrag"]
CANDIDATES = (
    f"a=ice-ufrag:{UFRAG}\r\na=ice-pwd:0a1b2c3d4e5f60718293a4b5c6d7e8f9\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 2113937151 3c7e.local 50000 typ host\r\n"
    "a=candidate:2 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active\r\na=end-of-candidates\r\n"
)


async def test_trickle_needs_the_etag_and_changes_nothing(world: World) -> None:
    made = await world.joined()
    etag = made.headers["etag"]
    missing = await world.patch(made, CANDIDATES)
    assert missing.status_code == 428
    for other in ('"old"', f"W/{etag}", etag.strip('"'), ""):
        stale = await world.patch(made, CANDIDATES, if_match=other)
        assert (stale.status_code, stale.json()["code"]) == (412, "bad_message"), other
    for body in ("", "a=x", "hello", "a=ice-ufrag:abcd"):
        assert (await world.patch(made, body, if_match=etag)).status_code == 400
    # The example of an ICE restart in draft-ietf-wish-whip-16 has * in quotes.
    for good in (etag, f'"old", {etag}', "*", '"*"'):
        taken = await world.patch(made, CANDIDATES, if_match=good)
        assert (taken.status_code, taken.content, "etag" in taken.headers) == (204, b"", False)
    wrong = await world.client.patch(
        made.headers["location"], content=CANDIDATES, headers=world.headers(if_match=etag)
    )
    assert wrong.status_code == 415
    await world.end(made)
    assert (await world.patch(made, CANDIDATES, if_match="*")).status_code == 404


async def test_an_ice_restart_gives_new_credentials(world: World) -> None:
    made = await world.joined()
    (me,) = world.node.rooms.participants()
    old = me.ufrag
    body = CANDIDATES.replace(UFRAG, "NewU")
    answer = await world.patch(made, body, if_match="*")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == FRAGMENT
    assert f"a=ice-ufrag:{me.ufrag}\r\n" in answer.text
    assert f"a=ice-pwd:{me.password}\r\n" in answer.text
    assert me.ufrag != old
    assert answer.headers["etag"] == f'"{me.ufrag}"' != made.headers["etag"]
    assert (await world.patch(made, body, if_match=made.headers["etag"])).status_code == 412
    again = await world.patch(made, body, if_match=answer.headers["etag"])
    assert again.status_code == 204  # it is the present one now
    stale = world.headers(if_match=made.headers["etag"])  # of no matter here (section 4.3.1)
    gone = await world.client.delete(made.headers["location"], headers=stale)
    assert gone.status_code == 200


async def test_a_restart_whose_body_comes_late_finds_its_etag_out_of_date(world: World) -> None:
    """Two restarts with one ETag: the second to be whole changes nothing."""
    made = await world.joined()
    body, begun, go_on = CANDIDATES.replace(UFRAG, "Late"), asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:20].encode()
        begun.set()
        await go_on.wait()
        yield body[20:].encode()

    headers = world.headers(content_type=FRAGMENT, if_match=made.headers["etag"])
    late = asyncio.create_task(
        world.client.patch(made.headers["location"], content=slowly(), headers=headers)
    )
    await begun.wait()
    first = await world.patch(
        made, CANDIDATES.replace(UFRAG, "Soon"), if_match=made.headers["etag"]
    )
    assert first.status_code == 200
    go_on.set()
    assert (await late).status_code == 412
    (me,) = world.node.rooms.participants()
    assert first.headers["etag"] == f'"{me.ufrag}"'
    assert me.peer is not None and me.peer.ufrag == "Soon"
    await world.end(made)


async def test_a_page_may_read_what_it_needs(world: World) -> None:
    made = await world.post(headers=world.headers(origin=ORIGIN))
    assert made.headers["access-control-allow-origin"] == ORIGIN
    exposed = made.headers["access-control-expose-headers"]
    assert {"Location", "Link", "ETag"} <= set(exposed.split(", "))
    await world.end(made)


async def test_half_open_handshakes_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.node._dtls, "most", 2)
    made = [await world.joined("whep", VIEW) for _ in range(2)]
    answer = await world.post("whep", VIEW)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "10"
    await world.end(made[0])
    made[0] = await world.joined("whep", VIEW)
    for one in made:
        await world.end(one)


async def test_a_handshake_that_does_not_finish_ends_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtls, "DEADLINE_S", 0.3)
    made = await world.joined("whep", VIEW)
    await until(lambda: not list(world.node.rooms.participants()), "the participant left")
    answer = await world.client.delete(made.headers["location"], headers=world.headers())
    assert answer.status_code == 404


async def test_dtls_from_an_address_without_a_check_makes_no_state(world: World) -> None:
    made = await world.joined()
    before = (await world.node.status())["dtls"].get("no_check", 0)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", world.site.port)
    )
    for _ in range(20):
        transport.sendto(b"\x16\xfe\xfd" + bytes(60))
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.attributes["USERNAME"] = "nobody:x"
    request.add_message_integrity(SECRET.encode())
    transport.sendto(bytes(request))

    def counted() -> bool:
        return world.node._dtls.counters["no_check"] == before + 20

    await until(counted, "the datagrams are counted")
    assert world.node._dtls.counters["started"] == 0
    transport.close()
    await world.end(made)


async def test_a_validated_address_is_charged_to_itself_before_dtls_is_done(world: World) -> None:
    """The guard knows its 5-tuple from the check on until the session ends."""
    steering = world.node.datapath.steering
    if steering is None:
        pytest.skip(world.node.datapath.selector)
    made = await world.joined()
    (me,) = world.node.rooms.participants()
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.attributes["USERNAME"] = f"{me.ufrag}:x"
    request.add_message_integrity(me.password.encode())
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", world.site.port)
    )
    at = Tuple5(*transport.get_extra_info("sockname"), "127.0.0.1", world.site.port)

    def vouched() -> bool:
        key = steering_abi.pack_flow_key(at)
        return bpf.lookup(steering._maps["admitted"], key, steering_abi.GUARD_BYTES) is not None

    assert not vouched()
    transport.sendto(bytes(request))
    await until(vouched, "the address is vouched for")
    assert me.tuples == (at,) and not me.keyed
    await world.end(made)
    assert not vouched()
    transport.close()
