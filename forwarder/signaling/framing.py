"""Bytes of the control stream to messages, and back.

A frame is a 4-byte big-endian length and that many bytes of JSON (see messages.py).  The decoder
holds at most one frame of at most its limit; a longer one is skipped as it arrives, so that its
sender gets an error and the session goes on.  Both ends use this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from forwarder.errors import ErrorCode, ProtocolError
from forwarder.signaling import messages as m

HEADER: Final = 4  # bytes of the length
# A welcome lists everybody in the room (100 bytes each), so what the node sends may be longer than
# what it takes.
SERVER_MESSAGE_MAX: Final = 4 * 1024 * 1024  # bytes
EXCERPT_MAX: Final = 64  # characters of a client's own words in a sentence sent back to it
FAULTS_MAX: Final = 4  # faults named in one sentence

_CLIENT: Final[dict[str, type[m.Message]]] = {
    "join": m.Join,
    "publish": m.Publish,
    "unpublish": m.Unpublish,
    "subscribe": m.Subscribe,
    "unsubscribe": m.Unsubscribe,
    "keyframe": m.KeyframeRequest,
    "mute": m.Mute,
    "data": m.Data,
    "offer": m.Offer,
    "view": m.View,
    "layer": m.LayerWish,
    "ping": m.Ping,
    "leave": m.Leave,
}
_SERVER: Final[TypeAdapter[m.ServerMessage]] = TypeAdapter(m.ServerMessage)

ClientRequest = (
    m.Join
    | m.Publish
    | m.Unpublish
    | m.Subscribe
    | m.Unsubscribe
    | m.KeyframeRequest
    | m.Mute
    | m.Data
    | m.Offer
    | m.View
    | m.LayerWish
    | m.Ping
    | m.Leave
)


class BadMessage(ProtocolError):
    """A frame that is no message; `re` is its id where one could be read."""

    def __init__(self, code: ErrorCode, message: str, re: int | None = None) -> None:
        self.re = re
        super().__init__(code, message)


@dataclass(frozen=True)
class Oversize:
    """A frame longer than the limit; its bytes are skipped."""

    length: int


def encode(message: BaseModel) -> bytes:
    """One frame.  None values are left out: they are the defaults."""
    body = message.model_dump_json(exclude_none=True).encode()
    return len(body).to_bytes(HEADER, "big") + body


class FrameDecoder:
    """Cuts a byte stream into frames of at most `limit` bytes."""

    def __init__(self, limit: int = m.MESSAGE_MAX) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._skip = 0

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer) or self._skip > 0

    def feed(self, data: bytes) -> Iterator[bytes | Oversize]:
        """Takes bytes in at once; yields what is complete.  Exhaust it before the next call."""
        self._buffer += data
        while True:
            if self._skip:
                cut = min(self._skip, len(self._buffer))
                del self._buffer[:cut]
                self._skip -= cut
            if self._skip or len(self._buffer) < HEADER:
                return
            length = int.from_bytes(self._buffer[:HEADER], "big")
            if length > self._limit:
                del self._buffer[:HEADER]
                self._skip = length
                yield Oversize(length)
            elif len(self._buffer) < HEADER + length:
                return
            else:
                frame = bytes(self._buffer[HEADER : HEADER + length])
                del self._buffer[: HEADER + length]
                yield frame


def decode_client(frame: bytes) -> ClientRequest:
    """A client's message.  Raises BadMessage, whose sentence may be sent back."""
    try:
        value: Any = from_json(frame, allow_inf_nan=False)
    except ValueError as exc:
        sentence = f"the message is not JSON in UTF-8: {excerpt(str(exc), 120)}"
        raise BadMessage(ErrorCode.BAD_MESSAGE, sentence) from None
    if not isinstance(value, dict):
        raise BadMessage(ErrorCode.BAD_MESSAGE, "the message is not a JSON object")
    re = value.get("id")
    if isinstance(re, bool) or not isinstance(re, int) or not 0 <= re < 2**31:
        re = None
    kind = value.get("type")
    if not isinstance(kind, str):
        raise BadMessage(ErrorCode.BAD_MESSAGE, "the message has no `type`", re)
    model = _CLIENT.get(kind)
    if model is None:
        sentence = f"unknown type {excerpt(kind)!r}; known are {', '.join(_CLIENT)}"
        raise BadMessage(ErrorCode.UNKNOWN_TYPE, sentence, re)
    # Before the fields: a newer version may well have fields that this one does not know.
    version = value.get("v")
    if model is m.Join and type(version) is int and version != m.VERSION:
        sentence = (
            f"this node speaks version {m.VERSION} of the join protocol, not {version % 2**31}"
        )
        raise BadMessage(ErrorCode.VERSION, sentence, re)
    try:
        message = model.model_validate_json(frame, strict=True)
    except ValidationError as exc:
        code, sentence = _explain(kind, exc)
        raise BadMessage(code, sentence, re) from None
    assert isinstance(message, ClientRequest)
    return message


def decode_server(frame: bytes) -> m.ServerMessage:
    """A node's message, for clients.  Raises BadMessage."""
    try:
        return _SERVER.validate_json(frame)
    except ValidationError as exc:
        code, sentence = _explain("the node's message", exc)
        raise BadMessage(code, sentence) from None


def _explain(kind: str, exc: ValidationError) -> tuple[ErrorCode, str]:
    """The faults of a message, without its values: those may be long or secret."""
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    unknown = all(error["type"] == "extra_forbidden" for error in errors)
    faults = []
    for error in errors[:FAULTS_MAX]:
        where = excerpt(".".join(str(part) for part in error["loc"]))
        text = "unknown field" if error["type"] == "extra_forbidden" else excerpt(error["msg"], 120)
        faults.append(f"{where}: {text}" if where else text)
    if len(errors) > FAULTS_MAX:
        faults.append(f"and {len(errors) - FAULTS_MAX} more")
    code = ErrorCode.UNKNOWN_FIELD if unknown else ErrorCode.BAD_MESSAGE
    return code, f"{kind}: {'; '.join(faults)}"


def excerpt(text: str, limit: int = EXCERPT_MAX) -> str:
    """At most `limit` characters of a stranger's text, fit to be sent."""
    # Lone surrogates cannot be encoded when the sentence is sent.
    text = text.encode(errors="replace").decode()
    return text if len(text) <= limit else text[: limit - 3] + "..."
