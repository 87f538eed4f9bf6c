"""TURN servers of the operator's, told to clients before and after their offers (RFC 9725 section
4.6): by Link headers of WHIP and WHEP, and by `welcome`.  netns/test_turn_relay.py uses one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from pathlib import Path

import httpx
from bare_peer import Peer
from node_kit import Site, node_of
from session_kit import Page
from webrtc_kit import http

from forwarder.rooms.roles import Role

SECRET = "what the servers and the node know"
URLS = ["turn:turn.example:3478?transport=udp", "turns:turn.example:443?transport=tcp"]
ORIGIN = "https://app.example"
LINK = re.compile(
    r'<([^>]+)>; rel="ice-server"; username="([^"]+)"; credential="([^"]+)"; '
    r'credential-type="password"'
)


def told(answer: httpx.Response) -> list[tuple[str, str, str]]:
    """(URL, user, password) of each Link header."""
    found = [LINK.fullmatch(value) for value in answer.headers.get_list("link")]
    assert all(found), answer.headers
    return [(one[1], one[2], one[3]) for one in found if one is not None]


def check(username: str, credential: str) -> None:
    """As coturn does with use-auth-secret."""
    until = int(username.partition(":")[0])
    assert time.time() < until <= time.time() + 600
    digest = hmac.new(SECRET.encode(), username.encode(), hashlib.sha1).digest()
    assert credential == base64.b64encode(digest).decode()


async def test_clients_are_told_of_the_servers(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    ice = {"urls": URLS, "secret_file": str(secret), "ttl_s": 600}
    site = Site(tmp_path / "node", change={"ice": ice, "api": {"cors_origins": [ORIGIN]}})
    async with (
        node_of(site),
        http(site) as client,
        Page(site, "ada", pairs=1) as ada,
        Peer("whip", site.token("bob")) as bob,
        Peer("whep", site.token("eve", Role.PASSIVE)) as eve,
    ):
        await site.room()
        users: set[str] = set()
        for peer in (bob, eve):
            target = f"/{peer.kind}/r"
            bare = await client.options(target)
            assert (bare.status_code, told(bare)) == (200, [])
            wish = {"origin": ORIGIN, "access-control-request-method": "POST"}
            preflight = await client.options(target, headers=wish | peer.headers)
            assert (preflight.status_code, told(preflight)) == (200, [])
            forged = await client.options(target, headers={"authorization": "Bearer a.b.c"})
            assert (forged.status_code, told(forged)) == (401, [])
            for answer in (
                await client.options(target, headers=peer.headers),
                await peer.post(client),
            ):
                assert answer.status_code in (200, 201)
                assert [url for url, _, _ in told(answer)] == URLS
                for _, username, credential in told(answer):
                    check(username, credential)
                    users.add(username)
        assert len(users) == 4  # one for each answer: a server's log tells of no person
        (server,) = (await ada.control.join(await ada.offer())).ice_servers
        assert server.urls == URLS
        check(server.username, server.credential)
