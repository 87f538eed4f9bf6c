"""The media socket of one leg: STUN checks, SRTP and SRTCP, counters.

One UDP socket for the whole life of a client.  It outlives QUIC connections: while the
supervisor is away, media goes on.  Everything runs on the event loop.

Checks (RFC 8445): to each address of the offer in turn until one answers, the address of the
join URL first, with USE-CANDIDATE; then again every CHECK_S as consent (RFC 7675).  When nothing
answers for CONSENT_S, `consent` is false and the client stops sending until an answer comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Callable

from aioice import stun

from forwarder.client import rtcp, rtp
from forwarder.client.srtp import Srtp
from forwarder.signaling.messages import MediaOffer

RCVBUF = 8 * 1024 * 1024  # bytes: more than a second of any stream a Python client can take
SNDBUF = 1024 * 1024
BURST = 64  # datagrams read for each wake-up
CHECK_S = 2.5
CONSENT_S = 30.0  # RFC 7675 section 5.1
FIRST_RETRY_S = 0.1
CHECKS_MAX = 16  # unanswered checks remembered
TRIES_EACH = 3  # unanswered checks before the next address
SO_MEMINFO = 55  # linux/sock.h; the ninth word is the count of drops
_MEMINFO = struct.Struct("9I")


class Media:
    """`on_rtp(packet, arrival_ns)` and `on_rtcp(items, arrival_ns)` get what verified."""

    def __init__(
        self,
        *,
        on_rtp: Callable[[rtp.RtpPacket, int], None],
        on_rtcp: Callable[[list[rtcp.Item], int], None],
        bind_address: str | None = None,
    ) -> None:
        self._on_rtp = on_rtp
        self._on_rtcp = on_rtcp
        self._bind_address = bind_address
        self._socket: socket.socket | None = None
        self._offer: MediaOffer | None = None
        self._candidates: list[tuple[str, int]] = []
        self._remote: tuple[str, int] | None = None
        self._checks: dict[bytes, tuple[str, int]] = {}  # transaction -> where it went
        self._local_ufrag = secrets.token_hex(4)
        self._tie_breaker = secrets.randbits(64)
        self._checker: asyncio.Task[None] | None = None
        self._answered_at = 0.0
        self.srtp: Srtp | None = None
        self.validated = asyncio.Event()
        self.malformed = 0
        self.received = 0
        self.sent = 0
        self.send_retries = 0
        self.may_send = True
        """False while the client's role lets it publish nothing: the node would forward nothing."""

    # ---- life -------------------------------------------------------------------------------

    def start(self, offer: MediaOffer, prefer: str) -> None:
        """Opens the socket and starts the checks; `prefer` is the IP address to try first."""
        self._offer = offer
        self.srtp = Srtp(offer)
        self._candidates = sorted(offer.addresses, key=lambda address: address[0] != prefer)
        family = socket.AF_INET6 if ":" in self._candidates[0][0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, 33, RCVBUF)  # SO_RCVBUFFORCE
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RCVBUF)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
        sock.bind((self._bind_address or ("::" if family == socket.AF_INET6 else "0.0.0.0"), 0))
        self._socket = sock
        loop = asyncio.get_running_loop()
        loop.add_reader(sock.fileno(), self._readable)
        self._checker = loop.create_task(self._check())

    def renew(self, offer: MediaOffer) -> bool:
        """After a resume: true when the leg and its keys are those from before; otherwise the
        new keys are taken, from index 0, and the checks start again."""
        same = offer == self._offer
        if not same:
            self._offer = offer
            self.srtp = Srtp(offer)
            self.validated.clear()
            self._candidates = sorted(
                offer.addresses, key=lambda address: self._remote is None or address != self._remote
            )
            if self._checker is not None:
                self._checker.cancel()
            self._checker = asyncio.get_running_loop().create_task(self._check())
        return same

    def fileno(self) -> int:
        """Of the socket, connected once the leg is validated: for a load that sends by itself."""
        assert self._socket is not None
        return self._socket.fileno()

    def stop_reading(self) -> None:
        """From now on what comes is left to the kernel, which drops it: for receivers of a load.
        Checks go on, so the node keeps sending; sending from here ends CONSENT_S later."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def stop(self) -> None:
        """Stops receiving; can be called again."""
        if self._checker is not None:
            self._checker.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    # ---- sending ----------------------------------------------------------------------------

    @property
    def consent(self) -> bool:
        """Whether the node answered a check within CONSENT_S."""
        return self.validated.is_set() and time.monotonic() - self._answered_at < CONSENT_S

    def send_rtp(self, packet: bytes) -> bytes | None:
        """Seals a packet; the caller hands it to `transmit`.  None without consent, or while it may
        not send."""
        if self.srtp is None or not self.consent or not self.may_send:
            return None
        return self.srtp.seal_rtp(packet)

    async def transmit(self, sealed: bytes) -> None:
        """Sends, waiting while the socket's buffer is full: a full buffer loses nothing."""
        for _ in range(1000):
            if self._socket is None:
                return
            try:
                self._socket.send(sealed)
                self.sent += 1
                return
            except BlockingIOError:
                self.send_retries += 1
                await asyncio.sleep(0.001)
            except ConnectionRefusedError:
                self.send_retries += 1  # an ICMP answer to an earlier packet; this one did not go
            except OSError as error:
                raise ConnectionError(f"cannot send media to {self._remote}: {error}") from error

    def send_rtcp(self, compound: bytes) -> None:
        """Best effort, as RTCP is."""
        if self.srtp is None or self._socket is None or not self.consent:
            return
        with contextlib.suppress(OSError):
            self._socket.send(self.srtp.seal_rtcp(compound))

    def send_raw(self, datagram: bytes) -> None:
        """Anything, from this very socket: for tests that send garbage on a validated flow."""
        if self._socket is not None and self.validated.is_set():
            with contextlib.suppress(OSError):
                self._socket.send(datagram)

    # ---- receiving --------------------------------------------------------------------------

    def socket_drops(self) -> int:
        """Datagrams that the kernel dropped because this socket's buffer was full."""
        if self._socket is None:
            return 0
        info = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)
        drops: int = _MEMINFO.unpack(info)[8]
        return drops

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(BURST):
            try:
                data = self._socket.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP answer to an earlier packet
            self._receive(data, time.monotonic_ns())
            if self._socket is None:
                return

    def _receive(self, data: bytes, now_ns: int) -> None:
        self.received += 1
        if not data:
            self.malformed += 1
        elif data[0] < 4:
            self._stun(data)
        elif 128 <= data[0] <= 191 and self.srtp is not None:
            if rtp.is_rtcp(data):
                clear = self.srtp.open_rtcp(data)
                if clear is not None:
                    self._on_rtcp(rtcp.parse(clear), now_ns)
                return
            clear = self.srtp.open_rtp(data)
            packet = rtp.parse(clear) if clear is not None else None
            if packet is not None:
                self._on_rtp(packet, now_ns)
        else:
            self.malformed += 1

    # ---- STUN -------------------------------------------------------------------------------

    async def _check(self) -> None:
        attempt = 0
        while True:
            if self.validated.is_set() and self._remote is not None:
                self._send_check(self._remote)
                await asyncio.sleep(CHECK_S)
                continue
            address = self._candidates[attempt // TRIES_EACH % len(self._candidates)]
            attempt += 1
            self._send_check(address)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_RETRY_S * min(attempt, 10)):
                    await self.validated.wait()
            if self.validated.is_set():
                await asyncio.sleep(CHECK_S)

    def _send_check(self, address: tuple[str, int]) -> None:
        assert self._offer is not None and self._socket is not None
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{self._offer.ufrag}:{self._local_ufrag}"
        request.attributes["PRIORITY"] = 0x6E7F00FF  # host candidate, RFC 8445 section 5.1.2
        request.attributes["ICE-CONTROLLING"] = self._tie_breaker
        request.attributes["USE-CANDIDATE"] = None
        request.add_message_integrity(self._offer.password.encode())
        while len(self._checks) >= CHECKS_MAX:
            del self._checks[next(iter(self._checks))]
        self._checks[request.transaction_id] = address
        with contextlib.suppress(OSError):  # unreachable: the next address is tried
            if self._remote == address:
                self._socket.send(bytes(request))
            else:
                self._socket.sendto(bytes(request), address)

    def _stun(self, data: bytes) -> None:
        assert self._offer is not None and self._socket is not None
        try:
            message = stun.parse_message(data)
            genuine = message.check_message_integrity(self._offer.password.encode())
        except (ValueError, KeyError, struct.error):
            genuine = False
        if not genuine:
            self.malformed += 1
            return
        asked = self._checks.pop(message.transaction_id, None)
        if asked is None or message.message_class != stun.Class.RESPONSE:
            return
        self._answered_at = time.monotonic()
        if self._remote is None:
            self._remote = asked
            self._socket.connect(asked)  # from here on nobody else is heard
        self.validated.set()
