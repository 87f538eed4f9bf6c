"""The exception tree.

    VcfwdError                  every error this package raises on purpose
    |- ConfigError              the configuration is wrong (all faults at once)
    |- TokenError               401: expired, forged, or for another room
    |- Refused                  a request that the rooms, roles or limits do not allow; has a `code`
    |- ProtocolError            a message that the join protocol does not allow; has a `code`
    |- HostError                the host cannot do it: privileges, interfaces, sockets
    |   `- ForeignProgram       another XDP program is attached; it is left alone
    `- DataPlaneError           the data plane process
        |- CommandRefused       a command was refused; nothing changed
        `- DataPlaneLost        the process ended or does not answer

Each message says what failed, on what, and what to do.  `code` is one of `ErrorCode` and is
what a remote sees; `status` is the HTTP status it maps to.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Machine-readable reasons, sent to clients in `error` messages and HTTP problem bodies."""

    BAD_MESSAGE = "bad_message"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_FIELD = "unknown_field"
    VERSION = "version"
    TOO_LARGE = "too_large"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_JOINED = "not_joined"
    ALREADY_JOINED = "already_joined"
    RESUME_INVALID = "resume_invalid"
    ROOM_FULL = "room_full"
    NO_SUCH_ROOM = "no_such_room"
    ROOM_EXISTS = "room_exists"
    NO_SUCH_PARTICIPANT = "no_such_participant"
    NO_SUCH_TRACK = "no_such_track"
    SSRC_IN_USE = "ssrc_in_use"
    LIMIT = "limit"
    CODEC_UNSUPPORTED = "codec_unsupported"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.BAD_MESSAGE: 400,
    ErrorCode.UNKNOWN_TYPE: 400,
    ErrorCode.UNKNOWN_FIELD: 400,
    ErrorCode.VERSION: 400,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.RESUME_INVALID: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_JOINED: 409,
    ErrorCode.ALREADY_JOINED: 409,
    ErrorCode.ROOM_FULL: 409,
    ErrorCode.ROOM_EXISTS: 409,
    ErrorCode.SSRC_IN_USE: 409,
    ErrorCode.NO_SUCH_ROOM: 404,
    ErrorCode.NO_SUCH_PARTICIPANT: 404,
    ErrorCode.NO_SUCH_TRACK: 404,
    ErrorCode.LIMIT: 429,
    ErrorCode.CODEC_UNSUPPORTED: 422,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}


class VcfwdError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(VcfwdError):
    """The configuration is wrong; `faults` lists every fault, one sentence each."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class CodedError(VcfwdError):
    """An error with a code that a remote may see."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        super().__init__(message)

    @property
    def status(self) -> int:
        """HTTP status code."""
        return HTTP_STATUS[self.code]


class TokenError(CodedError):
    """A token is expired, forged, or for another room."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAUTHORIZED, message)


class Refused(CodedError):
    """Rooms, roles or limits do not allow the request; nothing changed."""


class ProtocolError(CodedError):
    """A message is malformed or comes at the wrong time; nothing changed."""


class HostError(VcfwdError):
    """The host cannot do it."""


class ForeignProgram(HostError):
    """Another XDP program is attached to the interface; it is left alone."""


class DataPlaneError(VcfwdError):
    """The data plane process."""


class CommandRefused(DataPlaneError):
    """The data plane refused a command; nothing changed."""


class DataPlaneLost(DataPlaneError):
    """The data plane process ended or does not answer."""
