"""H.264 in RTP: payload kinds and sizes, round trips, and broken input."""

from __future__ import annotations

import random

import pytest

from forwarder.client import h264

SPS = bytes([0x67, 0x42, 0xC0, 0x1F, 0x8C])
PPS = bytes([0x68, 0xCE, 0x3C, 0x80])
SEI = bytes([0x06, 0x05, 0x10, 0x80])


def nal(kind: int, size: int, seed: int = 1) -> bytes:
    """A NAL unit of `size` bytes whose body never looks like a start code."""
    rng = random.Random(seed)
    return bytes([0x60 | kind]) + bytes(rng.randrange(1, 256) for _ in range(size - 1))


def annexb(*nals: bytes, short: bool = False) -> bytes:
    start = b"\x00\x00\x01" if short else b"\x00\x00\x00\x01"
    return b"".join(start + each for each in nals)


def rejoin(payloads: list[bytes]) -> bytes | None:
    depacketiser = h264.Depacketiser()
    picture = None
    for index, payload in enumerate(payloads):
        picture = depacketiser.push(payload, index == len(payloads) - 1)
    assert depacketiser.malformed == 0
    return picture


@pytest.mark.parametrize("short", [False, True])
def test_split_takes_both_start_codes(short: bool) -> None:
    assert list(h264.split(annexb(SPS, PPS, short=short))) == [SPS, PPS]


def test_small_units_are_aggregated_and_parameter_sets_come_first() -> None:
    payloads = h264.packetise(annexb(bytes([0x09, 0x10]), SPS, PPS, SEI, nal(5, 3000)))
    assert payloads[0][0] & 0x1F == h264.STAP_A
    assert h264.is_keyframe_start(payloads[0])
    assert all(payload[0] & 0x1F == h264.FU_A for payload in payloads[1:])
    assert not any(h264.is_keyframe_start(payload) for payload in payloads[1:])


def test_a_lonely_small_unit_goes_as_it_is() -> None:
    unit = nal(1, 200)
    assert h264.packetise(annexb(unit)) == [unit]


@pytest.mark.parametrize("size", [2, 1098, 1099, 1100, 1101, 1102, 2196, 2197, 2198, 60_000])
def test_round_trip_at_every_edge_of_the_limit(size: int) -> None:
    unit = nal(5, size)
    payloads = h264.packetise(annexb(SPS, PPS, unit))
    assert max(map(len, payloads)) <= h264.PAYLOAD_MAX
    assert rejoin(payloads) == annexb(SPS, PPS, unit)


def test_fragments_are_of_nearly_one_size() -> None:
    sizes = [len(payload) for payload in h264.packetise(annexb(nal(1, 10_000)))]
    assert max(sizes) - min(sizes) <= len(sizes)


def test_round_trip_of_many_random_pictures() -> None:
    rng = random.Random(7)
    for seed in range(200):
        nals = [nal(rng.choice((1, 5)), rng.randrange(2, 4000), seed + n) for n in range(4)]
        assert rejoin(h264.packetise(annexb(*nals))) == annexb(*nals)


@pytest.mark.parametrize(
    ("what", "payloads"),
    [
        ("empty", [b""]),
        ("FU-A without a body", [bytes([0x7C, 0x85])]),
        ("FU-A in the middle without a start", [bytes([0x7C, 0x05, 1])]),
        ("FU-A start twice", [bytes([0x7C, 0x85, 1]), bytes([0x7C, 0x85, 1])]),
        ("FU-A start and end in one", [bytes([0x7C, 0xC5, 1])]),
        ("single unit inside a fragmented one", [bytes([0x7C, 0x85, 1]), nal(1, 20)]),
        ("STAP-A whose length lies", [bytes([0x78, 0, 9, 1, 2])]),
        ("STAP-A with an empty unit", [bytes([0x78, 0, 0])]),
        ("STAP-A cut in a length", [bytes([0x78, 0, 1, 0x67, 0])]),
        ("STAP-A with nothing", [bytes([0x78])]),
        ("FU-B", [bytes([0x7D, 0x85, 1, 2])]),
        ("kind 0", [bytes([0x60, 1])]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_payloads_are_counted_and_give_no_picture(what: str, payloads: list[bytes]) -> None:
    depacketiser = h264.Depacketiser()
    pictures = [depacketiser.push(payload, marker=False) for payload in payloads[:-1]]
    pictures.append(depacketiser.push(payloads[-1], marker=True))
    assert depacketiser.malformed >= 1, what
    assert not any(pictures)
    unit = nal(5, 3000)
    for index, payload in enumerate(good := h264.packetise(annexb(unit))):
        picture = depacketiser.push(payload, index == len(good) - 1)
    assert picture == annexb(unit), "the next good picture must come through"


def test_a_marker_inside_a_fragment_gives_no_picture() -> None:
    depacketiser = h264.Depacketiser()
    assert depacketiser.push(bytes([0x7C, 0x85, 1]), marker=True) is None


def test_random_bytes_never_raise() -> None:
    rng = random.Random(3)
    depacketiser = h264.Depacketiser()
    for _ in range(5000):
        depacketiser.push(rng.randbytes(rng.randrange(0, 40)), rng.random() < 0.3)
        list(h264.split(rng.randbytes(20)))
