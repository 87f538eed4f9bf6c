"""`vcfwd demo-browser` end to end: browsers in namespaces, in a call across the node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser_kit import (
    END_S,
    MANY_TIMEOUT_S,
    SECONDS,
    begin,
    check,
    command,
    end,
    leftovers,
    marks,
    run_lab,
)

from forwarder.demo.browser import capture
from forwarder.demo.browser.options import BrowserOptions
from forwarder.demo.browser.run import CLEAN_UP_S, run_twice
from forwarder.demo.options import DemoError

pytestmark = marks
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"


def test_chromium_and_firefox_see_and_hear_each_other(tmp_path: Path) -> None:
    pcap = tmp_path / "call.pcap"
    kinds = ("--browsers", "chromium,firefox")
    report = run_lab(tmp_path, *("--seconds", str(SECONDS), *kinds, "--ipv6", "--pcap", str(pcap)))
    check(report, kinds=("chromium", "firefox"))
    # Both links, both ways: each packet that came in, each that went out.
    assert pcap.stat().st_size > 50 * (report["media_packets_in"] + report["media_packets_out"])
    types = {record[28:30] for *_, record in capture._records(pcap)}  # EtherType
    assert IPV6 in types and IPV4 not in types


@pytest.mark.parametrize(("path", "name"), [("xdp", "xdp-native"), ("udp", "udp")])
def test_whip_in_and_whep_out(tmp_path: Path, path: str, name: str) -> None:
    report = run_lab(tmp_path, "--seconds", str(SECONDS), "--path", path, "--join", "whip")
    check(report, path=name, join="whip")


@pytest.mark.parametrize("codec", ["vp9", "h264", "av1"])
def test_the_other_codecs_cross_the_node(tmp_path: Path, codec: str) -> None:
    check(run_lab(tmp_path, "--seconds", "4", "--codec", codec), codec=codec)


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
@pytest.mark.timeout(MANY_TIMEOUT_S + END_S + 10)
def test_six_browsers(tmp_path: Path) -> None:
    """Two cores are full at 15 frames a second; then it is done once more at 7."""
    kinds = ("chromium",) * 5 + ("firefox",)
    who = ("--participants", "6", "--browsers", ",".join(kinds))
    options = (*who, "--ipv6", "--seconds", str(SECONDS))
    check(run_lab(tmp_path, *options, timeout_s=MANY_TIMEOUT_S), kinds=kinds)


async def test_a_run_that_reaches_its_bound_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    within = set[str]()

    def say(_: str) -> None:
        within.update(leftovers(os.getpid()))

    options = BrowserOptions(out=tmp_path, seconds=600)
    with pytest.raises(DemoError, match=r"not finish within 16 s(.|\n)*node's last words"):
        await run_twice(options, say, bound_s=CLEAN_UP_S + 6)
    assert within, "it had begun"
    assert not leftovers(os.getpid())


def test_a_run_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    with begin("--out", str(tmp_path), "--seconds", "600") as child:
        assert child.stderr is not None
        try:
            lines = iter(child.stderr.readline, "")
            heard = any("the node accepts joins" in line for line in lines)
            within = leftovers(child.pid)
        finally:
            _, words = end(child)
    assert heard and within, "it had begun"
    assert child.returncode == 130, words
    assert "everything was cleaned up" in words
    assert not leftovers(child.pid)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--path", "carrier-pigeon"),
        ("--codec", "theora"),
        ("--join", "pigeonhole"),
        ("--browsers", "chromium,netscape"),
        ("--loss", "5"),
        ("--loss", "95%"),
        ("--pcap", "/nowhere/at/all.pcap"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_is_not_served_is_refused_with_a_sentence(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert not done.stdout
