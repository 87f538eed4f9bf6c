"""`vcfwd demo` end to end: native XDP between namespaces, each way it can be asked for, each fault.

The JSON object is the contract: its fields are checked by name, its numbers against each other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = "4"
TIMEOUT_S = 150
NOBODY = 65534
FIELDS = {
    "path",
    "duration_s",
    "published_packets",
    "subscribers",
    "stages",
    "kernel_udp_datagrams",
    "drops",
    "accounting_balanced",
}
CHAOS_FIELDS = {
    "lost",
    "lost_outside_gap",
    "gap_ms",
    "restarts",
    "resumed",
    "rejoined",
    "index_reuse",
}
SUBSCRIBER_FIELDS = {
    "joined",
    "join_ms",
    "first_frame_ms",
    "expected_packets",
    "received_packets",
    "lost",
    "payload_mismatches",
    "client_socket_drops",
    "video_frames_decoded",
    "audio_frames_decoded",
}
STAGES = {
    "published",
    "steered",
    "xsk_received",
    "xsk_dropped",
    "routed",
    "copies",
    "copies_dropped",
    "transmitted",
    "received",
}

built = pytest.mark.skipif(
    not (ROOT / "build" / "vcfwd-dataplane").exists(), reason="build/vcfwd-dataplane is not built"
)
faults_built = pytest.mark.skipif(
    not (ROOT / "build" / "faults" / "vcfwd-dataplane").exists(),
    reason="the test build is missing: make -C c_helpers FAULTS=1",
)
pytestmark = [pytest.mark.root, built, pytest.mark.timeout(TIMEOUT_S + 20)]


def leftovers(pid: int) -> list[str]:
    """What the demo of this process left behind; other demos may be running beside it."""
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in spaces.stdout.splitlines() if line.strip()]
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    run_dir = f"/run/vcfwd-demo-{pid}"
    return [
        *(name for name in names if name.startswith(f"vcdemo{pid}-")),
        *(place for place in mounts if place.startswith(run_dir)),
        *([run_dir] if Path(run_dir).exists() else []),
    ]


def demo(out: Path, *arguments: str, user: int | None = None) -> dict[str, Any]:
    """Runs it; the object on the last line of stdout."""
    command = [sys.executable, "-m", "forwarder.cli.app", "demo", "--json", "--out", str(out)]
    with subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=user,
        env={**os.environ, "HOME": str(out), "XDG_RUNTIME_DIR": ""},
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.communicate(timeout=TIMEOUT_S)
            raise
    assert process.returncode == 0, stderr
    assert not leftovers(process.pid)
    report: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return report


def check(report: dict[str, Any], *, path: str, chaos: bool = False) -> None:
    """What holds for every run."""
    assert set(report) == FIELDS | (CHAOS_FIELDS if chaos else set())
    assert set(report["stages"]) == STAGES
    assert report["path"] == path
    assert report["accounting_balanced"] is True
    for entry in report["subscribers"]:
        assert set(entry) == SUBSCRIBER_FIELDS
        assert entry["payload_mismatches"] == entry["client_socket_drops"] == 0
        assert entry["join_ms"] > 0
        assert entry["first_frame_ms"] > entry["join_ms"]
        assert entry["video_frames_decoded"] > 0
        assert entry["audio_frames_decoded"] > 0
        assert entry["lost"] == entry["expected_packets"] - entry["received_packets"]


def check_lossless(report: dict[str, Any], *, path: str, chaos: bool = False) -> None:
    check(report, path=path, chaos=chaos)
    stages = report["stages"]
    for entry in report["subscribers"]:
        assert entry["lost"] == 0
        assert entry["video_frames_decoded"] > 10
        assert entry["audio_frames_decoded"] > 10
    assert stages["published"] == stages["routed"] == report["published_packets"] > 1
    dropped = sum(stages["copies_dropped"].values())
    assert stages["copies"] == stages["transmitted"] + dropped
    assert stages["transmitted"] == stages["received"]
    if path == "udp":
        assert stages["steered"] == stages["xsk_received"] == 0
        assert report["kernel_udp_datagrams"] >= stages["published"]
    else:
        assert stages["steered"] == stages["xsk_received"] + stages["xsk_dropped"]
        assert stages["steered"] >= stages["published"]


def test_native_xdp_with_a_late_subscriber(tmp_path: Path) -> None:
    report = demo(tmp_path, "--seconds", SECONDS, "--path", "xdp")
    check_lossless(report, path="xdp-native")
    assert [entry["joined"] for entry in report["subscribers"]] == ["start", "start", "late"]
    first, second, late = report["subscribers"]
    assert first["expected_packets"] == second["expected_packets"] == report["published_packets"]
    assert 0 < late["expected_packets"] < report["published_packets"]
    # Media takes the fast path; what the kernel's sockets read is signaling.
    assert report["kernel_udp_datagrams"] < report["published_packets"] / 4
    for name in ("subscriber-1", "subscriber-2", "subscriber-3"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "path", "entries"),
    [
        (("--path", "udp"), "udp", 3),
        (("--ipv6", "--suite", "sha1"), "xdp-native", 3),
        (("--workers", "2"), "xdp-native", 3),
        (("--active", "3"), "xdp-native", 3),
        (("--subscribers", "1"), "xdp-native", 1),
    ],
    ids=["udp", "ipv6-sha1", "workers-2", "active-3", "one-subscriber"],
)
def test_each_way_it_can_be_asked_for(
    tmp_path: Path, arguments: tuple[str, ...], path: str, entries: int
) -> None:
    report = demo(tmp_path, "--seconds", "3", *arguments)
    check_lossless(report, path=path)
    assert len(report["subscribers"]) == entries
    if "--active" in arguments or entries == 1:
        assert {entry["joined"] for entry in report["subscribers"]} == {"start"}


def test_without_root_on_the_socket_path() -> None:
    # Not in tmp_path: that lies in a directory that is root's alone.
    with tempfile.TemporaryDirectory() as place:
        os.chown(place, NOBODY, NOBODY)
        report = demo(Path(place), "--seconds", "2", user=NOBODY)
    check_lossless(report, path="udp")


@pytest.mark.parametrize("path", ["xdp", "udp"])
def test_the_supervisor_is_killed_and_nothing_is_lost(tmp_path: Path, path: str) -> None:
    report = demo(tmp_path, "--seconds", SECONDS, "--path", path, "--chaos", "supervisor")
    check_lossless(report, path="udp" if path == "udp" else "xdp-native", chaos=True)
    assert (report["lost"], report["lost_outside_gap"]) == (0, 0)
    assert report["restarts"] == 1
    assert report["resumed"] == 4
    assert (report["rejoined"], report["index_reuse"]) == (0, 0)


@pytest.mark.parametrize(
    ("chaos", "arguments"),
    [
        ("dataplane", ()),
        ("dataplane", ("--suite", "sha1", "--workers", "2")),
        pytest.param("worker", (), marks=faults_built),
    ],
    ids=["dataplane", "dataplane-sha1-workers-2", "worker"],
)
def test_the_data_plane_fails_and_the_call_goes_on(
    tmp_path: Path, chaos: str, arguments: tuple[str, ...]
) -> None:
    report = demo(tmp_path, "--seconds", SECONDS, "--chaos", chaos, *arguments)
    check(report, path="xdp-native", chaos=True)
    assert report["lost_outside_gap"] == 0
    assert report["lost"] == sum(entry["lost"] for entry in report["subscribers"])
    assert report["gap_ms"] > 0
    assert report["restarts"] == 1
    assert (report["rejoined"], report["index_reuse"]) == (0, 0)


def test_garbage_disturbs_nothing(tmp_path: Path) -> None:
    report = demo(tmp_path, "--seconds", "60", "--chaos", "garbage")
    check_lossless(report, path="xdp-native", chaos=True)
    assert report["lost"] == report["restarts"] == report["rejoined"] == 0
    assert report["drops"]["rtp_truncated"] > 0
    assert report["drops"]["drop_unknown_flow"] > 0


@pytest.mark.parametrize("after", ["starting", "accepts", "flows"])
def test_interrupted_it_cleans_up(tmp_path: Path, after: str) -> None:
    command = [sys.executable, "-m", "forwarder.cli.app", "demo", "--out", str(tmp_path)]
    with subprocess.Popen([*command, "--json"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if after in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 130
    assert "cleaned up" in rest
    assert not leftovers(process.pid)


def test_a_failure_is_told_in_a_sentence_and_cleans_up(tmp_path: Path) -> None:
    clip = tmp_path / "text.mp4"
    clip.write_text("no clip")
    command = [sys.executable, "-m", "forwarder.cli.app", "demo", "--clip", str(clip)]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path)], stderr=subprocess.PIPE, text=True
    ) as process:
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "text.mp4" in stderr
    assert "Traceback" not in stderr
    assert not leftovers(process.pid)


def test_options_that_make_no_sense_are_refused_with_a_sentence(tmp_path: Path) -> None:
    for arguments in (("--path", "carrier-pigeon"), ("--active", "1"), ("--chaos", "monkey")):
        done = subprocess.run(
            [sys.executable, "-m", "forwarder.cli.app", "demo", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 2
        assert arguments[0] in done.stderr
        assert not done.stdout
