"""The demo's books: matching by payload, late joins, runs of losses, the tap, the packet log."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from forwarder.client import garbage
from forwarder.client.packetlog import Entry, PacketLog, digest, read
from forwarder.demo.accounting import account, longest_pause_ms, lost_outside_gap
from forwarder.demo.namespaces import parse_udp_datagrams
from forwarder.demo.tap import Indices, udp_of

MS = 1_000_000


def sent(payloads: list[bytes], every_ms: int = 20) -> list[Entry]:
    return [
        Entry(n & 0xFFFF, 0, 1, len(payload), n * every_ms * MS, digest(payload))
        for n, payload in enumerate(payloads)
    ]


def arrive(entries: list[Entry], delay_ms: int = 3) -> list[Entry]:
    return [entry._replace(when_ns=entry.when_ns + delay_ms * MS) for entry in entries]


DISTINCT = [b"%d" % n for n in range(100)]
SILENCE = [b"\xf8\xff\xfe"] * 100


@pytest.mark.parametrize("payloads", [DISTINCT, SILENCE], ids=["distinct", "silence"])
def test_all_that_was_sent_arrives_in_any_order(payloads: list[bytes]) -> None:
    received = arrive(sent(payloads))
    random.Random(1).shuffle(received)
    result = account("t", sent(payloads), received, late=False)
    assert (result.expected, result.received, result.lost, result.mismatches) == (100, 100, 0, 0)


@pytest.mark.parametrize("payloads", [DISTINCT, SILENCE], ids=["distinct", "silence"])
def test_a_run_of_losses_is_found_where_it_was(payloads: list[bytes]) -> None:
    entries = sent(payloads)
    result = account("t", entries, arrive(entries[:40] + entries[55:]), late=False)
    assert result.lost == 15
    assert result.lost_runs == [(40, 15)]
    assert lost_outside_gap([result], 800 * MS) == 0
    assert lost_outside_gap([result], None) == 15
    assert lost_outside_gap([result], 20_000 * MS) == 15


def test_of_two_runs_only_the_longer_is_excused() -> None:
    entries = sent(DISTINCT)
    result = account("t", entries, arrive(entries[:40] + entries[50:60] + entries[63:]), late=False)
    assert result.lost_runs == [(40, 10), (60, 3)]
    assert lost_outside_gap([result], 800 * MS) == 3


def test_a_late_subscriber_is_owed_what_came_from_its_first_packet_on() -> None:
    entries = sent(SILENCE)
    result = account("t", entries, arrive(entries[70:90] + entries[91:]), late=True)
    assert (result.expected, result.received, result.lost) == (30, 29, 1)
    nothing = account("t", entries, [], late=True)
    assert (nothing.expected, nothing.received) == (0, 0)


def test_a_packet_twice_or_never_published_is_a_mismatch() -> None:
    entries = sent(DISTINCT)
    stranger = Entry(0, 0, 1, 3, 99_999 * MS, digest(b"???"))
    result = account("t", entries, [*arrive(entries), arrive(entries)[5], stranger], late=False)
    assert (result.lost, result.mismatches) == (0, 2)


def test_the_longest_pause_is_over_all_tracks() -> None:
    entries = sent(DISTINCT[:10])
    other = [entry._replace(when_ns=entry.when_ns + 10 * MS) for entry in entries]
    assert longest_pause_ms({"a": entries}) == 20.0
    assert longest_pause_ms({"a": entries, "b": other}) == 10.0
    assert longest_pause_ms({"a": entries[:3] + entries[8:]}) == 120.0
    assert longest_pause_ms({}) == 0.0


def test_packet_log_round_trip_and_a_cut_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    name = "a track with a name that takes more than one record of thirty-two bytes"
    with PacketLog(path) as log:
        for n in range(1000):
            log.add(name if n % 2 else "b", n, n * 2, 7, b"%d" % n, n * 3)
    tracks = read(path)
    assert set(tracks) == {name, "b"}
    assert tracks[name].entries[0] == Entry(1, 2, 7, 1, 3, digest(b"1"))
    assert len(tracks["b"].entries) == 500
    path.write_bytes(path.read_bytes()[:-7])
    assert sum(len(track.entries) for track in read(path).values()) == 999


def rtp(seq: int, body: bytes, ssrc: int = 9) -> bytes:
    return struct.pack("!BBHII", 0x80, 96, seq & 0xFFFF, 0, ssrc) + body


def test_the_tap_tells_a_resend_from_a_reused_index() -> None:
    indices = Indices(srtcp_tail=0)
    indices.add(1000, rtp(5, b"one"))
    indices.add(1000, rtp(5, b"one"))
    assert (indices.repeated, indices.reused) == (1, 0)
    indices.add(1001, rtp(5, b"two"))
    indices.add(1000, rtp(5, b"two", ssrc=8))
    assert indices.reused == 0
    indices.add(1000, rtp(5, b"two"))
    assert indices.reused == 1


def test_the_tap_knows_a_wrap_from_a_repetition() -> None:
    indices = Indices(srtcp_tail=0)
    for n in range(70_000):
        indices.add(1, rtp(n, b"%d" % n))
    assert (indices.packets, indices.repeated, indices.reused) == (70_000, 0, 0)


@pytest.mark.parametrize("tail", [0, 10])
def test_the_tap_reads_the_srtcp_index(tail: int) -> None:
    indices = Indices(srtcp_tail=tail)

    def rtcp(index: int, body: bytes) -> bytes:
        index_word = struct.pack("!I", 0x80000000 | index)
        return struct.pack("!BBHI", 0x80, 200, 6, 9) + body + index_word + bytes(tail)

    indices.add(1, rtcp(1, b"first"))
    indices.add(1, rtcp(2, b"first"))
    assert indices.reused == 0
    indices.add(1, rtcp(2, b"other"))
    assert indices.reused == 1


def test_frames_of_both_ip_versions_are_read_and_broken_ones_are_not() -> None:
    udp = struct.pack("!HHHH", 4433, 50000, 8 + 3, 0) + b"abc"
    v4 = bytes(12) + b"\x08\x00" + bytes([0x45]) + bytes(8) + bytes([17]) + bytes(10) + udp
    v6 = bytes(12) + b"\x86\xdd" + bytes(6) + bytes([17]) + bytes(33) + udp
    for frame in (v4, v6):
        assert udp_of(frame) == (4433, 50000, b"abc")
        for size in range(len(frame) - 3):
            assert udp_of(frame[:size]) is None
    assert udp_of(bytes(60)) is None


def test_udp_counters_of_both_ip_versions_are_added() -> None:
    text = "Udp: InDatagrams NoPorts\nUdp: 40 1\nUdp6InDatagrams 2\nUdp6NoPorts 9\n"
    assert parse_udp_datagrams(text) == 42


def test_garbage_is_the_same_for_a_seed_and_fits_a_datagram() -> None:
    def some(seed: int) -> list[bytes]:
        source = garbage.datagrams(seed)
        return [next(source) for _ in range(2000)]

    assert some(1) == some(1)
    assert some(1) != some(2)
    assert max(map(len, some(1))) <= garbage.SIZE_MAX
    firsts = {data[0] >> 6 for data in some(1) if data}
    assert firsts == {0, 1, 2, 3}
