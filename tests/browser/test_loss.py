"""Datagrams lost on purpose, both ways, STUN, DTLS and RTCP included: the same seed with repair
and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser_kit import marks, run_lab

pytestmark = marks
LOSS, SECONDS = 0.05, 8


def frames(report: dict[str, Any]) -> tuple[int, int]:
    """(lost, published) over all pairs."""
    pairs = report["pairs"]
    lost, published = (
        sum(pair[key] for pair in pairs) for key in ("frames_lost", "frames_published")
    )
    return lost, published


def check_coin(report: dict[str, Any]) -> None:
    loss = report["loss"]
    assert loss["offered"] > 1000
    assert 0.03 < loss["dropped"] / loss["offered"] < 0.07
    assert sum(pair["packets_received"] for pair in report["pairs"]) > 0
    assert report["accounting_balanced"] is True


def test_without_repair_frames_are_lost(tmp_path: Path) -> None:
    report = run_lab(tmp_path, "--seconds", str(SECONDS), "--loss", str(LOSS), "--no-repair")
    check_coin(report)
    lost, published = frames(report)
    assert lost > 0.10 * published
    assert report["loss"]["nacks"] == report["loss"]["rtx_out"] == 0


def test_with_repair_they_are_not(tmp_path: Path) -> None:
    report = run_lab(tmp_path, "--seconds", str(SECONDS), "--loss", str(LOSS))
    check_coin(report)
    lost, published = frames(report)
    assert lost < 0.01 * published
    loss = report["loss"]
    assert min(loss["nacks"], loss["rtx_in"], loss["rtx_out"]) > 0
