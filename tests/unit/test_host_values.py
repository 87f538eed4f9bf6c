"""What each knob is set to, number by number, on one host with two pinned workers; what stays."""

from __future__ import annotations

import json

import pytest
from host_kit import EPYC, FIXTURES, XEON, Tuned, copied, settings

from forwarder.host.describe import steps
from forwarder.host.root import Host, Unreadable
from forwarder.host.stages import BY_NAME

CPU, NET = "/sys/devices/system/cpu", "/sys/class/net/ens1f0"
FAIR = "/sys/kernel/debug/sched/fair_server"
PINNED = dict(dataplane_workers=2, dataplane_cpus=[2, 3], tune_housekeeping=[4, 5])
BUDGET = {"text:/proc/sys/kernel/sched_rt_runtime_us": "-1"}
# Cores 2 and 3 work (their siblings are 10 and 11), 4 and 5 keep house.
WANTED = {
    "boot": {"file:/etc/default/grub.d/60-vcfwd.cfg":
             'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT '
             'isolcpus=managed_irq,domain,2-3 nohz_full=2-3 rcu_nocbs=2-3 irqaffinity=4-5 '
             'skew_tick=1 nosoftlockup tsc=reliable"'},
    "workqueues": {f"mask:/sys/devices/virtual/workqueue/{name}cpumask": "4-5"
                   for name in ("", "writeback/")},
    "isolation": {
        "file:/etc/systemd/system/vcfwd.slice":
            "[Unit]\nDescription=vcfwd: cores of the workers\n\n[Slice]\nAllowedCPUs=2-3",
        "file:/etc/systemd/system/vcfwd-dataplane.service.d/60-vcfwd-slice.conf":
            "[Service]\nSlice=vcfwd.slice\nDelegate=cpuset",
        "text:/sys/fs/cgroup/vcfwd.slice/cpuset.cpus.partition": "isolated",
    },
    "sysctls": {f"text:/proc/sys/{name}": value for name, value in (
        ("kernel/numa_balancing", "0"), ("kernel/timer_migration", "0"),
        ("kernel/nmi_watchdog", "0"), ("vm/stat_interval", "10"),
        ("net/core/bpf_jit_enable", "1"), ("net/core/rmem_max", "4194304"),
        ("net/core/wmem_max", "4194304"), ("net/core/netdev_max_backlog", "10000"),
    )} | BUDGET,
    "noise": {f"text:/sys/devices/system/machinecheck/machinecheck{c}/ignore_ce": "1"
              for c in (2, 3)} | {"text:/proc/sys/kernel/printk": "4 4 1 7"},
    # 8192 frames of 4 KiB for each of two workers, as zero-copy takes whole pages.
    "hugepages": {"text:/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages":
                  "32"},
    "thp": {"choice:/sys/kernel/mm/transparent_hugepage/enabled": "never"},
    "memlock": {"file:/etc/systemd/system/vcfwd-dataplane.service.d/60-vcfwd-memlock.conf":
                "[Service]\nLimitMEMLOCK=infinity"},
    "governor": {f"text:{CPU}/cpu{c}/cpufreq/scaling_governor": "performance" for c in (2, 3)}
    | {f"text:{CPU}/cpu{c}/power/energy_perf_bias": "0" for c in (2, 3)}
    | {f"text:{CPU}/intel_pstate/min_perf_pct": "100"},
    # state1 wakes in 2 us, state2 in 133.
    "cstates": {f"text:{CPU}/cpu{c}/cpuidle/state2/disable": "1" for c in (2, 3)},
    "irqbalance": {"file:/etc/default/irqbalance":
                   'IRQBALANCE_BANNED_CPULIST="2-3,10-11"\nIRQBALANCE_ONESHOT='},
    "channels": {"ethtool:ens1f0:rss.table": "equal 2",
                 "ethtool:ens1f0:channels.combined_count": "2"},
    "rings": {"ethtool:ens1f0:rings.rx": "2048", "ethtool:ens1f0:rings.tx": "2048"},
    "rss": {"ethtool:ens1f0:hash.udp4": "sdfn", "ethtool:ens1f0:hash.udp6": "sdfn",
            "ethtool:ens1f0:rss.table": "equal 2"},
    "offloads": {f"ethtool:ens1f0:features.{name}": "off"
                 for name in ("rx-udp-gro-forwarding", "rx-gro-list")},
    "coalesce": {"ethtool:ens1f0:coalesce.use_adaptive_rx": "0",
                 "ethtool:ens1f0:coalesce.use_adaptive_tx": "0",
                 "ethtool:ens1f0:coalesce.rx_usecs": "8"},
    "irq": {"irq:ens1f0:TxRx:0": "4", "irq:ens1f0:TxRx:1": "5", "irq:ens1f0:misc:-1": "4"},
    "xps": {f"mask:{NET}/queues/tx-0/xps_cpus": "2", f"mask:{NET}/queues/tx-1/xps_cpus": "3",
            f"mask:{NET}/queues/rx-0/rps_cpus": "", f"mask:{NET}/queues/rx-1/rps_cpus": ""},
    "napi": {f"text:{NET}/napi_defer_hard_irqs": "0", f"text:{NET}/gro_flush_timeout": "0"},
    "threaded": {f"text:{NET}/threaded": "0"},
}  # fmt: skip


def planned(tuned: Tuned, stage: str, **more: object) -> dict[str, str]:
    conf = settings(**PINNED, **more)
    survey = tuned.survey("ens1f0", conf=conf, given=True)
    return {step.key: step.wanted for step in steps(survey) if step.stage == stage}


@pytest.mark.parametrize("stage", [*BY_NAME])
def test_each_value(stage):
    assert planned(Tuned(FIXTURES / XEON), stage) == WANTED.get(stage, {})


@pytest.mark.parametrize(
    ("stage", "more", "wanted"),
    [
        ("napi", {"dataplane_busy_poll": True}, {f"text:{NET}/napi_defer_hard_irqs": "100",
                                                 f"text:{NET}/gro_flush_timeout": "200000"}),
        ("sysctls", {"dataplane_busy_poll": True}, {"text:/proc/sys/net/core/busy_read": "50",
                                                    "text:/proc/sys/net/core/busy_poll": "50"}),
        ("sysctls", {"dataplane_scheduler": "fifo"},
         {f"text:{FAIR}/cpu{c}/runtime": "0" for c in (2, 3)}),
        ("irq", {"tune_interrupts": "worker"}, {"irq:ens1f0:TxRx:0": "2",
                                                "irq:ens1f0:TxRx:1": "3"}),
    ],
)  # fmt: skip
def test_what_the_configuration_changes(stage, more, wanted):
    assert planned(Tuned(FIXTURES / XEON), stage, **more) == WANTED[stage] | wanted


@pytest.mark.parametrize(
    ("more", "budget", "told"),
    [
        ({}, BUDGET, "will be fifo 2: it is allowed, and 14 CPUs are left"),
        ({"dataplane_workers": 16, "dataplane_cpus": [*range(16)], "tune_housekeeping": []}, {},
         "will be other: 16 workers on 16 CPUs would leave none"),
        ({"dataplane_scheduler": "fifo"}, BUDGET, ""),
        ({"dataplane_scheduler": "other"}, {}, ""),
    ],
)  # fmt: skip
def test_the_budget_follows_the_class_that_the_workers_will_have(more, budget, told):
    """`auto` too: with a sentence."""
    conf = settings(**PINNED | more)
    survey = Tuned(FIXTURES / XEON).survey("ens1f0", conf=conf, given=True)
    keys = {step.key for step in steps(survey)}
    assert keys & set(BUDGET) == set(budget)
    notes = [note for note in survey.notes if "dataplane.scheduler" in note]
    assert len(notes) == bool(told) and all(told in note for note in notes)


def test_a_nic_that_is_copied_from_needs_half_the_memory(tmp_path):
    """The same host with a driver that is not on the allow-list: frames of 2 KiB."""
    root = copied(XEON, tmp_path)
    driver = root / "sys/class/net/ens1f0/device/driver"
    driver.unlink()
    driver.symlink_to("other")
    assert planned(Tuned(root), "hugepages") == {
        "text:/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages": "16"
    }


@pytest.mark.parametrize(
    ("stage", "file", "value", "kept"),
    [
        # A larger buffer, more huge pages and a longer interval are the operator's.
        ("sysctls", "proc/sys/net/core/rmem_max", "67108864", "67108864"),
        ("sysctls", "proc/sys/vm/stat_interval", "120", "120"),
        ("noise", "proc/sys/kernel/printk", "1 4 1 7", "1 4 1 7"),  # quieter still
        ("hugepages", "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
         "512", "512"),
    ],
)  # fmt: skip
def test_more_than_enough_stays(stage, file, value, kept, tmp_path):
    root = copied(XEON, tmp_path)
    (root / file).write_text(f"{value}\n")
    assert planned(Tuned(root), stage)[f"text:/{file}"] == kept


def test_the_fair_server_of_an_older_kernel_is_none(tmp_path):
    root = copied(XEON, tmp_path)
    (root / "proc/sys/kernel/osrelease").write_text("6.11.0\n")
    found = planned(Tuned(root), "sysctls", dataplane_scheduler="fifo")
    assert "text:/proc/sys/kernel/sched_rt_runtime_us" in found
    assert not any(FAIR in key for key in found)


@pytest.mark.parametrize(("listed", "known"), [(True, []), (False, [None, None])])
def test_a_fair_server_that_cannot_be_read(listed, known, tmp_path):
    """A locked-down kernel lists the files and opens none: nothing to do.  Nobody but root sees the
    folder: nothing is known."""

    class Hidden(Host):
        def read(self, name):
            if name.startswith(FAIR):
                raise Unreadable(f"{name} can be read by root only")
            return super().read(name)

        def names(self, name):
            if name == FAIR and not listed:
                raise Unreadable(f"{name} can be read by root only")
            return super().names(name)

    root = copied(XEON, tmp_path)
    conf = settings(**PINNED, dataplane_scheduler="fifo")
    survey = Tuned(root, Hidden(root)).survey("ens1f0", conf=conf, given=True)
    assert [step.current for step in steps(survey) if FAIR in step.key] == known


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
        ("proc/cpuinfo", "flags\t: tsc constant_tsc aes"),  # it stops in deep sleep
        ("proc/cpuinfo", "Features\t: fp asimd"),
    ],
)
def test_a_clock_that_needs_its_watchdog_keeps_it(file, text, tmp_path):
    root = copied(XEON, tmp_path)
    (root / file).write_text(f"{text}\n")
    (line,) = planned(Tuned(root), "boot").values()
    assert "nosoftlockup" in line and "tsc=" not in line


@pytest.mark.parametrize(
    ("section", "values", "stage", "key", "wanted"),
    [
        ("rings", {"rx": 1024}, "rings", "rings.rx", "1024"),  # 1-2 k: stays
        ("rings", {"rx": 4096}, "rings", "rings.rx", "2048"),
        ("rings", {"rx": 256, "rx_max": 512}, "rings", "rings.rx", "512"),  # as far as it goes
        ("coalesce", {"rx_usecs": 3}, "coalesce", "coalesce.rx_usecs", "3"),
        ("channels", {"combined_max": 1, "combined_count": 1}, "channels",
         "channels.combined_count", "1"),
    ],
)  # fmt: skip
def test_as_far_as_the_nic_goes(section, values, stage, key, wanted, tmp_path):
    root = copied(XEON, tmp_path)
    nics = json.loads((root / "ethtool.json").read_text())
    nics["ens1f0"][section].update(values)
    (root / "ethtool.json").write_text(json.dumps(nics))
    assert planned(Tuned(root), stage)[f"ethtool:ens1f0:{key}"] == wanted


def test_tags_are_stripped_unless_packets_come_tagged():
    for asked, touched in (("ens3", False), ("ens3.100", True)):
        site = Tuned(FIXTURES / EPYC).survey(asked).site
        keys = {step.key for step in BY_NAME["offloads"].plan(site)}
        assert ("ethtool:ens3:features.rx-vlan-hw-parse" in keys) == touched
        assert ("ethtool:ens3:features.tx-vlan-hw-insert" in keys) == touched
