"""When a machine is too slow for a call, by what its browsers and its processors tell.  Pure.

A call is done once more for it, at half the frame rate, if each of its faults is one that a slow
machine causes: `Verdict.unsteady` in result.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SLOW_SHARE = 0.8  # a page that painted less than this of what was due is on too slow a machine
PAUSE_MS = 100  # over the interval; viewers count a freeze from 150 ms on, some of them their own
LIMITED_SHARE = 0.1  # of its call: an encoder so long short of bits leaves out frames for that
IDLE_SHARE = 0.05  # of the processors' time; with less, nobody gets his in time


@dataclass
class Seen:
    """One browser's account; `snapshot` is what the page returned after its last packet."""

    id: int
    name: str
    version: str
    snapshot: dict[str, Any]
    join_ms: list[float]
    sends: bool = True  # a picture: whether it can encode the codec


def slow(browsers: list[Seen], fps: int, idle_share: float) -> list[str]:
    """Why the machine was too slow for the call; empty when it was not."""
    why = []
    if idle_share < IDLE_SHARE:
        why.append(f"the processors were idle for {idle_share:.1%} of the call")
    for browser in browsers:
        snapshot, name = browser.snapshot, f"browser {browser.id}"
        if snapshot["painted"] < SLOW_SHARE * snapshot["due"]:
            why.append(f"{name} painted {snapshot['painted']} of {snapshot['due']} frames")
        if snapshot["pause_ms"] > 1000 / fps + PAUSE_MS:
            why.append(f"{name} did not paint for {snapshot['pause_ms']:.0f} ms")
        pause_ms = _capture_pause_ms(snapshot["encoded"])
        # An encoder that is short of bits leaves frames out as well: no word about the machine.
        short = _limited_s(snapshot, "bandwidth") > LIMITED_SHARE * _call_s(snapshot)
        if pause_ms > 1000 / fps + PAUSE_MS and not short:
            why.append(f"{name} did not capture for {pause_ms:.0f} ms")
        if seconds := _limited_s(snapshot, "cpu"):
            why.append(f"the encoder of {name} was limited by the processor for {seconds:.1f} s")
    return why


def _capture_pause_ms(encoded: list[tuple[int, int]]) -> float:
    """The longest time between two encoded frames, by their RTP timestamps."""
    times = [rtp for rtp, _ in encoded]
    return max(((now - then) % 2**32 for then, now in pairwise(times)), default=0) / 90


def _call_s(snapshot: Mapping[str, Any]) -> float:
    """How long its longest-lived encoder has told what limits it."""
    rtp = snapshot["publish"]["rtp"]
    return max((sum(one.get("qualityLimitationDurations", {}).values()) for one in rtp), default=0)


def _limited_s(snapshot: Mapping[str, Any], reason: str) -> float:
    """For how long its encoders were held back for this reason (webrtc-stats,
    qualityLimitationDurations); Firefox does not tell: 0."""
    return sum(
        float(rtp.get("qualityLimitationDurations", {}).get(reason, 0))
        for rtp in snapshot["publish"]["rtp"]
    )
