"""The join session as a state machine without I/O.

    law: the client speaks first, with `join`; every message that has an id is answered exactly
    once; what is out of order is answered by a typed error and changes nothing.

Bytes go in by `receive`, requests for the backend come out; the caller reports how each went by
`answer` or `refuse`, and takes the bytes for the client by `data_to_send`.  Times are monotonic
seconds, given by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from forwarder.errors import CodedError, ErrorCode
from forwarder.signaling import messages as m
from forwarder.signaling.framing import (
    BadMessage,
    ClientRequest,
    FrameDecoder,
    Oversize,
    decode_client,
    encode,
)

REQUESTS_MAX: Final = 64  # requests that wait for an answer
ERRORS_MAX: Final = 32  # bad messages; then the session closes
MESSAGES_PER_S: Final = 100.0  # messages a second, sustained
MESSAGES_BURST: Final = 400.0  # messages at once
OFFERS_PER_S: Final = 0.5  # offers a second, sustained: each costs tens of milliseconds
OFFERS_BURST: Final = 10.0  # offers at once


class State(Enum):
    """NEW: waits for join.  LEAVING: `leave` is carried out.  CLOSED: nothing goes in or out."""

    NEW = auto()
    JOINING = auto()
    JOINED = auto()
    LEAVING = auto()
    CLOSED = auto()


class Step(Enum):
    """What moves the machine."""

    JOIN = auto()
    ACCEPTED = auto()
    REFUSED = auto()
    LEAVE = auto()
    END = auto()


TRANSITIONS: Final[dict[tuple[State, Step], State]] = {
    (State.NEW, Step.JOIN): State.JOINING,
    (State.JOINING, Step.ACCEPTED): State.JOINED,
    (State.JOINING, Step.REFUSED): State.NEW,
    (State.JOINED, Step.LEAVE): State.LEAVING,
    (State.NEW, Step.END): State.CLOSED,
    (State.JOINING, Step.END): State.CLOSED,
    (State.JOINED, Step.END): State.CLOSED,
    (State.LEAVING, Step.END): State.CLOSED,
}

_WORK: Final = frozenset(
    {
        "publish",
        "unpublish",
        "subscribe",
        "unsubscribe",
        "keyframe",
        "mute",
        "data",
        "offer",
        "view",
        "layer",
        "ping",
        "leave",
    }
)
LEGAL: Final[dict[State, frozenset[str]]] = {
    State.NEW: frozenset({"join"}),
    State.JOINING: frozenset({"ping"}),
    State.JOINED: _WORK,
    State.LEAVING: frozenset({"ping"}),
    State.CLOSED: frozenset(),
}


@dataclass
class Counters:
    """What went wrong, by name; shared by all sessions of a node."""

    values: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, count: int = 1) -> None:
        self.values[name] = self.values.get(name, 0) + count


class JoinSession:
    """One session.  `receive` never raises, whatever the bytes."""

    def __init__(self, *, now: float, counters: Counters | None = None) -> None:
        self._state = State.NEW
        self._decoder = FrameDecoder(m.MESSAGE_MAX)
        self._out = bytearray()
        self._pending: dict[int, ClientRequest] = {}
        self._errors = 0
        self._allowance = MESSAGES_BURST
        self._offers = OFFERS_BURST
        self._refilled_at = now
        self._counters = counters or Counters()
        self.end_reason = ""  # what `closing` said

    @property
    def state(self) -> State:
        return self._state

    @property
    def requests_pending(self) -> int:
        """Requests that were handed out and not answered yet."""
        return len(self._pending)

    def receive(self, data: bytes, *, now: float) -> list[ClientRequest]:
        """Takes bytes from the client; returns the requests in them, each to be answered once."""
        requests: list[ClientRequest] = []
        if self._state is State.CLOSED:
            return requests
        for frame in self._decoder.feed(data):
            request = self._frame_received(frame, now)
            if request is not None:
                requests.append(request)
            # State changes within the loop: mypy cannot see that.
            if self._closed():
                break
        return requests

    def receive_eof(self) -> None:
        """The client ended the stream; whatever half frame there is will never be whole."""
        if self._decoder.partial:
            self._counters.add("session_half_frame")
        self.lost()

    def answer(self, request_id: int, message: m.Message | None = None) -> None:
        """Answers a request, by `ok` where there is nothing else to say.

        A welcome moves the session to JOINED; the answer to `leave` is its last but one message.
        """
        request = self._pending.pop(request_id, None)
        if request is None or self._closed():
            return
        self._out += encode(message if message is not None else m.Ok(re=request_id))
        if isinstance(request, m.Join):
            self._step(Step.ACCEPTED)
        elif isinstance(request, m.Leave):
            self.close("you left")

    def refuse(self, request_id: int, error: CodedError) -> None:
        """Answers a request by an error.  A refused join may be tried again."""
        request = self._pending.pop(request_id, None)
        if request is None or self._closed():
            return
        if isinstance(request, m.Join):
            self._step(Step.REFUSED)
            # Each try costs the backend work, and secrets must not be guessed.
            self._bad(error.code, str(error), request_id)
            return
        self._error(error.code, str(error), request_id)
        if isinstance(request, m.Leave):
            self.close("you left")

    def push(self, message: m.Message) -> None:
        """Sends a message that was not asked for; only a joined session gets any."""
        if self._state is State.JOINED:
            self._out += encode(message)

    def close(self, reason: str, code: ErrorCode | None = None) -> None:
        """Sends `closing`; afterwards nothing goes in or out."""
        if not self._closed():
            self.end_reason = reason
            self._out += encode(m.Closing(reason=reason, code=code))
            self._step(Step.END)

    def lost(self) -> None:
        """The connection is gone."""
        if not self._closed():
            self._step(Step.END)
        self._out.clear()

    def data_to_send(self) -> bytes:
        """Bytes for the client since the last call."""
        data = bytes(self._out)
        self._out.clear()
        return data

    # ---- within ------------------------------------------------------------------------------

    def _closed(self) -> bool:
        return self._state is State.CLOSED

    def _step(self, step: Step) -> None:
        self._state = TRANSITIONS[self._state, step]

    def _frame_received(self, frame: bytes | Oversize, now: float) -> ClientRequest | None:
        if isinstance(frame, Oversize):
            sentence = f"a message of {frame.length} bytes; at most {m.MESSAGE_MAX} are taken"
            self._bad(ErrorCode.TOO_LARGE, sentence, None)
            return None
        if not self._within_rate(now):
            sentence = f"more than {MESSAGES_PER_S:g} messages a second; slow down"
            self._bad(ErrorCode.LIMIT, sentence, None)
            return None
        try:
            request = decode_client(frame)
        except BadMessage as exc:
            self._bad(exc.code, str(exc), exc.re)
            return None
        return self._request_received(request)

    def _request_received(self, request: ClientRequest) -> ClientRequest | None:
        if request.id in self._pending:
            sentence = f"id {request.id} belongs to a request that is not answered yet"
            self._bad(ErrorCode.BAD_MESSAGE, sentence, None)
            return None
        if request.type not in LEGAL[self._state]:
            self._bad(*self._out_of_order(request.type), request.id)
            return None
        if isinstance(request, m.Ping):
            self._out += encode(m.Pong(re=request.id))
            return None
        if _offers(request):
            if self._offers < 1.0:
                sentence = f"more than {OFFERS_PER_S:g} offers a second; try again later"
                self._bad(ErrorCode.LIMIT, sentence, request.id)
                return None
            self._offers -= 1.0
        if len(self._pending) >= REQUESTS_MAX:
            sentence = f"{REQUESTS_MAX} requests wait for their answers; wait for some of them"
            self._bad(ErrorCode.LIMIT, sentence, request.id)
            return None
        self._pending[request.id] = request
        if isinstance(request, m.Join):
            self._step(Step.JOIN)
        elif isinstance(request, m.Leave):
            self._step(Step.LEAVE)
        return request

    def _out_of_order(self, kind: str) -> tuple[ErrorCode, str]:
        if self._state is State.LEAVING:
            return ErrorCode.NOT_JOINED, f"{kind}: you have left; open a new session to come back"
        if kind == "join":
            return ErrorCode.ALREADY_JOINED, "join: this session has joined already"
        if self._state is State.JOINING:
            return ErrorCode.NOT_JOINED, f"{kind}: wait for the answer to join"
        return ErrorCode.NOT_JOINED, f"{kind}: the first message must be join"

    def _within_rate(self, now: float) -> bool:
        elapsed = max(0.0, now - self._refilled_at)
        self._refilled_at = now
        self._allowance = min(MESSAGES_BURST, self._allowance + elapsed * MESSAGES_PER_S)
        self._offers = min(OFFERS_BURST, self._offers + elapsed * OFFERS_PER_S)
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _error(self, code: ErrorCode, sentence: str, re: int | None) -> None:
        self._out += encode(m.Error(re=re, code=code, message=sentence))

    def _bad(self, code: ErrorCode, sentence: str, re: int | None) -> None:
        self._counters.add(f"session_{code.value}")
        self._error(code, sentence, re)
        self._errors += 1
        if self._errors >= ERRORS_MAX:
            self.close(f"{ERRORS_MAX} bad messages; the last: {sentence}", ErrorCode.LIMIT)


def _offers(request: ClientRequest) -> bool:
    """Whether it carries SDP."""
    return isinstance(request, m.Offer) or (isinstance(request, m.Join) and bool(request.offer))
