"""The join state machine: every message in every state, and every limit."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.errors import CodedError, ErrorCode, Refused
from forwarder.rooms.roles import Role
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as m
from forwarder.signaling.framing import FrameDecoder, decode_server
from forwarder.signaling.session import (
    ERRORS_MAX,
    LEGAL,
    MESSAGES_BURST,
    MESSAGES_PER_S,
    OFFERS_BURST,
    OFFERS_PER_S,
    REQUESTS_MAX,
    TRANSITIONS,
    Counters,
    JoinSession,
    State,
    Step,
)

TRACK = {
    "label": "mic",
    "kind": "audio",
    "codec": "opus",
    "pt": 111,
    "clock_hz": 48000,
    "ssrc": 7,
}
MESSAGES: dict[str, dict[str, Any]] = {
    "join": {"v": 1},
    "publish": {"tracks": [TRACK]},
    "unpublish": {"track_ids": ["t1"]},
    "subscribe": {"track_ids": ["t1"], "auto": True},
    "unsubscribe": {"track_ids": ["t1"]},
    "keyframe": {"track_id": "t1"},
    "mute": {"track_id": "t1", "muted": True},
    "data": {"payload": "hello"},
    "offer": {"sdp": "v=0"},
    "view": {"participants": ["p1"]},
    "layer": {"mid": "0", "layer": "auto"},
    "ping": {},
    "leave": {},
}


def wire(kind: str, request_id: int = 1, **fields: Any) -> bytes:
    body = json.dumps({"type": kind, "id": request_id, **MESSAGES.get(kind, {}), **fields}).encode()
    return len(body).to_bytes(4, "big") + body


def welcome(re: int) -> m.Welcome:
    return m.Welcome(
        re=re,
        room_id="r",
        participant_id="p1",
        role=Role.ACTIVE,
        resume="secret",
        resumed=False,
        participants=[],
        tracks=[],
        media=m.MediaOffer(
            addresses=[("192.0.2.1", 4433)],
            ufrag="u" * 8,
            password="p" * 24,
            suite=Suite.GCM,
            send_key="",
            receive_key="",
            rtcp_ssrc=1,
            cname="c",
        ),
    )


def sent(session: JoinSession) -> list[m.ServerMessage]:
    decoder = FrameDecoder()
    frames = list(decoder.feed(session.data_to_send()))
    assert not decoder.partial
    return [decode_server(frame) for frame in frames if isinstance(frame, bytes)]


def session_in(state: State) -> JoinSession:
    session = JoinSession(now=0.0)
    if state is not State.NEW:
        session.receive(wire("join", 900), now=0.0)
    if state in (State.JOINED, State.LEAVING):
        session.answer(900, welcome(900))
    if state is State.LEAVING:
        session.receive(wire("leave", 901), now=0.0)
    if state is State.CLOSED:
        session.close("over")
    sent(session)
    assert session.state is state
    return session


EXPECTED: dict[State, dict[str, ErrorCode | None]] = {
    # None: legal.  Each of the types has its line in each state.
    State.NEW: dict.fromkeys(MESSAGES, ErrorCode.NOT_JOINED) | {"join": None},
    State.JOINING: dict.fromkeys(MESSAGES, ErrorCode.NOT_JOINED)
    | {"join": ErrorCode.ALREADY_JOINED, "ping": None},
    State.JOINED: dict.fromkeys(MESSAGES, None) | {"join": ErrorCode.ALREADY_JOINED},
    State.LEAVING: dict.fromkeys(MESSAGES, ErrorCode.NOT_JOINED) | {"ping": None},
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("state", EXPECTED)
def test_order(state: State, kind: str) -> None:
    session = session_in(state)
    code = EXPECTED[state][kind]
    requests = session.receive(wire(kind, 5), now=0.0)
    answers = sent(session)
    if kind == "ping" and code is None:
        assert (requests, answers) == ([], [m.Pong(re=5)])
        assert session.state is state
    elif code is None:
        assert [request.type for request in requests] == [kind]
        assert answers == []
        step = {"join": Step.JOIN, "leave": Step.LEAVE}.get(kind)
        assert session.state is (TRANSITIONS[state, step] if step else state)
    else:
        assert requests == []
        (error,) = answers
        assert isinstance(error, m.Error)
        assert (error.re, error.code) == (5, code)
        assert error.message.startswith(kind)
        assert session.state is state


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_closed_session_is_deaf_and_dumb(kind: str) -> None:
    session = session_in(State.CLOSED)
    assert session.receive(wire(kind), now=0.0) == []
    session.push(m.Ok(re=1))
    session.answer(1)
    session.refuse(1, Refused(ErrorCode.LIMIT, "no"))
    session.close("again")
    session.lost()
    assert session.data_to_send() == b""


def test_tables_cover_each_other() -> None:
    assert set(LEGAL) == set(State)
    for state, expected in EXPECTED.items():
        assert LEGAL[state] == {kind for kind, code in expected.items() if code is None}
    for (state, _), target in TRANSITIONS.items():
        assert state is not State.CLOSED
        assert target in State
    assert {state for state, step in TRANSITIONS if step is Step.END} == set(State) - {State.CLOSED}


def test_a_whole_life() -> None:
    session = JoinSession(now=0.0)
    (join,) = session.receive(wire("join", 1, resume="abc"), now=0.0)
    assert isinstance(join, m.Join)
    assert join.resume == "abc"
    session.answer(1, welcome(1))
    session.push(m.LegState(state="live"))
    assert [x.type for x in sent(session)] == ["welcome", "leg"]
    requests = session.receive(wire("publish", 2) + wire("subscribe", 3), now=0.0)
    assert [request.id for request in requests] == [2, 3]
    session.answer(3, m.Subscribed(re=3, subscriptions=[]))
    session.refuse(2, Refused(ErrorCode.SSRC_IN_USE, "SSRC 7 is taken"))
    assert sent(session) == [
        m.Subscribed(re=3, subscriptions=[]),
        m.Error(re=2, code=ErrorCode.SSRC_IN_USE, message="SSRC 7 is taken"),
    ]
    session.receive(wire("leave", 4), now=0.0)
    session.answer(4)
    assert sent(session) == [m.Ok(re=4), m.Closing(reason="you left")]
    assert session.state is State.CLOSED


def test_a_refused_join_may_be_tried_again_but_not_for_ever() -> None:
    session = JoinSession(now=0.0)
    for number in range(ERRORS_MAX):
        assert session.state is State.NEW
        (join,) = session.receive(wire("join", number, resume="guess"), now=number)
        session.refuse(join.id, Refused(ErrorCode.RESUME_INVALID, "no such secret"))
        first = sent(session)[0]
        assert isinstance(first, m.Error)
        assert (first.re, first.code) == (number, ErrorCode.RESUME_INVALID)
    assert session.state is State.CLOSED


def test_refusals_by_the_rooms_are_not_held_against_the_client() -> None:
    session = session_in(State.JOINED)
    for number in range(ERRORS_MAX + 1):
        session.receive(wire("subscribe", number), now=number)
        session.refuse(number, Refused(ErrorCode.NO_SUCH_TRACK, "gone"))
    assert session.state is State.JOINED


@pytest.mark.parametrize(
    "bad",
    [
        (70_000).to_bytes(4, "big") + b"x" * 70_000,
        b"\0\0\0\0",
        b"\0\0\0\1{",
        wire("dance"),
        wire("ping", 1, extra=1),
        wire("join", 3),
    ],
    ids=["too large", "empty", "no JSON", "type", "field", "order"],
)
def test_error_budget(bad: bytes) -> None:
    counters = Counters()
    session = JoinSession(now=0.0, counters=counters)
    session.receive(wire("join", 900), now=0.0)
    session.answer(900, welcome(900))
    sent(session)
    for number in range(1, ERRORS_MAX + 1):
        assert session.receive(bad, now=float(number)) == []
        answers = sent(session)
        assert isinstance(answers[0], m.Error)
        assert len(answers) == (1 if number < ERRORS_MAX else 2)
    assert isinstance(answers[1], m.Closing)
    assert answers[1].code is ErrorCode.LIMIT
    assert session.state is State.CLOSED
    assert sum(counters.values.values()) == ERRORS_MAX


def test_good_messages_behind_the_last_bad_one_are_not_taken() -> None:
    session = session_in(State.JOINED)
    assert session.receive(wire("dance") * ERRORS_MAX + wire("publish"), now=0.0) == []


def test_requests_in_flight() -> None:
    session = session_in(State.JOINED)
    for number in range(REQUESTS_MAX):
        assert session.receive(wire("subscribe", number), now=0.0)
    assert session.requests_pending == REQUESTS_MAX
    assert session.receive(wire("subscribe", REQUESTS_MAX), now=0.0) == []
    (error,) = sent(session)
    assert isinstance(error, m.Error)
    assert (error.re, error.code) == (REQUESTS_MAX, ErrorCode.LIMIT)
    session.answer(0)
    assert session.receive(wire("subscribe", REQUESTS_MAX), now=0.0)


def test_an_id_in_flight_is_not_taken_twice() -> None:
    session = session_in(State.JOINED)
    session.receive(wire("publish", 5), now=0.0)
    assert session.receive(wire("mute", 5), now=0.0) == []
    (error,) = sent(session)
    assert isinstance(error, m.Error)
    assert (error.re, error.code) == (None, ErrorCode.BAD_MESSAGE)
    session.answer(5, m.Published(re=5, tracks=[]))
    assert session.receive(wire("mute", 5), now=0.0)


def test_rate() -> None:
    session = session_in(State.JOINED)
    burst = int(MESSAGES_BURST) - 1  # the join was one
    assert session.receive(wire("ping") * burst, now=0.0) == []
    assert all(isinstance(answer, m.Pong) for answer in sent(session))
    session.receive(wire("ping"), now=0.0)
    (error,) = sent(session)
    assert isinstance(error, m.Error)
    assert error.code is ErrorCode.LIMIT
    session.receive(wire("ping"), now=1.5 / MESSAGES_PER_S)
    assert sent(session) == [m.Pong(re=1)]


def test_half_a_message_at_the_end_is_counted() -> None:
    for cut in range(1, len(wire("ping"))):
        counters = Counters()
        session = JoinSession(now=0.0, counters=counters)
        session.receive(wire("ping")[:cut], now=0.0)
        assert session.data_to_send() == b""
        session.receive_eof()
        assert counters.values == {"session_half_frame": 1}
        assert session.state is State.CLOSED


def test_answers_to_nothing_are_ignored() -> None:
    session = session_in(State.JOINED)
    session.answer(77)
    session.refuse(77, CodedError(ErrorCode.INTERNAL, "x"))
    assert session.data_to_send() == b""


def test_nothing_is_pushed_before_the_welcome() -> None:
    session = session_in(State.JOINING)
    session.push(m.LegState(state="live"))
    assert session.data_to_send() == b""


def drive(session: JoinSession, chunks: list[bytes], verdicts: list[bool]) -> None:
    """Feeds a session and answers its requests; holds the law: one answer for each request."""
    asked: list[int] = []
    answered: list[int] = []
    for index, chunk in enumerate(chunks):
        for request in session.receive(chunk, now=float(index)):
            asked.append(request.id)
            if verdicts[index % len(verdicts)]:
                good = welcome(request.id) if isinstance(request, m.Join) else None
                session.answer(request.id, good)
            else:
                session.refuse(request.id, Refused(ErrorCode.FORBIDDEN, "no"))
        assert session.requests_pending == 0
        kinds = (m.Ok, m.Welcome)
        answers = sent(session)
        answered += [
            answer.re
            for answer in answers
            if isinstance(answer, kinds)
            or (isinstance(answer, m.Error) and answer.message == "no" and answer.re is not None)
        ]
    assert answered == asked[: len(answered)]
    # Only the end of the session may leave requests without an answer.
    assert answered == asked or session.state is State.CLOSED


piece = st.one_of(
    st.tuples(st.sampled_from(sorted(MESSAGES)), st.integers(0, 9)).map(lambda a: wire(*a)),
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda body: len(body).to_bytes(4, "big") + body),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(piece, max_size=30), st.lists(st.booleans(), min_size=1, max_size=5), st.data())
def test_any_bytes_in_any_pieces(
    pieces: list[bytes], verdicts: list[bool], data: st.DataObject
) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    drive(JoinSession(now=0.0), chunks, verdicts)


def test_bounded_random_fuzz() -> None:
    """Thousands of sessions of good messages with flipped, lost and inserted bytes."""
    rng = random.Random(7)
    closed = 0
    for _ in range(400):
        stream = bytearray(
            wire("join", 1)
            + b"".join(wire(rng.choice(sorted(MESSAGES)), rng.randrange(9)) for _ in range(20))
        )
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(stream))
            match rng.randrange(3):
                case 0:
                    stream[at] ^= 1 << rng.randrange(8)
                case 1:
                    del stream[at]
                case _:
                    stream.insert(at, rng.randrange(256))
        session = JoinSession(now=0.0)
        cut = rng.randrange(len(stream))
        drive(session, [bytes(stream[:cut]), bytes(stream[cut:])], [True, True, False])
        closed += session.state is State.CLOSED
    assert closed > 0


def test_offers_have_a_limit_of_their_own() -> None:
    """Each costs the node tens of milliseconds; other messages go on."""
    session = session_in(State.JOINED)
    for n in range(int(OFFERS_BURST)):
        assert session.receive(wire("offer", 10 + n), now=0.0)
        session.answer(10 + n, m.Answer(re=10 + n, sdp="v=0"))
    session.data_to_send()
    assert session.receive(wire("offer", 50), now=0.0) == []
    (answer,) = sent(session)
    assert isinstance(answer, m.Error)
    assert (answer.code, answer.re) == (ErrorCode.LIMIT, 50)
    assert session.receive(wire("mute", 51), now=0.0)
    assert session.receive(wire("offer", 52), now=1.0 / OFFERS_PER_S)
