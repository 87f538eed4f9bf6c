"""What a receiver's estimate (REMB) says of its way: a word that is no jam, and one that is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_rooms_layers import AUDIO, HIGH, LOW, camera

from forwarder.rooms.layers import Ladder, Stream


def test_an_estimate_that_follows_a_wish_is_no_jam() -> None:
    """Less was wanted for a second, so less came, and the estimate goes on falling for a while."""
    ladder, high = Ladder(0.0), camera(120_000, 600_000)

    def told(bps: int, stream: Stream, now: float) -> list[int]:
        ladder.on_estimate(bps, now)
        return ladder.choose([stream], AUDIO, now)

    assert told(700_000, high, 20.0) == [1]
    low = replace(high, top=0, at=1)
    assert told(650_000, low, 20.2) == [0]
    assert told(450_000, replace(low, at=0), 21.0) == [0]
    assert told(440_000, replace(high, at=0), 21.1) == [1]
    assert told(300_000, high, 21.5) == told(250_000, high, 22.5) == [1]
    assert told(300_000, high, 23.5) == [1]
    assert told(280_000, high, 24.5) == [1], "it falls though nothing was changed: one word"
    assert told(280_000, high, 25.5) == [0], "a jam"


def test_an_estimate_that_lags_and_grows_moves_nobody() -> None:
    """A publisher's camera ramps up faster than a receiver's estimate may grow."""
    ladder, rate, estimate = Ladder(0.0), 100_000.0, 160_000.0
    for second in range(1, 60):
        rate, estimate = min(1.4 * rate, 2_500_000), min(1.08 * estimate, 5_000_000)
        ladder.on_estimate(round(estimate), float(second))
        stream = Stream((LOW, round(rate)), 1, 1)
        assert ladder.choose([stream], AUDIO, float(second)) == [1]
    assert estimate > rate
    falls = Stream((LOW, round(rate)), 1, 1)
    for now, at in ((61.0, 1), (62.0, 0)):
        ladder.on_estimate(round(0.8 * rate), now)
        assert ladder.choose([falls], AUDIO, now) == [at]


def test_a_first_estimate_of_a_camera_that_begins_moves_nobody() -> None:
    """As measured with Chromium: what it first says is of the seconds in which the rate still rose;
    8 % a second from there."""
    for first, low, high in (
        (1_126_056, 146_306, 1_563_704),
        (854_392, 151_472, 1_463_674),
        (104_729, 139_581, 123_435),
    ):
        ladder = Ladder(0.0)
        for step in range(20):
            ladder.on_estimate(round(first * 1.08**step), 5.0 + step)
            assert ladder.choose([camera(low, high)], AUDIO, 5.0 + step) == [1]


FREE_WAYS = (
    ((65_682, 113_483), (42_101, 44_161, 46_364, 48_792, 50_832, 52_968, 55_105)),
    ((63_984, 201_605), (77_128, 81_108, 84_479, 89_390, 93_133, 96_909, 102_542)),
    ((58_100, 196_167), (91_115, 96_339, 100_339, 106_130, 112_288, 114_503)),
)
"""Rates of two layers whose key frames were measured too, and the first estimates of a Chromium on
the same machine, whose processors were busy; each 0.6 s."""


@pytest.mark.parametrize(("rates", "told"), FREE_WAYS)
@pytest.mark.parametrize("before", [0, 1_000_000])
def test_one_low_word_on_a_free_way_moves_nobody(
    rates: tuple[int, ...], told: tuple[int, ...], before: int
) -> None:
    """The first one, or one after a higher one."""
    ladder, stream = Ladder(0.0), camera(*rates)
    ladder.on_estimate(before, 3.0)
    for step, bps in enumerate(told):
        now = 3.6 + 0.6 * step
        ladder.on_estimate(bps, now)
        assert ladder.choose([stream], AUDIO, now) == [1]
        assert ladder.choose([stream], AUDIO, now + 0.3) == [1]
    assert not ladder.limited


@pytest.mark.parametrize("words", [(600, 598, 604), (540, 532, 517), (701, 541, 526)])
@pytest.mark.parametrize("before", [0, 2_000_000])
def test_a_low_word_that_is_repeated_lowers(words: tuple[int, ...], before: int) -> None:
    """A squeeze in a deep queue: nothing is lost.  Nothing but its words is evidence; the last two
    are Chromium's behind 700 kb/s and a queue of four seconds, at its start and in a call."""
    ladder, stream = Ladder(0.0), camera(LOW, HIGH)
    chosen: list[int] = []
    ladder.on_estimate(before, 5.0)
    for step, kbps in enumerate(words):
        now = 6.0 + 0.5 * step
        ladder.on_estimate(1000 * kbps, now)
        for at in (now, now + 0.4):
            stream = replace(stream, at=ladder.choose([stream], AUDIO, at)[0])
            chosen.append(stream.at)
    assert chosen == [1, 1, 1, 1, 0, 0]


def test_silence_does_not_repeat_a_word() -> None:
    """Layers are chosen for other reasons too: only a receiver's next word is one."""
    ladder, high = Ladder(0.0), camera(LOW, HIGH)
    ladder.on_estimate(600_000, 5.0)
    for now in (5.0, 6.0, 8.0, 10.0):
        assert ladder.choose([high], AUDIO, now) == [1]
    ladder.on_estimate(600_000, 10.1)
    assert ladder.choose([high], AUDIO, 10.1) == [0]


def test_a_squeeze_that_loses_packets_lowers_at_once() -> None:
    ladder = Ladder(0.0)
    ladder.on_estimate(600_000, 6.0)
    ladder.on_loss(0.5, 6.0)
    assert ladder.choose([camera(LOW, HIGH)], AUDIO, 6.0) == [0]


def test_of_a_way_that_was_seen_full_one_word_is_enough() -> None:
    ladder, high = Ladder(0.0), camera(LOW, HIGH)
    ladder.on_loss(0.5, 6.0)
    assert ladder.choose([high], AUDIO, 6.0) == [0]
    due = ladder.deadline()
    assert due is not None
    ladder.on_estimate(225_000, due)
    assert ladder.choose([replace(high, at=0)], AUDIO, due) == [1]
    ladder.on_estimate(240_000, due + 1)
    assert ladder.choose([high], AUDIO, due + 1) == [1]
    ladder.on_estimate(200_000, due + 2)
    assert ladder.choose([high], AUDIO, due + 2) == [0]


def test_a_first_estimate_that_stays_low_lowers() -> None:
    """One that is far below what is sent is believed when it is repeated; else it is watched."""
    for share, seconds in ((0.45, 1), (0.7, 4)):
        ladder, at = Ladder(0.0), []
        for now in (5.0 + step / 2 for step in range(2 * seconds + 1)):
            ladder.on_estimate(round(share * HIGH), now)
            at += ladder.choose([camera(LOW, HIGH)], AUDIO, now)
        assert at[0] == 1 and 0 in at, share
