"""What a publisher sent, by a tap on its link and the key that the node keeps for it: its packets
and its own sender reports.  Against them is held what a viewer was sent (seat_reports.py)."""

from __future__ import annotations

import shutil
import struct
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pylibsrtp
from scene_kit import Scene

from forwarder.client import rtcp
from forwarder.client.rtp import is_rtcp, parse
from forwarder.rooms.records import ParticipantRecord
from forwarder.rtp.suites import Suite
from forwarder.store.database import StoreError
from forwarder.store.sessions import FILE, SessionStore

PCAP_HEAD, RECORD = 24, struct.Struct("<IIII")
UDP_AT, UDP_HEAD = 34, 8  # behind Ethernet and IPv4 without options
TAIL, WHOLE = 24, 32  # bytes of a payload by which it is known, and that it must have


class Told(NamedTuple):
    """A sender report: at this time of the sender's its RTP clock showed that."""

    ntp_s: float
    timestamp: int


class Origin(NamedTuple):
    ssrc: int
    timestamp: int


def apart(one: int, other: int) -> int:
    """one - other of RTP timestamps, the short way round."""
    return (one - other + (1 << 31)) % (1 << 32) - (1 << 31)


def mark(payload: bytes) -> str:
    """By which a payload is found again: its head may be written anew on the way, or be stripped
    of what is redundant.  "": it is too short."""
    return payload[-TAIL:].hex() if len(payload) >= WHOLE else ""


def seconds(ntp: int) -> float:
    return ntp / (1 << 32) - rtcp.NTP_EPOCH


@dataclass
class Account:
    """`unopened`: datagrams of media that the key did not open."""

    packets: dict[str, set[Origin]] = field(default_factory=lambda: defaultdict(set))
    reports: dict[int, list[Told]] = field(default_factory=lambda: defaultdict(list))
    unopened: int = 0

    def origin(self, known: str) -> Origin | None:
        """The one packet that ends so."""
        found = self.packets.get(known, set())
        return next(iter(found)) if len(found) == 1 else None

    def when_s(self, packet: Origin, clock_hz: int) -> float:
        """When it was captured by the report of its stream that is nearest."""
        told = self.reports[packet.ssrc]
        near = min(told, key=lambda one: abs(apart(packet.timestamp, one.timestamp)))
        return near.ntp_s + apart(packet.timestamp, near.timestamp) / clock_hz


def read(pcap: Path, port: int, record: ParticipantRecord) -> Account:
    """Of the participant whose link was tapped, from its first packet on."""
    assert record.suite == Suite.GCM
    session = pylibsrtp.Session(
        pylibsrtp.Policy(
            key=record.rx_key + record.rx_salt[: Suite.GCM.salt_size],
            ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND,
            srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
        )
    )
    account = Account()
    for data in _media(pcap, port):
        try:
            if is_rtcp(data):
                for item in rtcp.parse(session.unprotect_rtcp(data)):
                    if isinstance(item, rtcp.SenderReport):
                        told = Told(seconds(item.ntp), item.rtp_timestamp)
                        account.reports[item.ssrc].append(told)
            elif packet := parse(session.unprotect(data)):
                origin = Origin(packet.ssrc, packet.timestamp)
                if known := mark(packet.payload):
                    account.packets[known].add(origin)
        except pylibsrtp.Error:
            account.unopened += 1
    return account


def _media(pcap: Path, port: int) -> Iterator[bytes]:
    """Datagrams to the node that are RTP or RTCP (RFC 7983)."""
    data, at = pcap.read_bytes(), PCAP_HEAD
    while at + RECORD.size <= len(data):
        size = RECORD.unpack_from(data, at)[2]
        frame = data[at + RECORD.size : at + RECORD.size + size]
        at += RECORD.size + size
        if frame[12:14] == b"\x08\x00" and frame[14] == 0x45 and frame[23] == 17:
            to, length = struct.unpack_from("!HH", frame, UDP_AT + 2)
            payload = frame[UDP_AT + UDP_HEAD : UDP_AT + length]
            if to == port and payload and 128 <= payload[0] <= 191:
                yield payload


class Heard(NamedTuple):
    """A packet that a viewer was sent: when it was captured by the reports that had come to it,
    less when it was by the publisher's."""

    kind: str
    ssrc: int
    own_s: float
    error_s: float


def compare(
    account: Account,
    packets: Sequence[tuple[str, int, int, str, int]],
    reports: Sequence[tuple[int, float, int]],
    clock_hz: dict[str, int],
) -> list[Heard]:
    """`packets`: kind, SSRC, timestamp, mark, and how many of the `reports` (SSRC, NTP s,
    timestamp) had come before; in order.  What cannot be told from another is left out."""
    by_ssrc: dict[int, list[tuple[int, Told]]] = defaultdict(list)
    for number, (ssrc, ntp_s, timestamp) in enumerate(reports):
        by_ssrc[ssrc].append((number, Told(ntp_s, timestamp)))
    found = []
    for kind, ssrc, timestamp, known, before in packets:
        at = bisect_right([number for number, _ in by_ssrc[ssrc]], before - 1)
        origin = account.origin(known)
        if at and origin is not None and account.reports.get(origin.ssrc):
            told = by_ssrc[ssrc][at - 1][1]
            then_s = told.ntp_s + apart(timestamp, told.timestamp) / clock_hz[kind]
            own_s = account.when_s(origin, clock_hz[kind])
            found.append(Heard(kind, origin.ssrc, own_s, then_s - own_s))
    return found


async def kept(call: Scene) -> dict[str, ParticipantRecord]:
    """What the node keeps of each participant for its next start, by id: out of a copy, since the
    file is its own."""
    copy = call.node.base / "copy"

    async def read_copy() -> dict[str, ParticipantRecord]:
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(mode=0o700)
        for name in (FILE, f"{FILE}-wal"):
            shutil.copy2(call.node.run_dir / name, copy)
        try:
            store = SessionStore(copy)
        except StoreError:  # it was written to meanwhile
            return {}
        records = store.load().participants
        store.close()
        return {record.id: record for record in records}

    return dict(await call.until("the node's sessions can be read", read_copy))
