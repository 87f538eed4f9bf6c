"""One QUIC connection: HTTP/3 requests and at most one WebTransport session.

aioquic is sans-IO, so this file is the loop around it: datagrams in, events to the session and
to the API, datagrams out, one timer.  Whatever aioquic raises for a packet that it did not foresee
is counted and ends this connection only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from aioquic.h3 import events as h3
from aioquic.h3.connection import ErrorCode as H3Error
from aioquic.h3.connection import ProtocolError as H3ProtocolError
from aioquic.h3.exceptions import H3Error as H3UsageError
from aioquic.quic import events as quic_events
from aioquic.quic.connection import QuicConnection

from forwarder.errors import CodedError, ErrorCode, Refused, TokenError
from forwarder.signaling.asgi_h3 import Requests
from forwarder.signaling.backend import Address
from forwarder.signaling.h3 import (
    JOIN_PATH,
    Headers,
    Http3,
    NoSuchPath,
    close_capsule,
    header,
    path_validated,
    problem,
    stream_backlog,
    stream_writable,
)
from forwarder.signaling.hub import OpenSession
from forwarder.signaling.tokens import Claims

if TYPE_CHECKING:
    from forwarder.signaling.server import QuicServer

HANDSHAKE_TIMEOUT_S: Final = 10.0  # seconds from the first packet
NO_WORK_TIMEOUT_S: Final = 60.0  # seconds without a session and without a request
LINGER_S: Final = 1.0  # seconds for the last bytes of a session to arrive
EXTRA_STREAMS_MAX: Final = 16  # streams beside the control stream; then the connection closes
EARLY_MAX: Final = 64 * 1024  # bytes of a control stream that overtook its CONNECT

NetworkAddress = tuple[Any, ...]  # as the socket gives it: (ip, port) or (ip, port, flow, scope)


class Connection:
    """One QUIC connection of the server.  Also the Transport of its session."""

    def __init__(self, server: QuicServer, quic: QuicConnection, address: NetworkAddress) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.quic = quic
        self.address = address
        self.closed = False
        self._closing = False
        self.validated = False
        self._h3: Http3 | None = None
        self._requests: Requests | None = None
        self._session: OpenSession | None = None
        self._session_ended = False
        self._connect_stream: int | None = None
        self._control_stream: int | None = None
        self._early: dict[int, bytearray] = {}
        self._extra_streams: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._transmit_soon: asyncio.Handle | None = None
        self._opened_at = self._busy_at = self._loop.time()

    # ---- Transport --------------------------------------------------------------------------

    @property
    def remote(self) -> Address:
        return str(self.address[0]).partition("%")[0], int(self.address[1])

    @property
    def local(self) -> Address:
        return self._server.local

    def send(self, data: bytes) -> None:
        """On the control stream."""
        stream_id = self._control_stream
        if stream_id is not None:
            self.guarded(lambda: self.quic.send_stream_data(stream_id, data))

    def backlog(self) -> int:
        return (
            0 if self._control_stream is None else stream_backlog(self.quic, self._control_stream)
        )

    def end(self, reason: str) -> None:
        """Ends the session: FIN on the control stream, a capsule and FIN on the CONNECT stream."""
        if self._session_ended or self.closed:
            return
        self._session_ended = True
        control, connect, http = self._control_stream, self._connect_stream, self._h3
        if control is not None:
            self.guarded(lambda: self.quic.send_stream_data(control, b"", end_stream=True))
        if connect is not None and http is not None:
            capsule = close_capsule(0, reason)
            self.guarded(lambda: http.send_data(connect, capsule, end_stream=True))
        self._loop.call_later(LINGER_S, self._close_if_idle)

    # ---- what the server calls --------------------------------------------------------------

    def datagram_received(self, data: bytes, address: NetworkAddress) -> None:
        """A datagram that the server routed here."""
        if self._attempt(lambda: self.quic.receive_datagram(data, address, now=self._loop.time())):
            self._pump()

    def close(self, code: int = H3Error.H3_NO_ERROR, reason: str = "") -> None:
        """Closes the connection; the peer is told within this loop step."""
        self._closing = True
        self.guarded(lambda: self.quic.close(error_code=code, reason_phrase=reason))

    def abandon(self) -> None:
        """Forgets the connection without waiting for the peer."""
        self._terminated()

    def flush(self) -> None:
        """Sends now what waits to be sent."""
        self._transmit()

    def sweep(self, now: float, join_timeout_s: float) -> None:
        """Ends what has been waiting for too long."""
        if self._closing:
            return
        if not self.validated and now - self._opened_at > HANDSHAKE_TIMEOUT_S:
            self._server.counters.add("quic_handshake_timeout")
            self.close(reason="handshake timeout")
            return
        session = self._session
        if session is not None and not self._session_ended:
            self._busy_at = now
            if not session.joined and now - session.opened_at > join_timeout_s:
                self._server.counters.add("session_join_timeout")
                session.close(f"no join within {join_timeout_s:g} s", ErrorCode.NOT_JOINED)
        elif self._requests is not None and self._requests.active:
            self._busy_at = now
        elif now - self._busy_at > NO_WORK_TIMEOUT_S:
            self.close(reason="nothing to do")

    def guarded(self, send: Callable[[], None]) -> None:
        """Writes to the connection, which the peer may have torn down meanwhile; then transmits."""
        if self.closed:
            return
        try:
            send()
        except (H3ProtocolError, H3UsageError, AssertionError, ValueError, RuntimeError):
            # The peer reset or stopped the stream: what was to be said has no hearer.
            self._server.counters.add("quic_send_refused")
        except Exception as exc:
            self._fail(exc)
            return
        if self._transmit_soon is None:
            self._transmit_soon = self._loop.call_soon(self._transmit)

    # ---- the loop around aioquic ------------------------------------------------------------

    def _attempt(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except Exception as exc:
            self._fail(exc)
            return False
        return True

    def _fail(self, exc: Exception) -> None:
        """An exception out of aioquic: this connection is over, nothing else."""
        self._server.connection_failed(exc)
        self._terminated()

    def _pump(self) -> None:
        while not self.closed:
            event = self.quic.next_event()
            if event is None:
                break
            if not self._attempt(lambda e=event: self._quic_event(e)):  # type: ignore[misc]
                return
        self._follow_address()
        self._transmit()

    def _transmit(self) -> None:
        if self._transmit_soon is not None:
            self._transmit_soon.cancel()
            self._transmit_soon = None
        if self.closed:
            return
        try:
            for data, address in self.quic.datagrams_to_send(now=self._loop.time()):
                self._server.send(data, address)
        except Exception as exc:
            self._fail(exc)
            return
        self._arm(self.quic.get_timer())

    def _arm(self, at: float | None) -> None:
        if at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._timer_fired)
        self._timer_at = at

    def _timer_fired(self) -> None:
        now = max(self._timer_at or 0.0, self._loop.time())
        self._timer = self._timer_at = None
        if self._attempt(lambda: self.quic.handle_timer(now=now)):
            self._pump()

    def _follow_address(self) -> None:
        """Tells the server which address is proved, at first and after a migration."""
        if self.closed or not path_validated(self.quic):
            return
        address = self.quic.get_peer_address()
        if address is None or (self.validated and address == self.address):
            return
        old, self.address = self.address, address
        if self.validated:
            self._server.address_left(old)
        else:
            self._server.handshake_over()
        self.validated = True
        self._server.address_validated(address)

    def _terminated(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transmit_soon is not None:
            self._transmit_soon.cancel()
        self._server.connection_closed(self)
        if self._requests is not None:
            self._requests.cancel_all()
        if self._session is not None:
            self._session.connection_lost()

    # ---- events -----------------------------------------------------------------------------

    def _quic_event(self, event: quic_events.QuicEvent) -> None:
        match event:
            case quic_events.ConnectionTerminated():
                # A last CONNECTION_CLOSE may wait to be sent.
                self._transmit()
                self._terminated()
            case quic_events.ConnectionIdIssued(connection_id=cid):
                self._server.route(cid, self)
            case quic_events.ConnectionIdRetired(connection_id=cid):
                self._server.unroute(cid, self)
            case quic_events.ProtocolNegotiated():
                self._h3 = Http3(self.quic, enable_webtransport=True)
                self._requests = Requests(self, self._h3, self._server.app, self._server.counters)
            case quic_events.StreamReset() | quic_events.StopSendingReceived():
                self._stream_aborted(event.stream_id)
        if self._h3 is not None:
            for h3_event in self._h3.handle_event(event):
                if not self.closed:
                    self._h3_event(h3_event)

    def _h3_event(self, event: h3.H3Event) -> None:
        assert self._requests is not None
        match event:
            case h3.HeadersReceived() if event.stream_id == self._connect_stream:
                pass  # trailers of a CONNECT mean nothing
            case h3.HeadersReceived() if not stream_writable(self.quic, event.stream_id):
                self._server.counters.add("h3_taken_back")
            case h3.HeadersReceived():
                if header(event.headers, b":method") == b"CONNECT":
                    self._connect(event.stream_id, event.headers)
                else:
                    self._busy_at = self._loop.time()
                    self._requests.headers_received(event)
            case h3.DataReceived() if event.stream_id == self._connect_stream:
                if event.stream_ended and self._session is not None:
                    self._session.connection_lost()
            case h3.DataReceived():
                self._requests.data_received(event)
            case h3.WebTransportStreamDataReceived():
                self._stream_data(event)
            case h3.DatagramReceived():
                self._server.counters.add("quic_datagram_ignored")

    def _stream_aborted(self, stream_id: int) -> None:
        if self._requests is not None:
            self._requests.cancel(stream_id)
        session_stream = stream_id in (self._connect_stream, self._control_stream)
        if session_stream and self._session is not None:
            self._session.connection_lost()

    # ---- WebTransport -----------------------------------------------------------------------

    def _connect(self, stream_id: int, headers: Headers) -> None:
        """An extended CONNECT (RFC 9220): all that can be refused is refused before the 200."""
        try:
            claims = self._admit(headers)
        except CodedError as exc:
            self._server.counters.add(f"connect_{exc.code.value}")
            self._respond(stream_id, *problem(exc))
            return
        self._connect_stream = stream_id
        self._session = self._server.hub.open(claims, self)
        accepted = [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02")]
        assert self._h3 is not None
        self._h3.send_headers(stream_id, accepted)
        early, self._early = self._early, {}
        for early_stream, data in early.items():
            self._control_data(early_stream, bytes(data), ended=False)

    def _admit(self, headers: Headers) -> Claims | None:
        """Claims of the token, None where there is none.  Raises CodedError."""
        if header(headers, b":protocol") != b"webtransport":
            raise Refused(ErrorCode.BAD_MESSAGE, "CONNECT is for WebTransport only")
        path, _, query = header(headers, b":path").decode("latin-1").partition("?")
        if path != JOIN_PATH:
            raise NoSuchPath
        if self._session is not None:
            raise Refused(ErrorCode.LIMIT, "one session for a connection; open another connection")
        hub = self._server.hub
        if hub.full:
            sentence = f"the node has its {hub.max_sessions} sessions; try again later"
            raise Refused(ErrorCode.UNAVAILABLE, sentence)
        if self._server.draining:
            raise Refused(ErrorCode.UNAVAILABLE, "the node is stopping; try another one")
        scheme, _, bearer = header(headers, b"authorization").decode("latin-1").partition(" ")
        try:
            found = parse_qs(query, keep_blank_values=True, max_num_fields=16).get("token", [])
        except ValueError:
            raise Refused(ErrorCode.BAD_MESSAGE, "the query has too many fields") from None
        if len(found) > 1:
            raise TokenError("several tokens in the URL; send one")
        token = found[0] if found else bearer if scheme.lower() == "bearer" else None
        return None if token is None else self._server.tokens.verify_join(token)

    def _stream_data(self, event: h3.WebTransportStreamDataReceived) -> None:
        stream_id = event.stream_id
        if self._connect_stream is None:
            self._early_data(event)
        elif event.session_id != self._connect_stream or stream_id % 4 != 0:
            self._refuse_stream(stream_id)
        else:
            self._control_data(stream_id, event.data, ended=event.stream_ended)

    def _early_data(self, event: h3.WebTransportStreamDataReceived) -> None:
        """Packets are reordered: a stream may arrive before the CONNECT that it belongs to."""
        held = sum(len(data) for data in self._early.values())
        first_bidirectional = event.stream_id % 4 == 0 and (
            not self._early or event.stream_id in self._early
        )
        if not first_bidirectional or held + len(event.data) > EARLY_MAX or event.stream_ended:
            self._refuse_stream(event.stream_id)
            return
        self._early.setdefault(event.stream_id, bytearray()).extend(event.data)

    def _control_data(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        if self._control_stream is None:
            self._control_stream = stream_id
        if stream_id != self._control_stream or self._session is None:
            self._refuse_stream(stream_id)
        elif not self._session_ended:
            self._session.data_received(data, ended=ended)

    def _refuse_stream(self, stream_id: int) -> None:
        if stream_id in self._extra_streams:
            return
        self._extra_streams.add(stream_id)
        self._server.counters.add("wt_stream_refused")
        if len(self._extra_streams) > EXTRA_STREAMS_MAX:
            self.close(H3Error.H3_EXCESSIVE_LOAD, "too many streams")
            return
        with suppress(ValueError):
            self.quic.stop_stream(stream_id, H3Error.H3_REQUEST_REJECTED)
        if stream_id % 4 == 0:
            self.quic.reset_stream(stream_id, H3Error.H3_REQUEST_REJECTED)

    def _respond(self, stream_id: int, headers: Headers, body: bytes) -> None:
        assert self._h3 is not None
        self._h3.send_headers(stream_id, headers)
        self._h3.send_data(stream_id, body, end_stream=True)

    def _close_if_idle(self) -> None:
        if self._requests is None or not self._requests.active:
            self.close(reason="the session has ended")
