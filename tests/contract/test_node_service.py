"""A node whose data plane is a service of its own, as on an installed host; how it is drained."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_kit import END_S, PATIENCE_S, Site, Up, call_on, node_of, until, up, wait_for

from forwarder.cli.admin import AdminError
from forwarder.client.control import ClientError
from forwarder.clock import ManualClock
from forwarder.dataplane.spawn import find_binary
from forwarder.signaling.certs import KEY_NAME
from forwarder.supervisor import node as node_module
from forwarder.supervisor.drain import REFUSAL


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.clean_up()


@pytest.fixture
def service(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """The data plane, started by nobody's supervisor."""
    site.run_dir.mkdir(mode=0o700)
    process = subprocess.Popen([find_binary(), "--run-dir", site.run_dir])
    yield process
    process.kill()
    process.wait(END_S)


def drain(site: Site, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "forwarder.cli.app", "drain", "--run-dir", str(site.run_dir)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *words], stdout=pipe, stderr=pipe, text=True)


async def test_a_supervisor_that_is_stopped_lets_the_calls_go_on(
    site: Site, service: subprocess.Popen[bytes]
) -> None:
    with up(site, "--service") as first:
        assert site.dataplanes() == [service.pid]
        async with call_on(site) as call:
            await call.flows(50)
            assert await asyncio.to_thread(first.end, signal.SIGTERM) == 0
            await call.flows(50)  # nobody is there but the data plane
            second = Up(site, "--service")
            try:
                await asyncio.to_thread(second.ready)
                await until(
                    lambda: (call.publisher.resumed, call.subscriber.resumed) == (1, 1),
                    "both are back by their secrets",
                )
                await call.end()
                assert call.lost() == [] and len(call.numbers) == call.sent
                assert (call.publisher.rejoined, call.subscriber.rejoined) == (0, 0)
                assert site.dataplanes() == [service.pid]
            finally:
                second.clean_up()


async def test_a_drain_waits_for_the_last_one_and_stops_both_processes(
    site: Site, service: subprocess.Popen[bytes]
) -> None:
    with up(site, "--service") as node:
        async with call_on(site) as call:
            draining = drain(site)
            told = draining.stderr
            assert told is not None
            line = await asyncio.wait_for(asyncio.to_thread(told.readline), PATIENCE_S)
            assert line == "2 in 1 room: waiting until they leave\n"
            with pytest.raises(ClientError, match=REFUSAL):
                async with site.client("late"):
                    pass
            with pytest.raises(AdminError, match=REFUSAL):
                await site.room("another")
            await call.flows(50)
            assert draining.poll() is None
        out, _ = await asyncio.to_thread(draining.communicate, timeout=PATIENCE_S)
        assert (draining.returncode, out) == (0, "the node has stopped\n")
        assert await asyncio.to_thread(node.process.wait, END_S) == 0
    assert service.wait(END_S) == 0  # by itself: its manager does not start it again
    assert not (site.run_dir / "api.sock").exists()


async def test_a_deadline_sends_the_last_ones_away(site: Site) -> None:
    with up(site) as node:
        async with call_on(site) as call:
            await call.stop_sending()
            draining = drain(site, "--deadline", "0", "--json")
            out, _ = await asyncio.to_thread(draining.communicate, timeout=PATIENCE_S)
            assert draining.returncode == 0 and '"stopped": true' in out
        assert await asyncio.to_thread(node.process.wait, END_S) == 0
    assert site.dataplanes() == []


def test_a_drain_may_be_begun_and_not_waited_for(site: Site) -> None:
    with up(site) as node:
        site.request("POST", "/v1/rooms", {"id": "r"})
        draining = drain(site, "--no-wait")
        out, _ = draining.communicate(timeout=PATIENCE_S)
        assert (draining.returncode, out) == (0, "nobody is here any more: the node stops\n")
        wait_for(lambda: node.process.poll() is not None, "the node stops")
        assert node.process.returncode == 0


def test_a_drain_of_nobody_and_bad_deadlines(site: Site) -> None:
    for words in ((), ("--deadline", "-1"), ("--deadline", "nan"), ("--deadline", "1e9")):
        if not words:
            draining = drain(site)
            _, err = draining.communicate(timeout=PATIENCE_S)
            assert draining.returncode == 1 and "no vcfwd answers" in err
            continue
        with up(site):
            draining = drain(site, *words)
            _, err = draining.communicate(timeout=PATIENCE_S)
            assert draining.returncode == 1 and "deadline" in err, err
            assert site.request("GET", "/v1/drain")["draining"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is wanted")
def test_no_file_of_the_data_plane_is_open_to_others(
    site: Site, service: subprocess.Popen[bytes]
) -> None:
    wait_for((site.run_dir / "dataplane.version").exists, "the data plane serves")
    for path in site.run_dir.iterdir():
        assert path.lstat().st_mode & 0o077 == 0, path


async def test_a_certificate_that_cannot_be_renewed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The node serves on with the one it has, says so, and takes the next chance."""
    monkeypatch.setattr(node_module, "RENEW_S", 0.05)
    clock = ManualClock(time.monotonic(), time.time())
    site = Site(tmp_path, change={"api": {"cert_file": "", "key_file": ""}})
    key_file = tmp_path / "state" / KEY_NAME
    async with node_of(site, clock) as node:
        first = node._certificate.sha256
        key_file.unlink()
        key_file.mkdir()
        (key_file / "in the way").touch()
        clock.advance(13 * 24 * 3600.0)
        await until(lambda: "cannot be renewed" in caplog.text, "it is told")
        assert node._certificate.sha256 == first
        (key_file / "in the way").unlink()
        key_file.rmdir()
        await until(lambda: node._certificate.sha256 != first, "there is another")
        pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", site.port))
        shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()
        assert shown == node._certificate.sha256
