"""Sessions between connections and the backend.

One `Hub` for the node, shared by the QUIC servers of all its addresses; one `OpenSession` for
each WebTransport session.  The hub owns the limits and knows which session speaks for which
participant, so that a resumed session replaces the old one.  Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, Protocol

from forwarder.errors import CodedError, ErrorCode, TokenError
from forwarder.ids import ParticipantId
from forwarder.signaling import messages as m
from forwarder.signaling.backend import Address, Backend
from forwarder.signaling.framing import SERVER_MESSAGE_MAX, ClientRequest
from forwarder.signaling.session import Counters, JoinSession, State
from forwarder.signaling.tokens import Claims

logger = logging.getLogger(__name__)

BACKLOG_MAX: Final = SERVER_MESSAGE_MAX  # bytes that a client has not taken yet; then it is closed
REPLACED: Final = "another session took this participant up again"


class Transport(Protocol):
    """The connection below a session.  Methods never block and never raise."""

    @property
    def remote(self) -> Address: ...

    @property
    def local(self) -> Address: ...

    def send(self, data: bytes) -> None:
        """Sends on the control stream."""

    def backlog(self) -> int:
        """Bytes sent that the client has not acknowledged yet."""

    def end(self, reason: str) -> None:
        """Ends the session after what was sent; `reason` is for the client's eyes."""


class Hub:
    """All sessions of a node."""

    def __init__(
        self,
        backend: Backend,
        *,
        max_sessions: int = 20_000,
        counters: Counters | None = None,
    ) -> None:
        self.backend = backend
        self.max_sessions = max_sessions
        self.counters = counters or Counters()
        self._sessions: set[OpenSession] = set()
        self._speakers: dict[ParticipantId, OpenSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def sessions_open(self) -> int:
        return len(self._sessions)

    @property
    def full(self) -> bool:
        """Whether no further session is taken."""
        return len(self._sessions) >= self.max_sessions

    def open(self, claims: Claims | None, transport: Transport) -> OpenSession:
        """A new session; without claims it can only resume.  The caller has checked `full`."""
        session = OpenSession(self, claims, transport)
        self._sessions.add(session)
        return session

    def close_all(self, reason: str) -> None:
        """Sends `closing` to every session; their participants may resume at a later node."""
        for session in tuple(self._sessions):
            session.close(reason, ErrorCode.UNAVAILABLE)

    async def wait_idle(self) -> None:
        """Waits for the requests that the backend is working on."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def speak(self, participant_id: ParticipantId, session: OpenSession) -> None:
        """`session` speaks for the participant from now on; an older one is closed."""
        old = self._speakers.get(participant_id)
        self._speakers[participant_id] = session
        if old is not None and old is not session:
            self.counters.add("session_replaced")
            old.close(REPLACED)

    def speaker(self, participant_id: ParticipantId) -> OpenSession | None:
        """The session that speaks for the participant."""
        return self._speakers.get(participant_id)

    def forget(self, session: OpenSession) -> None:
        """The session is over."""
        self._sessions.discard(session)
        pid = session.participant_id
        if pid is not None and self._speakers.get(pid) is session:
            del self._speakers[pid]

    def spawn(self, session: OpenSession) -> None:
        """Runs a session's work; the hub holds the task, for asyncio holds none."""
        task = asyncio.get_running_loop().create_task(session.work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class OpenSession:
    """One session: bytes to requests to the backend, answers to bytes.  A backend.Session."""

    def __init__(self, hub: Hub, claims: Claims | None, transport: Transport) -> None:
        self._hub = hub
        self._claims = claims
        self._transport = transport
        now = asyncio.get_running_loop().time()
        self._machine = JoinSession(now=now, counters=hub.counters)
        self._queue: deque[ClientRequest] = deque()
        self._working = False
        self._over = False
        # False once the backend itself ended the session, or carried out `leave`.
        self._backend_cares = True
        self.participant_id: ParticipantId | None = None
        self.opened_at = now

    @property
    def remote(self) -> Address:
        return self._transport.remote

    @property
    def local(self) -> Address:
        return self._transport.local

    @property
    def joined(self) -> bool:
        return self.participant_id is not None

    def data_received(self, data: bytes, *, ended: bool = False) -> None:
        """Bytes of the control stream; `ended`: the client will send no more."""
        now = asyncio.get_running_loop().time()
        self._queue.extend(self._machine.receive(data, now=now))
        if self._queue and not self._working:
            self._working = True
            self._hub.spawn(self)
        self._flush()
        if ended:
            self._machine.receive_eof()
            self._flush()

    def connection_lost(self) -> None:
        """The connection is gone; the participant may resume."""
        self._machine.lost()
        self._flush()

    def push(self, message: m.ServerMessage) -> None:
        self._machine.push(message)
        self._flush()

    def close(self, reason: str, code: ErrorCode | None = None) -> None:
        self._backend_cares = False
        self._machine.close(reason, code)
        self._flush()

    async def work(self) -> None:
        """Carries the requests out, one after the other, until there are none."""
        try:
            while self._queue:
                request = self._queue.popleft()
                if self._machine.state is State.CLOSED and not isinstance(request, m.Leave):
                    continue
                await self._carry_out(request)
                self._flush()
        finally:
            self._working = False

    # ---- within ------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Sends what the machine has to say, and ends the session when the machine has."""
        if self._over:
            return
        self._send()
        if self._machine.state is not State.CLOSED and self._transport.backlog() > BACKLOG_MAX:
            self._hub.counters.add("session_backlog")
            self._machine.close("you do not read what the node sends", ErrorCode.LIMIT)
            self._send()
        if self._machine.state is not State.CLOSED:
            return
        self._over = True
        self._transport.end(self._machine.end_reason)
        pid = self.participant_id
        tell = pid is not None and self._backend_cares and self._hub.speaker(pid) is self
        self._hub.forget(self)
        if tell and pid is not None:
            self._hub.backend.session_lost(pid)

    def _send(self) -> None:
        data = self._machine.data_to_send()
        if data:
            self._transport.send(data)

    async def _carry_out(self, request: ClientRequest) -> None:
        try:
            if isinstance(request, m.Join):
                await self._join(request)
            elif self.participant_id is not None:
                answer = await self._ask(self.participant_id, request)
                self._backend_cares = not isinstance(request, m.Leave)
                self._machine.answer(request.id, answer)
        except CodedError as exc:
            self._machine.refuse(request.id, exc)
        except Exception:
            # The client learns nothing of our insides; the operator learns all.
            logger.exception("a %s request failed", request.type)
            self._hub.counters.add("session_internal")
            sentence = f"{request.type}: the node failed; it is in its log"
            self._machine.refuse(request.id, CodedError(ErrorCode.INTERNAL, sentence))

    async def _join(self, request: m.Join) -> None:
        backend = self._hub.backend
        if request.resume is not None:
            welcome = await backend.resume(request, self)
        elif self._claims is not None:
            welcome = await backend.join(self._claims, request, self)
        else:
            raise TokenError("a session without a token can only resume; open one with ?token=")
        pid = ParticipantId(welcome.participant_id)
        self._machine.answer(request.id, welcome)
        self._flush()
        if self._over:
            # The client went away while it joined: as if it had gone a moment later.
            if self._hub.speaker(pid) is None:
                backend.session_lost(pid)
            return
        self.participant_id = pid
        self._hub.speak(pid, self)
        backend.session_opened(pid, self)

    async def _ask(self, pid: ParticipantId, request: ClientRequest) -> m.Message | None:
        backend = self._hub.backend
        match request:
            case m.Publish():
                return await backend.publish(pid, request)
            case m.Unpublish():
                await backend.unpublish(pid, request)
            case m.Subscribe():
                return await backend.subscribe(pid, request)
            case m.Unsubscribe():
                return await backend.unsubscribe(pid, request)
            case m.KeyframeRequest():
                await backend.keyframe(pid, request)
            case m.Mute():
                await backend.mute(pid, request)
            case m.Data():
                await backend.data(pid, request)
            case m.Offer():
                return await backend.offer(pid, request)
            case m.View():
                await backend.view(pid, request)
            case m.LayerWish():
                await backend.layer(pid, request)
            case m.Leave():
                await backend.leave(pid, "left")
        return None
