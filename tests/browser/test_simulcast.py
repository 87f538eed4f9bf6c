"""`vcfwd demo-browser --simulcast`: one publisher sends two layers, a viewer gets one of them."""

from __future__ import annotations

from pathlib import Path

from browser_kit import FIELDS, FRAMES_MIN, PAIR_FIELDS, marks, run_lab

pytestmark = marks
SECONDS = 6
LAYERS = {(320, 180), (640, 360)}


def test_a_publisher_of_two_layers(tmp_path: Path) -> None:
    report = run_lab(tmp_path, "--seconds", str(SECONDS), "--simulcast")
    assert set(report) == FIELDS and report["path"] == "xdp-native"
    pairs = {(pair["from"], pair["to"]): pair for pair in report["pairs"]}
    assert set(pairs) == {(1, 2), (2, 1)}
    for pair in pairs.values():
        assert set(pair) == PAIR_FIELDS
        assert (pair["codes_wrong"], pair["packets_lost"], pair["freezes"]) == (0, 0, 0)
        assert pair["codes_read"] >= FRAMES_MIN
        assert pair["audio_energy"] > 0
    size = {way: (pair["width"], pair["height"]) for way, pair in pairs.items()}
    assert size[2, 1] == (320, 180) and size[1, 2] in LAYERS
    # The other layer came to the node and went no further.
    received = sum(pair["packets_received"] for pair in report["pairs"])
    assert report["media_packets_in"] > 1.02 * received
    assert report["accounting_balanced"] is True
