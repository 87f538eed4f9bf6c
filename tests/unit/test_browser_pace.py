"""When a call of browsers is done once more: for a machine that is too slow, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from forwarder.demo.browser.options import BOUND_MANY_S, BOUND_S, BrowserOptions, share
from forwarder.demo.browser.pace import Seen, slow
from forwarder.demo.browser.result import Verdict
from forwarder.demo.browser.run import CLEAN_UP_S, Attempt, Late, Say, run_twice
from forwarder.demo.options import DemoError

SLOW = ["browser 1 painted 50 of 101 frames"]
FROZEN, WRONG = "1 to 2: freezes 1", "1 to 2: codes_wrong 3"


def verdict(*unsteady: str, broken: tuple[str, ...] = ()) -> Verdict:
    return Verdict({}, [*broken, *unsteady], unsteady=list(unsteady))


class Attempts:
    """What each attempt comes to; notes what it was asked."""

    def __init__(self, *ends: tuple[Verdict, list[str]] | Exception) -> None:
        self.ends = list(ends)
        self.asked: list[tuple[int, float]] = []

    async def __call__(
        self, options: BrowserOptions, say: Say, until: float
    ) -> tuple[Verdict, list[str]]:
        self.asked.append((options.fps, until))
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


async def outcome(attempts: Attempt, **more: Any) -> tuple[list[str], list[str]]:
    """Faults, and what was said."""
    said: list[str] = []
    found = await run_twice(BrowserOptions(), said.append, attempt=attempts, **more)
    return found.faults, said


async def test_what_a_slow_machine_causes_is_excused_once_and_told() -> None:
    attempts = Attempts((verdict(FROZEN), SLOW), (verdict(), SLOW))
    faults, said = await outcome(attempts)
    assert faults == []
    assert [fps for fps, _ in attempts.asked] == [15, 7]
    words = "\n".join(said)
    assert SLOW[0] in words and FROZEN in words and "once more at 7 frames a second" in words


async def test_the_second_attempt_is_the_last() -> None:
    attempts = Attempts((verdict(FROZEN), SLOW), (verdict(FROZEN), SLOW))
    faults, said = await outcome(attempts)
    assert faults == [FROZEN]
    assert said[-1] == f"machine too slow again: {SLOW[0]}"


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (verdict(), SLOW),
        (verdict(FROZEN), []),
        (verdict(broken=(WRONG,)), SLOW),
        (verdict(FROZEN, broken=(WRONG,)), SLOW),
    ],
    ids=["no-fault", "fast-enough", "broken", "broken-too"],
)
async def test_everything_else_counts_at_once(first: Verdict, why: list[str]) -> None:
    attempts = Attempts((first, why))
    faults, said = await outcome(attempts)
    assert faults == first.faults
    assert not any("once more at" in line for line in said)


async def test_what_keeps_the_lab_from_its_end_is_never_tried_again() -> None:
    attempts = Attempts(DemoError("POST /whip: 403"), (verdict(), []))
    with pytest.raises(DemoError, match="403"):
        await outcome(attempts)
    assert len(attempts.asked) == 1


async def test_both_attempts_share_one_bound() -> None:
    attempts = Attempts((verdict(FROZEN), SLOW), Late("leaving"))
    now = asyncio.get_running_loop().time()
    with pytest.raises(DemoError, match=r"2 browsers did not finish within 40 s.*leaving"):
        await outcome(attempts, bound_s=40.0)
    (_, first), (_, second) = attempts.asked
    assert first == second >= now + 40 - CLEAN_UP_S


def test_the_bound_of_a_run() -> None:
    assert [BrowserOptions(participants=n).bound_s for n in (2, 3)] == [BOUND_S] * 2 == [120.0] * 2
    assert BrowserOptions(participants=4).bound_s == BOUND_MANY_S
    assert BrowserOptions(seconds=5).bound_s == BOUND_S
    assert BrowserOptions(seconds=60).bound_s == BOUND_S + 2 * 50


def seen(limited: dict[str, float] | None = None, **more: Any) -> Seen:
    frames = [(2**32 - 7000 + 6000 * n & 0xFFFFFFFF, n) for n in range(100)]
    stream = {} if limited is None else {"qualityLimitationDurations": limited}
    snapshot = {"painted": 101, "due": 101, "pause_ms": 90.0, "encoded": frames}
    publish = {"rtp": [{"kind": "audio"}, {"kind": "video", **stream}]}
    return Seen(1, "chromium", "1", {**snapshot, "publish": publish, **more}, [])


def held(frames: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Three frames are missing: 4 x 66.7 ms from one to the next."""
    return frames[:40] + frames[43:]


def test_a_machine_too_slow_is_told() -> None:
    steady = {"none": 5.0, "cpu": 0.0, "bandwidth": 0.0}
    assert slow([seen(), seen(steady)], 15, 0.2) == []
    assert slow([seen()], 15, 0.01) == ["the processors were idle for 1.0% of the call"]
    assert slow([seen(painted=50)], 15, 0.2) == SLOW
    assert slow([seen(pause_ms=230.0)], 15, 0.2) == ["browser 1 did not paint for 230 ms"]
    limited = slow([seen({"cpu": 1.5, "bandwidth": 2.0})], 15, 0.2)
    assert limited == ["the encoder of browser 1 was limited by the processor for 1.5 s"]


@pytest.mark.parametrize("limited", [None, {"none": 5.0, "bandwidth": 0.0}])
def test_a_capture_that_stands_still_is_told(limited: dict[str, float] | None) -> None:
    frames = seen().snapshot["encoded"]
    found = slow([seen(limited, encoded=held(frames))], 15, 0.2)
    assert found == ["browser 1 did not capture for 267 ms"]


def test_an_encoder_short_of_bits_is_no_slow_machine() -> None:
    frames = seen().snapshot["encoded"]
    short, hardly = {"none": 4.0, "bandwidth": 1.0}, {"none": 5.0, "bandwidth": 0.06}
    assert slow([seen(short, encoded=held(frames))], 15, 0.2) == []
    # Chromium's encoder of several layers begins with some hundredths of a second of it.
    assert slow([seen(hardly, encoded=held(frames))], 15, 0.2) != []


@pytest.mark.parametrize(
    ("text", "found"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0), ("0.5%", 0.005), ("90%", 0.9)]
)
def test_a_share_is_written_in_two_ways(text: str, found: float) -> None:
    assert share(text) == pytest.approx(found)


@pytest.mark.parametrize("text", ["5", "1", "95%", "-1%", "nan", "inf%", "%", "", "five", "5%%"])
def test_what_could_be_either_is_refused_with_both(text: str) -> None:
    with pytest.raises(ValueError, match=r"5% or 0\.05"):
        share(text)
