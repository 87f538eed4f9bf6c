"""The forwarding tables of the suites, as commands.  Pure.

Legs 0 .. P-1 are the publishers, P .. P+R-1 the receivers; receiver r reads publisher r // copies.
Outgoing SSRC, sequence numbers and timestamps are those that come in (each leg has its own keys),
so that a departure can be matched with what the generator noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forwarder.commands import Command, LegHeader, LegRate, LegSet, RouteSet, SourceSet
from forwarder.net.header import build_header
from forwarder.table import HeaderTemplate, Leg, Queue, Route, Source, Tuple5
from perf.bench import keys

SSRC = 0x10000
"""SSRC of flow 0; the generator's default."""


@dataclass(frozen=True)
class Port:
    """An interface of the node and the host at its other end."""

    index: int
    """In the set-up list of XDP interfaces; also the index of the local address."""
    mac: bytes
    peer_mac: bytes
    ip: str
    peer_ip: str
    udp: int


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def leg(number: int, worker: int, suite: str, port: Port, remote_port: int) -> Leg:
    """A leg whose key id is its number + 1 and whose peer is at the port's other end."""
    rx_key, rx_salt = keys.pair(suite, number, "rx")
    tx_key, tx_salt = keys.pair(suite, number, "tx")
    return Leg(
        id=number, worker=worker, key_id=number + 1, suite=keys.SUITES[suite],
        rx_key=rx_key, rx_salt=rx_salt, tx_key=tx_key, tx_salt=tx_salt, local=port.index,
        tuples=(Tuple5(port.peer_ip, remote_port, port.ip, port.udp),), nominated=0,
        rtcp_ssrc=0xF0000000 + number,
    )  # fmt: skip


def header(number: int, port: Port, remote_port: int) -> LegHeader:
    """The prebuilt header of a leg that sends by AF_XDP."""
    there = (port.peer_ip, remote_port)
    l3_off, raw = build_header(port.mac, port.peer_mac, None, (port.ip, port.udp), there)
    return LegHeader(number, HeaderTemplate(0, port.index, l3_off, raw, 1))


@dataclass(frozen=True)
class FanOut:
    """`publishers` streams, each to `copies` receivers of its own."""

    suite: str
    publishers: int
    copies: int
    workers: int
    into: Port
    out: Port
    source_port: int
    port_base: int
    xsk: bool
    gated: bool = False

    @property
    def receivers(self) -> int:
        return self.publishers * self.copies

    def worker(self, number: int) -> int:
        return number % self.workers

    def legs(self) -> Iterator[tuple[Leg, Port, int]]:
        """Each leg, its interface, its peer's UDP port."""
        for f in range(self.publishers):
            at = self.source_port + f
            yield leg(f, self.worker(f), self.suite, self.into, at), self.into, at
        for r in range(self.receivers):
            number, at = self.publishers + r, self.port_base + r
            yield leg(number, self.worker(r), self.suite, self.out, at), self.out, at

    def commands(self) -> list[Command]:
        found: list[Command] = []
        for each, port, remote_port in self.legs():
            found.append(LegSet(each))
            if self.xsk:
                found.append(header(each.id, port, remote_port))
        for f in range(self.publishers):
            found.append(SourceSet(Source(id=f, leg=f, ssrc=SSRC + f, queue=Queue.VIDEO)))
        for r in range(self.receivers):
            f = r // self.copies
            route = Route(
                id=r, leg=self.publishers + r, source=f, source_worker=self.worker(f),
                out_ssrc=SSRC + f, gated=self.gated,
            )  # fmt: skip
            found.append(RouteSet(route))
        return found

    def rates(self, rate_bps: int) -> list[Command]:
        """Each receiver's pacing rate; 0: unpaced."""
        return [LegRate(self.publishers + r, rate_bps) for r in range(self.receivers)]


@dataclass(frozen=True)
class Meeting:
    """`members` participants behind one interface, each with sound and video, each receiving all
    the others: sources 2m (video, SSRC base + m) and 2m + 1 (sound, SSRC base + 0x8000 + m)."""

    suite: str
    members: int
    workers: int
    port: Port
    source_port: int
    xsk: bool

    AUDIO_SSRC = 0x8000

    def legs(self) -> Iterator[tuple[Leg, Port, int]]:
        for m in range(self.members):
            at = self.source_port + m
            yield leg(m, m % self.workers, self.suite, self.port, at), self.port, at

    def commands(self) -> list[Command]:
        found: list[Command] = []
        for each, port, remote_port in self.legs():
            found.append(LegSet(each))
            if self.xsk:
                found.append(header(each.id, port, remote_port))
        for m in range(self.members):
            audio = SSRC + self.AUDIO_SSRC + m
            found.append(SourceSet(Source(id=2 * m, leg=m, ssrc=SSRC + m, queue=Queue.VIDEO)))
            found.append(SourceSet(Source(id=2 * m + 1, leg=m, ssrc=audio, clock_hz=48000,
                                          pt=111, queue=Queue.AUDIO)))  # fmt: skip
        number = 0
        for to in range(self.members):
            for source in range(2 * self.members):
                if source // 2 == to:
                    continue
                ssrc = SSRC + source // 2 + (self.AUDIO_SSRC if source % 2 else 0)
                found.append(RouteSet(Route(
                    id=number, leg=to, source=source, gated=False, out_ssrc=ssrc,
                    source_worker=source // 2 % self.workers, pt=111 if source % 2 else 96,
                )))  # fmt: skip
                number += 1
        return found

    def rates(self, rate_bps: int) -> list[Command]:
        return [LegRate(m, rate_bps) for m in range(self.members)]
