"""Tokens: what is refused, with which sentence, and that nothing else is."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.clock import ManualClock
from forwarder.config import TokenKey, load
from forwarder.errors import ConfigError, TokenError
from forwarder.ids import RoomId
from forwarder.rooms.roles import Role
from forwarder.signaling.tokens import (
    EXAMPLE_KEY,
    TOKEN_MAX,
    TTL_MAX_S,
    SigningKey,
    Tokens,
    check_keys,
    signing_keys,
)

SECRET = b"0123456789abcdef0123456789abcdef"
OTHER = b"fedcba9876543210fedcba9876543210"
ROOM = RoomId("standup")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(clock: ManualClock) -> Tokens:
    return Tokens([SigningKey("k1", SECRET)], clock=clock, leeway_s=5)


def payload(clock: ManualClock, **changes: Any) -> dict[str, Any]:
    now = int(clock.wall())
    claims = {
        "room": ROOM,
        "role": "active",
        "name": "Ada",
        "sub": "ada",
        "iat": now,
        "exp": now + 60,
        "grants": ["join"],
    }
    claims.update(changes)
    return {key: value for key, value in claims.items() if value is not ...}


def signed(claims: dict[str, Any], secret: bytes = SECRET, kid: Any = "k1") -> str:
    return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": kid})


def test_round_trip(tokens: Tokens, clock: ManualClock) -> None:
    token, expires_at = tokens.create_join(ROOM, role=Role.HOST, name="Ada", ttl_s=60)
    claims = tokens.verify_join(token, room_id=ROOM)
    assert (claims.room_id, claims.role, claims.name, claims.subject) == (
        ROOM,
        Role.HOST,
        "Ada",
        "Ada",
    )
    assert claims.expires_at == expires_at == clock.wall() + 60


def test_expiry_by_the_second(tokens: Tokens, clock: ManualClock) -> None:
    token, _ = tokens.create_join(ROOM, role=Role.HOST, name="Ada", ttl_s=60)
    clock.advance(65)
    tokens.verify_join(token)
    clock.advance(1)
    with pytest.raises(TokenError, match="expired 6 s ago"):
        tokens.verify_join(token)


REFUSED: list[tuple[str, Callable[[ManualClock], str], str]] = [
    ("not yet valid", lambda c: signed(payload(c, nbf=int(c.wall()) + 60)), "not valid yet"),
    (
        "issued in the future",
        lambda c: signed(payload(c, iat=int(c.wall()) + 60, exp=int(c.wall()) + 90)),
        "not valid yet",
    ),
    ("other secret", lambda c: signed(payload(c), OTHER), "signature is wrong"),
    ("unknown kid", lambda c: signed(payload(c), kid="k9"), "key that this node does not know"),
    (
        "no kid",
        lambda c: jwt.encode(payload(c), SECRET, algorithm="HS256"),
        "key that this node does not know",
    ),
    ("wrong room", lambda c: signed(payload(c, room="other")), "for another room"),
    ("no room", lambda c: signed(payload(c, room=...)), "no valid room"),
    ("room no string", lambda c: signed(payload(c, room=["standup"])), "no valid room"),
    ("room with newline", lambda c: signed(payload(c, room="standup\n")), "no valid room"),
    ("role unknown", lambda c: signed(payload(c, role="king")), "role is none of"),
    ("role a list", lambda c: signed(payload(c, role=["host"])), "role is none of"),
    ("name too long", lambda c: signed(payload(c, name="x" * 65)), "name is not"),
    ("no subject", lambda c: signed(payload(c, sub=...)), "subject is not"),
    ("subject a number", lambda c: signed(payload(c, sub=7)), "subject is not"),
    ("no expiry", lambda c: signed(payload(c, exp=...)), "no valid 'exp'"),
    ("expiry a string", lambda c: signed(payload(c, exp="soon")), "no valid 'exp'"),
    ("expiry true", lambda c: signed(payload(c, exp=True)), "no valid 'exp'"),
    ("expiry infinite", lambda c: signed(payload(c, exp=float("inf"))), "out of range"),
    ("expiry not a number", lambda c: signed(payload(c, exp=float("nan"))), "out of range"),
    ("no issue time", lambda c: signed(payload(c, iat=...)), "no valid 'iat'"),
    (
        "longer than a day",
        lambda c: signed(payload(c, exp=int(c.wall()) + TTL_MAX_S + 1)),
        "longer than 24 hours",
    ),
    ("no grants", lambda c: signed(payload(c, grants=...)), "does not grant 'join'"),
    ("admin grant only", lambda c: signed(payload(c, grants=["admin"])), "does not grant 'join'"),
    ("grants a string", lambda c: signed(payload(c, grants="join")), "does not grant 'join'"),
    ("empty", lambda c: "", "malformed"),
    ("not three parts", lambda c: "a.b", "malformed"),
    ("not base64", lambda c: "ä.ö.ü", "malformed"),
    ("too long", lambda c: "a" * (TOKEN_MAX + 1), "longer than"),
]


@pytest.mark.parametrize(
    ("make", "sentence"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refused(
    tokens: Tokens, clock: ManualClock, make: Callable[[ManualClock], str], sentence: str
) -> None:
    with pytest.raises(TokenError, match=sentence):
        tokens.verify_join(make(clock), room_id=ROOM)


def test_algorithm_none(tokens: Tokens, clock: ManualClock) -> None:
    token = jwt.encode(payload(clock), None, algorithm="none", headers={"kid": "k1"})
    with pytest.raises(TokenError, match="not signed with HS256"):
        tokens.verify_join(token)


def test_algorithm_rs256_is_refused_whatever_the_key(tokens: Tokens, clock: ManualClock) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = jwt.encode(payload(clock), private, algorithm="RS256", headers={"kid": "k1"})
    with pytest.raises(TokenError, match="not signed with HS256"):
        tokens.verify_join(token)


def test_header_alg_changed_over_a_valid_signature(tokens: Tokens, clock: ManualClock) -> None:
    """The RS256 header with the HMAC of the same bytes by the shared secret: alg confusion."""
    header = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "kid": "k1"}).encode())
    body = signed(payload(clock)).split(".")[1]
    signing_input = header.rstrip(b"=") + b"." + body.encode()
    algorithm = jwt.get_algorithm_by_name("HS256")
    signature = algorithm.sign(signing_input, algorithm.prepare_key(SECRET))
    token = signing_input + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
    with pytest.raises(TokenError, match="not signed with HS256"):
        tokens.verify_join(token.decode())


def test_public_key_as_secret_is_only_a_secret() -> None:
    """A PEM public key in the keys' place cannot turn RS256 on; PyJWT refuses it as a secret."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    clock = ManualClock()
    token = jwt.encode(payload(clock), private, algorithm="RS256", headers={"kid": "k1"})
    with pytest.raises(TokenError):
        Tokens([SigningKey("k1", pem)], clock=clock).verify_join(token)


def test_rotation(clock: ManualClock) -> None:
    old = Tokens([SigningKey("old", OTHER)], clock=clock)
    token, _ = old.create_join(ROOM, role=Role.PASSIVE, name="Bo")
    both = Tokens([SigningKey("new", SECRET), SigningKey("old", OTHER)], clock=clock)
    assert both.verify_join(token).name == "Bo"
    fresh, _ = both.create_join(ROOM, role=Role.PASSIVE, name="Bo")
    assert jwt.get_unverified_header(fresh)["kid"] == "new"
    with pytest.raises(TokenError, match="does not know"):
        old.verify_join(fresh)


def test_admin_and_join_tokens_do_not_stand_in_for_each_other(tokens: Tokens) -> None:
    admin, _ = tokens.create_admin(subject="ops")
    assert tokens.verify_admin(admin).subject == "ops"
    with pytest.raises(TokenError, match="does not grant 'join'"):
        tokens.verify_join(admin)
    join, _ = tokens.create_join(ROOM, role=Role.HOST, name="Ada")
    with pytest.raises(TokenError, match="does not grant 'admin'"):
        tokens.verify_admin(join)


@pytest.mark.parametrize("ttl_s", [0, -1, TTL_MAX_S + 1, float("nan")])
def test_ttl_out_of_range(tokens: Tokens, ttl_s: float) -> None:
    with pytest.raises(ValueError, match="a token lives between"):
        tokens.create_join(ROOM, role=Role.HOST, name="Ada", ttl_s=ttl_s)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text_is_refused_as_token(text: str) -> None:
    tokens = Tokens([SigningKey("k1", SECRET)], clock=ManualClock())
    with pytest.raises(TokenError):
        tokens.verify_join(text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_claims_are_refused_or_understood(data: st.DataObject) -> None:
    value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=4,
    )
    clock = ManualClock()
    changes = data.draw(
        st.dictionaries(
            st.sampled_from(["room", "role", "name", "sub", "iat", "exp", "nbf", "grants"]), value
        )
    )
    # PyJWT refuses to sign some claims at all; what it cannot sign, nobody can present.
    try:
        token = signed({**payload(clock), **changes})
    except (TypeError, ValueError):
        return
    try:
        claims = Tokens([SigningKey("k1", SECRET)], clock=clock).verify_join(token)
    except TokenError:
        return
    assert claims.expires_at <= clock.wall() + TTL_MAX_S + 5


def test_example_key_needs_dev() -> None:
    keys = signing_keys(load(None).api.token_keys)
    assert keys[0].secret == EXAMPLE_KEY.encode()
    check_keys(keys, dev=True)
    with pytest.raises(ConfigError, match="example key"):
        check_keys(keys, dev=False)
    with pytest.raises(ConfigError, match="empty"):
        check_keys((), dev=True)


def test_all_faults_of_keys_at_once() -> None:
    entries = [
        TokenKey("a", "short"),
        TokenKey("a", "x" * 32),
        TokenKey("no spaces", "x" * 32),
    ]
    with pytest.raises(ConfigError) as caught:
        signing_keys(entries)
    assert len(caught.value.faults) == 3
    assert "secret has 5 bytes" in caught.value.faults[0]
    assert "x" * 32 not in repr(signing_keys([TokenKey("a", "x" * 32)]))
