"""TURN servers of the operator's, for clients whose network lets no UDP through.

The node relays nothing itself.  Users and passwords follow draft-uberti-behave-turn-rest-00
section 2.2, which coturn calls use-auth-secret: the user is "until:who", the password
base64(HMAC-SHA1(secret, user)).  So the servers need nothing but the secret, and what is handed out
ends by itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from forwarder.clock import Clock
from forwarder.config import Ice
from forwarder.errors import HostError
from forwarder.signaling.messages import IceServer

SECRET_MIN, SECRET_MAX = 16, 256  # characters


def read_secret(path: str) -> str:
    """The text of the secret's file without the line's end.  HostError tells what is wrong."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(4 * SECRET_MAX)
    except OSError as error:
        raise HostError(f"{path} (ice.secret_file) cannot be read: {error.strerror}") from error
    try:
        secret = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not SECRET_MIN <= len(secret) <= SECRET_MAX or not secret.isprintable():
        raise HostError(
            f"{path} (ice.secret_file) must hold one line of {SECRET_MIN} to {SECRET_MAX} "
            "characters, the same as the TURN servers' static-auth-secret"
        )
    return secret


class Turn:
    """Makes credentials; pure but for the clock."""

    def __init__(self, urls: Sequence[str], secret: str, ttl_s: int, clock: Clock) -> None:
        self._urls = list(urls)
        self._secret = secret.encode()
        self._ttl_s = ttl_s
        self._clock = clock

    @classmethod
    def of(cls, config: Ice, clock: Clock) -> Turn:
        """Reads the secret, if there are servers.  HostError."""
        secret = read_secret(config.secret_file) if config.urls else ""
        return cls(config.urls, secret, config.ttl_s, clock)

    def servers(self, who: str) -> list[IceServer]:
        """For a client called `who` in the servers' logs; a participant's id, nothing personal."""
        if not self._urls:
            return []
        username = f"{int(self._clock.wall()) + self._ttl_s}:{who}"
        digest = hmac.new(self._secret, username.encode(), hashlib.sha1).digest()
        credential = base64.b64encode(digest).decode()
        return [IceServer(urls=self._urls, username=username, credential=credential)]

    def links(self, who: str) -> list[str]:
        """The values of Link headers (RFC 8288) for WHIP and WHEP (RFC 9725 section 4.6)."""
        return [
            f'<{url}>; rel="ice-server"; username="{server.username}"; '
            f'credential="{server.credential}"; credential-type="password"'
            for server in self.servers(who)
            for url in server.urls
        ]
