"""Credentials of TURN servers: what coturn's use-auth-secret accepts, and where they are told."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from forwarder import config
from forwarder.clock import ManualClock
from forwarder.errors import ConfigError, HostError
from forwarder.signaling.turn import Turn, read_secret

SECRET = "a secret that both sides know"
URLS = ["turn:turn.example.com:3478?transport=tcp", "turns:[2001:db8::1]:443"]


def test_a_user_ends_by_itself_and_the_password_follows_from_it() -> None:
    clock = ManualClock(wall=1_700_000_000.5)
    turn = Turn(URLS, SECRET, 3600, clock)
    (server,) = turn.servers("p1")
    assert server.urls == URLS
    assert server.username == "1700003600:p1"
    made = hmac.new(SECRET.encode(), server.username.encode(), hashlib.sha1).digest()
    assert server.credential == base64.b64encode(made).decode()
    clock.advance(10)
    assert turn.servers("p1")[0].username == "1700003610:p1"


def test_links_name_each_server() -> None:
    first, second = Turn(URLS, SECRET, 60, ManualClock()).links("p1")
    assert first.startswith(f'<{URLS[0]}>; rel="ice-server"; username="')
    assert second.startswith(f"<{URLS[1]}>; ")
    assert first.endswith('"; credential-type="password"')


def test_without_servers_there_is_nothing_to_tell() -> None:
    turn = Turn.of(config.load().ice, ManualClock())
    assert (turn.servers("p1"), turn.links("p1")) == ([], [])


def test_the_secret_is_a_line_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    assert read_secret(str(file)) == SECRET
    for wrong in ("", "short", "x" * 257, "two lines of text\nin a file here", "\x00" * 20):
        file.write_text(wrong)
        with pytest.raises(HostError, match="static-auth-secret"):
            read_secret(str(file))
    file.write_bytes(b"\xff" * 20)
    with pytest.raises(HostError, match="static-auth-secret"):
        read_secret(str(file))
    with pytest.raises(HostError, match="cannot be read"):
        read_secret(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "url",
    ["http://x", "turn:", "turn:a b", 'turn:x"', "turn:x?transport=sctp", "turn:x>", "stun:"],
)
def test_only_turn_uris_are_taken(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ice\.urls"):
        config.load(overrides={"ice.urls": [url], "ice.secret_file": "/x"})


def test_servers_and_their_secret_come_together() -> None:
    for half in ({"ice.urls": URLS}, {"ice.secret_file": "/x"}):
        with pytest.raises(ConfigError, match="give both, or neither"):
            config.load(overrides=half)
    assert config.load(overrides={"ice.urls": URLS, "ice.secret_file": "/x"}).ice.ttl_s == 43200
