"""`vcfwd demo-browser` end to end: browsers in namespaces, in a call across the node."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_kit import SECONDS, check, command, marks, run_lab

pytestmark = marks


def test_chromium_and_firefox_see_and_hear_each_other(tmp_path: Path) -> None:
    pcap = tmp_path / "call.pcap"
    report = run_lab(
        tmp_path,
        *("--seconds", str(SECONDS), "--browsers", "chromium,firefox", "--pcap", str(pcap)),
    )
    check(report, kinds=("chromium", "firefox"))
    # Both links, both ways: each packet that came in, each that went out.
    assert pcap.stat().st_size > 50 * (report["media_packets_in"] + report["media_packets_out"])


def test_two_chromium_on_the_socket_path(tmp_path: Path) -> None:
    check(run_lab(tmp_path, "--seconds", str(SECONDS), "--path", "udp"), path="udp")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--path", "carrier-pigeon"),
        ("--codec", "theora"),
        ("--browsers", "chromium,netscape"),
        ("--simulcast",),
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
