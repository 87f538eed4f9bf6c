"""When a scene is played once more, without a browser; of `vcfwd demo-browser`:
tests/unit/test_browser_pace.py."""

from __future__ import annotations

from typing import Any

import pytest
from scene_kit import TooSlow, Unsteady, patient, steady
from test_account import browser, rtp

from forwarder.demo.browser.options import FPS
from forwarder.demo.browser.result import lost_or_wrong, other_codecs
from forwarder.demo.options import DemoError


class Case:
    """A test that ends as it is told, at first and the second time."""

    def __init__(self, *ends: Exception | None) -> None:
        self.ends = list(ends)
        self.rates: list[int] = []

    async def play(self, fps: int = FPS) -> None:
        self.rates.append(fps)
        if end := self.ends.pop(0):
            raise end


async def test_too_slow_is_excused_once_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    slow = TooSlow("browser 1 painted 50 of 101 frames")
    slow.__cause__ = Unsteady("1 to 2: 30 frames: not within 26 s")
    case = Case(slow, None)
    await patient(case.play)()
    assert case.rates == [FPS, FPS // 2]
    told = capsys.readouterr().out
    assert "excused once: 1 to 2: 30 frames" in told and "too slow: browser 1 painted 50" in told
    again = Case(slow, slow)
    with pytest.raises(TooSlow):
        await patient(again.play)()
    assert len(again.rates) == 2
    assert capsys.readouterr().out.count("once more at 7 frames a second") == 1


@pytest.mark.parametrize(
    "end", [AssertionError("a wrong code"), Unsteady("freezes 1"), DemoError("join failed: 403")]
)
async def test_everything_else_counts_at_once(end: Exception) -> None:
    case = Case(end, None)
    with pytest.raises(type(end), match=str(end)):
        await patient(case.play)()
    assert case.rates == [FPS]


def test_what_is_steady_passes_and_what_is_not_is_named() -> None:
    steady(True, "unheard")
    with pytest.raises(Unsteady, match="3 freezes"):
        steady(False, "3 freezes")


def damaged(**more: Any) -> Any:
    seen = browser(1, 2)
    seen.snapshot["views"][0].update(more)
    return seen


def test_what_is_wrong_on_whatever_machine() -> None:
    good = damaged()
    assert lost_or_wrong(good) + other_codecs(good, "vp8") == []
    assert lost_or_wrong(damaged(wrong_seen=["x"])) == ["2 to 1: a wrong code: x"]
    assert len(other_codecs(good, "av1")) == 1
    unknown = damaged(statistics={"state": "failed", "rtp": rtp(codec=None)})
    assert other_codecs(unknown, "vp8") == []
    assert lost_or_wrong(damaged(statistics={"state": "failed", "rtp": [], "transport": {}})) == [
        "browser 1 lost a connection"
    ]
