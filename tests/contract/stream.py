"""A paced SRTP stream through a data plane on loopback, with libsrtp at both ends.

The receiver keeps every datagram as it came, so that what left the data plane is judged by what
was on the wire, not by its own counters.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pylibsrtp

from forwarder.commands import Command, LegSet, RouteSet, SourceSet
from forwarder.table import Leg, Queue, Route, Source, Suite, Tuple5

_PROFILES = {
    Suite.AEAD_AES_128_GCM: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    Suite.AES_CM_128_HMAC_SHA1_80: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
}
IN_SSRC, OUT_SSRC = 0x11111111, 0x22222222
PERIOD_S = 0.003
FIRST_SEQ = 65300
"""So that the roll-over counter is 1 before long: a data plane that forgot it would fail."""


def session(key: bytes, salt: bytes, suite: Suite, outbound: bool) -> pylibsrtp.Session:
    kind = "SSRC_ANY_OUTBOUND" if outbound else "SSRC_ANY_INBOUND"
    return pylibsrtp.Session(
        pylibsrtp.Policy(
            key=key + salt,
            ssrc_type=getattr(pylibsrtp.Policy, kind),
            srtp_profile=_PROFILES[suite],
        )
    )


def _socket(ip: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((ip, 0))
    return sock


class Stream:
    """One sender (leg 1), one receiver (leg 2); packet n carries n as its payload."""

    def __init__(
        self,
        port: int,
        suite: Suite = Suite.AEAD_AES_128_GCM,
        workers: int = 1,
        node_ip: str = "127.0.0.1",
        client_ip: str = "127.0.0.1",
    ) -> None:
        self.port, self.suite, self.workers = port, suite, workers
        self.node_ip, self.client_ip = node_ip, client_ip
        self.salt = bytes(range(12 if suite is Suite.AEAD_AES_128_GCM else 14))
        self.sender, self.receiver = _socket(client_ip), _socket(client_ip)
        self.sent = 0
        self.datagrams: list[bytes] = []
        self._protect = session(b"a" * 16, self.salt, suite, outbound=True)
        self._open = session(b"d" * 16, self.salt, suite, outbound=False)
        self._opened: set[int] = set()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.receiver, self._on_readable)

    def close(self) -> None:
        self._loop.remove_reader(self.receiver)
        self.sender.close()
        self.receiver.close()

    def tuple5(self, sock: socket.socket) -> Tuple5:
        """The 5-tuple of the sender's or receiver's socket."""
        return Tuple5(self.client_ip, sock.getsockname()[1], self.node_ip, self.port)

    def commands(self) -> list[Command]:
        """The table that the stream needs."""
        far = self.workers - 1
        common: dict[str, Any] = {"suite": self.suite, "nominated": 0}
        legs = [
            Leg(id=number, worker=worker, key_id=number, rx_key=rx * 16, rx_salt=self.salt,
                tx_key=tx * 16, tx_salt=self.salt,
                tuples=(self.tuple5(sock),),
                **common)
            for number, worker, sock, rx, tx in (
                (1, 0, self.sender, b"a", b"b"), (2, far, self.receiver, b"c", b"d"),
            )
        ]  # fmt: skip
        source = Source(id=1, leg=1, ssrc=IN_SSRC, queue=Queue.VIDEO)
        route = Route(
            id=1, leg=2, source=1, source_worker=0, out_ssrc=OUT_SSRC, seq_start=100, gated=False
        )
        return [*map(LegSet, legs), SourceSet(source), RouteSet(route)]

    def send_one(self) -> None:
        seq = (FIRST_SEQ + self.sent) & 0xFFFF
        header = struct.pack("!BBHII", 0x80, 96, seq, self.sent * 960 & 0xFFFFFFFF, IN_SSRC)
        packet = self._protect.protect(header + struct.pack("!I", self.sent) * 30)
        self.sender.sendto(packet, (self.node_ip, self.port))
        self.sent += 1

    async def send(self, count: int) -> None:
        """Sends that many at PERIOD_S."""
        start = self._loop.time()
        for i in range(count):
            self.send_one()
            await asyncio.sleep(max(0.0, start + (i + 1) * PERIOD_S - self._loop.time()))

    def _on_readable(self) -> None:
        while True:
            try:
                data = self.receiver.recv(2048)
            except BlockingIOError:
                break
            if not 192 <= data[1] <= 223:  # RTCP by its type (RFC 5761)
                self.datagrams.append(data)
                plain = self._open.unprotect(data)
                self._opened.add(int.from_bytes(plain[12:16], "big"))
        self._arrived.set()

    async def until_received(self, number: int, timeout: float = 20) -> None:
        """Waits for the datagram that carries packet `number`."""
        async with asyncio.timeout(timeout):
            while number not in self._opened:
                self._arrived.clear()
                await self._arrived.wait()

    def numbers(self) -> list[int]:
        """Packet numbers in the order of arrival; raises where libsrtp refuses a datagram, or
        an index came twice with other bytes."""
        opened = session(b"d" * 16, self.salt, self.suite, outbound=False)
        seen: dict[bytes, bytes] = {}
        result = []
        for data in self.datagrams:
            index = data[2:4] + data[8:12]
            assert seen.setdefault(index, data) == data, "an SRTP index left with other bytes"
            plain = opened.unprotect(data)
            assert plain[8:12] == OUT_SSRC.to_bytes(4, "big")
            number = int.from_bytes(plain[12:16], "big")
            assert plain[12:] == number.to_bytes(4, "big") * 30
            result.append(number)
        return result

    def lost_runs(self) -> list[range]:
        """Runs of consecutive packets that were sent and did not arrive."""
        got = set(self.numbers())
        runs: list[range] = []
        for number in range(self.sent):
            if number in got:
                continue
            if runs and runs[-1].stop == number:
                runs[-1] = range(runs[-1].start, number + 1)
            else:
                runs.append(range(number, number + 1))
        return runs
