"""Frames and messages: every way in which bytes are not a message."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.errors import ErrorCode
from forwarder.signaling import messages as m
from forwarder.signaling.framing import (
    BadMessage,
    FrameDecoder,
    Oversize,
    decode_client,
    decode_server,
    encode,
)


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def feed(chunks: list[bytes], limit: int = m.MESSAGE_MAX) -> list[bytes | Oversize]:
    decoder = FrameDecoder(limit)
    return [one for chunk in chunks for one in decoder.feed(chunk)]


def test_any_cut_gives_the_same_frames() -> None:
    bodies = [b"", b"a", b"bc" * 40, b"d"]
    stream = b"".join(frame(body) for body in bodies)
    for cut in range(len(stream) + 1):
        assert feed([stream[:cut], stream[cut:]]) == bodies
    assert feed([stream[i : i + 1] for i in range(len(stream))]) == bodies


@pytest.mark.parametrize("size", [9, 10, 11, 2**31, 2**32 - 1])
def test_limit(size: int) -> None:
    decoder = FrameDecoder(10)
    head = size.to_bytes(4, "big")
    sent = min(size, 1000)
    got = list(decoder.feed(head + b"x" * sent))
    assert got == ([b"x" * size] if size <= 10 else [Oversize(size)])
    assert decoder.partial == (sent < size)
    assert len(decoder._buffer) <= 14  # the skipped bytes are not held


def test_after_an_oversize_frame_comes_the_next() -> None:
    stream = frame(b"x" * 11) + frame(b"ok")
    for cut in range(len(stream) + 1):
        assert feed([stream[:cut], stream[cut:]], limit=10) == [Oversize(11), b"ok"]


def test_half_a_frame_is_partial() -> None:
    for cut in range(1, len(frame(b"ab"))):
        decoder = FrameDecoder()
        assert list(decoder.feed(frame(b"ab")[:cut])) == []
        assert decoder.partial


JOIN = {"type": "join", "id": 1, "v": 1}
BAD: list[tuple[str, bytes | dict[str, Any] | list[Any], ErrorCode, str]] = [
    ("empty", b"", ErrorCode.BAD_MESSAGE, "not JSON"),
    ("no JSON", b"hello", ErrorCode.BAD_MESSAGE, "not JSON"),
    ("trailing", b'{"type":"ping","id":1}x', ErrorCode.BAD_MESSAGE, "not JSON"),
    ("not UTF-8", b'{"type":"\xff","id":1}', ErrorCode.BAD_MESSAGE, "not JSON"),
    ("NaN", b'{"type":"ping","id":NaN}', ErrorCode.BAD_MESSAGE, "not JSON"),
    ("deep", b"[" * 60_000, ErrorCode.BAD_MESSAGE, "not JSON"),
    ("deep object", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, ErrorCode.BAD_MESSAGE, "not JSON"),
    ("list", [], ErrorCode.BAD_MESSAGE, "not a JSON object"),
    ("number", b"1", ErrorCode.BAD_MESSAGE, "not a JSON object"),
    ("no type", {"id": 1}, ErrorCode.BAD_MESSAGE, "no `type`"),
    ("type a number", {"type": 1, "id": 1}, ErrorCode.BAD_MESSAGE, "no `type`"),
    ("unknown type", {"type": "dance", "id": 1}, ErrorCode.UNKNOWN_TYPE, "'dance'"),
    ("server's type", {"type": "welcome", "id": 1}, ErrorCode.UNKNOWN_TYPE, "'welcome'"),
    ("unknown field", {**JOIN, "x": 1}, ErrorCode.UNKNOWN_FIELD, "x: unknown field"),
    ("version", {**JOIN, "v": 2, "new": 1}, ErrorCode.VERSION, "version 1"),
    ("version a string", {**JOIN, "v": "1"}, ErrorCode.BAD_MESSAGE, "v: "),
    ("no id", {"type": "ping"}, ErrorCode.BAD_MESSAGE, "id: "),
    ("id negative", {"type": "ping", "id": -1}, ErrorCode.BAD_MESSAGE, "id: "),
    ("id too large", {"type": "ping", "id": 2**31}, ErrorCode.BAD_MESSAGE, "id: "),
    ("id a string", {"type": "ping", "id": "1"}, ErrorCode.BAD_MESSAGE, "id: "),
    ("id true", {"type": "ping", "id": True}, ErrorCode.BAD_MESSAGE, "id: "),
    ("suites empty", {**JOIN, "suites": []}, ErrorCode.BAD_MESSAGE, "suites: "),
    ("suite unknown", {**JOIN, "suites": ["ROT13"]}, ErrorCode.BAD_MESSAGE, "suites.0: "),
    (
        "field missing and field unknown",
        {"type": "mute", "id": 1, "track_id": "t", "x": 1},
        ErrorCode.BAD_MESSAGE,
        "muted: ",
    ),
    (
        "many tracks",
        {"type": "unpublish", "id": 1, "track_ids": ["t"] * 17},
        ErrorCode.BAD_MESSAGE,
        "track_ids: ",
    ),
    (
        "ssrc zero",
        {
            "type": "publish",
            "id": 1,
            "tracks": [
                {
                    "label": "a",
                    "kind": "audio",
                    "codec": "opus",
                    "pt": 111,
                    "clock_hz": 48000,
                    "ssrc": 0,
                }
            ],
        },
        ErrorCode.BAD_MESSAGE,
        "tracks.0.ssrc: ",
    ),
]


@pytest.mark.parametrize(
    ("body", "code", "sentence"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_messages(body: Any, code: ErrorCode, sentence: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(BadMessage) as caught:
        decode_client(data)
    assert caught.value.code is code
    assert sentence in str(caught.value)


def test_the_id_of_a_bad_message_is_named_where_it_can_be_read() -> None:
    for body, re in (
        ({"type": "dance", "id": 7}, 7),
        ({"type": "mute", "id": 7}, 7),
        ({"type": "mute", "id": 2**40}, None),
        ({"type": "mute", "id": True}, None),
        ({"type": "mute"}, None),
    ):
        with pytest.raises(BadMessage) as caught:
            decode_client(json.dumps(body).encode())
        assert caught.value.re == re


def test_sentences_stay_short_and_can_be_sent() -> None:
    for body in (
        {"type": "x" * 60_000, "id": 1},
        {"type": "ping", "id": 1, "k" * 60_000: 1},
        {"type": "ping", "id": 1, **{f"field{i}": i for i in range(4000)}},
        {"type": "mute", "id": 1, "track_id": "s" * 60_000, "muted": True},
    ):
        with pytest.raises(BadMessage) as caught:
            decode_client(json.dumps(body).encode())
        assert len(str(caught.value)) < 600
        encode(m.Error(code=caught.value.code, message=str(caught.value)))
    for body in (b'{"type":"\\ud800","id":1}', b'{"type":"ping","id":1,"\\ud800":1}'):
        with pytest.raises(BadMessage) as caught:
            decode_client(body)
        encode(m.Error(code=caught.value.code, message=str(caught.value)))


def test_server_messages_round_trip() -> None:
    for message in (
        m.Ok(re=1),
        m.Error(code=ErrorCode.ROOM_FULL, message="full"),
        m.Closing(reason="bye"),
        m.Subscribed(subscriptions=[]),
    ):
        (body,) = feed([encode(message)])
        assert isinstance(body, bytes)
        assert decode_server(body) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
fields = st.dictionaries(
    st.sampled_from(
        [
            "id",
            "v",
            "client",
            "resume",
            "suites",
            "tracks",
            "track_ids",
            "auto",
            "track_id",
            "muted",
            "payload",
            "to",
            "other",
        ]
    ),
    json_values,
)
kinds = st.sampled_from(["join", "publish", "subscribe", "mute", "data", "ping", "leave", "zzz"])


@settings(max_examples=400, deadline=None)
@given(kinds, fields, st.integers(-1, 2**31))
def test_any_json_is_a_message_or_bad(kind: str, values: dict[str, Any], number: int) -> None:
    body = json.dumps({"id": number, **values, "type": kind}).encode()
    try:
        message = decode_client(body)
    except BadMessage as exc:
        encode(m.Error(code=exc.code, message=str(exc), re=exc.re))
    else:
        assert message.type == kind


def test_mutated_messages_never_raise_anything_else() -> None:
    """A bounded random fuzz: bytes of good messages, flipped, cut, doubled and spliced."""
    rng = random.Random(20_240_611)
    seeds = [
        json.dumps(JOIN).encode(),
        b'{"type":"publish","id":2,"tracks":[{"label":"cam","kind":"video","codec":"h264",'
        b'"pt":96,"clock_hz":90000,"ssrc":305419896}]}',
        '{"type":"data","id":3,"payload":"grüße","to":["p1"]}'.encode(),
        b'{"type":"mute","id":4,"track_id":"t1","muted":true}',
    ]
    good = 0
    for _ in range(4000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data)) if data else 0
            match rng.randrange(4):
                case 0:
                    data[at:at] = bytes([rng.randrange(256)])
                case 1:
                    del data[at : at + rng.randrange(1, 8)]
                case 2:
                    other = rng.choice(seeds)
                    data[at:at] = other[rng.randrange(len(other)) :]
                case _ if data:
                    data[at] ^= 1 << rng.randrange(8)
        try:
            decode_client(bytes(data))
            good += 1
        except BadMessage:
            pass
    assert 0 < good < 4000
