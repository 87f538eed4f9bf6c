"""The QUIC server of one local address.

The supervisor owns the socket: it hands in the datagrams whose first byte says QUIC, and sends
what the server gives it.  The server owns the connections and routes datagrams to them by
connection id.  Address validation is aioquic's (three bytes out for one in, RFC 9000 section 8);
when many handshakes are under way, a Retry is demanded first, which costs the node no memory.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Final

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from forwarder.signaling.asgi_h3 import AsgiApp
from forwarder.signaling.backend import Address
from forwarder.signaling.certs import Certificate
from forwarder.signaling.connection import Connection, NetworkAddress
from forwarder.signaling.h3 import MAX_DATAGRAM, quic_configuration
from forwarder.signaling.hub import Hub
from forwarder.signaling.reset import Resets, ResettableConnection
from forwarder.signaling.session import Counters
from forwarder.signaling.tokens import Tokens

logger = logging.getLogger(__name__)

RETRY_ABOVE: Final = 256  # handshakes under way; beyond, a Retry is demanded
HANDSHAKES_MAX: Final = 2048  # handshakes under way; beyond, Initials are dropped
SPARE_CONNECTIONS: Final = 1024  # connections beside those that max_sessions allows: API, joins
INITIAL_MIN: Final = 1200  # bytes of a datagram with an Initial (RFC 9000 section 14.1)
SWEEP_S: Final = 1.0  # seconds between two looks for what has been waiting too long


class QuicServer:
    """QUIC, HTTP/3 and WebTransport for one local address."""

    def __init__(
        self,
        *,
        hub: Hub,
        tokens: Tokens,
        certificate: Certificate,
        local: Address,
        send: Callable[[bytes, NetworkAddress], None],
        app: AsgiApp | None = None,
        on_validated: Callable[[NetworkAddress], None] | None = None,
        on_closed: Callable[[NetworkAddress], None] | None = None,
        idle_timeout_s: float = 30.0,
        join_timeout_s: float = 10.0,
        retry_above: int = RETRY_ABOVE,
        counters: Counters | None = None,
    ) -> None:
        """`send` must not block; `on_validated` and `on_closed` name the client's address as the
        socket gave it: once when the first connection from there has proved it, and once when
        the last such connection is gone.
        """
        self.hub = hub
        self.tokens = tokens
        self.local = local
        self.app = app
        self.draining = False
        self.counters = counters or hub.counters
        self._send = send
        self._on_validated = on_validated
        self._on_closed = on_closed
        self._idle_timeout_s = idle_timeout_s
        self._join_timeout_s = join_timeout_s
        self._retry_above = retry_above
        self._configuration = quic_configuration(certificate, idle_timeout_s=idle_timeout_s)
        self._retry = QuicRetryTokenHandler()
        self._resets = Resets(certificate)
        self._loop = asyncio.get_running_loop()
        self._routes: dict[bytes, Connection] = {}
        self._connections: dict[Connection, set[bytes]] = {}
        self._addresses: dict[NetworkAddress, int] = {}
        self._handshakes = 0
        self._sweeper: asyncio.TimerHandle | None = None
        # A bad packet is a counter, never a log line.
        for name in ("quic", "http3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    @property
    def connections_open(self) -> int:
        return len(self._connections)

    def set_certificate(self, certificate: Certificate) -> None:
        """For connections from now on."""
        self._configuration = quic_configuration(certificate, idle_timeout_s=self._idle_timeout_s)
        self._resets = Resets(certificate)

    def datagram_received(self, data: bytes, address: NetworkAddress) -> None:
        """A datagram from the socket.  Never raises, whatever the bytes."""
        self.counters.add("quic_datagrams")
        try:
            header = pull_quic_header(
                Buffer(data=data), host_cid_length=self._configuration.connection_id_length
            )
        except ValueError:
            self.counters.add("quic_malformed")
            return
        except Exception as exc:
            self.connection_failed(exc)
            return
        connection = self._routes.get(header.destination_cid)
        try:
            if connection is None:
                connection = self._stranger(header, len(data), address)
        except Exception as exc:
            self.connection_failed(exc)
            return
        if connection is not None:
            connection.datagram_received(data, address)

    def drain(self) -> None:
        """Takes no new session; those that are open stay."""
        self.draining = True

    def close(self) -> None:
        """Closes every connection.  Call hub.close_all() first, so that sessions hear why."""
        self.draining = True
        for connection in tuple(self._connections):
            connection.flush()
            connection.close(reason="the node stops")
            connection.flush()
            connection.abandon()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    # ---- strangers --------------------------------------------------------------------------

    def _stranger(
        self, header: QuicHeader, size: int, address: NetworkAddress
    ) -> Connection | None:
        """A datagram for no connection that we know: perhaps a new one."""
        versions = self._configuration.supported_versions
        if header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            self.counters.add("quic_unexpected")
            return None
        # A short answer to a full datagram: no use for amplification.
        if header.version is not None and header.version not in versions:
            self.counters.add("quic_version")
            if size >= INITIAL_MIN:
                answer = encode_quic_version_negotiation(
                    source_cid=header.destination_cid,
                    destination_cid=header.source_cid,
                    supported_versions=versions,
                )
                self.send(answer, address)
            return None
        if header.packet_type is not QuicPacketType.INITIAL:
            self.counters.add("quic_unknown_connection")
            self._reset(header, size, address)
            return None
        if size < INITIAL_MIN:
            self.counters.add("quic_short_initial")
            return None
        return self._initial(header, address)

    def _reset(self, header: QuicHeader, size: int, address: NetworkAddress) -> None:
        """Tells the client of an earlier process, or of a closed connection, that it is over."""
        if header.packet_type is not QuicPacketType.ONE_RTT or self.draining:
            return
        answer = self._resets.datagram(header.destination_cid, size, self._loop.time())
        if answer is not None:
            self.counters.add("quic_reset")
            self.send(answer, address)

    def _initial(self, header: QuicHeader, address: NetworkAddress) -> Connection | None:
        if (
            self.draining
            or self._handshakes >= HANDSHAKES_MAX
            or len(self._connections) >= self.hub.max_sessions + SPARE_CONNECTIONS
        ):
            self.counters.add("quic_connections_full")
            return None
        original, retry_source = header.destination_cid, None
        if header.token:
            try:
                original = self._retry.validate_token(
                    address=address[:2],
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=self._loop.time(),
                )
            except ValueError:
                self.counters.add("quic_retry_token")
                return None
            retry_source = header.destination_cid
        elif self._handshakes >= self._retry_above:
            self.counters.add("quic_retry")
            self._send_retry(header, address)
            return None
        quic = ResettableConnection(
            resets=self._resets,
            configuration=self._configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
        )
        connection = Connection(self, quic, address)
        self._connections[connection] = set()
        self._handshakes += 1
        self.counters.add("quic_connections")
        self.route(header.destination_cid, connection)
        self.route(quic.host_cid, connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        return connection

    def _send_retry(self, header: QuicHeader, address: NetworkAddress) -> None:
        source_cid = os.urandom(self._configuration.connection_id_length)
        token = self._retry.create_token(
            address=address[:2],
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now=self._loop.time(),
        )
        assert header.version is not None
        answer = encode_quic_retry(
            version=header.version,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self.send(answer, address)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._connections):
            connection.sweep(now, self._join_timeout_s)
        again = bool(self._connections)
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep) if again else None

    # ---- what connections call --------------------------------------------------------------

    def send(self, data: bytes, address: NetworkAddress) -> None:
        """Gives a datagram to the socket.  Anything longer than a path surely takes is dropped."""
        if len(data) > MAX_DATAGRAM:
            self.counters.add("quic_oversize")
            return
        self._send(data, address)

    def route(self, cid: bytes, connection: Connection) -> None:
        self._routes[cid] = connection
        self._connections[connection].add(cid)

    def unroute(self, cid: bytes, connection: Connection) -> None:
        if self._routes.get(cid) is connection:
            del self._routes[cid]
        self._connections[connection].discard(cid)

    def address_validated(self, address: NetworkAddress) -> None:
        """A connection has proved this address."""
        count = self._addresses.get(address, 0)
        self._addresses[address] = count + 1
        if count == 0 and self._on_validated is not None:
            self._on_validated(address)

    def address_left(self, address: NetworkAddress) -> None:
        """A connection has left this address."""
        count = self._addresses.pop(address, 0) - 1
        if count > 0:
            self._addresses[address] = count
        elif count == 0 and self._on_closed is not None:
            self._on_closed(address)

    def handshake_over(self) -> None:
        """A connection's address is proved, or it is gone before that."""
        self._handshakes -= 1

    def connection_closed(self, connection: Connection) -> None:
        for cid in self._connections.pop(connection, set()):
            if self._routes.get(cid) is connection:
                del self._routes[cid]
        if connection.validated:
            self.address_left(connection.address)
        else:
            self.handshake_over()

    def connection_failed(self, exc: Exception) -> None:
        """Counts an exception out of aioquic by its kind."""
        self.counters.add("quic_internal")
        self.counters.add(f"quic_internal_{type(exc).__name__}")
        logger.debug("aioquic failed on a packet", exc_info=exc)

    def statistics(self) -> dict[str, Any]:
        """Connections, handshakes under way, and what was counted."""
        return {
            "connections": len(self._connections),
            "handshakes": self._handshakes,
            "counters": dict(self.counters.values),
        }
