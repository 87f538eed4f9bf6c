"""`tune watch` keeps what was applied and knows when to give up; captures keep no secrets."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest
from host_kit import CAPTURED, CLOUD, FIXTURES, NAMES, XEON, Tuned, copied, settings, tree

from forwarder.errors import HostError
from forwarder.host import evidence, stages, verdicts
from forwarder.host.capture import capture, clean
from forwarder.host.journal import Applied
from forwarder.host.root import Host
from forwarder.host.watch import HOUR_S, REAPPLIES, Watcher

IRQ = "proc/irq/61/smp_affinity_list"


def watcher(root: Path) -> tuple[Watcher, list[str]]:
    tuned = Tuned(root)
    return Watcher(tuned.host, tuned.journal, tuned.audit, tuned.said.append), tuned.said


def test_what_drifts_is_put_back(tmp_path):
    root = copied(XEON, tmp_path)
    Tuned(root).apply("irq", "sysctls")
    wanted = (root / IRQ).read_text()
    keeper, said = watcher(root)
    assert keeper.look(0.0) == 0 and said == []
    (root / IRQ).write_text("0-15\n")  # a link flap
    assert keeper.look(1.0) == 1
    assert (root / IRQ).read_text() == wanted
    assert said == [f"irq: irq:ens1f0:TxRx:0 was 0-15: {wanted.strip()} again"]


def test_three_times_an_hour_then_it_says_who_fights(tmp_path):
    root = copied(XEON, tmp_path)
    Tuned(root).apply("irq")
    keeper, said = watcher(root)
    for now in range(REAPPLIES):
        (root / IRQ).write_text("0-15\n")
        assert keeper.look(float(now)) == 1
    said.clear()
    (root / IRQ).write_text("0-15\n")
    for now in range(10, 20):
        assert keeper.look(float(now)) == 0
    assert len(said) == 1, "once an hour"
    assert (
        "after 3 times in an hour: irqbalance fights for it: vcfwd tune apply irqbalance" in said[0]
    )
    assert (root / IRQ).read_text() == "0-15\n"
    assert keeper.look(HOUR_S) == 1, "an hour after the first"
    (root / IRQ).write_text("0-15\n")
    assert keeper.look(HOUR_S + 0.5) == 0, "the other two still count"
    assert keeper.look(HOUR_S + 1.5) == 1


def come_up(root: Path, name: str, hidden: Path) -> None:
    """The driver asks for its interrupts."""
    (root / "sys/class/net" / name / "flags").write_text("0x1003\n")
    for entry in hidden.iterdir():
        entry.rename(root / "sys/class/net" / name / "device/msi_irqs" / entry.name)


def go_down(root: Path, name: str, hidden: Path) -> None:
    (root / "sys/class/net" / name / "flags").write_text("0x1002\n")
    hidden.mkdir()
    for entry in (root / "sys/class/net" / name / "device/msi_irqs").iterdir():
        entry.rename(hidden / entry.name)


def test_a_link_that_comes_up_later_gets_its_interrupts_placed(tmp_path):
    """They were not there to be applied: the stages are run again after a link event."""
    root = copied(XEON, tmp_path)
    before = tree(root)
    go_down(root, "ens1f0", tmp_path / "hidden")
    tuned = Tuned(root)
    tuned.apply(nics=("ens1f0",))
    assert not any(entry.key.startswith("irq:") for entry in tuned.journal.live())
    keeper, said = watcher(root)

    def survey(nics):
        return Tuned(root).survey(*nics).site

    assert keeper.renew(survey) == 0, "still down"
    come_up(root, "ens1f0", tmp_path / "hidden")
    assert (root / IRQ).read_text() == "0-15\n"
    assert keeper.renew(survey) > 2
    placed = (root / IRQ).read_text()
    assert int(placed) in survey(("ens1f0",)).layout.housekeeping
    assert keeper.renew(survey) == 0, "once"
    (root / IRQ).write_text("0-15\n")
    assert keeper.renew(survey) == 0, "what the journal knows is for look(), with its limit"
    assert watcher(root)[0].renew(survey) == 0, "nor by a watch that has just begun"
    assert keeper.look(0.0) == 1 and (root / IRQ).read_text() == placed
    assert not said[1:] and "irq" in said[0]
    assert Tuned(root).revert().failed == 0
    (root / "sys/class/net/ens1f0/flags").write_text("0x1003\n")
    assert tree(root) == before


def test_only_what_was_applied_is_run_again(tmp_path):
    root = copied(XEON, tmp_path)
    Tuned(root).apply("channels", nics=("ens1f0",))
    keeper, _ = watcher(root)

    def survey(nics):
        assert tuple(nics) == ("ens1f0",)
        return Tuned(root).survey(*nics).site

    assert keeper.renew(survey) == 0, "nobody asked for irq, xps or napi"
    Tuned(root).apply("xps", nics=("ens1f0",))
    xps = root / "sys/class/net/ens1f0/queues/tx-0/xps_cpus"
    made = xps.read_text()
    assert keeper.renew(survey) == 0
    Tuned(root).revert()
    assert xps.read_text() != made and keeper.renew(survey) == 0, "reverted is forgotten"
    Tuned(root).apply("xps", nics=("ens1f0",))
    xps.write_text("ff\n")  # somebody else: left alone by the revert, and so in the journal
    assert Tuned(root).revert().left == 1
    other = root / "sys/class/net/ens1f0/queues/tx-1/xps_cpus"
    before = other.read_text()
    assert watcher(root)[0].renew(survey) == 0 and other.read_text() == before
    Tuned(root).revert(force=True)
    Tuned(root, boot="one").apply("xps", nics=("ens1f0",))
    assert Tuned(root, boot="two").journal.applied() == Applied()


def test_a_nic_that_is_gone_when_its_link_event_is_read(tmp_path):
    root = copied(XEON, tmp_path)
    Tuned(root).apply("irq", nics=("ens1f0",))
    keeper, said = watcher(root)
    (root / "sys/class/net/ens1f0").rename(tmp_path / "gone")
    assert keeper.renew(lambda nics: Tuned(root).survey(*nics).site) == 0
    assert said == [said[0]] and "there is no interface ens1f0" in said[0]


def test_settings_of_another_boot_and_reverted_ones_are_not_kept(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root, boot="one").apply("sysctls")
    (root / "proc/sys/vm/stat_interval").write_text("1\n")
    tuned = Tuned(root, boot="two")
    assert Watcher(tuned.host, tuned.journal, tuned.audit, print).look(0.0) == 0
    Tuned(root, boot="one").revert()
    (root / "proc/sys/vm/stat_interval").write_text("7\n")
    assert watcher(root)[0].look(0.0) == 0


def test_it_stands_back_while_somebody_applies(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("thp")
    (root / "sys/kernel/mm/transparent_hugepage/enabled").write_text("always\n")
    keeper, _ = watcher(root)
    with Tuned(root).journal.locked():
        assert keeper.look(0.0) == 0
    assert keeper.look(1.0) == 1


def test_a_setting_that_cannot_be_put_back_is_told(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("thp")
    (root / "sys/kernel/mm/transparent_hugepage/enabled").write_text("always\n")

    class ReadOnly(Host):
        def write(self, name, text):
            raise OSError(30, "Read-only file system")

    tuned = Tuned(root, ReadOnly(root))
    assert Watcher(tuned.host, tuned.journal, tuned.audit, tuned.said.append).look(0.0) == 0
    assert "cannot be put back: the file system is read-only" in tuned.said[0]


def test_evidence_is_what_happened_between(tmp_path):
    (tmp_path / "proc/77/task/78").mkdir(parents=True)
    host = Host(tmp_path)

    def write(irq: int, steal: int, switches: int) -> None:
        (tmp_path / "proc/interrupts").write_text(
            f"      CPU0 CPU1\n 5: 1 {irq} x\nLOC: 2 {irq} Local timer\nERR: 9\n"
        )
        (tmp_path / "proc/stat").write_text(f"cpu 1\ncpu1 1 2 3 4 5 6 7 {steal} 9 10\n")
        (tmp_path / "proc/77/comm").write_text("vcfwd-dataplane\n")
        (tmp_path / "proc/77/task/78/status").write_text(
            f"Name:\tw\nCpus_allowed_list:\t1\nvoluntary_ctxt_switches:\t{switches}\n"
            "nonvoluntary_ctxt_switches:\t1\n"
        )

    write(10, 5, 100)
    before = evidence.read(host, [1])
    write(15, 7, 103)
    after = evidence.read(host, [1])
    assert evidence.between(before, after) == {1: evidence.Core(10, 20, 3)}
    assert evidence.between(after, before)[1].interrupts == 20, "a counter that began anew"


def test_spin_gaps_are_measured_on_the_core():
    cpu = min(os.sched_getaffinity(0))
    found = evidence.spin_gaps(cpu, 5)
    assert found["longest_ns"] > 0 and set(found) == {
        ">1us", ">10us", ">100us", ">1000us", "longest_ns"
    }  # fmt: skip
    with pytest.raises(OSError):
        evidence.spin_gaps(8191, 1)


# ---- captures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_of_a_capture_says_the_same(name, tmp_path):
    root = copied(name, tmp_path)
    capture(tmp_path / "again", settings(), root)
    for nics in ((), tuple(n for n, nic in Tuned(root).survey().site.facts.nics.items()
                           if nic.kind == "physical")):  # fmt: skip
        first, second = (
            verdicts.check(Tuned(where).survey(*nics).site, stages.STAGES)
            for where in (root, tmp_path / "again")
        )
        assert first == second


def test_a_capture_of_this_host_tells_nothing_about_who_it_is(tmp_path):
    capture(tmp_path / "here", settings())
    files = [path for path in (tmp_path / "here").rglob("*") if path.is_file()]
    text = "\n".join(path.read_text(errors="replace") for path in files)
    assert not re.search(r"\b(?!0\.0\.0\.0)\d+\.\d+\.\d+\.\d+\b", text.replace("0000:", ""))
    secrets = [Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
    for file in Path("/sys/class/net").glob("*/address"):
        with contextlib.suppress(OSError):  # an interface may go at any time
            address = file.read_text().strip()
            secrets += [address] if address.strip("0:") else []
    assert not [secret for secret in secrets if secret in text]
    # As a word: a host may be called as a part of what every host has.
    assert not re.search(rf"(?<![\w-]){re.escape(socket.gethostname())}(?![\w-])", text)
    assert json.loads((tmp_path / "here/ethtool.json").read_text())
    before = tree(tmp_path / "here")
    assert verdicts.check(Tuned(tmp_path / "here").survey().site, stages.STAGES)
    assert tree(tmp_path / "here") == before


def test_a_capture_does_not_overwrite(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="is not empty"):
        capture(tmp_path, settings())


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("/proc/cmdline", "root=UUID=1-2 ip=10.0.0.1 isolcpus=1 quiet key=s", "isolcpus=1 quiet"),
        ("/etc/NetworkManager/x", "[wifi]\npsk=secret\n[ethtool]\nring-rx=1", "[wifi]\n[ethtool]"),
        ("/etc/systemd/network/a.link", "MAC=aa:bb:cc:dd:ee:ff", "MAC=00:00:00:00:00:00"),
        ("/proc/net/route", "Iface a\neth0\t0A000000\t0A000001\t3\t0\t0\t0\t00FFFFFF",
         "Iface a\neth0\tFFFFFFFF\t00000000\t3\t0\t0\t0\tFFFFFFFF"),
        ("/proc/sys/kernel/random/boot_id", "x", "00000000-0000-0000-0000-000000000000"),
    ],
)  # fmt: skip
def test_what_is_taken_out(name, text, kept):
    assert clean(name, text) == kept


def test_the_synthetic_hosts_are_what_their_maker_writes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_hosts", FIXTURES / "make.py")
    make = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_hosts", make)
    spec.loader.exec_module(make)
    make.write(tmp_path)
    for name in make.HOSTS:
        assert tree(tmp_path / name) == tree(FIXTURES / name)
    assert {*make.HOSTS, *CAPTURED} == set(NAMES)
