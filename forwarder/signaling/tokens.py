"""Tokens: JSON Web Tokens (RFC 7519) signed with HS256 by keys of the configuration.

A join token lets one person into one room in one role; an admin token opens the HTTP API.  The
first key signs, all keys verify (rotation: put the new one first, drop the old one a day later).
The algorithm is ours to say, never the token's: a header that names another one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jwt

from forwarder.clock import Clock
from forwarder.config import TokenKey
from forwarder.errors import ConfigError, TokenError
from forwarder.ids import RoomId
from forwarder.rooms.roles import Role

ALGORITHM = "HS256"
TTL_MAX_S = 24 * 3600  # seconds from issue to expiry
TTL_DEFAULT_S = 3600
TOKEN_MAX = 4096  # characters of a token that is looked at
SECRET_MIN = 32  # bytes: HS256 wants a key as long as its output (RFC 7518 section 3.2)
NAME_MAX = 64  # characters of name and subject
ROOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")

# The key of configs/default.toml.  Everybody has it, so a node that uses it is open to everybody.
EXAMPLE_KEY = "vcfwd-example-key-change-me-before-use"


class Grant(StrEnum):
    """What a token allows."""

    JOIN = "join"
    ADMIN = "admin"


@dataclass(frozen=True)
class SigningKey:
    """One signing key; `kid` names it in the header of a token."""

    kid: str
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"


@dataclass(frozen=True)
class Claims:
    """What a verified join token says.  Times are wall-clock seconds."""

    room_id: RoomId
    role: Role
    name: str
    subject: str
    issued_at: float
    expires_at: float


@dataclass(frozen=True)
class AdminClaims:
    """What a verified admin token says."""

    subject: str
    expires_at: float


def signing_keys(entries: Sequence[TokenKey]) -> tuple[SigningKey, ...]:
    """Keys from the configuration's `api.token_keys`; ConfigError with every fault."""
    faults: list[str] = []
    keys: list[SigningKey] = []
    for index, entry in enumerate(entries):
        where = f"api.token_keys[{index}]"
        kid, secret = entry.kid, entry.secret
        if not KEY_ID.match(kid):
            faults.append(f"{where}: kid must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
        elif any(key.kid == kid for key in keys):
            faults.append(f"{where}: kid {kid!r} is used twice; give each key a name of its own")
        if len(secret.encode()) < SECRET_MIN:
            faults.append(
                f"{where}: secret has {len(secret.encode())} bytes and needs at least"
                f" {SECRET_MIN}; make one with `openssl rand -hex 32`"
            )
        keys.append(SigningKey(kid, secret.encode()))
    if faults:
        raise ConfigError(faults)
    return tuple(keys)


def check_keys(keys: Sequence[SigningKey], *, dev: bool) -> None:
    """Refuses a node without keys, and the example key unless `dev`.  Raises ConfigError."""
    if not keys:
        raise ConfigError(
            ["api.token_keys is empty: nobody could join; add one with a secret of 32 bytes"]
        )
    if not dev and any(key.secret == EXAMPLE_KEY.encode() for key in keys):
        raise ConfigError(
            [
                "api.token_keys still holds the example key, which everybody has: put in a"
                " secret of your own (`openssl rand -hex 32`), or start with --dev for a trial"
            ]
        )


class Tokens:
    """Signs and verifies tokens.  Immutable; safe to share."""

    def __init__(self, keys: Sequence[SigningKey], *, clock: Clock, leeway_s: float = 5.0) -> None:
        if not keys:
            raise ConfigError(["api.token_keys is empty: tokens can be neither made nor checked"])
        self._keys = {key.kid: key.secret for key in keys}
        self._signer = keys[0]
        self._clock = clock
        self._leeway_s = leeway_s

    def create_join(
        self,
        room_id: RoomId,
        *,
        role: Role,
        name: str,
        subject: str = "",
        ttl_s: float = TTL_DEFAULT_S,
    ) -> tuple[str, float]:
        """A join token and its expiry (wall-clock seconds).  ValueError for values out of range."""
        if not ROOM_ID.match(room_id):
            raise ValueError("a room id has 1 to 64 characters of A-Z a-z 0-9 _ -")
        if not 1 <= len(name) <= NAME_MAX:
            raise ValueError(f"a name has 1 to {NAME_MAX} characters")
        claims = {"room": room_id, "role": role.value, "name": name, "sub": subject or name}
        return self._sign(claims, Grant.JOIN, ttl_s)

    def create_admin(self, *, subject: str, ttl_s: float = TTL_DEFAULT_S) -> tuple[str, float]:
        """An admin token and its expiry (wall-clock seconds)."""
        return self._sign({"sub": subject}, Grant.ADMIN, ttl_s)

    def verify_join(self, token: str, *, room_id: RoomId | None = None) -> Claims:
        """Claims of a join token, for `room_id` where one is given.  Raises TokenError."""
        claims = self._verify(token, Grant.JOIN)
        room, name = claims.get("room"), claims.get("name")
        if not isinstance(room, str) or not ROOM_ID.match(room):
            raise TokenError("the token names no valid room; ask for a new token")
        if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX:
            raise TokenError(f"the token's name is not 1 to {NAME_MAX} characters long")
        try:
            role = Role(str(claims.get("role")))
        except ValueError:
            raise TokenError(
                f"the token's role is none of {', '.join(role.value for role in Role)}"
            ) from None
        if room_id is not None and room != room_id:
            raise TokenError("the token is for another room; ask for one for this room")
        return Claims(
            room_id=RoomId(room),
            role=role,
            name=name,
            subject=claims["sub"],
            issued_at=float(claims["iat"]),
            expires_at=float(claims["exp"]),
        )

    def verify_admin(self, token: str) -> AdminClaims:
        """Claims of an admin token.  Raises TokenError."""
        claims = self._verify(token, Grant.ADMIN)
        return AdminClaims(subject=claims["sub"], expires_at=float(claims["exp"]))

    def _sign(self, claims: dict[str, Any], grant: Grant, ttl_s: float) -> tuple[str, float]:
        if not 1 <= ttl_s <= TTL_MAX_S:
            raise ValueError(f"a token lives between 1 and {TTL_MAX_S} seconds, not {ttl_s:g}")
        if not 1 <= len(claims["sub"]) <= NAME_MAX:
            raise ValueError(f"a subject has 1 to {NAME_MAX} characters")
        now = int(self._clock.wall())
        expires_at = now + int(ttl_s)
        payload = {**claims, "iat": now, "exp": expires_at, "grants": [grant.value]}
        token = jwt.encode(
            payload, self._signer.secret, algorithm=ALGORITHM, headers={"kid": self._signer.kid}
        )
        return token, float(expires_at)

    def _verify(self, token: str, grant: Grant) -> dict[str, Any]:
        if len(token) > TOKEN_MAX:
            raise TokenError(f"the token is longer than {TOKEN_MAX} characters")
        payload = self._decode(token)
        self._check_times(payload)
        subject = payload.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= NAME_MAX:
            raise TokenError(f"the token's subject is not 1 to {NAME_MAX} characters long")
        grants = payload.get("grants")
        if not isinstance(grants, list) or grant.value not in grants:
            raise TokenError(f"the token does not grant {grant.value!r}")
        return payload

    def _decode(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenError("the token is malformed: it is no JSON Web Token") from None
        if header.get("alg") != ALGORITHM:
            raise TokenError(f"the token is not signed with {ALGORITHM}")
        kid = header.get("kid")
        secret = self._keys.get(kid) if isinstance(kid, str) else None
        if secret is None:
            raise TokenError("the token is signed with a key that this node does not know")
        try:
            # Times are checked below, by the clock that this object was given.
            return jwt.decode(
                token,
                secret,
                algorithms=[ALGORITHM],
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_sub": False,
                },
            )
        except jwt.InvalidSignatureError:
            raise TokenError("the token's signature is wrong: it was forged or changed") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise TokenError("the token is malformed: its claims cannot be read") from None

    def _check_times(self, payload: dict[str, Any]) -> None:
        now = self._clock.wall()
        issued_at, expires_at = _time(payload, "iat"), _time(payload, "exp")
        starts_at = _time(payload, "nbf") if "nbf" in payload else issued_at
        if expires_at - issued_at > TTL_MAX_S:
            raise TokenError("the token lives longer than 24 hours; ask for a shorter one")
        if now > expires_at + self._leeway_s:
            ago = int(now - expires_at)
            raise TokenError(f"the token expired {ago} s ago; ask for a new one")
        if now < max(starts_at, issued_at) - self._leeway_s:
            ahead = int(max(starts_at, issued_at) - now)
            raise TokenError(f"the token is not valid yet: it starts in {ahead} s")


def _time(payload: Mapping[str, Any], claim: str) -> float:
    value = payload.get(claim)
    # bool is an int in Python; NaN and infinity compare as nobody expects.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"the token has no valid {claim!r} time")
    if not 0 <= value < 2**40:
        raise TokenError(f"the token's {claim!r} time is out of range")
    return float(value)
