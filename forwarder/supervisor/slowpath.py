"""The slow sockets: STUN, DTLS and QUIC, told apart by the first byte (RFC 7983, RFC 9443).

One slow socket for each local address, so that answers leave from the address they were asked
at.  Media never comes here: the selector gives it to the workers' media sockets; what does
(an attacker's, when only the classic selector is there) is counted and dropped.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from forwarder.clock import Clock
from forwarder.ice import IceLite, TuplesChanged
from forwarder.table import Tuple5

BATCH = 64  # datagrams read from one socket before others get their turn
DATAGRAM_MAX = 2048  # bytes; longer ones are cut and then refused by their parser


class QuicEndpoint(Protocol):
    """What feeds on QUIC datagrams of one local address."""

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None: ...


class SlowPath:
    """Reads the slow sockets and hands each datagram to whom it concerns."""

    def __init__(
        self,
        clock: Clock,
        ice: IceLite,
        on_tuples: Callable[[TuplesChanged], None],
        on_dtls: Callable[[bytes, Tuple5, Callable[[bytes], None]], None] | None = None,
    ) -> None:
        """`on_dtls(datagram, 5-tuple, send)`: `send` answers to where it came from."""
        self._clock = clock
        self._ice = ice
        self._on_tuples = on_tuples
        self._on_dtls = on_dtls
        self._sockets: list[socket.socket] = []
        self.counters: Counter[str] = Counter()

    def add(self, sock: socket.socket, quic: QuicEndpoint) -> None:
        """Starts reading a bound, non-blocking socket."""
        local_ip, local_port = sock.getsockname()[:2]
        asyncio.get_running_loop().add_reader(
            sock.fileno(), self._readable, sock, quic, local_ip, local_port
        )
        self._sockets.append(sock)

    def close(self) -> None:
        """Stops reading; the sockets stay open (the data plane process holds them too)."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        self._sockets.clear()

    def sender(self, sock: socket.socket) -> Callable[[bytes, tuple[str, int]], None]:
        """A function that sends from this socket; what the kernel refuses is counted."""

        def send(data: bytes, addr: tuple[str, int]) -> None:
            try:
                sock.sendto(data, addr)
            except (BlockingIOError, InterruptedError):
                self.counters["send_full"] += 1
            except OSError:
                self.counters["send_error"] += 1

        return send

    def _readable(
        self, sock: socket.socket, quic: QuicEndpoint, local_ip: str, local_port: int
    ) -> None:
        for _ in range(BATCH):
            try:
                data, addr = sock.recvfrom(DATAGRAM_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # An ICMP error of an earlier datagram (ECONNREFUSED and such): the socket lives.
                self.counters["receive_error"] += 1
                continue
            self._dispatch(data, (addr[0], addr[1]), sock, quic, local_ip, local_port)

    def _dispatch(
        self,
        data: bytes,
        addr: tuple[str, int],
        sock: socket.socket,
        quic: QuicEndpoint,
        local_ip: str,
        local_port: int,
    ) -> None:
        first = data[0] if data else -1
        if 0 <= first <= 3:
            self.counters["stun"] += 1
            if addr[1] == 0:  # no answer can be sent there
                self.counters["bad_port"] += 1
                return
            at = Tuple5(addr[0], addr[1], local_ip, local_port)
            answer, changes = self._ice.receive(data, at, self._clock.now())
            if answer is not None:
                self.sender(sock)(answer, addr)
            for change in changes:
                self._on_tuples(change)
        elif 64 <= first <= 127 or first >= 192:
            self.counters["quic"] += 1
            quic.datagram_received(data, addr)
        elif 20 <= first <= 63:
            self.counters["dtls"] += 1
            if addr[1] == 0:
                self.counters["bad_port"] += 1
            elif self._on_dtls is not None:
                at = Tuple5(addr[0], addr[1], local_ip, local_port)
                self._on_dtls(data, at, lambda answer: self.sender(sock)(answer, addr))
        elif first >= 128:
            self.counters["media"] += 1
        else:
            self.counters["bad_class"] += 1
