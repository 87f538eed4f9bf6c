"""Hosts that are not like others: altered copies of the fixtures, and plans that would do harm."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from host_kit import CLOUD, ENA, EPYC, NAMES, VM, XEON, Tuned, copied, settings

from forwarder.errors import HostError
from forwarder.host import apply as applying
from forwarder.host import cpulist, management, stages, verdicts
from forwarder.host import settings as values
from forwarder.host.describe import plan_json, steps
from forwarder.host.root import Host
from forwarder.host.stage import RESETS, State, Verdict

CPU, NODE = "sys/devices/system/cpu", "sys/devices/system/node"
BOOT = ("isolcpus", "nohz_full", "rcu_nocbs")


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(f"{text}\n")


def check(tuned: Tuned, *names: str, nics: tuple[str, ...] = ()) -> list[Verdict]:
    return verdicts.check(tuned.survey(*nics).site, stages.select(names))


# ---- odd hosts: a plan that holds, and no traceback ------------------------------------------


def many_cores(root: Path) -> None:
    put(root, f"{CPU}/online", "0-255")
    put(root, f"{NODE}/node0/cpulist", "0-255")


def one_core(root: Path) -> None:
    put(root, f"{CPU}/online", "0")
    for node in (root / NODE).glob("node*"):
        put(root, f"{NODE}/{node.name}/cpulist", "0" if node.name == "node0" else "")


def offline_cores(root: Path) -> None:
    """The first and some others: the kernel takes them out of the nodes too."""
    gone = {0, 2}
    for file in (f"{CPU}/online", *(f"{NODE}/{n.name}/cpulist" for n in (root / NODE).glob("*"))):
        if (root / file).is_file():
            put(root, file, cpulist.show(set(cpulist.parse((root / file).read_text())) - gone))


def no_smt(root: Path) -> None:
    put(root, f"{CPU}/smt/control", "off")
    for file in (root / CPU).glob("cpu*/topology/thread_siblings_list"):
        file.write_text(f"{file.parents[1].name[3:]}\n")


def memory_alone(root: Path) -> None:
    """The first node has no processors, as memory on an expansion card; NICs say it is theirs."""
    every = (root / f"{CPU}/online").read_text().strip()
    for node in (root / NODE).glob("node*"):
        put(root, f"{NODE}/{node.name}/cpulist", "")
    put(root, f"{NODE}/node7/cpulist", every)


def homeless_nics(root: Path) -> None:
    for file in (root / "sys/class/net").glob("*/device/numa_node"):
        file.write_text("-1\n")


def no_cpusets(root: Path) -> None:
    put(root, "sys/fs/cgroup/cgroup.controllers", "cpu io memory")
    (root / "sys/fs/cgroup/cpuset/cpuset.cpus").unlink(missing_ok=True)


ODD: tuple[Callable[[Path], None], ...] = (
    many_cores, one_core, offline_cores, no_smt, memory_alone, homeless_nics, no_cpusets,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", ODD)
def test_the_plan_holds(change, name, tmp_path):
    root = copied(name, tmp_path)
    change(root)
    survey = Tuned(root).survey()
    found, facts = survey.site.layout, survey.site.facts
    online = set(cpulist.parse((root / f"{CPU}/online").read_text()))
    assert found.cpus and set(found.cpus) <= online
    assert found.housekeeping and set(found.housekeeping) <= online
    if len(online) > 1:
        assert not set(found.cpus) & set(found.housekeeping), "nobody works and keeps house"
    assert plan_json(survey)["workers"] == list(found.cpus)
    for step in steps(survey):
        if step.stage == "boot":
            words = dict(w.partition("=")[::2] for w in step.wanted.strip('"').split() if "=" in w)
            for word in BOOT:
                cores = words[word].removeprefix("managed_irq,domain,")
                assert cpulist.parse(cores) == tuple(sorted(found.cpus))
            assert cpulist.parse(words["irqaffinity"]) == found.housekeeping
    for node, cpus in facts.nodes.items():
        cores = {c.siblings for c in facts.cpus if c.number in cpus}
        if len(cores) >= 4:
            assert set(cpus) & set(found.housekeeping), f"node {node} keeps a core"
    assert check(Tuned(root))


@pytest.mark.parametrize("node", [-1, 0])
def test_a_nic_without_a_node_is_where_processors_are(node, tmp_path):
    root = copied(VM, tmp_path)
    memory_alone(root)
    put(root, "sys/class/net/eth1/device/numa_node", str(node))
    assert Tuned(root).survey().site.layout.cpus == (1, 2, 3)


# ---- plans that would do harm ----------------------------------------------------------------


def rules_by_reset(tmp_path: Path) -> Tuned:
    """One NIC, which is management and has two queues for one worker; igb restarts for rules."""
    root = copied(ENA, tmp_path)
    driver = root / "sys/class/net/ens5/device/driver"
    driver.unlink()
    driver.symlink_to("../igb")
    return Tuned(root)


def test_rules_that_need_a_reset_of_the_management_link_are_not_switched_on(tmp_path):
    tuned = rules_by_reset(tmp_path)
    assert tuned.survey().site.guarded == {"ens5"}
    assert not [step for step in steps(tuned.survey()) if step.stage == "ntuple"]
    (verdict,) = check(tuned, "ntuple")
    assert verdict.state is State.NOT_APPLICABLE
    assert "ens5 takes no rules, or only by a reset of its link" in verdict.sentence


def test_rules_that_need_a_reset_need_confirm_too(tmp_path):
    root = rules_by_reset(tmp_path).root
    nics = json.loads((root / "ethtool.json").read_text())
    del nics["ens5"]["channels"]  # more queues than workers for good
    (root / "ethtool.json").write_text(json.dumps(nics))
    site = Tuned(root).survey("ens5", conf=settings(dataplane_workers=1), given=True).site
    first, _ = stages.BY_NAME["ntuple"].plan(site)
    assert first.risk == RESETS and "rx-ntuple-filter" in first.key
    with pytest.raises(HostError, match="ntuple: ens5 is a management NIC"):
        applying.may_apply(site, stages.select(["ntuple"]))
    # And no queue that stays is forgotten: its interrupts are off the worker, its XPS is not his.
    queues = len(list((root / "sys/class/net/ens5/queues").glob("tx-*")))
    assert queues > 1
    placed = [s for s in stages.BY_NAME["irq"].plan(site) if s.key.count(":Rx:")]
    assert len(placed) == queues and not {s.wanted for s in placed} & {str(site.layout.cpus[0])}
    shared = [s for s in stages.BY_NAME["xps"].plan(site) if s.key.endswith("xps_cpus")]
    assert [s.wanted for s in shared].count(str(site.layout.cpus[0])) == 1 < len(shared)


@pytest.mark.parametrize(
    ("cmdline", "isolated", "nohz", "state", "words"),
    [
        ("quiet isolcpus=2 {ours}", "2", "", State.CONFLICT,
         "isolcpus=2 on the kernel's command line comes before ours: take it out of"),
        ("quiet {ours}", "", "", State.PARTLY, "core 1-3 is not isolated"),
        ("quiet {ours}", "1-3", "(null)", State.PARTLY, "core 1-3 keeps its tick"),
        ("quiet {ours}", "1-3", "1-3", State.OK, ""),
        ("quiet isolcpus=2", "2", "", State.PARTLY, "restart the host for isolcpus="),
    ],
)  # fmt: skip
def test_what_the_kernel_made_of_its_command_line(cmdline, isolated, nohz, state, words, tmp_path):
    tuned = Tuned(copied(VM, tmp_path))
    tuned.apply("boot")
    text = (tuned.root / "etc/default/grub.d/60-vcfwd.cfg").read_text()
    ours = text.partition("DEFAULT ")[2].strip().strip('"')
    put(tuned.root, "proc/cmdline", cmdline.format(ours=ours))
    put(tuned.root, f"{CPU}/isolated", isolated)
    put(tuned.root, f"{CPU}/nohz_full", nohz)
    (verdict,) = check(tuned, "boot")
    assert verdict.state is state and words in verdict.sentence


def test_somebody_elses_isolcpus_is_told_before_anything_is_written(tmp_path):
    tuned = Tuned(copied(VM, tmp_path))
    put(tuned.root, "proc/cmdline", "quiet isolcpus=2 nohz_full=2")
    (verdict,) = check(tuned, "boot")
    assert verdict.state is State.CONFLICT and verdicts.status([verdict]) == 1
    assert verdict.sentence.startswith("isolcpus=2 nohz_full=2 on the kernel's command line")
    (step,) = (step for step in steps(tuned.survey()) if step.stage == "boot")
    assert "take it out of /etc/default/grub" in step.why


def test_words_of_an_earlier_plan_are_ours(tmp_path):
    """The workers are others now: a restart is what it takes, and nobody is to blame."""
    tuned = Tuned(copied(VM, tmp_path))
    tuned.apply("boot")
    text = (tuned.root / "etc/default/grub.d/60-vcfwd.cfg").read_text()
    put(tuned.root, "proc/cmdline", text.partition("DEFAULT ")[2].strip().strip('"'))
    conf = settings(dataplane_workers=1)
    where = tuned.survey(conf=conf, given=True).site
    (verdict,) = verdicts.check(where, stages.select(["boot"]))
    assert verdict.state is State.NOT and "command line" not in verdict.sentence
    (step,) = stages.BY_NAME["boot"].plan(where)
    assert "command line" not in step.why


@pytest.mark.parametrize(
    ("total_kb", "planned"), [(0, False), (40_000, False), (1 << 20, True), (None, True)]
)
def test_huge_pages_that_would_take_the_nodes_memory(total_kb, planned, tmp_path):
    tuned = Tuned(copied(VM, tmp_path))  # 24 pages of 2 MiB
    if total_kb is not None:
        put(tuned.root, f"{NODE}/node0/meminfo", f"Node 0 MemTotal:       {total_kb} kB")
    (verdict,) = check(tuned, "hugepages")
    assert (verdict.state is State.NOT) == planned
    if not planned:
        told = f"huge pages would take 48 MiB of the {total_kb >> 10} MiB of node 0"
        assert verdict.state is State.NOT_APPLICABLE and told in verdict.sentence
    # What is there already stays whatever the memory.
    file = f"{NODE}/node0/hugepages/hugepages-2048kB/nr_hugepages"
    put(tuned.root, file, "512")
    assert check(tuned, "hugepages")[0].state is State.OK


@pytest.mark.parametrize("name", ["eth0", "a;b", "$(x)", "q&'r", "eth0.100", "enp1s0f0-x"])
def test_a_name_is_one_word_of_the_shell_whatever_is_in_it(name, tmp_path):
    """The kernel takes all but white space, `/` and `:`."""
    host = Host(tmp_path)
    for key, value in (
        ("channels.combined_count", "2"), ("rings.rx", "2048"), ("coalesce.rx_usecs", "8"),
        ("features.rx-lro", "off"), ("rss.table", "equal 2"), ("hash.udp4", "sdfn"),
        ("rules.4433", "0"),
    ):  # fmt: skip
        words = shlex.split(values.shell(host, f"ethtool:{name}:{key}", value))
        assert words[2] == name, words
    words = shlex.split(values.shell(host, f"text:/sys/class/net/{name}/threaded", "0"))
    assert words == ["echo", "0", ">", f"/sys/class/net/{name}/threaded"]
    line = values.shell(host, f"ethtool:{name}:napi.0.defer_hard_irqs", "0")
    assert shlex.quote(f"/sys/class/net/{name}/ifindex") in line


# ---- wrong arguments and torn files ----------------------------------------------------------


def test_this_machine_by_another_name_is_no_capture(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("/")
    for name in ("//", "/.", "/proc/..", link):
        assert Host(name).live
    assert not Host(tmp_path).live


@pytest.mark.parametrize(
    "line",
    [
        '{"time": "x", "who": "a", "what": "b", "result": "c"}',
        '{"time": 1e300, "who": "a", "what": "b", "result": "c"}',
        '{"time": NaN, "who": "a", "what": "b", "result": "c"}',
        '{"time": 1, "who": 1, "what": "b", "result": "c"}',
        '{"time": 1}', "[]", "{", "5",
    ],
)  # fmt: skip
def test_a_line_of_the_trail_that_is_none_is_passed_over(line, tmp_path):
    from typer.testing import CliRunner

    from forwarder.cli.app import app

    root = copied(CLOUD, tmp_path)
    whole = '{"time": 1, "who": "root", "what": "apply", "result": "done"}'
    put(root, "var/lib/vcfwd/tune/log.jsonl", f"{line}\n{whole}")
    done = CliRunner().invoke(app, ["tune", "log", "--root", str(root)])
    assert done.exit_code == 0 and done.stdout.count("\n") == 1
    assert "root  apply: done" in done.stdout


def test_a_sentence_holds_no_whole_table():
    for verdict in check(Tuned(Path(__file__).parents[1] / "fixtures/host/lab-node"), "channels"):
        assert "rss.table is 0 0" in verdict.sentence and len(verdict.sentence) < 150


def test_a_link_local_peer_says_its_interface(monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "fe80::1%eth7 50000 fe80::2%eth7 22")
    assert management._ssh_interface() == "eth7"


@pytest.mark.parametrize("name", [EPYC, XEON])
def test_no_housekeeping_beside_workers_is_said(name, tmp_path):
    """Where the operator pins all of a node."""
    cpus = [4, 5, 6, 7, 12, 13, 14, 15]
    conf = settings(dataplane_workers=8, dataplane_cpus=cpus)
    nic = "ens3" if name == EPYC else "ens2f0np0"
    why = Tuned(copied(name, tmp_path)).survey(nic, conf=conf, given=True).site.layout.why
    assert any("no core of node 1 keeps house" in sentence for sentence in why)


def test_a_reset_is_named_only_where_one_would_help():
    """Of the only NIC, which is management: virtio_net resets for nothing, ena for its channels."""
    for name, stage, helps in (
        (CLOUD, "rss", False), (ENA, "channels", True), (ENA, "rings", True),
    ):  # fmt: skip
        (verdict,) = check(Tuned(Path(__file__).parents[1] / "fixtures/host" / name), stage)
        assert verdict.state is State.NOT_APPLICABLE
        assert ("--confirm SECONDS does it" in verdict.sentence) == helps
