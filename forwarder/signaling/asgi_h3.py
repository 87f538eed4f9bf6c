"""HTTP/3 requests to an ASGI application, the same that serves TCP.

Each request is a task with its own time limit; its body is bounded before the application sees
it.  A request whose stream is reset, or whose connection ends, is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from aioquic.h3.connection import ErrorCode as H3Error
from aioquic.h3.events import DataReceived, HeadersReceived

from forwarder.errors import CodedError, ErrorCode
from forwarder.signaling.h3 import Headers, Http3, problem
from forwarder.signaling.session import Counters

if TYPE_CHECKING:
    from forwarder.signaling.connection import Connection

logger = logging.getLogger(__name__)

BODY_MAX: Final = 64 * 1024  # bytes of a request body
REQUESTS_MAX: Final = 16  # requests at work on one connection
REQUEST_TIMEOUT_S: Final = 15.0  # seconds from headers to the end; our API has its own, shorter

AsgiMessage = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiMessage]]
AsgiSend = Callable[[AsgiMessage], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], AsgiReceive, AsgiSend], Awaitable[None]]


class Requests:
    """The HTTP requests of one connection."""

    def __init__(
        self, connection: Connection, h3: Http3, app: AsgiApp | None, counters: Counters
    ) -> None:
        self._connection = connection
        self._h3 = h3
        self._app = app
        self._counters = counters
        self._requests: dict[int, _Request] = {}

    @property
    def active(self) -> int:
        """Requests at work."""
        return len(self._requests)

    def headers_received(self, event: HeadersReceived) -> None:
        """A new request, or trailers, which mean nothing here."""
        stream_id = event.stream_id
        if stream_id in self._requests:
            if event.stream_ended:
                self._requests[stream_id].body_received(b"", True)
            return
        if self._app is None:
            self._refuse(stream_id, ErrorCode.UNAVAILABLE, "no HTTP API here")
            return
        if len(self._requests) >= REQUESTS_MAX:
            sentence = f"{REQUESTS_MAX} requests are at work on this connection; wait for them"
            self._refuse(stream_id, ErrorCode.LIMIT, sentence)
            return
        request = _Request(self, stream_id, event.headers)
        request.body_received(b"", event.stream_ended)
        self._requests[stream_id] = request
        request.task = asyncio.get_running_loop().create_task(self._run(request, self._app))
        # Not at the end of the task: one that is cancelled before its first step has none.
        request.task.add_done_callback(lambda _: self._requests.pop(stream_id, None))

    def data_received(self, event: DataReceived) -> None:
        request = self._requests.get(event.stream_id)
        if request is not None:
            request.body_received(event.data, event.stream_ended)

    def cancel(self, stream_id: int) -> None:
        """The peer reset the stream."""
        request = self._requests.get(stream_id)
        if request is not None and request.task is not None:
            request.task.cancel()

    def cancel_all(self) -> None:
        """The connection is gone."""
        for stream_id in tuple(self._requests):
            self.cancel(stream_id)

    def send_headers(self, stream_id: int, headers: Headers) -> None:
        self._connection.guarded(lambda: self._h3.send_headers(stream_id, headers))

    def send_data(self, stream_id: int, data: bytes, ended: bool) -> None:
        self._connection.guarded(lambda: self._h3.send_data(stream_id, data, end_stream=ended))

    def _refuse(self, stream_id: int, code: ErrorCode, sentence: str) -> None:
        self._counters.add(f"h3_{code.value}")
        headers, body = problem(CodedError(code, sentence))
        self.send_headers(stream_id, headers)
        self.send_data(stream_id, body, True)

    async def _run(self, request: _Request, app: AsgiApp) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await app(request.scope(self._connection), request.receive, request.send)
        except TimeoutError:
            self._failed(request, ErrorCode.UNAVAILABLE, "the request took too long")
        except BodyTooLarge:
            pass  # answered below, for the application may have caught it
        except Exception:
            logger.exception("an HTTP/3 request failed")
            self._failed(request, ErrorCode.INTERNAL, "the node failed; it is in its log")
        finally:
            if request.too_large:
                self._failed(request, ErrorCode.TOO_LARGE, f"a body has at most {BODY_MAX} bytes")
            if not request.ended:
                quic, stream_id = self._connection.quic, request.stream_id
                self._connection.guarded(
                    lambda: quic.reset_stream(stream_id, H3Error.H3_INTERNAL_ERROR)
                )

    def _failed(self, request: _Request, code: ErrorCode, sentence: str) -> None:
        if not request.started:
            request.started = request.ended = True
            self._refuse(request.stream_id, code, sentence)


class BodyTooLarge(Exception):
    """The request body is longer than BODY_MAX."""


class _Request:
    """One request and its response."""

    def __init__(self, owner: Requests, stream_id: int, headers: Headers) -> None:
        self._owner = owner
        self._headers = headers
        self._chunks: deque[bytes] = deque()
        self._received = 0
        self._complete = False
        self.too_large = False
        self._wake = asyncio.Event()
        self._reported = False
        self.stream_id = stream_id
        self.task: asyncio.Task[None] | None = None
        self.started = False
        self.ended = False

    def body_received(self, data: bytes, ended: bool) -> None:
        self._received += len(data)
        if self._received > BODY_MAX:
            self.too_large = True
            self._chunks.clear()
        elif data:
            self._chunks.append(data)
        self._complete = self._complete or ended
        self._wake.set()

    def scope(self, connection: Connection) -> dict[str, Any]:
        """ASGI 3, HTTP connection scope."""
        pseudo = {key: value for key, value in self._headers if key.startswith(b":")}
        target = pseudo.get(b":path", b"/")
        path, _, query = target.partition(b"?")
        headers = [(key, value) for key, value in self._headers if not key.startswith(b":")]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "3",
            "method": pseudo.get(b":method", b"GET").decode("latin-1"),
            "scheme": pseudo.get(b":scheme", b"https").decode("latin-1"),
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", pseudo.get(b":authority", b"")), *headers],
            "client": connection.remote,
            "server": connection.local,
        }

    async def receive(self) -> AsgiMessage:
        while True:
            if self.too_large:
                raise BodyTooLarge
            if self._chunks:
                body = self._chunks.popleft()
                more = bool(self._chunks) or not self._complete
                self._reported = not more
                return {"type": "http.request", "body": body, "more_body": more}
            if self._complete and not self._reported:
                self._reported = True
                return {"type": "http.request", "body": b"", "more_body": False}
            # After the body, receive() returns when the client goes away: by cancellation.
            self._wake.clear()
            await self._wake.wait()

    async def send(self, message: AsgiMessage) -> None:
        if self.too_large and not self.started:
            return  # what the application makes of a body that it could not read is no answer
        if message["type"] == "http.response.start" and not self.started:
            self.started = True
            status = (b":status", str(message["status"]).encode())
            headers = [(bytes(k).lower(), bytes(v)) for k, v in message.get("headers", [])]
            self._owner.send_headers(self.stream_id, [status, *headers])
        elif message["type"] == "http.response.body" and not self.ended:
            self.ended = not message.get("more_body", False)
            self._owner.send_data(self.stream_id, bytes(message.get("body", b"")), self.ended)
