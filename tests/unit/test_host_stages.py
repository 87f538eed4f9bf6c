"""The stages: one shape, one file each, one order; which NICs a command is about; the risks."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest
from host_kit import CLOUD, ENA, EPYC, FIXTURES, LAPTOP, NAMES, VM, XEON, Tuned, copied, settings

from forwarder.host import stages
from forwarder.host.describe import steps
from forwarder.host.root import Host
from forwarder.host.stage import REBOOT, RESETS, Stage
from forwarder.host.watch import Latency

# What notes on tuning name, and the stage that has it.
KNOBS = {
    "channels", "rss", "ntuple", "rings", "coalesce", "offloads", "napi", "threaded", "xps", "irq",
    "irqbalance", "workqueues", "isolation", "governor", "cstates", "smt", "sysctls", "hugepages",
    "thp", "memlock", "boot", "noise",
}  # fmt: skip


def test_every_concern_is_there():
    assert set(stages.BY_NAME) == KNOBS


@pytest.mark.parametrize("name", sorted(KNOBS))
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
