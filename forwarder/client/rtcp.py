"""RTCP (RFC 3550 section 6, RFC 4585, RFC 5104) as the client needs it.

Pure functions.  A malformed compound yields the items before the fault, never an exception.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

SR, RR, SDES, RTPFB, PSFB = 200, 201, 202, 205, 206
FMT_PLI, FMT_FIR = 1, 4
BLOCKS_MAX = 31  # report blocks in one report
NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970


class SenderReport(NamedTuple):
    ssrc: int
    ntp: int  # 32.32, seconds since 1900
    rtp_timestamp: int
    packets: int
    octets: int


class ReportBlock(NamedTuple):
    ssrc: int
    fraction_lost: int  # of 256
    cumulative_lost: int
    highest_seq: int  # extended
    jitter: int  # RTP clock units
    lsr: int  # middle 32 bits of the NTP time of the last sender report, 0: none
    dlsr: int  # since it arrived, 1/65536 s


class KeyframeWanted(NamedTuple):
    """PLI, or one entry of a FIR."""

    media_ssrc: int


Item = SenderReport | ReportBlock | KeyframeWanted


def ntp_time(wall: float) -> int:
    """Seconds since 1970 as a 32.32 NTP time."""
    return int((wall + NTP_EPOCH) * (1 << 32)) & 0xFFFFFFFFFFFFFFFF


def _packet(count: int, kind: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def _blocks(blocks: list[ReportBlock]) -> bytes:
    out = b""
    for block in blocks[:BLOCKS_MAX]:
        lost = max(-0x800000, min(0x7FFFFF, block.cumulative_lost)) & 0xFFFFFF
        out += struct.pack(
            "!IIIIII",
            block.ssrc,
            (block.fraction_lost & 0xFF) << 24 | lost,
            block.highest_seq & 0xFFFFFFFF,
            block.jitter & 0xFFFFFFFF,
            block.lsr,
            block.dlsr,
        )
    return out


def sender_report(report: SenderReport) -> bytes:
    """RFC 3550 section 6.4.1, without report blocks."""
    body = struct.pack(
        "!IQIII",
        report.ssrc,
        report.ntp,
        report.rtp_timestamp & 0xFFFFFFFF,
        report.packets & 0xFFFFFFFF,
        report.octets & 0xFFFFFFFF,
    )
    return _packet(0, SR, body)


def receiver_report(ssrc: int, blocks: list[ReportBlock]) -> bytes:
    """RFC 3550 section 6.4.2."""
    return _packet(min(len(blocks), BLOCKS_MAX), RR, struct.pack("!I", ssrc) + _blocks(blocks))


def source_description(ssrc: int, cname: str) -> bytes:
    """One chunk with a CNAME (RFC 3550 section 6.5.1)."""
    name = cname.encode()[:255]
    chunk = struct.pack("!IBB", ssrc, 1, len(name)) + name
    chunk += bytes(4 - len(chunk) % 4)  # at least one zero ends the items
    return _packet(1, SDES, chunk)


def picture_loss(ssrc: int, media_ssrc: int) -> bytes:
    """RFC 4585 section 6.3.1."""
    return _packet(FMT_PLI, PSFB, struct.pack("!II", ssrc, media_ssrc))


def parse(data: bytes) -> list[Item]:
    """The items of a clear compound that a client acts on."""
    items: list[Item] = []
    offset = 0
    while offset + 4 <= len(data):
        first, kind, words = struct.unpack_from("!BBH", data, offset)
        end = offset + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            break
        _items(first & 0x1F, kind, data[offset + 4 : end], items)
        offset = end
    return items


def _items(count: int, kind: int, body: bytes, items: list[Item]) -> None:
    if kind == SR and len(body) >= 24:
        items.append(SenderReport(*struct.unpack_from("!IQIII", body)))
        _read_blocks(count, body[24:], items)
    elif kind == RR and len(body) >= 4:
        _read_blocks(count, body[4:], items)
    elif kind == PSFB and len(body) >= 8:
        if count == FMT_PLI:
            items.append(KeyframeWanted(int.from_bytes(body[4:8], "big")))
        elif count == FMT_FIR:
            for at in range(8, len(body) - 7, 8):
                items.append(KeyframeWanted(int.from_bytes(body[at : at + 4], "big")))


def _read_blocks(count: int, body: bytes, items: list[Item]) -> None:
    for at in range(0, min(count * 24, len(body) - 23), 24):
        ssrc, lost, highest, jitter, lsr, dlsr = struct.unpack_from("!IIIIII", body, at)
        cumulative = lost & 0xFFFFFF
        if cumulative & 0x800000:
            cumulative -= 0x1000000
        items.append(ReportBlock(ssrc, lost >> 24, cumulative, highest, jitter, lsr, dlsr))
