"""Datagrams lost on purpose, both ways, STUN, DTLS and RTCP included: the same seed with repair
and without."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from browser_kit import marks, run_lab
from scene_kit import patient, scene
from test_life import start

from forwarder.demo.browser import session
from forwarder.demo.browser.losses import Losses
from forwarder.demo.browser.options import FPS
from forwarder.demo.namespaces import Bpffs

pytestmark = marks
LOSS, SECONDS, JOINS = 0.05, 8, 5


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


@pytest.mark.slow
@patient
async def test_a_browser_joins_again_and_again(tmp_path: Path, fps: int = FPS) -> None:
    """Its checks, DTLS and QUIC get through, and each time it sees and is seen.  (50 joins of
    other clients: tests/netns/test_joins_at_loss.py.)"""
    async with scene(tmp_path, fps=fps) as call:
        one, two = call.actors
        with ExitStack() as made:
            pins = call.node.base / "loss"
            made.enter_context(Bpffs(pins))
            losses = made.enter_context(Losses(pins, call.node.port, LOSS))
            losses.add(call.lab.pub, "pub0")
            losses.add(call.lab.sub, "sub0")
            await session.join(one, call.node, call.options)
            for turn in range(JOINS):
                await session.join(two, call.node, call.options)
                for viewer in (one, two):
                    await session.pictures(viewer, call.actors)
                if turn < JOINS - 1:
                    await two.browser.call("leave")
                    await two.browser.reload()
                    await start(call, two)
            lost = losses.read()
        assert len(two.join_ms) == JOINS
        assert 0.6 * LOSS < lost.dropped / lost.offered < 1.4 * LOSS
        print(f"{JOINS} joins at {LOSS:.0%} loss in {two.join_ms} ms")
