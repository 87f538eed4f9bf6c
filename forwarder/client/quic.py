"""One WebTransport session with its control stream (aioquic), from the client's side.

The token leaves this host only after the node's certificate was verified: by its SHA-256 hash,
or by the certification authorities of the host, or not at all when `insecure` says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    PingAcknowledged,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel

from forwarder.errors import VcfwdError
from forwarder.signaling.framing import SERVER_MESSAGE_MAX, FrameDecoder, Oversize, encode

IDLE_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
BODY_MAX = 4096  # bytes of an error body that are kept
DEFAULT_PORT = 4433


class SessionLost(VcfwdError):
    """The QUIC connection or the session ended."""


class SessionRefused(VcfwdError):
    """The node answered, and the answer is no: `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Target:
    """Where to join, and how to know the node."""

    url: str
    cert_hash: bytes | None = None
    ca_file: str | None = None
    insecure: bool = False
    bind_address: str | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or DEFAULT_PORT

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def path(self, token: str | None) -> str:
        path = urlsplit(self.url).path.rstrip("/")
        if not path.endswith("/v1/join"):
            path += "/v1/join"
        return f"{path}?token={quote(token)}" if token else path


def parse_hash(text: str) -> bytes:
    """SHA-256 in hex (colons allowed) as bytes; ValueError when it is none."""
    raw = bytes.fromhex(text.replace(":", "").removeprefix("sha256").removeprefix("-").strip())
    if len(raw) != 32:
        raise ValueError("a certificate hash is 64 hex digits (SHA-256 of the DER certificate)")
    return raw


def hash_of(pem: bytes) -> bytes:
    """The hash of a certificate file (PEM)."""
    certificate = x509.load_pem_x509_certificate(pem)
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


class _Protocol(QuicConnectionProtocol):
    """Feeds HTTP/3, and reads the control stream beside it: aioquic's client would take the
    node's bytes on a stream that the client opened for HTTP frames."""

    def __init__(self, quic: QuicConnection, cert_hash: bytes | None) -> None:
        super().__init__(quic)
        loop = asyncio.get_running_loop()
        self._cert_hash = cert_hash
        self._h3: H3Connection | None = None
        self._frames = FrameDecoder(SERVER_MESSAGE_MAX)
        self._status = 0
        self._body = b""
        self.session_id: int | None = None
        self.control_id: int | None = None
        self.handshake: asyncio.Future[None] = loop.create_future()
        self.answer: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.last_heard = time.monotonic()
        self.gone = False  # the socket is closed: timers that still fire send nothing
        self.on_message: Callable[[bytes], None] | None = None

    def transmit(self) -> None:
        if not self.gone:
            super().transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self._verify()
        elif isinstance(event, PingAcknowledged):
            self.last_heard = time.monotonic()
        elif isinstance(event, ConnectionTerminated):
            self.end(event.reason_phrase or f"QUIC error {event.error_code:#x}")
        elif isinstance(event, StreamReset) and event.stream_id in (
            self.session_id,
            self.control_id,
        ):
            self.end("the node reset the session")
        elif isinstance(event, StreamDataReceived) and event.stream_id == self.control_id:
            self._control(event)
        elif self._h3 is not None:
            for answer in self._h3.handle_event(event):
                if isinstance(answer, HeadersReceived) and answer.stream_id == self.session_id:
                    self._headers(answer)
                elif isinstance(answer, DataReceived) and answer.stream_id == self.session_id:
                    self._data(answer)

    def _verify(self) -> None:
        self.last_heard = time.monotonic()
        if self._cert_hash is not None:
            certificate = self._quic.tls._peer_certificate
            digest = (
                hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
                if certificate is not None
                else b""
            )
            if digest != self._cert_hash:
                reason = (
                    f"the node's certificate has the hash {digest.hex()}, not the expected "
                    f"{self._cert_hash.hex()}: take the one that `vcfwd up` prints"
                )
                if not self.handshake.done():
                    self.handshake.set_exception(SessionRefused(0, reason))
                self.close()
                return
        self._h3 = H3Connection(self._quic, enable_webtransport=True)
        if not self.handshake.done():
            self.handshake.set_result(None)

    def _headers(self, event: HeadersReceived) -> None:
        self._status = next((int(v) for k, v in event.headers if k == b":status"), 0)
        if self._status == 200 and not event.stream_ended:
            self._answer()
        elif event.stream_ended:
            self._answer()
            self.end("the node closed the session")

    def _data(self, event: DataReceived) -> None:
        if self._status != 200 and len(self._body) < BODY_MAX:
            self._body += event.data
        if event.stream_ended:
            self._answer()
            self.end("the node closed the session")

    def _answer(self) -> None:
        if not self.answer.done():
            self.answer.set_result((self._status, self._body))

    def _control(self, event: StreamDataReceived) -> None:
        self.last_heard = time.monotonic()
        for frame in self._frames.feed(event.data):
            if isinstance(frame, Oversize):
                self.end(f"the node sent a message of {frame.length} bytes")
                self.close()
                return
            if self.on_message is not None:
                self.on_message(frame)
        if event.end_stream:
            self.end("the node ended the control stream")

    def end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
        for future in (self.handshake, self.answer):
            if not future.done():
                future.set_exception(SessionLost(reason))
                future.exception()  # read once: nobody may be waiting

    # ---- what Session asks for --------------------------------------------------------------

    def open_session(self, target: Target, token: str | None) -> None:
        assert self._h3 is not None
        self.session_id = self._quic.get_next_available_stream_id()
        self._h3.send_headers(
            self.session_id,
            [
                (b":method", b"CONNECT"),
                (b":protocol", b"webtransport"),
                (b":scheme", b"https"),
                (b":authority", target.authority.encode()),
                (b":path", target.path(token).encode()),
                (b"sec-webtransport-http3-draft02", b"1"),
            ],
        )
        self.transmit()

    def open_control(self) -> None:
        assert self._h3 is not None and self.session_id is not None
        self.control_id = self._h3.create_webtransport_stream(self.session_id)

    def send_control(self, data: bytes) -> None:
        assert self.control_id is not None
        self._quic.send_stream_data(self.control_id, data)
        self.transmit()

    def send_ping(self, uid: int) -> None:
        self._quic.send_ping(uid)
        self.transmit()


class Session:
    """An open session.  `open()` raises SessionRefused or SessionLost; afterwards `ended`
    becomes done, with the reason, when the session is over."""

    def __init__(self, protocol: _Protocol, transport: asyncio.DatagramTransport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._pings = 0
        self.ended = protocol.ended

    @classmethod
    async def open(
        cls, target: Target, token: str | None, on_message: Callable[[bytes], None]
    ) -> Session:
        """Connects, verifies the certificate, opens session and control stream.  The call takes
        at most CONNECT_TIMEOUT_S."""
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=H3_ALPN,
            max_datagram_frame_size=65536,
            idle_timeout=IDLE_TIMEOUT_S,
            server_name=target.host,
            cafile=target.ca_file,
        )
        if target.insecure or target.cert_hash is not None:
            configuration.verify_mode = ssl.CERT_NONE
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(target.host, target.port, type=2)
        # As the socket will name it (four values for IPv6): aioquic takes another for a migration.
        address: tuple[Any, ...] = infos[0][4]
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Protocol(QuicConnection(configuration=configuration), target.cert_hash),
            family=infos[0][0],
            local_addr=(target.bind_address or ("::" if ":" in address[0] else "0.0.0.0"), 0),
        )
        session = cls(protocol, transport)
        try:
            protocol.connect(address)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await session._establish(target, token, on_message)
        except TimeoutError:
            session.close()
            raise SessionLost(
                f"{target.authority} does not answer: is `vcfwd up` running there?"
            ) from None
        except BaseException:
            session.close()
            raise
        return session

    async def _establish(
        self, target: Target, token: str | None, on_message: Callable[[bytes], None]
    ) -> None:
        protocol = self._protocol
        protocol.on_message = on_message
        await protocol.handshake
        protocol.open_session(target, token)
        status, body = await protocol.answer
        if status != 200:
            raise SessionRefused(status, _reason(status, body))
        protocol.open_control()

    def send(self, message: BaseModel) -> None:
        """Queues one message.  Nothing after the end."""
        if not self.ended.done():
            self._protocol.send_control(encode(message))

    def ping(self) -> None:
        """Its answer moves `silence_s` back."""
        if not self.ended.done():
            self._pings += 1
            self._protocol.send_ping(self._pings)

    @property
    def silence_s(self) -> float:
        """Seconds since the node was last heard."""
        return time.monotonic() - self._protocol.last_heard

    def close(self) -> None:
        """Ends the connection; can be called again."""
        self._protocol.close()
        self._gone("closed")

    def abandon(self) -> None:
        """Ends without a word: what a client that lost its network looks like."""
        self._gone("abandoned")

    def _gone(self, reason: str) -> None:
        self._protocol.gone = True
        self._protocol.end(reason)
        self._transport.close()


def _reason(status: int, body: bytes) -> str:
    try:
        answer = json.loads(body)
        message = str(answer.get("message") or answer.get("code") or answer)
    except (ValueError, AttributeError):
        message = body.decode(errors="replace") or "no reason given"
    return f"the node refused the session with status {status}: {message}"
