"""`vcfwd demo-browser` as a process, and what holds for its JSON object.

The object is the contract: its fields are checked by name, its numbers against each other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forwarder.demo.browser.options import BOUND_MANY_S, BOUND_S
from forwarder.demo.browser.run import PREFIX

ROOT = Path(__file__).parents[2]
TIMEOUT_S, MANY_TIMEOUT_S = BOUND_S + 10, BOUND_MANY_S + 10  # a run ends itself before
END_S = 30.0  # so long it may clean up once it is told to end
FIELDS = {
    "path",
    "participants",
    "browsers",
    "pairs",
    "loss",
    "media_packets_in",
    "media_packets_out",
    "slow_path_media_packets",
    "kernel_udp_datagrams",
    "kernel_udp_explained",
    "drops",
    "accounting_balanced",
    "join_ms",
    "screenshots",
}
PAIR_FIELDS = {
    "from",
    "to",
    "codec",
    "frames_decoded",
    "codes_read",
    "codes_wrong",
    "packets_received",
    "packets_lost",
    "frames_published",
    "frames_lost",
    "freezes",
    "audio_energy",
    "width",
    "height",
}
SECONDS = 5
FRAMES_MIN = 15  # read of each picture: 5 s at half of the frame rate, and that halved

RETOLD = ("- excused once", "- machine too slow", "- once more")

built = pytest.mark.skipif(
    not (ROOT / "build" / "vcfwd-dataplane").exists(), reason="build/vcfwd-dataplane is not built"
)
marks = [pytest.mark.root, built, pytest.mark.timeout(TIMEOUT_S + END_S + 10)]


def begin(*arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "forwarder.cli.app", "demo-browser", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(child: subprocess.Popen[str]) -> tuple[str, str]:
    """SIGTERM, upon which it cleans up; SIGKILL if it does not end.  What it said."""
    child.terminate()
    try:
        return child.communicate(timeout=END_S)
    finally:
        child.kill()


@dataclass
class Done:
    pid: int
    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str, timeout_s: float = TIMEOUT_S) -> Done:
    with begin(*arguments) as child:
        try:
            out, words = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _, words = end(child)
            raise AssertionError(f"not at its end after {timeout_s:g} s:\n{words}") from None
        except BaseException:
            end(child)
            raise
    return Done(child.pid, child.returncode, out, words)


def leftovers(pid: int) -> set[str]:
    """What that process has made and not removed: names carry its id, others may run meanwhile."""
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    names = {line.split()[0] for line in spaces.stdout.splitlines()}
    mine = {name for name in names if name.startswith(f"{PREFIX}{pid}-")}
    return mine | {str(path) for path in Path("/run").glob(f"vcfwd-browser-{pid}")}


def run_lab(out: Path, *arguments: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """The object of a run that must succeed; it leaves nothing behind.  Prints how long it took,
    and whether a machine that was too slow had it done once more."""
    began = time.monotonic()
    done = command("--json", "--out", str(out), *arguments, timeout_s=timeout_s)
    print(f"demo-browser {' '.join(arguments)}: {time.monotonic() - began:.0f} s")
    for line in done.stderr.splitlines():
        if line.startswith(RETOLD):
            print(line)
    assert done.returncode == 0, done.stderr
    assert not leftovers(done.pid)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def check(
    report: dict[str, Any],
    *,
    path: str = "xdp-native",
    kinds: Sequence[str] = ("chromium", "chromium"),
    codec: str = "vp8",
    join: str = "session",
) -> None:
    """What holds for every run without loss; `kinds` are the browsers in order."""
    participants = len(kinds)
    assert set(report) == FIELDS
    assert report["path"] == path
    assert report["participants"] == participants == len(report["browsers"])
    for browser in report["browsers"]:
        assert set(browser) == {"id", "name", "version", "srtp_cipher"}
        assert browser["srtp_cipher"] == "SRTP_AEAD_AES_128_GCM"
    assert [browser["name"] for browser in report["browsers"]] == list(kinds)
    ids = {browser["id"] for browser in report["browsers"]}
    pairs = {(pair["from"], pair["to"]) for pair in report["pairs"]}
    assert pairs == {(a, b) for a in ids for b in ids if a != b}
    assert len(report["pairs"]) == len(pairs)
    for pair in report["pairs"]:
        assert set(pair) == PAIR_FIELDS
        assert pair["codec"] == codec
        assert pair["codes_read"] >= FRAMES_MIN
        assert pair["codes_read"] <= pair["frames_decoded"] <= pair["frames_published"]
        assert (pair["codes_wrong"], pair["packets_lost"], pair["frames_lost"]) == (0, 0, 0)
        assert pair["freezes"] == 0
        assert pair["audio_energy"] > 0
        assert (pair["width"], pair["height"]) == (320, 180)
        assert pair["packets_received"] > pair["frames_decoded"]
    assert report["loss"]["offered"] == report["loss"]["dropped"] == 0
    received = sum(pair["packets_received"] for pair in report["pairs"])
    assert report["media_packets_out"] >= received
    assert report["media_packets_in"] > 0
    explained = report["kernel_udp_explained"]
    assert set(explained) == {"stun", "dtls", "quic"}
    assert explained["stun"] > 0
    assert explained["dtls"] > 0
    media = report["slow_path_media_packets"]
    assert report["kernel_udp_datagrams"] == sum(explained.values()) + media
    assert (media > 0) == (path == "udp")
    assert report["accounting_balanced"] is True
    # WHEP: an association for each view.
    assert len(report["join_ms"]) == (participants if join == "session" else participants**2)
    assert (explained["quic"] > 0) == (join == "session")
    assert all(ms > 0 for ms in report["join_ms"])
    for shot in report["screenshots"]:
        assert Path(shot).read_bytes().startswith(b"\x89PNG")
    assert len(report["screenshots"]) == participants
