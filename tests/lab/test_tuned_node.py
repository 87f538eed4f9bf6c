"""`vcfwd tune` on two NUMA nodes with a NIC each: applied, kept and taken back on a real kernel.

What it did is read from the kernel by the test itself, never from what vcfwd says.
"""

from __future__ import annotations

import json

import pytest

from tests.lab.machine import SSH_PORT, TAPS, LabError, Machine
from tests.lab.report import fact, placed, reading
from tests.lab.tuning import APPLY_S, INSTALLED, JOURNAL, Tuned, differences, files_of

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

HOUSE, WORKERS = {0, 3}, [1, 2]  # NIC 0 and its worker on node 0 (cores 0-1), NIC 1 on node 1 (2-3)
NEAR = [{0}, {3}]
"""The housekeeping core beside each NIC."""


@pytest.mark.lab_quick
def test_apply_check_and_revert(node: Machine) -> None:
    tuned = Tuned(node)
    before = tuned.snapshot()
    plan = tuned.plan()
    assert plan["workers"] == WORKERS and set(plan["housekeeping"]) == HOUSE

    steps = tuned.changed()
    assert steps > 20
    wanted = {step["stage"] for step in plan["steps"]}
    assert {"irq", "channels", "rings", "rss", "isolation", "hugepages", "sysctls"} <= wanted
    applied, done = tuned.snapshot(), tuned.journal()
    assert applied["/sys/fs/cgroup/cpuset.cpus.isolated"] == "1-2"
    assert applied["/proc/sys/kernel/numa_balancing"] == "0"
    for at, name in enumerate(tuned.names):
        assert "Combined:\t1" in applied[f"ethtool -l {name}"].split("Current")[1]
        assert "src port" in applied[f"ethtool -n {name} rx-flow-hash udp4"]
        assert {applied[k] for k in applied if k.startswith(f"irq {name}")} == {str(*NEAR[at])}
    left = tuned.unsettled()
    assert set(left) == {"boot"} and "restart the host" in left["boot"], left
    assert tuned.changed() == 0  # nothing is left to do
    assert differences(applied, tuned.snapshot()) == []

    tuned.good("revert")
    after = tuned.snapshot()
    changes = differences(before, after)
    reading("tune-before.json", json.dumps(before, indent=1, sort_keys=True))
    reading("tune-after.json", json.dumps(after, indent=1, sort_keys=True))
    reading("tune-check.json", json.dumps(left, indent=1))
    fact("applied_steps", steps)
    fact("revert_diff", changes)
    assert changes == []
    # And the snapshot sees what was done: each file that was written, as another than before.
    unseen = {path for path in files_of(done) if before.get(path) == applied.get(path)}
    assert unseen == set()
    assert len(differences(before, applied)) >= steps


def test_threads_and_interrupts_are_where_the_plan_says(node: Machine) -> None:
    """As the package's units tune the host and keep it so, each in its sandbox."""
    tuned = Tuned(node)
    node.ssh("systemctl start vcfwd-tune", timeout_s=APPLY_S)
    node.ssh("systemctl start vcfwd-tune-watch")
    tuned.service.start()
    assert tuned.service.status()["path"] == "xdp-zerocopy"
    threads = tuned.threads()
    reading("threads.json", json.dumps({k: [sorted(a), at] for k, (a, at) in threads.items()}))
    planned = {f"vcfwd-w{at}": ({core}, core) for at, core in enumerate(WORKERS)}
    placed("threads", len(threads), sum(planned.get(k) != found for k, found in threads.items()))
    assert threads == planned
    assert (
        node.ssh("cat /proc/$(pidof vcfwd-dataplane)/cgroup")
        .strip()
        .endswith("/vcfwd.slice/vcfwd-dataplane.service")
    )

    def elsewhere() -> dict[str, tuple[set[int], set[int]]]:
        """Interrupts that are not allowed on, or not at, the housekeeping core of their node."""
        found = tuned.interrupts()
        assert len(found) >= 2 * len(tuned.names), found  # each at least its own and a queue's
        reading("interrupts.txt", repr(found))
        return {
            irq: (allowed, effective)
            for at, name in enumerate(tuned.names)
            for irq, (allowed, effective) in found.items()
            if irq.startswith(name) and not allowed == effective == NEAR[at]
        }

    def irqs(after: str) -> None:
        # x86 moves a vector when it fires next, so traffic makes the last step.
        tuned.until(
            f"after {after} interrupts are on the housekeeping core of their node",
            lambda: not elsewhere(),
        )

    def queues(name: str) -> str:
        return node.ssh(f"ethtool -l {name}").split("Current")[1].split("Combined:")[1].split()[0]

    irqs("XDP was attached")
    for name in tuned.names:
        node.ssh(f"ip link set {name} down; ip link set {name} up")
    tuned.until("both links are back", tuned.links_up)
    irqs("a link flap")
    for name in tuned.names:
        node.ssh(f"ethtool -L {name} combined 2")  # vectors that nobody pinned yet
        tuned.until("the watcher wants one queue", lambda name=name: queues(name) == "1")
    tuned.until("both links are back", tuned.links_up)
    irqs("a change of channels")
    placed("irqs", len(tuned.interrupts()), len(elsewhere()))
    assert set(tuned.unsettled()) == {"boot"}
    for unit in ("vcfwd-tune", "vcfwd-tune-watch"):
        state = node.ssh(f"systemctl show -P ActiveState -P Result {unit}").split()
        assert set(state) == {"active", "success"}, (unit, state)
    look = json.loads(tuned.good("watch --count 1 --spin-ms 100 --json").splitlines()[-1])
    reading("evidence.json", json.dumps(look, indent=1))
    for core in WORKERS:  # also where the kernel lets nobody else run
        assert look["cores"][str(core)]["spin_gaps"]["longest_ns"] > 0, look["told"]
    reading("watch-unit.txt", node.ssh("journalctl -u vcfwd-tune-watch --no-pager -o cat"))
    trail = node.ssh("journalctl -t vcfwd-tune --no-pager -o cat")  # the audit, for the host's logs
    assert "apply" in trail


_KILL = """
import json, os, signal, subprocess, sys, time
at, event = sys.argv[1:]
def last():
    try:
        lines = open("{journal}").read().splitlines()
        line = json.loads(lines[-1])
        ours = [x for x in reversed(lines) if '"intend"' in x and json.loads(x)["id"] == line["id"]]
        return [line["event"], json.loads(ours[0])["key"]]
    except (OSError, LookupError, ValueError):  # none, or it is being written
        return ["", ""]
def there():
    seen = last()
    return seen[0] == event and at in seen[1]
quiet = subprocess.DEVNULL
apply = subprocess.Popen(["vcfwd", "tune", "apply"], stdout=quiet, stderr=quiet)
end = time.monotonic() + 120
while time.monotonic() < end and apply.poll() is None:
    if there():
        apply.send_signal(signal.SIGSTOP)
        if there():  # it stands there
            break
        apply.send_signal(signal.SIGCONT)
apply.send_signal(signal.SIGKILL)
print(json.dumps([apply.wait(), *last()]))
"""
"""Runs on the node: kills an apply when its journal's last line is this event of such a setting."""
KILL_TRIES = 3


def test_killed_apply_is_finished_or_taken_back(node: Machine) -> None:
    tuned = Tuned(node)
    before = tuned.snapshot()
    script = _KILL.format(journal=JOURNAL).encode()
    fact("interrupted_apply_recovered", False)  # until the last one was
    for at, event, way in (
        ("mask:/sys/devices/virtual/workqueue/writeback", "done", "revert"),  # after a stage
        ("text:/sys/fs/cgroup/vcfwd.slice", "done", "apply"),
        ("channels.combined_count", "intend", "apply"),  # the driver resets meanwhile
        ("irq:", "intend", "revert"),
    ):
        for _ in range(KILL_TRIES):  # the moment is short
            said = node.ssh(f"python3 - '{at}' {event}", data=script, timeout_s=APPLY_S)
            status, *seen = json.loads(said)
            if status == -9 and seen[0] == event and at in seen[1]:
                break
            tuned.good("revert")
        else:
            pytest.fail(f"no apply was killed at {event} of {at}: {said}")
        reading(f"killed-{way}-{event}.json", json.dumps(tuned.journal(), indent=1))
        tuned.until("the links are back after the driver's reset", tuned.links_up)
        if way == "apply":
            assert tuned.changed() > 0
            assert set(tuned.unsettled()) == {"boot"}
        tuned.good("revert")
        tuned.until("the links are back after the revert", tuned.links_up)
        assert differences(before, tuned.snapshot()) == [], (at, event, way)
    fact("interrupted_apply_recovered", True)


_BAD_CARD = """
import subprocess, sys, time
nic, end = sys.argv[1], time.monotonic() + 240
while time.monotonic() < end:
    rings = subprocess.run(["ethtool", "-g", nic], capture_output=True, text=True).stdout
    deep = "2048" in rings.split("Current")[-1]
    subprocess.run(["ip", "link", "set", nic, "down" if deep else "up"])
    time.sleep(0.2)
"""
"""Plays a card whose link does not come back with deep rings."""


def test_a_step_that_cuts_ssh_comes_back_by_itself(node: Machine) -> None:
    tuned = Tuned(node)
    nic = tuned.names[1]
    node.outside("ip", "addr", "replace", "10.88.1.2/24", "dev", TAPS[1])

    def over_tap(command: str, timeout_s: float = 20) -> str | None:
        """By the interface that is tuned; None: it cannot be reached."""
        options = ["22" if word == str(SSH_PORT) else word for word in node._ssh_options()]
        try:
            return node.outside("ssh", *options, "root@10.88.1.1", command, timeout_s=timeout_s)
        except LabError as error:
            return str(error) if "management" in str(error) else None

    def rings() -> str:
        return node.ssh(f"ethtool -g {nic}").split("Current")[1].split("RX:")[1].split()[0]

    tuned.until("ssh over the tap", lambda: over_tap("echo here") == "here\n")
    refused = over_tap(f"vcfwd tune apply rings --nic {nic} 2>&1", APPLY_S)
    assert refused and "this ssh session runs over it" in refused and "--confirm SECONDS" in refused
    assert rings() == "256" and tuned.journal() == []

    node.ssh(f"systemd-run --unit=bad-card --collect python3 -c '{_BAD_CARD}' {nic}")
    # It hangs where the link is cut, for half of the time after which it comes back.
    over_tap(f"vcfwd tune apply rings --nic {nic} --confirm 60", 30)
    tuned.until("the rings are deep", lambda: rings() == "2048")
    tuned.until("ssh over the tap is cut", lambda: over_tap("true", 10) is None)
    tuned.until(
        "ssh over the tap is back by itself", lambda: over_tap("echo here") == "here\n", 150
    )
    fact("lockout_recovered", rings() == "256")
    assert rings() == "256"
    node.ssh("systemctl stop bad-card")
    reading("lockout.txt", tuned.good("log"))
    assert tuned.run("confirm")[0] == 1  # too late
    assert tuned.changed("sysctls") > 0  # nothing stands in the way of the next one

    said = over_tap(
        f"vcfwd tune apply rings --nic {nic} --confirm 30 && vcfwd tune confirm", APPLY_S
    )
    assert said is not None and said.endswith("kept\n")
    assert "vcfwd-tune-undo" not in node.ssh(
        "systemctl list-units --all --no-legend 'vcfwd-tune-*'"
    )
    assert rings() == "2048"


def test_others_who_set_the_same_are_named_and_outlasted(node: Machine) -> None:
    tuned = Tuned(node)
    nic = tuned.names[0]
    tuned.changed()
    address = node.ssh(f"cat /sys/class/net/{nic}/address").strip()
    link = f"[Match]\nMACAddress={address}\n[Link]\nNamePolicy=keep kernel\nRxBufferSize=512\n"
    node.ssh("cat > /etc/systemd/network/50-deep.link", data=link.encode())
    node.ssh("systemctl start irqbalance")
    verdicts = tuned.check()
    for stage, who in (("irq", "irqbalance"), ("rings", "50-deep.link")):
        assert verdicts[stage]["state"] == "conflict" and who in verdicts[stage]["sentence"]
    reading("conflicts.json", json.dumps(verdicts, indent=1))

    node.ssh("systemd-run --unit=watching --collect -p StandardOutput=append:/root/watch.jsonl "
             "vcfwd tune watch --interval 1 --json")  # fmt: skip

    def told(stage: str) -> list[str]:
        """What the watcher says of this NIC."""
        lines = node.ssh("cat /root/watch.jsonl 2>/dev/null || true").splitlines()
        looks = [json.loads(line) for line in lines if line.endswith("}")]
        said = [sentence for look in looks for sentence in look["told"]]
        reading("watch.json", json.dumps(said, indent=1))
        return [one for one in said if one.startswith(f"{stage}: ") and f":{nic}:" in one]

    # irqbalance spreads what no list bans, ten seconds after its start; the watcher has it back.
    def moved() -> bool:
        node.ssh("systemctl restart irqbalance; sleep 15")
        return any("irqbalance fights for it" in sentence for sentence in told("irq"))

    tuned.until("irqbalance moves interrupts until the watcher names it", moved, 400)
    assert sum(sentence.endswith(" again") for sentence in told("irq")) >= 3
    tuned.good("apply irqbalance")  # peace, as the sentence says
    node.ssh("systemctl restart irqbalance")
    tuned.good("apply irq")  # what it had moved before
    assert tuned.check()["irq"]["state"] == "ok"

    def rings() -> str:
        return node.ssh(f"ethtool -g {nic}").split("Current")[1].split("RX:")[1].split()[0]

    for attempt in range(4):
        count = len(told("rings"))
        node.ssh(f"udevadm trigger --action=add --settle /sys/class/net/{nic}")
        tuned.until(
            "the watcher says something", lambda before=count: len(told("rings")) > before, 90
        )
        assert rings() == ("2048" if attempt < 3 else "512"), told("rings")
    node.ssh("systemctl stop watching")
    *kept, last = told("rings")
    assert len(kept) == 3 and all("2048 again" in sentence for sentence in kept), kept
    assert "50-deep.link" in last and "after 3 times in an hour" in last


def test_boot_settings_through_a_restart(node: Machine) -> None:
    tuned = Tuned(node)
    tuned.changed()
    grub = "/etc/default/grub.d/60-vcfwd.cfg"

    def words() -> str:
        """The runner is the boot loader: it reads what grub would."""
        name = "GRUB_CMDLINE_LINUX_DEFAULT"
        return node.ssh(f"{name}=; [ ! -f {grub} ] || . {grub}; echo ${name}").strip()

    try:
        more = words()
        assert "isolcpus" in more
        node.ssh("systemctl enable vcfwd-tune vcfwd-tune-watch")
        node.stop(orderly=True)
        node.start(boot_more=more)
        node.wait_ssh()
        node.set_clock()
        assert node.ssh("cat /sys/devices/system/cpu/isolated").strip() == "1-2"
        assert node.ssh("cat /sys/devices/system/cpu/nohz_full").strip() == "1-2"
        again = Tuned(node)
        # What died with the old boot: one unit applies it again, the other what the links bring.
        again.until("the units have the host tuned again", lambda: not again.unsettled(), APPLY_S)
        verdicts = again.check()
        reading("check-after-restart.json", json.dumps(verdicts, indent=1))
        assert verdicts["boot"]["state"] == "ok" and verdicts[""]["status"] == 0
        assert node.ssh("systemctl show -P Result vcfwd-tune").strip() == "success"
        archive = node.ssh("ls /var/lib/vcfwd/tune/archive").split()
        assert len(archive) == 1, archive

        again.good("revert")  # written by another boot, taken back in this one
        gone = node.ssh(f"ls {grub} /etc/systemd/system/vcfwd.slice 2>&1 || true")
        assert gone.count("No such") == 2
        assert words() == ""  # so the next start is one without
        left = again.check()["boot"]
        assert left["state"] == "partly" and "does not say so" in left["sentence"]
    finally:
        node.stop()
        node.start(restore=INSTALLED)
        node.wait_ssh()
