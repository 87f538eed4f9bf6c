"""`vcfwd flame` on a loaded node: its own, in namespaces of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from forwarder.cli.admin import Admin
from forwarder.telemetry.flame import bcc_backend, fold, perf_backend, record
from forwarder.telemetry.flame.load import Load
from forwarder.telemetry.flame.pyspy import command
from forwarder.telemetry.flame.samples import Order

pytestmark = pytest.mark.root

CIPHER = ("aes_gcm", "gcm_enc", "EVP_", "CRYPTO_gcm", "aesni", "aes_ctr")  # ipsec-mb or OpenSSL
SECONDS = "4"


def flame(out: Path, *options: str) -> dict[str, Any]:
    """Runs the command as a person would."""
    words = [sys.executable, "-m", "forwarder.cli.app", "flame", "--seconds", SECONDS, "--json"]
    words += ["--out", str(out), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def stacks(path: Path) -> list[tuple[str, ...]]:
    return list(fold.read(path))


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: perf events and network namespaces")
    if (no_bcc := bcc_backend.why_not()) and (no_perf := perf_backend.why_not()):
        pytest.skip(f"nothing here can sample: {no_bcc}; {no_perf}")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One recording of all targets under load."""
    out = tmp_path_factory.mktemp("work")
    return out, flame(out, "--load")


def test_the_result_has_the_fields_that_are_promised(
    work: tuple[Path, dict[str, Any]],
) -> None:
    _, result = work
    assert result["backend"] == ("perf" if bcc_backend.why_not() else "bcc")
    assert set(result["targets"]) == {"dataplane", "supervisor", "kernel"}
    assert result["samples"] == sum(t["samples"] for t in result["targets"].values()) > 0
    for target in result["targets"].values():
        shares = [entry["share"] for entry in target["top"]]
        assert 0 < len(shares) <= 10
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1.001
    assert {Path(name).name for name in result["files"]} == {
        f"{target}.{kind}"
        for target in result["targets"]
        for kind in ("folded", "svg", "speedscope.json")
    }
    for name in result["files"]:
        if name.endswith(".svg"):
            ET.parse(name)
        if name.endswith(".json"):
            assert json.loads(Path(name).read_text())["profiles"]
    assert result["load"]["packets_out"] > 5 * result["load"]["packets_in"] > 0
    assert result["load"]["joins"] > 0
    # The rig's generator sent, through the leg's own socket, and all of it was authentic.
    assert result["load"]["sent"] >= result["load"]["packets_in"]


def test_the_data_plane_shows_its_cipher_and_its_send(work: tuple[Path, dict[str, Any]]) -> None:
    out, result = work
    found = stacks(out / "dataplane.folded")
    names = {name for stack in found for name in stack}
    assert any(word in name for name in names for word in CIPHER), names
    top = [entry["frame"] for entry in result["targets"]["dataplane"]["top"]]
    assert "sendto" in top, top
    # Whole stacks: the send and the cipher are seen below the worker's loop.
    for leaf in ("sendto", *CIPHER):
        for stack in found:
            if any(name.startswith(leaf) for name in stack) and result["backend"] == "bcc":
                assert stack[0].startswith("vcfwd-w"), stack
    sends = [stack for stack in found if "sendto" in stack]
    whole = [stack for stack in sends if "vc_worker_do_work" in stack]
    assert len(whole) > len(sends) / 2, sends[:5]


def test_the_supervisor_shows_python_by_name(work: tuple[Path, dict[str, Any]]) -> None:
    if command() is None:
        pytest.skip("py-spy is not installed")
    out, result = work
    top = [entry["frame"] for entry in result["targets"]["supervisor"]["top"]]
    assert any(name.endswith(".py)") for name in top), top
    names = {name for stack in stacks(out / "supervisor.folded") for name in stack}
    assert any("(signaling/" in name or "(supervisor/" in name for name in names), names


def test_the_kernel_shows_its_own_functions(work: tuple[Path, dict[str, Any]]) -> None:
    out, _ = work
    found = stacks(out / "kernel.folded")
    assert all(name.endswith(fold.KERNEL_MARK) for stack in found for name in stack[1:])
    names = {name.removesuffix(fold.KERNEL_MARK) for stack in found for name in stack}
    assert names & {"xsk_sendmsg", "__xsk_generic_xmit", "__x64_sys_sendto", "udp_sendmsg"}, names


def test_waits_are_seen_off_the_processor(tmp_path: Path) -> None:
    if reason := bcc_backend.why_not():
        pytest.skip(reason)
    result = flame(tmp_path, "--load", "--off-cpu", "--target", "dataplane")
    found = fold.read(tmp_path / "dataplane-off-cpu.folded")
    idle = sum(weight for stack, weight in found.items() if {"ppoll", "poll"} & set(stack))
    assert idle > 0
    assert result["targets"]["dataplane"]["samples"] > 0
    assert not any("bpf_prog" in name for stack in found for name in stack)


def test_perf_sees_the_same_where_there_is_no_bcc() -> None:
    if reason := perf_backend.why_not():
        pytest.skip(reason)
    with Load() as load:
        status = Admin(load.run_dir).request("GET", "/v1/status")
        order = Order({"dataplane": status["dataplane"]["pid"]}, True, 2.0, record.HZ)
        began: list[bool] = []
        recording = perf_backend.record(order, lambda: began.append(True))
    assert began == [True]
    own = [s for s in recording.samples if s.pid == status["dataplane"]["pid"]]
    assert any("vc_worker_do_work" in s.user for s in own)
    assert any("sendto" in s.user and s.kernel for s in own)
    assert all(s.pid == status["dataplane"]["pid"] or s.kernel for s in recording.samples)
