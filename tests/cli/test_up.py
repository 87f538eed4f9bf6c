"""`vcfwd up` as a person starts and stops it: one line on stdout, sentences, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_kit import END_S, Site, Up, free_port, up, wait_for

EXAMPLE_KEY = [{"kid": "example", "secret": "vcfwd-example-key-change-me-before-use"}]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "node")
    yield made
    made.clean_up()


def holds(pid: int, name: str) -> bool:
    """Whether the process has a file of this name open."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if entry.readlink().name == name:
                return True
    return False


def heard(pid: int) -> bool:
    """Whether no signal waits for the process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return all(int(line.split()[1], 16) == 0 for line in lines if line.startswith("ShdPnd"))


def nothing_left(site: Site) -> None:
    assert site.dataplanes() == []
    sockets = [path for path in site.run_dir.iterdir() if path.is_socket()]
    assert sockets == [], "sockets are left in the run directory"
    pins = {path.name for path in site.pins.iterdir()} if site.pins.exists() else set()
    assert pins <= {"maps.debug", "progs.debug"}, "pins are left"
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((site.addresses[0], site.port))  # raises when somebody has it still


def test_one_line_on_stdout_and_logs_on_stderr(site: Site) -> None:
    with up(site) as node:
        ready = node.ready()
        assert set(ready) == {"ready_ms", "supervisor_rss_mb"}
        assert ready["ready_ms"] > 0 and 10 < ready["supervisor_rss_mb"] < 1000
        assert len(site.dataplanes()) == 1
        assert node.end() == 0
        assert len(node.out.read_text().splitlines()) == 1
        assert "ready" in node.words()
    nothing_left(site)


def test_without_json_people_read_the_url_and_how_to_join(site: Site) -> None:
    command = [sys.executable, "-m", "forwarder.cli.app", "up", "--config", str(site.config_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        second = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(END_S) == 0
    assert site.url() in first
    assert second.startswith("data path") and "udp" in second
    assert "vcfwd token create" in rest and "vcfwd bot subscribe" in rest


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("once", signal.SIGTERM),
        ("often", signal.SIGINT),
        ("group", signal.SIGINT),
        ("group", signal.SIGTERM),
    ],
)
def test_a_signal_ends_both_processes(site: Site, number: signal.Signals, how: str) -> None:
    with up(site) as node:
        (dataplane,) = site.dataplanes()
        for _ in range(1 if how == "once" else 10):
            with contextlib.suppress(ProcessLookupError):
                if how == "group":
                    os.killpg(node.pid, number)
                else:
                    os.kill(node.pid, number)
        assert node.process.wait(END_S) == 0
        assert not Path(f"/proc/{dataplane}").exists()
        assert "Traceback" not in node.words()
    nothing_left(site)


def test_signals_go_on_until_it_has_ended(site: Site) -> None:
    """Also the last moments, when the loop is gone, do not spoil the exit status."""
    with up(site) as node:
        number = [signal.SIGINT, signal.SIGTERM]
        sent = 0

        def again() -> bool:
            node.process.send_signal(number[sent % 2])
            return node.process.poll() is not None

        while not again() and sent < 100_000:
            sent += 1
        assert node.process.wait(END_S) == 0
        assert sent > 10
    nothing_left(site)


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGINT, "lock"), (signal.SIGTERM, "dataplane")]
)
def test_a_signal_while_it_starts(site: Site, number: signal.Signals, moment: str) -> None:
    node = Up(site)
    try:
        reached = {
            "lock": (site.run_dir / "supervisor.lock").exists,
            "dataplane": site.dataplanes,
        }[moment]
        while not reached():
            assert node.process.poll() is None, node.words()
        for _ in range(3):
            node.process.send_signal(number)
        assert node.process.wait(END_S) == 0, node.words()
        assert "Traceback" not in node.words()
    finally:
        node.clean_up()
    nothing_left(site)


def test_a_signal_before_anything_is_there(site: Site) -> None:
    """From the first line of the command on: it waits until it can be obeyed."""
    code = (
        "import os, signal\n"
        "from forwarder.cli import up\n"
        "real = signal.pthread_sigmask\n"
        "def once(how, numbers):\n"
        "    old = real(how, numbers)\n"
        "    if how == signal.SIG_BLOCK and signal.SIGINT not in old:\n"
        "        os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return old\n"
        "signal.pthread_sigmask = once\n"
        f"up.up(config=up.Path({str(site.config_file)!r}), dev=False, json_=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    nothing_left(site)


def run_up(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """A start that is expected to fail; status and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "forwarder.cli.app", "up", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_the_example_key_is_refused_without_dev(tmp_path: Path) -> None:
    text = Site(tmp_path).config_file.read_text()
    (tmp_path / "vcfwd.toml").write_text(
        "\n".join(line for line in text.splitlines() if not line.startswith("token_keys"))
    )
    status, words = run_up("--config", str(tmp_path / "vcfwd.toml"))
    assert status == 1
    assert words.startswith("vcfwd up: ") and "example" in words and "--dev" in words


def test_all_faults_of_a_configuration_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[network]\nprot = 4433\naddresses = ["0.0.0.0"]\n[dataplane]\nworkers = 0\n')
    status, words = run_up("--config", str(file))
    assert status == 2
    faults = words.splitlines()
    assert len(faults) == 3
    assert any("network.prot" in fault and "network.port" in fault for fault in faults)
    assert any("network.addresses" in fault for fault in faults)
    assert any("dataplane.workers" in fault for fault in faults)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    status, words = run_up("--config", str(tmp_path / "none.toml"))
    assert status == 2 and "none.toml: cannot be read" in words


def test_a_second_node_in_the_same_run_directory(site: Site) -> None:
    with up(site) as first:
        before = json.dumps(site.status()["steering"]["select_verdicts"])
        other = Site(site.base / "other", port=free_port())
        text = other.config_file.read_text().replace(str(other.run_dir), str(site.run_dir))
        other.config_file.write_text(text)
        status, words = run_up("--config", str(other.config_file))
        assert status == 1
        assert f"{site.run_dir}/sessions.db is in use: does another vcfwd run here?" in words
        assert json.dumps(site.status()["steering"]["select_verdicts"]) == before
        assert first.end() == 0
    nothing_left(site)


def test_a_second_node_on_the_same_port(site: Site, tmp_path: Path) -> None:
    """Its sockets would slip into the first one's SO_REUSEPORT group otherwise."""
    with up(site) as first:
        other = Site(tmp_path / "other", port=site.port, change={"api": {"port": free_port()}})
        status, words = run_up("--config", str(other.config_file))
        assert status == 1
        assert f"UDP 127.0.0.1 port {site.port}: another program has it" in words
        assert other.dataplanes() == []
        other.clean_up()
        assert site.status()["dataplane"]["restarts"] == 0
        assert first.end() == 0


def test_the_api_port_is_taken(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.port))
        taken.listen()
        status, words = run_up("--config", str(site.config_file))
    assert status == 1 and f"cannot listen on 127.0.0.1 port {site.port}" in words
    nothing_left(site)


def test_an_address_of_another_host(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.config_file.write_text(site.config_file.read_text().replace("127.0.0.1", "192.0.2.1"))
    status, words = run_up("--config", str(site.config_file))
    assert status == 1 and "no interface has this address" in words
    site.clean_up()


def test_a_data_plane_that_cannot_start(site: Site) -> None:
    status, words = run_up("--config", str(site.config_file), env={"VCFWD_DATAPLANE": "/bin/false"})
    assert status == 1
    assert "vcfwd up: " in words and "data plane" in words
    nothing_left(site)


def test_a_data_plane_that_is_not_there(site: Site) -> None:
    env = {"VCFWD_DATAPLANE": "/nonexistent/dataplane"}
    status, words = run_up("--config", str(site.config_file), env=env)
    assert status == 1 and "there is no data plane program at /nonexistent/dataplane" in words
    nothing_left(site)


def test_a_data_plane_that_dies_again_and_again(site: Site, tmp_path: Path) -> None:
    """The supervisor survives, counts, says so in its log, and serves when it is in order."""
    from forwarder.dataplane.process import find_binary

    program = tmp_path / "vcfwd-dataplane"
    program.symlink_to(find_binary())
    with up(site, env={"VCFWD_DATAPLANE": str(program)}) as node:
        for restarts in (1, 2, 3):
            (pid,) = wait_for(site.dataplanes, "a data plane is there")
            os.kill(pid, signal.SIGKILL)
            wait_for(
                lambda n=restarts: site.status()["dataplane"]["restarts"] == n, "it is restarted"
            )
        program.unlink()
        program.symlink_to("/bin/false")
        os.kill(site.dataplanes()[0], signal.SIGKILL)
        wait_for(lambda: "cannot be started" in node.words(), "a sentence in the log")
        assert site.status()["dataplane"]["restarts"] == 3
        program.unlink()
        program.symlink_to(find_binary())
        wait_for(lambda: site.status()["dataplane"]["restarts"] == 4, "it serves again")
        assert "Traceback" not in node.words()
        assert node.end() == 0
    nothing_left(site)


def test_a_killed_supervisor_is_followed_by_one_that_adopts(site: Site) -> None:
    with up(site) as first:
        pids = site.dataplanes()
        first.kill()
        assert site.dataplanes() == pids
        with up(site) as second:
            status = site.status()
            assert status["dataplane"]["adopted"] and [status["dataplane"]["pid"]] == pids
            assert second.end() == 0
    nothing_left(site)


def test_a_signal_while_it_adopts(site: Site) -> None:
    """Both processes end, also the one that it did not start itself."""
    with up(site) as first:
        first.kill()
        (dataplane,) = site.dataplanes()
        os.kill(dataplane, signal.SIGSTOP)  # it answers when we want it to
        second = Up(site)
        try:
            while not holds(second.pid, "supervisor.lock"):
                assert second.process.poll() is None, second.words()
            second.process.send_signal(signal.SIGTERM)
            wait_for(lambda: heard(second.pid), "the signal is heard")
            os.kill(dataplane, signal.SIGCONT)
            assert second.process.wait(END_S) == 0, second.words()
        finally:
            second.clean_up()
    nothing_left(site)
