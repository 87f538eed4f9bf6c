"""The session of a client: requests and answers, and coming back after a loss.

Control knows nothing of media: it hands messages that nobody asked for to `on_message`, and each
welcome after the first to `on_back`.

Errors: SessionRefused when the node says no, SessionLost when it does not answer, ClientError for
a request that was refused (`code` says why).  Malformed messages of the node are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from forwarder.client.quic import Session, SessionLost, SessionRefused, Target
from forwarder.errors import CodedError, ErrorCode
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as wire

REQUEST_TIMEOUT_S = 10.0
PING_S = 1.0
SILENCE_S = 2.5  # then the session is taken for lost
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 2.0
# Reasons of a node to end a session that speak of the session and not of the participant.
COME_BACK = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL, ErrorCode.LIMIT})

_server_message: TypeAdapter[wire.ServerMessage] = TypeAdapter(wire.ServerMessage)


class ClientError(CodedError):
    """The node refused a request."""


class Control:
    """One session after the other, for one participant."""

    def __init__(
        self,
        target: Target,
        token: str | None,
        *,
        name: str,
        suites: Iterable[Suite],
        on_message: Callable[[BaseModel], None],
        on_back: Callable[[wire.Welcome], Awaitable[None]],
        on_welcome: Callable[[wire.Welcome], None] | None = None,
    ) -> None:
        self._target = target
        self._token = token
        self._name = name
        self._suites = list(suites)
        self._on_message = on_message
        self._on_back = on_back
        self._on_welcome = on_welcome
        self._session: Session | None = None
        self._ready = asyncio.Event()
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 1
        self._closing = False
        self._resume = ""
        self.lost = 0  # sessions
        self.bad_messages = 0
        self.closed_by_node: str | None = None

    async def join(self, offer: str | None = None) -> wire.Welcome:
        """The first session; raises SessionRefused, SessionLost, ClientError.  `offer`: SDP, where
        somebody else does the media."""
        welcome = await self._open(self._token, None, offer)
        self._ready.set()
        return welcome

    async def leave(self) -> None:
        """Says goodbye when there is somebody to hear it, and ends."""
        self._closing = True
        if self._session is not None and not self._session.ended.done():
            with contextlib.suppress(TimeoutError, SessionLost, ClientError):
                await self.request(wire.Leave, timeout_s=1.0)

    def close(self) -> None:
        self._closing = True
        if self._session is not None:
            self._session.close()

    def abandon(self) -> None:
        """Drops the QUIC connection as a changed network does."""
        if self._session is not None:
            self._session.abandon()

    async def _open(
        self, token: str | None, resume: str | None, offer: str | None = None
    ) -> wire.Welcome:
        session = await Session.open(self._target, token, self._message)
        old, self._session = self._session, session
        if old is not None:
            old.close()
        try:
            welcome = await self.request(
                wire.Join,
                v=wire.VERSION,
                client=self._name,
                resume=resume,
                suites=self._suites,
                offer=offer,
            )
        except BaseException:
            session.close()
            raise
        assert isinstance(welcome, wire.Welcome)
        self._resume = welcome.resume
        return welcome

    async def keep(self) -> None:
        """Pings; on silence or loss comes back on the same leg."""
        while not self._closing and self.closed_by_node is None:
            session = self._session
            assert session is not None
            session.ping()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_S):
                    await asyncio.shield(session.ended)
            if not session.ended.done() and session.silence_s < SILENCE_S:
                continue
            if self._closing:
                return
            self._ready.clear()
            self.lost += 1
            self._fail_requests(SessionLost("the session was lost"))
            session.abandon()
            await self._come_back()

    async def _come_back(self) -> None:
        delay, resume = RETRY_FIRST_S, True
        while not self._closing and self.closed_by_node is None:
            try:
                if resume:
                    welcome = await self._open(None, self._resume)
                else:
                    welcome = await self._open(self._token, None)
            except (SessionRefused, ClientError) as error:
                if not _may_pass(error):
                    if not resume:
                        self.closed_by_node = str(error)
                        return
                    resume = False
            except (SessionLost, TimeoutError, OSError):
                pass
            else:
                self._ready.set()
                await self._on_back(welcome)
                return
            await asyncio.sleep(delay)
            delay = min(RETRY_MAX_S, delay * 2)

    async def request(
        self, kind: type[BaseModel], *, timeout_s: float = REQUEST_TIMEOUT_S, **fields: Any
    ) -> Any:
        if kind is not wire.Join:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        assert self._session is not None
        number, self._next_id = self._next_id, self._next_id + 1
        message = kind(id=number, **fields)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            self._session.send(message)
            done, _ = await asyncio.wait(
                (future, self._session.ended),
                timeout=timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if future.done():
                return future.result()
            if done:
                raise SessionLost(f"the session ended: {self._session.ended.result()}")
            raise TimeoutError(f"no answer to {message.type} within {timeout_s:g} s")  # type: ignore[attr-defined]
        finally:
            self._requests.pop(number, None)

    def _fail_requests(self, error: Exception) -> None:
        for future in self._requests.values():
            if not future.done():
                future.set_exception(error)

    def _message(self, data: bytes) -> None:
        try:
            message = _server_message.validate_json(data)
        except ValidationError:
            self.bad_messages += 1
            return
        asked = getattr(message, "re", None)
        if asked is not None:
            future = self._requests.get(asked)
            if future is None or future.done():
                return
            if isinstance(message, wire.Error):
                future.set_exception(ClientError(message.code, message.message))
            else:
                if self._on_welcome is not None and isinstance(message, wire.Welcome):
                    self._on_welcome(message)  # at once: the next message may change what it says
                future.set_result(message)
            return
        if isinstance(message, wire.Closing) and not (self._closing or message.code in COME_BACK):
            self.closed_by_node = message.reason
        self._on_message(message)


def _may_pass(error: SessionRefused | ClientError) -> bool:
    """Whether the same question may be answered otherwise a little later."""
    if isinstance(error, SessionRefused):
        return error.status not in (401, 403, 404)
    return error.code in COME_BACK
