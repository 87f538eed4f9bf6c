"""`vcfwd demo-browser` end to end: browsers in namespaces, in a call across the node."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_kit import SECONDS, check, command, marks, run_lab

pytestmark = marks
SIX_TIMEOUT_S = 240  # twice: six browsers start, play and end


def test_chromium_and_firefox_see_and_hear_each_other(tmp_path: Path) -> None:
    pcap = tmp_path / "call.pcap"
    report = run_lab(
        tmp_path,
        *("--seconds", str(SECONDS), "--browsers", "chromium,firefox", "--pcap", str(pcap)),
    )
    check(report, kinds=("chromium", "firefox"))
    # Both links, both ways: each packet that came in, each that went out.
    assert pcap.stat().st_size > 50 * (report["media_packets_in"] + report["media_packets_out"])


def test_whip_and_whep_on_the_socket_path(tmp_path: Path) -> None:
    report = run_lab(tmp_path, "--seconds", str(SECONDS), "--path", "udp", "--join", "whip")
    check(report, path="udp", join="whip")


def test_what_firefox_cannot_decode_is_told(tmp_path: Path) -> None:
    """Debian's Firefox has no H.264: it hears the other, and knows why it sees nothing."""
    codec = ("--codec", "h264", "--browsers", "chromium,firefox")
    report = run_lab(tmp_path, "--seconds", str(SECONDS), *codec)
    (pair,) = report["pairs"]
    assert (pair["from"], pair["to"], pair["codec"]) == (1, 2, "codec_unsupported")
    assert (pair["frames_decoded"], pair["packets_lost"]) == (0, 0)
    assert pair["audio_energy"] > 0
    assert report["accounting_balanced"] is True


@pytest.mark.slow
@pytest.mark.timeout(SIX_TIMEOUT_S + 20)
def test_six_browsers(tmp_path: Path) -> None:
    """Two cores are full at 15 frames a second; then it is done once more at 7."""
    kinds = ("chromium",) * 5 + ("firefox",)
    who = ("--participants", "6", "--browsers", ",".join(kinds))
    options = (*who, "--ipv6", "--seconds", str(SECONDS))
    check(run_lab(tmp_path, *options, timeout_s=SIX_TIMEOUT_S), kinds=kinds)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--path", "carrier-pigeon"),
        ("--codec", "theora"),
        ("--join", "pigeonhole"),
        ("--browsers", "chromium,netscape"),
        ("--loss", "5"),
        ("--pcap", "/nowhere/at/all.pcap"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_is_not_served_is_refused_with_a_sentence(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert not done.stdout
