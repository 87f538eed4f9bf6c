"""What the lab node taught: igb's interrupts, a link that is down, a systemd that is late."""

from __future__ import annotations

import errno

import pytest
from host_kit import XEON, Tuned, copied

from forwarder.host import boot, facts, isolation
from forwarder.host.apply import explain
from forwarder.host.root import Host
from forwarder.host.stages import BY_NAME

LAB = "lab-node"
NICS = ("enp65s0", "enp129s0")  # on node 0 and node 1


def test_vectors_of_igb(tmp_path):
    host = Host(copied(LAB, tmp_path))
    for name, node in zip(NICS, (0, 1), strict=True):
        nic = facts.nic(host, name)
        assert (nic.driver, nic.node, nic.queues, nic.queues_max) == ("igb", node, 4, 8)
        found = {(vector.role, vector.queue): vector for vector in nic.vectors}
        queues = {(role, queue) for role in ("rx", "tx") for queue in range(4)}
        # The one that serves no queue has the interface's own name.
        assert set(found) == {("other", -1)} | queues
        assert not found["other", -1].of_queue
        assert all(found[key].of_queue for key in queues)


def test_each_node_keeps_its_own(tmp_path):
    root = copied(LAB, tmp_path)
    tuned = Tuned(root)
    site = tuned.survey(*NICS).site
    assert site.layout.cpus == (1, 2) and site.layout.housekeeping == (0, 3)
    tuned.apply("channels", "irq", nics=NICS)
    homes = {
        entry.key: entry.news[-1] for entry in tuned.journal.live() if entry.key.startswith("irq:")
    }
    roles = ("other:-1", "rx:0", "tx:0")
    assert homes == {
        f"irq:{name}:{role}": core
        for name, core in zip(NICS, ("0", "3"), strict=True)
        for role in roles
    }
    assert tuned.revert().failed == 0


def test_a_link_that_is_down_has_no_interrupts(tmp_path):
    root = copied(XEON, tmp_path)
    for name in ("ens1f0", "ens2f0np0"):
        here = root / "sys/class/net" / name
        if not here.is_dir():
            continue
        (here / "flags").write_text("0x1002\n")
        for entry in (here / "device/msi_irqs").iterdir():
            entry.unlink()
    site = Tuned(root).survey("ens1f0").site
    verdict = BY_NAME["irq"].check(site)
    assert verdict.state == "not-applicable"
    assert "ip link set ens1f0 up" in verdict.sentence


@pytest.mark.parametrize(
    ("body", "number"), [("exec sleep 60", errno.ETIMEDOUT), ("exit 1", errno.EIO)]
)
def test_a_program_that_is_late_or_fails_is_one_sentence(body, number, tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "update-grub"):
        (programs / name).write_text(f"#!/bin/sh\necho no bus >&2\n{body}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    if number == errno.ETIMEDOUT:  # one that fails has all the time that it has on a host
        monkeypatch.setattr(isolation, "SYSTEMCTL_S", 0.5)
        monkeypatch.setattr(boot, "UPDATE_S", 0.5)
    (tmp_path / "boot/grub").mkdir(parents=True)
    host = Host(tmp_path)
    host.live = True
    words = "0.5 s" if number == errno.ETIMEDOUT else "no bus"
    for act, program in (
        (lambda: isolation._systemctl(host, "start", "vcfwd.slice"), "systemctl start vcfwd.slice"),
        (lambda: boot._update(host), "update-grub"),
    ):
        with pytest.raises(OSError) as caught:
            act()
        assert caught.value.errno == number
        assert program in explain(caught.value) and words in explain(caught.value)
