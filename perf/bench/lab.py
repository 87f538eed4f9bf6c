"""Namespaces, processes and the rig's tools for one run.

    pub  pub0 ---- in0  fwd  out0 ---- sub0  sub

Names are perf-PID-pub and so on; leaving the Lab ends every process it started and removes the
namespaces, whatever happened.  The relay is on RELAY_CORE, the generator on SOURCE_CORE, and the
receiver's process wherever there is room.  Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "perf"
PEERS = ROOT / "perf" / "peers"
SOURCE_CORE, RELAY_CORE = 0, 1
PORT, SOURCE_PORT, PORT_BASE = 5000, 20000, 6000
"""UDP ports: the relay's, the first flow's, the first receiver's."""
RESULT_TIMEOUT_S = 30.0
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class PerfError(Exception):
    """A suite cannot go on; the sentence says what is missing and what to do."""


@contextlib.contextmanager
def entered(netns: str) -> Iterator[None]:
    """This thread is in the namespace meanwhile: sockets and processes made here stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            raise PerfError(f"enter {netns}: {os.strerror(ctypes.get_errno())}; run as root")
        yield
    finally:
        _libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        os.close(there)


def run(*command: str | int | Path, check: bool = True) -> str:
    """A short command; PerfError with its words when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    if check and done.returncode != 0:
        raise PerfError(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.stdout}")
    return done.stdout


def need(path: Path) -> Path:
    """The path of a built tool, or the sentence that tells how to get it."""
    if not path.exists():
        raise PerfError(f"{path.name} is missing: run `make perf-deps`")
    return path


def sweep() -> None:
    """Removes what a killed run left behind: names carry the id of a process that is gone."""
    places = [Path("/run/netns"), Path("/dev/shm"), Path("/run")]
    for path in [found for place in places if place.exists() for found in place.glob("perf-*")]:
        number = re.match(r"perf-(\d+)", path.name)
        if number is None or Path(f"/proc/{number[1]}").exists():
            continue
        if path.parent.name == "netns":
            run("ip", "netns", "del", path.name, check=False)
            continue
        for mount in (path, path / "node/run/bpf"):
            run("umount", mount, check=False)
        shutil.rmtree(path, ignore_errors=True)


class Lab:
    """See the module; `queues` of each veth, one for each worker."""

    def __init__(self, *, queues: int = 1, mark: str = "") -> None:
        if os.geteuid() != 0:
            raise PerfError("the rig makes namespaces and loads XDP programs: run as root")
        self.prefix = f"perf-{os.getpid()}{mark}"
        self.queues = queues
        self.names: dict[str, str] = {}
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-", dir="/dev/shm"))
        self._children: list[subprocess.Popen[str]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        sweep()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._stack.callback(self._topo, "down")
        try:
            out = self._topo("up")
        except BaseException:
            self._stack.close()
            raise
        self.names = dict(line.split("=", 1) for line in out.split())
        return self

    def __exit__(self, *_exc: object) -> None:
        for child in list(self._children):
            self.end(child)
        self._stack.close()

    def _topo(self, verb: str) -> str:
        run_ = subprocess.run(
            [str(PEERS / "topo.sh"), verb, self.prefix],
            env=dict(os.environ, QUEUES=str(self.queues)),
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        if run_.returncode != 0:
            raise PerfError(f"topo.sh {verb}: {run_.stderr.strip()}")
        return run_.stdout

    def netns(self, place: str) -> str:
        return self.names[f"{place}_ns"]

    # ---- processes --------------------------------------------------------------------------

    def start(
        self,
        place: str | None,
        command: Sequence[object],
        *,
        core: int | None = None,
        ready: bool = False,
        quiet: bool = False,
    ) -> subprocess.Popen[str]:
        """Starts a command in a namespace, on a core; waits for its "ready" if asked."""
        argv = [str(word) for word in command]
        if core is not None:
            argv = ["taskset", "-c", str(core), *argv]
        if place is not None:
            argv = ["nsenter", f"--net=/run/netns/{self.netns(place)}", "--", *argv]
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if ready else subprocess.DEVNULL if quiet else None, text=True,
        )  # fmt: skip
        self._children.append(child)
        if ready:
            assert child.stderr
            line = child.stderr.readline()
            if line != "ready\n":
                self.end(child)
                raise PerfError(f"`{' '.join(argv)}` did not start: {line.strip()}")
        return child

    def end(self, child: subprocess.Popen[str]) -> None:
        """Kills what is left of a child."""
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()
        if child in self._children:
            self._children.remove(child)

    def result(self, child: subprocess.Popen[str]) -> dict[str, Any]:
        """Waits for the end of a tool; its last line, which is JSON."""
        try:
            out, _ = child.communicate(timeout=RESULT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.end(child)
            raise PerfError(f"{child.args!r} did not end within {RESULT_TIMEOUT_S:g} s") from None
        self._children.remove(child)
        if child.returncode or not out.strip():
            raise PerfError(f"{child.args!r} ended with status {child.returncode}")
        value: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return value

    def stop(self, child: subprocess.Popen[str]) -> dict[str, Any]:
        """Asks a tool to end; what it printed last."""
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        return self.result(child)

    def peer(self, name: str) -> Path:
        return need(BUILD / "peers" / name)


class Receiver:
    """perf/c/receiver on an interface; see its head for the options and answers."""

    def __init__(
        self, lab: Lab, ports: int, *, place: str = "sub", base: int = PORT_BASE, **options: Any
    ) -> None:
        interface = {"fwd": "in_if"}.get(place, f"{place}_if")
        argv: list[object] = [need(BUILD / "receiver"), "--if", lab.names[interface]]
        argv += ["--port-base", base, "--ports", ports, *flags(options)]
        self._lab, self._child = lab, lab.start(place, argv, ready=True)

    def ask(self, command: str) -> dict[str, Any]:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.write(command + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            assert self._child.stderr
            raise PerfError(f"the receiver ended: {self._child.stderr.read().strip()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def packets(self) -> int:
        return int(self.ask("count")["packets"])

    def settled(self) -> int:
        """The count once nothing arrives any more (at most 3 s)."""
        before, end = self.packets(), time.monotonic() + 3
        while time.monotonic() < end:
            time.sleep(0.02)
            now = self.packets()
            if now == before:
                break
            before = now
        return before

    def close(self) -> None:
        self._lab.end(self._child)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def flags(options: dict[str, Any]) -> list[object]:
    """Keyword arguments as long options; None and False are left out, True has no value."""
    argv: list[object] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        argv.append("--" + name.replace("_", "-"))
        if value is not True:
            argv.append(value)
    return argv


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
