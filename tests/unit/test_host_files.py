"""Whole files of configuration stay what they were, to the byte, but for the line that is ours."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from host_kit import XEON, Tuned, copied, settings
from test_host_shell import by_hand

from forwarder.errors import HostError
from forwarder.host import audit, irqbalance
from forwarder.host import settings as values
from forwarder.host.capture import capture
from forwarder.host.describe import steps
from forwarder.host.root import FILE_MAX, Host, printable
from forwarder.host.stage import State
from forwarder.host.stages import BY_NAME

FILE = irqbalance.FILE.removeprefix("/")
KEY = f"file:{irqbalance.FILE}"
LATIN = "# geändert für Zürich: 100 %s \\n 'so' $HOME `x` \\351\n".encode("latin-1")

# The file, and the file as it is then; @ stands for our line.
FILES = {
    "a comment in Latin-1": (LATIN + b"A=\n", LATIN + b"A=\n@\n"),
    "the example": (LATIN + b"#IRQBALANCE_BANNED_CPULIST=\n# \xff\n", LATIN + b"@\n# \xff\n"),
    "no line break at the end": (b"A=\xe4", b"A=\xe4\n@\n"),
    "of DOS": (b"# \xe4\r\nA=1\r\n", b"# \xe4\r\nA=1\r\n@\n"),
    "white space around": (b"\n \nA=1\n\n\t\n", b"\n \nA=1\n\n\t\n@\n"),
    "a lone # above": (b"#\nIRQBALANCE_BANNED_CPULIST=0\nB=2", b"#\n@\nB=2\n"),
    "an example and a line": (
        b"# IRQBALANCE_BANNED_CPULIST=7\n\n IRQBALANCE_BANNED_CPULIST=0\n B=2\n",
        b"# IRQBALANCE_BANNED_CPULIST=7\n\n@\n B=2\n",
    ),
    "two lines, of which the last counts": (
        b"IRQBALANCE_BANNED_CPULIST=0\nIRQBALANCE_BANNED_CPULIST=5\n",
        b"IRQBALANCE_BANNED_CPULIST=0\n@\n",
    ),
    "nothing": (b"", b"@\n"),
    "every byte": (bytes(range(256)) + b"\n", bytes(range(256)) + b"\n@\n"),
}


def host_with(raw: bytes, folder: Path) -> Path:
    root = copied(XEON, folder)
    (root / FILE).write_bytes(raw)
    return root


def vcfwd(*words: object, root: Path, encoding: str = "utf-8:strict") -> str:
    """The command in a process of its own, whose output takes no byte that is no character."""
    done = subprocess.run(
        [sys.executable, "-m", "forwarder.cli.app", "tune", *map(str, words), "--root", str(root)],
        capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr and done.returncode in (0, 1), done.stderr
    return done.stdout.decode()


@pytest.mark.parametrize("what", FILES)
def test_applied_and_reverted(what, tmp_path):
    raw, wanted = FILES[what]
    root = host_with(raw, tmp_path)
    (step,) = BY_NAME["irqbalance"].plan(Tuned(root).survey().site)
    line = re.search(r'IRQBALANCE_BANNED_CPULIST="[\d,-]+"', step.wanted)
    made = wanted.replace(b"@", line[0].encode()) if what != "every byte" else (
        wanted.removesuffix(b"@\n") + line[0].encode() + b"\n"
    )  # fmt: skip
    assert Tuned(root).apply("irqbalance").changed == 1
    assert (root / FILE).read_bytes() == made
    assert Tuned(root).apply("irqbalance").changed == 0
    assert BY_NAME["irqbalance"].check(Tuned(root).survey().site).state is State.OK
    done = Tuned(root).revert()
    assert (done.changed, done.left, done.failed) == (1, 0, 0)
    assert (root / FILE).read_bytes() == raw


def test_a_byte_that_somebody_else_changed_is_seen(tmp_path):
    root = host_with(LATIN, tmp_path)
    Tuned(root).apply("irqbalance")
    file = root / FILE
    file.write_bytes(file.read_bytes().replace(b"\xe4", b"\xf6"))
    tuned = Tuned(root)
    assert tuned.revert().left == 1 and "somebody else set it to" in tuned.said[-1]
    assert Tuned(root).revert(force=True).changed == 1
    assert file.read_bytes() == LATIN


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [(LATIN, "utf-8:strict"), (b"# one line: \xe4", "ascii:strict")],
    ids=["lines", "one line"],
)
def test_whatever_is_in_it_the_command_tells_it(raw, encoding, tmp_path):
    """Also of a file whose name is no UTF-8."""
    root = host_with(raw, tmp_path)
    hooks = root / "etc/network/if-up.d"
    hooks.mkdir(parents=True)
    (hooks / "caf\udce9").write_text("ethtool -G $IFACE rx 512\n")

    def run(*words: str) -> str:
        return vcfwd(*words, root=root, encoding=encoding)

    (step,) = (s for s in json.loads(run("plan", "--json"))["steps"] if s["stage"] == "irqbalance")
    assert "\\udce4" in step["current"] and "\\udce4" in step["wanted"]
    for text in step.values():
        assert text.encode()  # no half of a character: other programs refuse such JSON
    assert "irqbalance" in run("plan")
    assert "caf\\udce9" in run("check") and "caf\\udce9" in run("check", "--json")
    assert "\\344" in run("apply", "--dry-run")
    assert "irqbalance: ok" in run("apply", "irqbalance")
    assert "1 settings put back" in run("revert")
    assert (root / FILE).read_bytes() == raw
    assert run("log").count(FILE) == 2
    assert [line["what"] for line in json.loads(run("log", "--json")) if FILE in line["what"]]


def test_the_watch_puts_it_back_and_tells_it(tmp_path):
    root = host_with(LATIN, tmp_path)
    Tuned(root).apply("irqbalance")
    made = (root / FILE).read_bytes()
    (root / FILE).write_bytes(b"# \xf6")
    assert "\\udcf6 (no line break" in vcfwd("watch", "--count", "1", root=root)
    assert (root / FILE).read_bytes() == made


def test_the_line_by_hand_writes_the_same_bytes(tmp_path):
    for folder in ("hand", "ours"):
        (tmp_path / folder).mkdir()
    hand, ours = (host_with(LATIN + b"B='\xe4\\'\n", tmp_path / name) for name in ("hand", "ours"))
    lines = [s.shell for s in steps(Tuned(hand).survey()) if s.stage == "irqbalance"]
    assert lines[0].isascii()
    by_hand(hand, lines)
    Tuned(ours).apply("irqbalance")
    assert (hand / FILE).read_bytes() == (ours / FILE).read_bytes()


def test_a_journal_of_before_is_reverted(tmp_path):
    """Its old value has no white space around it, nor a mark of how the file ended."""
    root = host_with(b"A=1\n", tmp_path)
    tuned = Tuned(root)
    tuned.apply("irqbalance")
    (intend,) = (json.loads(x) for x in tuned.journal.file.read_text().splitlines() if "old" in x)
    assert intend["old"] == "A=1"
    assert Tuned(root).revert().changed == 1
    assert (root / FILE).read_bytes() == b"A=1\n"


def test_a_capture_has_the_same_bytes(tmp_path):
    raw = LATIN + b"# of \xe4 10.1.2.3, 02:11:22:33:44:55"
    root = host_with(raw, tmp_path)
    capture(tmp_path / "again", settings(), root)
    kept = raw.replace(b"10.1.2.3", b"0.0.0.0").replace(b"02:11:22:33:44:55", b"00:00:00:00:00:00")
    assert (tmp_path / "again" / FILE).read_bytes() == kept


def test_a_file_that_is_too_large_is_left_alone(tmp_path):
    root = host_with(b"#" * (FILE_MAX + 1), tmp_path)
    verdict = BY_NAME["irqbalance"].check(Tuned(root).survey().site)
    assert verdict.state is State.UNKNOWN and "is larger than 1 MiB" in verdict.sentence
    with pytest.raises(HostError, match="is larger than 1 MiB"):
        Tuned(root).apply("irqbalance")
    assert (root / FILE).stat().st_size == FILE_MAX + 1


def test_the_trail_in_journald(tmp_path, monkeypatch):
    path = str(tmp_path / "journald")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        daemon.settimeout(5)
        monkeypatch.setattr(audit, "_JOURNALD", path)
        audit.Audit(Host(), tmp_path / "tune").add("revert", "is caf\udce9\udc0a again")
        text = daemon.recv(65536).decode()
    assert "MESSAGE=" in text and r"is caf\udce9 (no line break at the end) again" in text


def test_a_value_is_the_file(tmp_path):
    host = Host(tmp_path)
    for raw in (b"", b"\n", b"\n\n", b" a ", b" a \n", b"\xff", b"\xff\n", b"\xed\xb0\x8a\n"):
        (tmp_path / "f").write_bytes(raw)
        value = values.read(host, "file:/f")
        again = json.loads(json.dumps(value))
        values.write(host, "file:/f", values.ABSENT)
        assert not (tmp_path / "f").exists()
        values.write(host, "file:/f", again)
        assert (tmp_path / "f").read_bytes() == raw
        printable(value).encode()  # or it raises
