"""The stages: one shape, one file each, one order; which NICs a command is about; the risks."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path

import pytest
from host_kit import CLOUD, ENA, EPYC, FIXTURES, LAPTOP, NAMES, VM, XEON, Tuned, copied, settings

from forwarder.host import stages
from forwarder.host.describe import steps
from forwarder.host.root import Host
from forwarder.host.stage import REBOOT, RESETS, Stage
from forwarder.host.watch import Latency

README = Path(__file__).parents[2] / "README.md"

# Every knob of our table of them (its rows in its order), the stage that has it, and what its step
# says: a part of its key, or of its value.
TABLE = (
    ("queues", "channels", r"ethtool:\S+:channels\.combined_count"),
    ("RSS table", "rss", r"ethtool:\S+:rss\.table"),
    ("ports in the hash", "rss", r"ethtool:\S+:hash\.udp4=sdfn"),
    ("hash, IPv6", "rss", r"ethtool:\S+:hash\.udp6=sdfn"),
    ("ntuple on", "ntuple", r"features\.rx-ntuple-filter=on"),
    ("ntuple rule", "ntuple", r"ethtool:\S+:rules\.4433="),
    ("receive ring", "rings", r"rings\.rx=(1024|2048)"),
    ("transmit ring", "rings", r"rings\.tx="),
    ("adaptive coalescing", "coalesce", r"coalesce\.use_adaptive_rx=0"),
    ("rx-usecs", "coalesce", r"coalesce\.rx_usecs=[0-8]$"),
    ("GRO forwarding", "offloads", r"features\.rx-udp-gro-forwarding=off"),
    ("LRO", "offloads", r"features\.rx-lro=off"),
    ("tx-gre-seg", "offloads", r"features\.tx-gre-segmentation=off"),
    ("napi_defer_hard_irqs", "napi", r"napi_defer_hard_irqs=100"),
    ("gro_flush_timeout", "napi", r"gro_flush_timeout=200000"),
    ("each NAPI", "napi", r"ethtool:\S+:napi\.0\.defer_hard_irqs=100"),
    ("threaded NAPI", "threaded", r"/threaded=0"),
    ("XPS", "xps", r"/xps_cpus="),
    ("RPS", "xps", r"/rps_cpus="),
    ("IRQ affinity", "irq", r"irq:\S+:TxRx:\d+="),
    ("irqbalance", "irqbalance", r"IRQBALANCE_BANNED_CPULIST="),
    ("unbound workqueues", "workqueues", r"workqueue/cpumask="),
    ("writeback's", "workqueues", r"workqueue/writeback/cpumask="),
    ("cpuset", "isolation", r"AllowedCPUs="),
    ("its partition", "isolation", r"cpuset\.cpus\.partition=isolated"),
    ("isolcpus", "boot", r"isolcpus=managed_irq,domain,"),
    ("nohz_full", "boot", r"nohz_full="),
    ("rcu_nocbs", "boot", r"rcu_nocbs="),
    ("irqaffinity", "boot", r"irqaffinity="),
    ("skew_tick", "boot", r"skew_tick=1"),
    ("tsc", "boot", r"tsc=reliable"),
    ("nosoftlockup", "boot", r"nosoftlockup"),
    ("governor", "governor", r"scaling_governor=performance"),
    ("EPB", "governor", r"energy_perf_bias=0"),
    ("least speed", "governor", r"intel_pstate/min_perf_pct=100"),
    ("boost", "governor", r"cpufreq/boost=1"),
    ("deep sleep", "cstates", r"cpuidle/state\d/disable=1"),
    ("real-time budget", "sysctls", r"sched_rt_runtime_us=-1"),
    ("fair server", "sysctls", r"sched/fair_server/cpu\d+/runtime=0"),
    ("NUMA balancing", "sysctls", r"kernel/numa_balancing=0"),
    ("timers", "sysctls", r"kernel/timer_migration=0"),
    ("watchdog", "sysctls", r"kernel/nmi_watchdog=0"),
    ("statistics", "sysctls", r"vm/stat_interval=10"),
    ("busy_read", "sysctls", r"net/core/busy_read=50"),
    ("busy_poll", "sysctls", r"net/core/busy_poll=50"),
    ("JIT", "sysctls", r"net/core/bpf_jit_enable=1"),
    ("receive buffers", "sysctls", r"net/core/rmem_max=\d{7}"),
    ("transmit buffers", "sysctls", r"net/core/wmem_max=\d{7}"),
    ("backlog", "sysctls", r"net/core/netdev_max_backlog=10000"),
    ("THP", "thp", r"transparent_hugepage/enabled=never"),
    ("huge pages", "hugepages", r"node\d+/hugepages/hugepages-2048kB/nr_hugepages="),
    ("cursor", "noise", r"fbcon/cursor_blink=0"),
    ("printk", "noise", r"kernel/printk=4 "),
    ("MCE", "noise", r"ignore_ce=1"),
    ("memlock", "memlock", r"LimitMEMLOCK=infinity"),
)
# No setting that is written: a choice of cores, a file that `watch` holds, what the programs do
# themselves.
ELSEWHERE = {"SMT": "smt"}
LEFT_OUT = ("intel_pstate=disable", "tx-udp-segmentation", "route_localnet")
"""What the table has and we do not set: README says why."""


@pytest.fixture(scope="module")
def everything() -> dict[str, list[str]]:
    """Stage -> `key=value` of each step that it plans on any host, for a data plane that polls
    in the real-time class."""
    conf = settings(dataplane_busy_poll=True, dataplane_scheduler="fifo")
    found: dict[str, list[str]] = {}
    for name in NAMES:
        tuned = Tuned(FIXTURES / name)
        physical = [n.name for n in tuned.survey().site.facts.nics.values() if n.kind == "physical"]
        for nics in ((), physical):
            for step in steps(tuned.survey(*nics, conf=conf)):
                found.setdefault(step.stage, []).append(f"{step.key}={step.wanted}")
    return found


@pytest.mark.parametrize(("knob", "stage", "said"), TABLE, ids=[row[0] for row in TABLE])
def test_every_knob_has_its_stage(knob, stage, said, everything):
    assert any(re.search(said, line) for line in everything[stage]), f"nobody sets {knob}"


def test_every_stage_is_there_for_a_knob(everything):
    assert set(stages.BY_NAME) == {row[1] for row in TABLE} | set(ELSEWHERE.values())
    assert not set(everything) & set(ELSEWHERE.values())


@pytest.mark.parametrize("knob", LEFT_OUT)
def test_a_knob_that_is_left_out_is_named(knob, everything):
    assert not any(knob in line for lines in everything.values() for line in lines)
    part = README.read_text().partition("## Run it on bare metal")[2].partition("\n## ")[0]
    assert knob in part.partition("Left out")[2]


@pytest.mark.parametrize("name", sorted(stages.BY_NAME))
def test_one_file_one_shape(name):
    stage = stages.BY_NAME[name]
    module = import_module(f"forwarder.host.{name}")
    assert module.STAGE is stage and isinstance(stage, Stage) and stage.name == name
    assert len(stage.why) > 20
    assert stage.capability in ("CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE")
    for method in ("check", "plan", "init", "revert"):
        assert callable(getattr(stage, method))


def test_the_order():
    """Host stages; the workqueues' mask before what changes it; the NIC's queues; then what an
    attach, a link or a change of channels undoes."""
    order = [stage.name for stage in stages.STAGES]
    assert order[0] == "boot"
    assert order.index("workqueues") < order.index("isolation") < order.index("channels")
    assert order.index("channels") < order.index("rings") < order.index("rss")
    assert order[-4:] == ["irq", "xps", "napi", "threaded"]
    assert {s.name for s in stages.STAGES if s.after_attach} == set(order[-4:])


@pytest.mark.parametrize(
    ("host", "asked", "configured", "names", "guarded"),
    [
        (VM, (), (), ["eth1"], False),  # every NIC that is not management
        (XEON, (), (), ["ens1f0", "ens2f0np0"], False),
        (EPYC, (), (), ["ens3"], False),  # the bond's slaves are management too
        (XEON, (), ("ens2f0np0",), ["ens2f0np0"], False),  # the configured ones
        (XEON, ("ens1f0",), ("ens2f0np0",), ["ens1f0"], False),  # unless some are asked for
        (ENA, (), (), ["ens5"], True),  # only management is there
        (CLOUD, (), (), ["eth0"], True),
        (LAPTOP, (), (), ["enp1s0"], False),
        (ENA, ("ens5",), (), ["ens5"], False),
    ],
)
def test_which_nics_it_is_about(host, asked, configured, names, guarded):
    conf = settings(network_interfaces=list(configured))
    survey = Tuned(FIXTURES / host).survey(*asked, conf=conf)
    assert [nic.name for nic in survey.site.nics] == names
    assert survey.site.guarded == (set(names) if guarded else set())
    told = [note for note in survey.notes if "so it is management: host stages" in note]
    assert len(told) == guarded, "a sentence says so"
    resetting = [step for step in steps(survey) if step.risk == RESETS]
    assert not (guarded and resetting), "nothing that resets its link"
    if asked == ("ens5",):
        assert resetting, "--nic plans them all"


def test_a_host_without_nics_has_host_stages_only(tmp_path):
    root = copied(VM, tmp_path)
    for name in ("eth0", "eth1"):
        (root / "sys/class/net" / name).rename(tmp_path / name)
    survey = Tuned(root).survey()
    assert survey.site.nics == () and "there is no physical NIC: host stages only" in survey.notes
    found = {step.stage for step in steps(survey)}
    assert found and not found & {"channels", "rings", "irq", "xps", "napi"}
    assert survey.site.layout.cpus


@pytest.mark.parametrize("name", NAMES)
def test_a_risk_says_what_it_costs(name):
    physical = [n.name for n in Tuned(FIXTURES / name).survey().site.nics]
    for step in steps(Tuned(FIXTURES / name).survey(*physical)):
        if step.risk == RESETS:
            assert "resets the link: it is gone for " in step.why
        elif step.risk == REBOOT:
            assert step.stage == "boot" and "after a restart of the host" in step.why


@pytest.mark.parametrize(("where", "on_workers"), [("worker", True), ("housekeeping", False)])
def test_interrupts_go_where_the_configuration_says(where, on_workers):
    conf = settings(tune_interrupts=where)
    site = Tuned(FIXTURES / XEON).survey("ens1f0", conf=conf).site
    wanted = {s.key: int(s.wanted) for s in stages.BY_NAME["irq"].plan(site)}
    queues = {core for key, core in wanted.items() if ":TxRx:" in key}
    assert queues and (queues <= set(site.layout.cpus)) == on_workers
    others = {core for key, core in wanted.items() if ":TxRx:" not in key}
    assert others <= set(site.layout.housekeeping), "what serves no queue never stops a worker"


def test_the_wake_up_latency_is_held_while_it_watches():
    device = Path("/dev/cpu_dma_latency")
    if not os.access(device, os.W_OK):
        pytest.skip(f"{device} may not be written here")

    def held() -> int:
        links = [Path("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
        return sum(os.path.lexists(link) and os.readlink(link) == str(device) for link in links)

    assert held() == 0
    with Latency(Host()) as latency:
        assert held() == 1 and latency.why_not == ""
        with device.open("rb") as file:
            assert int.from_bytes(file.read(4), "little", signed=True) == 0
    assert held() == 0
    with Latency(Host(FIXTURES / VM)) as latency:
        assert held() == 0 and "a capture has no" in latency.why_not
