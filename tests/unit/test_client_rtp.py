"""RTP and RTCP of the client: round trips, wraps, broken input, order and statistics."""

from __future__ import annotations

import random

import pytest

from forwarder.client import rtcp, rtp
from forwarder.client.subscribe import REORDER_MAX, REORDER_NS, Reorder, Statistics


def packet(seq: int, timestamp: int = 0) -> rtp.RtpPacket:
    return rtp.RtpPacket(False, 96, seq & 0xFFFF, timestamp, 7, b"x")


def test_build_and_parse_agree() -> None:
    data = rtp.build(
        pt=102, seq=65535, timestamp=1 << 31, ssrc=0xFFFFFFFF, payload=b"abc", marker=True
    )
    assert rtp.parse(data) == rtp.RtpPacket(True, 102, 65535, 1 << 31, 0xFFFFFFFF, b"abc")


def test_parse_skips_csrcs_extension_and_padding() -> None:
    fixed = bytes([0x80 | 0x20 | 0x10 | 2, 96, 0, 1]) + bytes(8)
    data = fixed + bytes(8) + b"\xbe\xde\x00\x01" + bytes(4) + b"body" + b"\x00\x00\x03"
    parsed = rtp.parse(data)
    assert parsed is not None
    assert parsed.payload == b"body"


def test_every_truncation_and_random_bytes_are_refused_without_an_exception() -> None:
    whole = rtp.build(pt=96, seq=1, timestamp=2, ssrc=3, payload=b"", marker=False)
    assert all(rtp.parse(whole[:size]) is None for size in range(12))
    rng = random.Random(5)
    for _ in range(5000):
        data = rng.randbytes(rng.randrange(0, 60))
        rtp.parse(data)
        rtcp.parse(data)


@pytest.mark.parametrize("start", [0, 1, 127, 128, 32767, 32768, 65534, 65535])
def test_extend_follows_the_wrap_both_ways(start: int) -> None:
    highest = rtp.extend(start, None)
    for step in range(1, 70_000, 997):
        assert rtp.extend((start + step) & 0xFFFF, highest + step - 1) == highest + step
    assert rtp.extend((start - 5) & 0xFFFF, highest) == highest - 5


def test_rtcp_compound_round_trip() -> None:
    report = rtcp.SenderReport(1, 0x0123456789ABCDEF, 0xFFFFFFFF, 5, 6)
    block = rtcp.ReportBlock(9, 128, -3, 0x1FFFF, 77, 0x89AB, 10)
    compound = (
        rtcp.sender_report(report)
        + rtcp.receiver_report(2, [block])
        + rtcp.source_description(2, "name")
        + rtcp.picture_loss(2, 1234)
    )
    assert rtcp.parse(compound) == [report, block, rtcp.KeyframeWanted(1234)]
    for size in range(len(compound)):
        rtcp.parse(compound[:size])


@pytest.mark.parametrize("length", range(0, 12))
def test_source_description_is_padded_to_words(length: int) -> None:
    data = rtcp.source_description(1, "n" * length)
    assert len(data) % 4 == 0
    assert data[-1] == 0
    assert int.from_bytes(data[2:4], "big") == len(data) // 4 - 1


def test_a_fir_asks_for_each_of_its_entries() -> None:
    fir = bytes([0x84, 206, 0, 6]) + bytes(8) + bytes([0, 0, 0, 5, 1, 0, 0, 0]) * 2
    assert rtcp.parse(fir) == [rtcp.KeyframeWanted(5), rtcp.KeyframeWanted(5)]


def test_reorder_mends_the_order_across_the_wrap() -> None:
    reorder = Reorder()
    out = []
    for seq in (65534, 0, 65535, 2, 1, 3):
        out += [due.seq for due, hole in reorder.push(packet(seq), 0) if not hole]
    assert out == [65534, 65535, 0, 1, 2, 3]


def test_reorder_passes_over_a_hole_by_time_and_by_number() -> None:
    by_time = Reorder()
    by_time.push(packet(1), 0)
    assert by_time.push(packet(3), 10) == []
    assert by_time.push(packet(4), 10 + REORDER_NS) == [(packet(3), True), (packet(4), False)]
    assert by_time.push(packet(2), 20 + REORDER_NS) == []  # too late

    by_number = Reorder()
    by_number.push(packet(0), 0)
    given = [len(by_number.push(packet(2 + n), 0)) for n in range(REORDER_MAX)]
    assert given == [0] * (REORDER_MAX - 1) + [REORDER_MAX]


def test_statistics_report_loss_of_the_interval_and_of_all() -> None:
    statistics = Statistics(90_000)
    assert statistics.block(7, 0) is None
    for seq in [65533, 65534, 65535, 1]:
        statistics.packet(packet(seq), 0)
    first = statistics.block(7, 0)
    assert first is not None
    assert (first.cumulative_lost, first.fraction_lost) == (1, 256 // 5)
    statistics.packet(packet(2), 0)
    second = statistics.block(7, 0)
    assert second is not None
    assert (second.cumulative_lost, second.fraction_lost) == (1, 0)
    assert second.highest_seq == 0x10002


def test_statistics_echo_the_last_sender_report() -> None:
    statistics = Statistics(90_000)
    statistics.packet(packet(1), 0)
    statistics.sender_report(rtcp.SenderReport(7, 0x1111222233334444, 0, 0, 0), 1_000_000_000)
    block = statistics.block(7, 1_500_000_000)
    assert block is not None
    assert (block.lsr, block.dlsr) == (0x22223333, 0x8000)
