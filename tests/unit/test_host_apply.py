"""Apply, journal and revert on copies of the fixture hosts; faults, foreign hands, other boots."""

from __future__ import annotations

import errno
import json
import os

import pytest
from host_kit import CLOUD, ENA, EPYC, NAMES, XEON, Tuned, copied, tree

from forwarder.errors import HostError
from forwarder.host import stages, verdicts
from forwarder.host.apply import Stopped
from forwarder.host.journal import Busy
from forwarder.host.root import CapturedNics, Host
from forwarder.host.stage import State


@pytest.mark.parametrize("name", NAMES)
def test_apply_is_clean_idempotent_and_reverts_to_what_was(name, tmp_path):
    root = copied(name, tmp_path)
    before = tree(root)
    tuned = Tuned(root)
    done = tuned.apply()
    assert done.changed > 5
    after = verdicts.check(tuned.survey().site, stages.STAGES)
    states = {verdict.stage: verdict.state for verdict in after}
    rest = {stage: s for stage, s in states.items() if s not in (State.OK, State.NOT_APPLICABLE)}
    assert rest.pop("boot") == State.PARTLY  # until the restart
    assert set(rest.values()) <= {State.CONFLICT}  # tuned, power-profiles-daemon, a link file

    lines = tuned.journal.file.read_text()
    assert Tuned(root).apply().changed == 0
    assert tuned.journal.file.read_text() == lines

    assert Tuned(root).revert().changed == done.changed
    reverted = tree(root)
    gone = {name for name in reverted if name not in before}
    assert not gone
    assert {n for n in before if before[n] != reverted.get(n)} == set()
    assert Tuned(root).revert().changed == 0


def test_every_step_is_journaled_before_it_is_made(tmp_path):
    root = copied(XEON, tmp_path)
    journal = root / "var/lib/vcfwd/tune/journal.jsonl"
    seen = []

    class Watching(Host):
        def write(self, name, text):
            last = json.loads(journal.read_text().splitlines()[-1])
            seen.append((last["event"], last["key"].endswith(name)))
            super().write(name, text)

    Tuned(root, Watching(root)).apply("sysctls", "governor", "thp")
    assert len(seen) > 8 and set(seen) == {("intend", True)}


def test_a_second_apply_keeps_the_first_old_value(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("thp")
    file = root / "sys/kernel/mm/transparent_hugepage/enabled"
    file.write_text("[always] madvise never\n")
    assert Tuned(root).apply("thp").changed == 1
    Tuned(root).revert()
    assert file.read_text().strip() == "madvise"


def test_what_somebody_else_changed_is_left_alone_unless_forced(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("sysctls")
    file = root / "proc/sys/vm/stat_interval"
    file.write_text("60\n")
    tuned = Tuned(root)
    done = tuned.revert()
    assert (done.left, file.read_text()) == (1, "60\n")
    assert any("somebody else set it to '60'" in line for line in tuned.said)
    assert (root / "proc/sys/kernel/timer_migration").read_text() == "1\n"
    assert Tuned(root).revert(force=True).changed == 1
    assert file.read_text() == "1\n"


def test_run_time_values_of_another_boot_are_archived_files_stay(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root, boot="one").apply("sysctls", "memlock", "boot")
    for name, value in (("kernel/timer_migration", 1), ("vm/stat_interval", 1)):
        (root / "proc/sys" / name).write_text(f"{value}\n")  # the restart did it
    (root / "proc/sys/net/core/netdev_max_backlog").write_text("5000\n")
    tuned = Tuned(root, boot="two")
    assert tuned.revert().changed == 2
    assert (root / "proc/sys/net/core/netdev_max_backlog").read_text() == "5000\n"
    assert not (root / "etc/default/grub.d").exists()
    assert not (root / "etc/security/limits.d/60-vcfwd.conf").exists()
    archived = (tuned.journal.folder / "archive" / "one.jsonl").read_text().splitlines()
    assert {json.loads(line)["lifetime"] for line in archived} == {"run-time"}
    assert len(archived) == 3


def test_a_file_is_reverted_after_any_number_of_boots(tmp_path):
    root = copied(CLOUD, tmp_path)
    for boot in ("one", "two", "three"):
        Tuned(root, boot=boot).apply("memlock", "sysctls")
    assert Tuned(root, boot="four").revert().changed == 1
    assert not (root / "etc/security/limits.d/60-vcfwd.conf").exists()


def test_a_half_written_line_is_dropped_with_a_sentence(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("thp")
    file = root / "var/lib/vcfwd/tune/journal.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"event": "intend", "id": 9, "ke')
    tuned = Tuned(root)
    assert tuned.revert().changed == 1
    assert any("half-written" in note for note in tuned.journal.notes)
    assert all(json.loads(line) for line in file.read_text().splitlines())


@pytest.mark.parametrize(
    "line",
    ["nonsense", "{}", '{"event": "intend", "id": 1}', '{"event": "what", "id": 1}', "[]", "\x00",
     '{"event": "done", "id": "x"}'],
)  # fmt: skip
def test_a_broken_line_stops_everything(line, tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("thp")
    file = root / "var/lib/vcfwd/tune/journal.jsonl"
    file.write_text(line + "\n" + file.read_text())
    before = tree(root)
    for call in (Tuned(root).revert, Tuned(root).apply):
        with pytest.raises(HostError, match="line 1 cannot be read, so nothing is changed"):
            call()
    assert tree(root) == before


def test_a_journal_of_a_newer_version_is_not_guessed_at(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("thp")
    file = root / "var/lib/vcfwd/tune/journal.jsonl"
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(HostError, match="is of version 2"):
        Tuned(root).revert()


def test_one_at_a_time(tmp_path):
    root = copied(CLOUD, tmp_path)
    with Tuned(root).journal.locked(), pytest.raises(Busy, match="another vcfwd tune"):
        Tuned(root).apply("thp")
    assert Tuned(root).apply("thp").changed == 1


# ---- faults half-way ---------------------------------------------------------------------------


class Refusing(CapturedNics):
    """A driver that answers with an error to one section."""

    def __init__(self, file, section, number):
        super().__init__(file)
        self.section, self.number = section, number

    def set(self, nic, section, name, value):
        if section == self.section:
            raise OSError(self.number, os.strerror(self.number))
        super().set(nic, section, name, value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EOPNOTSUPP, "the driver does not do that"),
        (errno.EBUSY, "the driver is busy with something else"),
        (errno.ENODEV, "the NIC has gone"),
        (errno.EPERM, "run this as root"),
        (errno.EINVAL, "Invalid argument"),
    ],
)
def test_a_driver_that_refuses_half_way(number, words, tmp_path):
    root = copied(XEON, tmp_path)
    before = tree(root)
    tuned = Tuned(root, Host(root, Refusing(root / "ethtool.json", "rings", number)))
    with pytest.raises(Stopped, match=words) as caught:
        tuned.apply()
    assert "rings: ethtool:ens1f0:rings.rx cannot be set" in str(caught.value)
    assert "vcfwd tune revert" in str(caught.value)
    assert tuned.survey().site.facts.nics["ens1f0"].queues == 3  # channels came before
    assert Tuned(root).revert().failed == 0
    assert tree(root) == before
    told = [line["result"] for line in Tuned(root).audit.read() if line["what"] == "apply rings"]
    assert len(told) == 1 and told[0].startswith("failed")


def test_a_read_only_file_system(tmp_path):
    class ReadOnly(Host):
        def write(self, name, text):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    root = copied(CLOUD, tmp_path)
    before = tree(root)
    with pytest.raises(Stopped, match="read-only"):
        Tuned(root, ReadOnly(root)).apply("thp")
    assert tree(root) == before
    assert Tuned(root).revert().failed == 0


def test_a_value_that_is_not_taken_is_noticed(tmp_path):
    class Deaf(Host):
        def write(self, name, text):
            pass

    with pytest.raises(Stopped, match="was set to 'never' without an error and is 'madvise'"):
        Tuned(copied(CLOUD, tmp_path), Deaf(tmp_path / CLOUD)).apply("thp")


def test_huge_pages_that_there_is_no_memory_for_are_given_back(tmp_path):
    class Short(Host):
        def write(self, name, text):
            super().write(name, "5" if text == "8" else text)

    root = copied(CLOUD, tmp_path)
    before = tree(root)
    with pytest.raises(Stopped, match="was set to '8' without an error and is '5'"):
        Tuned(root, Short(root)).apply("hugepages")
    assert tree(root) == before
    assert Tuned(root).revert().failed == 0


@pytest.mark.parametrize(("surplus", "failed"), [("8", 0), ("0", 1)])
def test_huge_pages_in_use_are_given_back_when_their_user_ends(tmp_path, surplus, failed):
    class InUse(Host):
        """The kernel lets pages go when nobody has them any more; until then they are surplus."""

        def write(self, name, text):
            if name.endswith("/nr_hugepages") and text == "0":
                super().write(name.replace("nr_", "surplus_"), surplus)
            else:
                super().write(name, text)

    root = copied(CLOUD, tmp_path)
    node = root / "sys/devices/system/node/node0/hugepages/hugepages-2048kB"
    (node / "surplus_hugepages").write_text("0\n")
    Tuned(root).apply("hugepages")
    assert (node / "nr_hugepages").read_text() == "8\n"
    assert Tuned(root, InUse(root)).revert().failed == failed


@pytest.mark.parametrize("shown", [{"1": "0"}, {"0": "1"}], ids=["blank", "stuck"])
def test_a_cursor_shows_the_timer_of_its_next_blink(tmp_path, shown):
    """None is pending on a blank screen: no failure of the revert.  One that is, on a cursor that
    shall not blink, is a failure of the apply."""

    class Console(Host):
        def write(self, name, text):
            super().write(name, shown.get(text, text) if name.endswith("/cursor_blink") else text)

    root = copied("lab-node", tmp_path)
    tuned = Tuned(root, Console(root))
    if "0" in shown:
        with pytest.raises(Stopped, match="was set to '0' without an error and is '1'"):
            tuned.apply("noise")
        return
    tuned.apply("noise")
    done = tuned.revert()
    assert (done.changed > 0, done.failed) == (True, 0)


def test_a_nic_that_vanishes(tmp_path):
    class Vanishing(CapturedNics):
        def set(self, nic, section, name, value):
            if section == "channels":
                (root / "sys/class/net/ens1f0").rename(root / "gone")
            super().set(nic, section, name, value)

    root = copied(XEON, tmp_path)
    tuned = Tuned(root, Host(root, Vanishing(root / "ethtool.json")))
    with pytest.raises(Stopped, match="ens1f0 has gone meanwhile"):
        tuned.apply("channels", "rings", nics=("ens1f0",))
    assert any(entry.key.startswith("ethtool:ens1f0:channels") for entry in tuned.journal.live())


def test_an_interrupt_that_its_driver_manages_is_no_failure(tmp_path):
    class Managing(Host):
        def write(self, name, text):
            if name == "/proc/irq/62/smp_affinity_list":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().write(name, text)

    root = copied(XEON, tmp_path)
    tuned = Tuned(root, Managing(root))
    done = tuned.apply("irq", nics=("ens1f0",))
    assert done.left == 1 and done.changed > 1
    assert any("manages this interrupt itself" in line for line in tuned.said)


# ---- the management NIC ------------------------------------------------------------------------


def test_a_reset_of_the_management_link_needs_confirm(tmp_path):
    root = copied(ENA, tmp_path)
    before = tree(root)
    with pytest.raises(HostError, match="--confirm SECONDS"):
        Tuned(root).apply(nics=("ens5",))
    assert tree(root) == before
    assert not (root / "var").exists()


def test_without_nic_the_management_link_is_not_reset(tmp_path):
    root = copied(ENA, tmp_path)
    tuned = Tuned(root)
    assert any("so it is management" in note for note in tuned.survey().notes)
    tuned.apply()
    nic = tuned.survey().site.facts.nics["ens5"]
    assert nic.queues == 4 and nic.ethtool["rings"]["rx"] == 1024
    assert nic.ethtool["coalesce"]["use_adaptive_rx"] == 0
    assert nic.ethtool["rules"] == {"4433": "0"}  # its queues stay: a rule finds the worker's


def test_interrupts_are_journaled_by_what_they_are_for(tmp_path):
    root = copied(EPYC, tmp_path)
    tuned = Tuned(root)
    tuned.apply("irq")
    keys = [entry.key for entry in tuned.journal.live()]
    assert keys[0] == "irq:ens3:TxRx:0" and not any("/proc/irq" in key for key in keys)
    # The driver loads again: other numbers.
    text = (root / "proc/interrupts").read_text()
    for number in range(76, 59, -1):
        text = text.replace(f" {number}: ", f" {number + 100}: ")
        for place in (root / "proc/irq", root / "sys/class/net/ens3/device/msi_irqs"):
            (place / str(number)).rename(place / str(number + 100))
    (root / "proc/interrupts").write_text(text)
    assert Tuned(root).revert().failed == 0
    for number in range(160, 177):
        assert (root / f"proc/irq/{number}/smp_affinity_list").read_text() == "0-15\n"
