"""Devices that are not NICs, captures that are broken, and files that only root may read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from host_kit import CLOUD, EPYC, FIXTURES, NAMES, VM, Tuned, copied, settings
from typer.testing import CliRunner

from forwarder.cli.app import app
from forwarder.config import Config
from forwarder.errors import HostError
from forwarder.host import stages, verdicts
from forwarder.host.describe import plan_json
from forwarder.host.devices import NoSuchNic, carried
from forwarder.host.root import Host, Unreadable
from forwarder.host.stage import State


def device(root: Path, name: str, kind: str = "", lower: str = "", hardware: int = 1) -> None:
    """An interface as sysfs and ethtool show it: macvlan and its kin are in no uevent."""
    tool = json.loads((root / "ethtool.json").read_text())
    quiet = kind in ("macvlan", "macvtap", "ipvlan", "tun")
    tool[name] = {"driver": {"driver": kind if quiet else "", "bus": ""}}
    (root / "ethtool.json").write_text(json.dumps(tool))
    kind = "" if quiet else kind
    here = root / "sys/class/net" / name
    here.mkdir()
    (here / "type").write_text(f"{hardware}\n")
    (here / "flags").write_text("0x1003\n")
    (here / "mtu").write_text("1500\n")
    (here / "uevent").write_text((f"DEVTYPE={kind}\n" if kind else "") + f"INTERFACE={name}\n")
    if lower:
        (here / f"lower_{lower}").symlink_to(f"../{lower}")


@pytest.mark.parametrize(
    ("kind", "lower", "hardware", "words"),
    [
        ("bridge", "", 1, "x0 is a bridge: XDP cannot bypass the kernel there; use eth0 or eth1"),
        ("macvlan", "eth1", 1, "x0 is a macvlan: XDP cannot bypass the kernel there; use eth1"),
        ("macvtap", "eth1", 1, "x0 is a macvlan: .*; use eth1"),
        ("ipvlan", "eth1", 1, "x0 is an ipvlan: .*; use eth1"),
        ("tun", "", 65534, "x0 is a tunnel: .*; use eth0 or eth1"),
        ("vxlan", "eth0", 1, "x0 is a tunnel: XDP cannot bypass the kernel there; use eth0"),
        ("wireguard", "", 65534, "x0 is a tunnel: .*; use eth0 or eth1"),
        ("", "", 776, "x0 is a tunnel: .*; use eth0 or eth1"),  # sit says no DEVTYPE
        ("", "", 778, "x0 is a tunnel: .*; use eth0 or eth1"),  # nor does gre
        ("bond", "", 1, "x0 is a bond without an interface below it: add one first"),
        ("vlan", "", 1, "x0 is a vlan without an interface below it"),
    ],
)
def test_refused_with_the_device_to_use(kind, lower, hardware, words, tmp_path):
    root = copied(VM, tmp_path)
    device(root, "x0", kind, lower, hardware)
    with pytest.raises(NoSuchNic, match=words):
        Tuned(root).survey("x0")
    told = CliRunner().invoke(app, ["tune", "plan", "--nic", "x0", "--root", str(root)])
    assert told.exit_code == 3 and len(told.stderr.splitlines()) == 1


def test_a_bridges_ports_are_named(tmp_path):
    root = copied(VM, tmp_path)
    device(root, "br9", "bridge")
    (root / "sys/class/net/eth1/master").symlink_to("../br9")
    with pytest.raises(NoSuchNic, match=r"use eth1$"):
        Tuned(root).survey("br9")


def test_a_vlan_on_a_bond_means_the_bonds_slaves(tmp_path):
    """Each slave is planned for, and each keeps the tags in the packets."""
    root = copied(EPYC, tmp_path)
    device(root, "bond0.7", "vlan", "bond0")
    site = Tuned(root).survey("bond0.7").site
    assert [nic.name for nic in site.nics] == ["eno1", "eno2"]
    assert site.vlan_parents == {"eno1", "eno2"}
    keys = {step.key for step in stages.BY_NAME["offloads"].plan(site) if step.wanted == "off"}
    for name in ("eno1", "eno2"):
        assert f"ethtool:{name}:features.rx-vlan-hw-parse" in keys


def test_devices_that_lie_on_each_other_end(tmp_path):
    root = copied(VM, tmp_path)
    device(root, "a0", "vlan", "b0")
    device(root, "b0", "vlan", "a0")
    with pytest.raises(NoSuchNic, match="without an interface below it"):
        Tuned(root).survey("a0")


# ---- files that only root may read, values that are none ----------------------------------------


def test_a_hardened_interrupts_file_makes_one_stage_unknown(tmp_path):
    class Hardened(Host):
        def read(self, name):
            if name == "/proc/interrupts":
                raise Unreadable(f"{name} can be read by root only")
            return super().read(name)

    root = copied(VM, tmp_path)
    where = Tuned(root, Hardened(root)).survey("eth1").site
    found = {v.stage: v for v in verdicts.check(where, stages.STAGES)}
    assert found["irq"].state is State.UNKNOWN
    assert found["irq"].sentence == "needs root: /proc/interrupts can be read by root only"
    assert {s for s, v in found.items() if v.state is State.UNKNOWN} == {"irq"}
    assert verdicts.status([found["irq"]]) == 2


@pytest.mark.parametrize(
    ("file", "stage", "words"),
    [
        ("sys/devices/virtual/workqueue/cpumask", "workqueues", "not a mask of processors: 'what'"),
        ("proc/irq/39/smp_affinity_list", "irq", "not a list of processors: 'what'"),
        ("sys/class/net/eth1/queues/tx-0/xps_cpus", "xps", "not a mask of processors"),
    ],
)
def test_a_value_that_is_none_is_not_guessed_at(file, stage, words, tmp_path):
    root = copied(VM, tmp_path)
    (root / file).write_text("what\n")
    (verdict,) = verdicts.check(Tuned(root).survey("eth1").site, stages.select([stage]))
    assert verdict.state is State.UNKNOWN and words in verdict.sentence
    done = CliRunner().invoke(app, ["tune", "check", stage, "--nic", "eth1", "--root", str(root)])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["tune", "plan", "--json", "--nic", "eth1", "--root", str(root)])
    assert done.exit_code == 0 and f"{stage} is not planned: " in done.stderr
    assert stage not in {step["stage"] for step in json.loads(done.stdout)["steps"]}


@pytest.mark.parametrize("name", [CLOUD, EPYC, "lab-node"])
@pytest.mark.parametrize("junk", [b"", b"-1 what\xff\x00 99999999999999999999\n"])
def test_whatever_the_files_hold_there_is_no_traceback(name, junk, tmp_path):
    """Every file of a capture but the NICs', one after another, holds something else."""
    root = copied(name, tmp_path)
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink()]
    files = [p for p in files if p.name not in ("ethtool.json", ".keep")]
    seen: set[tuple[str, str]] = set()
    for file in files:
        # One of each kind: all processors' files, all queues' files are read by the same lines.
        kind = ("".join(c for c in str(file.parent) if not c.isdigit()), file.name)
        if kind in seen:
            continue
        seen.add(kind)
        before = file.read_bytes()
        file.write_bytes(junk)
        try:
            survey = Tuned(root).survey()
            assert verdicts.check(survey.site, stages.STAGES)
            assert plan_json(survey)["workers"]
        except HostError as error:
            assert str(error)  # any other error fails this test
        file.write_bytes(before)


@pytest.mark.parametrize(
    "change",
    [
        lambda nics: nics.update(eth1=5),
        lambda nics: nics["eth1"].update(features={"rx-lro": True}),
        lambda nics: nics["eth1"].update(features={"rx-lro": {"on": True}}),
        lambda nics: nics["eth1"].update(rss={"table": "0 1"}),
        lambda nics: nics["eth1"].update(rss={"table": [-1]}),
        lambda nics: nics["eth1"].update(rings={"rx": "many"}),
        lambda nics: nics["eth1"].update(driver=[]),
    ],
)
def test_nics_that_no_capture_wrote(change, tmp_path):
    root = copied(VM, tmp_path)
    nics = json.loads((root / "ethtool.json").read_text())
    change(nics)
    (root / "ethtool.json").write_text(json.dumps(nics))
    done = CliRunner().invoke(app, ["tune", "check", "--root", str(root)])
    assert done.exit_code == 3 and "not what `tune capture` writes" in done.stderr


def test_a_directory_that_is_no_capture(tmp_path):
    """Nothing in it: the stages say so, one by one."""
    done = CliRunner().invoke(app, ["tune", "check", "--json", "--root", str(tmp_path)])
    assert done.exit_code in (0, 1, 2)
    states = {entry["state"] for entry in json.loads(done.stdout)["stages"]}
    assert "not-applicable" in states
    plan = CliRunner().invoke(app, ["tune", "plan", "--json", "--root", str(tmp_path)])
    assert plan.exit_code == 0 and json.loads(plan.stdout)["workers"]


def test_a_file_where_a_directory_should_be(tmp_path):
    root = copied(CLOUD, tmp_path)
    shutil.rmtree(root / "sys/class/net")
    (root / "sys/class/net").write_text("")
    done = CliRunner().invoke(app, ["tune", "check", "--root", str(root)])
    assert done.exit_code == 1 and "there is no physical NIC" in done.stdout


def test_the_fixtures_are_untouched_by_reading():
    before = {p: p.lstat().st_mtime_ns for p in FIXTURES.rglob("*")}
    for name in NAMES:
        for words in (["show"], ["plan"], ["check"], ["apply", "--dry-run"]):
            CliRunner().invoke(app, ["tune", *words, "--root", str(FIXTURES / name)])
    assert {p: p.lstat().st_mtime_ns for p in FIXTURES.rglob("*")} == before


# ---- what the data path attaches to --------------------------------------------------------------


def network(*interfaces: str, nodes: tuple[int, ...] = (), path: str = "auto") -> Config:
    more = {"network_interfaces": list(interfaces), "network_path": path}
    return settings(**more, **({"network_numa_nodes": list(nodes)} if nodes else {}))


@pytest.mark.parametrize(
    ("names", "nodes", "attached", "homes"),
    [
        (("bond0",), (), ("eno1", "eno2"), ()),
        (("ens3.100",), (), ("ens3",), ()),
        (("ens3.100", "ens3"), (), ("ens3",), ()),  # once
        (("bond0", "ens3"), (0, 1), ("eno1", "eno2", "ens3"), (0, 0, 1)),
        (("ens3",), (), ("ens3",), ()),
        (("bond0", "gone"), (), ("eno1", "eno2", "gone"), ()),  # whoever attaches says so
    ],
)
def test_the_data_path_attaches_to_what_carries_the_frames(names, nodes, attached, homes):
    found = carried(network(*names, nodes=nodes), Host(FIXTURES / EPYC)).network
    assert (found.interfaces, found.numa_nodes) == (attached, homes)


def test_the_data_path_is_refused_with_the_device_to_use(tmp_path):
    root = copied(VM, tmp_path)
    device(root, "x0", "macvlan", "eth1")
    with pytest.raises(NoSuchNic, match=r"x0 is a macvlan: .*; use eth1"):
        carried(network("x0"), Host(root))
    plain = network("x0", path="udp")
    assert carried(plain, Host(root)) is plain, "sockets do not mind"


def test_more_nics_than_are_served(tmp_path):
    root = copied(VM, tmp_path)
    device(root, "bond9", "bond")
    for number in range(9):
        device(root, f"s{number}")
        (root / f"sys/class/net/s{number}/master").symlink_to("../bond9")
    with pytest.raises(HostError, match="stand for 9 NICs, at most 8"):
        carried(network("bond9"), Host(root))
