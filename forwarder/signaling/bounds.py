"""What one HTTP request may cost: bytes of body, seconds of work, seconds of headers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from forwarder.errors import HTTP_STATUS, ErrorCode
from forwarder.signaling.asgi_h3 import AsgiApp, AsgiMessage, AsgiReceive, AsgiSend

BODY_MAX: Final = 64 * 1024  # bytes of a request body
REQUEST_TIMEOUT_S: Final = 10.0  # seconds from the headers to the end of the response
HEADERS_TIMEOUT_S: Final = 10.0  # seconds from the connection, or its first byte, to the headers
RETRY_S: Final = 10  # Retry-After of 503: the deadline of handshakes (ice/dtls.py)


class _TooLarge(Exception):
    pass


def problem(code: ErrorCode, message: str, *, status: int | None = None) -> JSONResponse:
    """An error response; the status is the code's where none is given."""
    status = HTTP_STATUS[code] if status is None else status
    more = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": str(RETRY_S)}}
    headers = more.get(status)
    return JSONResponse({"code": code.value, "message": message}, status, headers=headers)


def bounded(app: AsgiApp, *, body_max: int = BODY_MAX, timeout_s: float | None = None) -> AsgiApp:
    """Answers 413 to a longer body, without holding it, and 503 to a request that takes longer
    than REQUEST_TIMEOUT_S, or `timeout_s`."""

    async def limited(scope: Any, receive: AsgiReceive, send: AsgiSend) -> None:
        patience_s = REQUEST_TIMEOUT_S if timeout_s is None else timeout_s
        received = 0
        fault: ErrorCode | None = None
        started = False

        async def counted() -> AsgiMessage:
            nonlocal received, fault
            message = await receive()
            received += len(message.get("body", b""))
            if received > body_max:
                fault = ErrorCode.TOO_LARGE
                raise _TooLarge
            return message

        async def watched(message: AsgiMessage) -> None:
            nonlocal started
            # What the application makes of a body that it could not read is not the answer.
            if started or fault is None:
                started = True
                await send(message)

        try:
            with contextlib.suppress(_TooLarge):
                async with asyncio.timeout(patience_s):
                    await app(scope, counted, watched)
        except TimeoutError:
            fault = ErrorCode.UNAVAILABLE
        if fault is not None and not started:
            sentence = f"a body has at most {body_max} bytes"
            if fault is ErrorCode.UNAVAILABLE:
                sentence = f"the request took longer than {patience_s:g} s"
            await problem(fault, sentence)(scope, receive, send)

    return limited


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, that waits for a request's headers only so long.

    uvicorn itself waits for ever, so that a few hundred silent connections would be all it serves.
    """

    patience_s = HEADERS_TIMEOUT_S
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    @property
    def _waiting(self) -> bool:
        # uvicorn says that `cycle` is never None, and begins with None.
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _watch(self) -> None:
        if not self._waiting:
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(self.patience_s, self._give_up)

    def _give_up(self) -> None:
        self._late = None
        if self._waiting:
            self.transport.close()

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
