"""Sound against picture over switches of layers, as a viewer reckons it: by the sender reports that
are forwarded to it, both RTP clocks mapped to the sender's own (RFC 3550 section 6.4.1), and held
against the reports that the sender sent."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from bare_peer import OPUS
from codec_kit import BITS, CODECS, number
from layer_kit import PARTS, VIDEO, Seat, Stamp, Studio, distance, stamp_of
from node_kit import Site, node_of
from webrtc_kit import http

SWITCHES = 20
OFF_S = 0.045
CLOCK_HZ = {VIDEO: 90_000, OPUS: 48_000}


class Heard(NamedTuple):
    """A packet; when it was captured by the reports that had come before, less when it was by the
    sender's own."""

    pt: int
    stamp: Stamp
    error_s: float


def reckon(eve: Seat, studio: Studio) -> list[Heard]:
    found, newest, at = [], {}, 0
    for before, packet in enumerate(eve.packets):
        while at < len(eve.reports) and eve.reports[at].packets <= before:
            newest[eve.reports[at].ssrc] = eve.reports[at]
            at += 1
        if packet.ssrc in newest and packet.pt in CLOCK_HZ:
            report, stamp = newest[packet.ssrc], stamp_of(packet)
            ticks = distance(packet.timestamp, report.timestamp)
            then_s = report.ntp_s + ticks / CLOCK_HZ[packet.pt]
            found.append(Heard(packet.pt, stamp, then_s - studio.captured_s(stamp)))
    return found


@pytest.mark.parametrize("late_ms", [0, 80])
@pytest.mark.parametrize("codec", CODECS)
async def test_sound_and_picture_stay_together(tmp_path: Path, codec: str, late_ms: int) -> None:
    """Twenty switches between layers whose clocks have nothing to do with each other, one of them
    `late_ms` behind on its way: aligned by arrival they would be as far apart.  A picture that
    comes after a younger one is shown late, whatever its time stamp; no other is off."""
    site = Site(tmp_path)
    async with (
        node_of(site) as node,
        http(site) as client,
        Studio(site.token("studio"), late_s=(0.0, late_ms / 1000), codec=codec) as studio,
        Seat(site, "eve", codec=codec) as eve,
    ):
        await site.room()
        await studio.connect(client)
        async with studio.filming_live():
            await eve.connect(client)
            await eve.sees(1, 45)
            begin = studio.asked
            for turn in range(SWITCHES):
                await eve.wish(turn % 2)
                await eve.sees(turn % 2, 30)
                assert studio.asked <= begin + turn + 1, f"{begin} {turn} {studio.asked_when}"
            await eve.leave()
        status = await node.status()
        assert status["balanced"], status["imbalance"]
    heard = reckon(eve, studio)
    sound_s, newest_s, off = 0.0, float("-inf"), []
    for pt, stamp, error_s in heard:
        if pt == OPUS:
            sound_s = error_s
            continue
        if abs(error_s - sound_s) >= OFF_S:
            off.append((stamp, error_s))
            assert stamp.capture_s < newest_s and late_ms, f"{stamp} is {error_s:.3f} s off"
            assert 0 < error_s < newest_s - stamp.capture_s + OFF_S
        newest_s = max(newest_s, stamp.capture_s)
    print(f"{len(off)} of {len(heard)} packets came after younger ones and were off")
    assert sum(pt == OPUS for pt, *_ in heard) > 100
    check_stream(eve)
    if codec in BITS:
        check_numbers(eve, codec)


def check_stream(eve: Seat) -> None:
    """Numbers without a hole, time that never goes back, whole pictures, every switch."""
    packets = eve.of(VIDEO)
    assert eve.unopened == 0
    assert all((b.seq - a.seq) & 0xFFFF == 1 for a, b in pairwise(packets))
    assert all(distance(b.timestamp, a.timestamp) >= 0 for a, b in pairwise(packets))
    stamps = [stamp_of(packet) for packet in packets]
    while stamps[0].part:  # what came during the handshake was not read
        del stamps[0]
    assert [s.part for s in stamps] == [n % PARTS for n in range(len(stamps))]
    begun = [(a, b) for a, b in pairwise(stamps) if a.stream != b.stream]
    assert len(begun) == SWITCHES and all(b.key for _, b in begun)


def check_numbers(eve: Seat, codec: str) -> None:
    """Pictures are numbered one after the other, though each layer counts from elsewhere."""
    assert len(eve.clear) == len(eve.packets)
    known: dict[int, int] = {}  # by time stamp
    for clear, packet in zip(eve.clear, eve.packets, strict=True):
        if packet.pt == VIDEO:
            mine = number(codec, clear, packet.payload)
            assert known.setdefault(packet.timestamp, mine) == mine
    steps = {(b - a) % (1 << BITS[codec]) for a, b in pairwise(known.values())}
    assert steps == {1}, steps
