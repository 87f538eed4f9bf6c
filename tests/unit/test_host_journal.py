"""The journal's lines, that each is on the disk before its setting is made, and the audit trail."""

from __future__ import annotations

import json
import os
import socket

import pytest
from host_kit import CLOUD, VM, XEON, Tuned, copied

from forwarder.errors import HostError
from forwarder.host import audit, settings
from forwarder.host.apply import Stopped
from forwarder.host.journal import VERSION
from forwarder.host.root import Host


def lines(tuned: Tuned) -> list[dict]:
    return [json.loads(line) for line in tuned.journal.file.read_text().splitlines()]


def test_a_line_says_boot_version_stage_old_and_new(tmp_path):
    tuned = Tuned(copied(CLOUD, tmp_path), boot="this-boot")
    tuned.apply("thp", "memlock", run="abc")
    intends = [line for line in lines(tuned) if line["event"] == "intend"]
    thp = next(line for line in intends if line["stage"] == "thp")
    assert thp == {
        "event": "intend", "id": thp["id"], "version": VERSION, "apply": "abc",
        "boot_id": "this-boot", "stage": "thp",
        "key": "choice:/sys/kernel/mm/transparent_hugepage/enabled", "old": "madvise",
        "new": "never", "lifetime": "run-time",
    }  # fmt: skip
    (memlock,) = [line for line in intends if line["stage"] == "memlock"]
    assert (memlock["old"], memlock["lifetime"]) == ("(absent)", "persistent")
    done = [line["id"] for line in lines(tuned) if line["event"] == "done"]
    assert done == [line["id"] for line in intends]


def test_on_the_disk_before_the_setting_is_made(tmp_path, monkeypatch):
    """The order of what reaches the disk: each setting after an fsync of the line that names it."""
    root = copied(VM, tmp_path)
    tuned = Tuned(root)
    safe: list[str] = []  # keys whose intent was synced
    made: list[str] = []
    fsync, write = os.fsync, settings.write

    def synced(fd: int) -> None:
        fsync(fd)
        if os.readlink(f"/proc/self/fd/{fd}") == str(tuned.journal.file):
            last = json.loads(tuned.journal.file.read_text().splitlines()[-1])
            if last["event"] == "intend":
                safe.append(last["key"])

    def set_(host: Host, key: str, value: str) -> None:
        assert safe and safe[-1] == key, f"{key} is made before its line is on the disk"
        made.append(key)
        write(host, key, value)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(settings, "write", set_)
    done = tuned.apply(nics=("eth1",))
    assert len(made) == done.changed > 8 and made == safe


def test_the_directory_of_a_new_journal_is_synced_too(tmp_path, monkeypatch):
    tuned = Tuned(copied(CLOUD, tmp_path))
    seen: list[str] = []
    fsync = os.fsync

    def synced(fd: int) -> None:
        seen.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", synced)
    tuned.apply("thp")
    first = seen.index(str(tuned.journal.file))
    assert seen[first + 1] == str(tuned.journal.folder)


def test_a_journal_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    root = copied(CLOUD, tmp_path)
    before = (root / "sys/kernel/mm/transparent_hugepage/enabled").read_text()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Stopped, match="No space left on device; nothing is changed without it"):
        Tuned(root).apply("thp")
    assert (root / "sys/kernel/mm/transparent_hugepage/enabled").read_text() == before


def test_the_journal_is_not_written_without_its_lock(tmp_path):
    tuned = Tuned(copied(CLOUD, tmp_path))
    with pytest.raises(HostError, match="without its lock"):
        tuned.journal.note(1, "done")
    assert not tuned.journal.file.exists()


def test_revert_reads_each_value_back(tmp_path):
    """A kernel that takes the old value without an error and keeps the new one: said, and kept in
    the journal, so that the next revert tries again."""
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("thp", "memlock")

    class Deaf(Host):
        def write(self, name, text):
            pass

    tuned = Tuned(root, Deaf(root))
    done = tuned.revert()
    assert (done.changed, done.failed) == (1, 1)
    assert any("was written without an error and is 'never'" in line for line in tuned.said)
    assert [entry.stage for entry in Tuned(root).journal.live()] == ["thp"]
    assert Tuned(root).revert().changed == 1


def test_reverted_in_reverse(tmp_path):
    root = copied(XEON, tmp_path)
    Tuned(root).apply("workqueues", "sysctls", "irq", nics=("ens1f0",))
    keys = [entry.key for entry in Tuned(root).journal.live()]
    tuned = Tuned(root)
    tuned.revert()
    back = {line["id"]: at for at, line in enumerate(lines(tuned)) if line["event"] == "reverted"}
    order = [line["key"] for line in lines(tuned) if line["event"] == "intend"]
    ids = [line["id"] for line in lines(tuned) if line["event"] == "intend"]
    assert order == keys and len(keys) > 5
    places = [back[number] for number in ids]
    assert places == sorted(places, reverse=True)


def test_the_trail_goes_to_journald(tmp_path, monkeypatch):
    path = str(tmp_path / "journald")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        daemon.settimeout(5)
        monkeypatch.setattr(audit, "_JOURNALD", path)
        host = Host()
        audit.Audit(host, tmp_path / "tune").add("apply x", "one\ntwo", stage="thp")
        text = daemon.recv(65536).decode()
    fields = dict(line.split("=", 1) for line in text.splitlines())
    assert fields == {
        "MESSAGE": f"{audit.who()}: apply x: one two", "SYSLOG_IDENTIFIER": "vcfwd-tune",
        "PRIORITY": "6", "VCFWD_STAGE": "thp",
    }  # fmt: skip


def test_without_journald_the_file_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_JOURNALD", str(tmp_path / "nobody"))
    trail = audit.Audit(Host(), tmp_path / "tune")
    trail.add("apply x", "done")
    (line,) = trail.read()
    assert (line["what"], line["result"], line["who"]) == ("apply x", "done", audit.who())


def test_who_is_the_person_behind_sudo(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ada")
    assert audit.who() == "ada (sudo)"
