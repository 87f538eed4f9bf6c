"""The cpuset of the workers' cores on the fixture hosts: systemd's slice, cgroups of our own.

What a kernel makes of it: tests/netns/test_cpuset.py (v1), tests/lab/test_isolation.py (v2).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from host_kit import CLOUD, LAPTOP, VM, Tuned, copied, settings, tree

from forwarder.host import verdicts
from forwarder.host.stage import State
from forwarder.host.stages import BY_NAME

STAGE = BY_NAME["isolation"]
SLICE = "sys/fs/cgroup/vcfwd.slice"


def verdict(root: Path) -> State:
    (found,) = verdicts.check(Tuned(root).survey().site, [STAGE])
    return found.state


def test_a_slice_that_somebody_is_in_is_not_stopped(tmp_path):
    """Its service requires it: to stop the one ends the other, and every call."""
    root = copied(VM, tmp_path)
    before = tree(root)
    Tuned(root).apply("isolation")
    assert (root / SLICE / "cpuset.cpus.partition").read_text() == "isolated\n"
    (root / SLICE / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert Tuned(root).revert().failed == 0
    assert (root / SLICE / "cpuset.cpus.partition").read_text() == "member\n"
    after = tree(root)
    assert {name for name in after if name not in before} == {
        f"{SLICE}/{name}" for name in ("cpuset.cpus.partition", "cgroup.events")
    }


def test_an_empty_slice_goes(tmp_path):
    root = copied(VM, tmp_path)
    before = tree(root)
    Tuned(root).apply("isolation")
    (root / SLICE / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert Tuned(root).revert().failed == 0
    assert not (root / SLICE).exists() and tree(root) == before


@pytest.mark.parametrize("controllers", ["cpu io memory", "cpuset cpu io memory"])
def test_without_systemd_a_partition_of_our_own(controllers, tmp_path):
    root = copied(VM, tmp_path)
    shutil.rmtree(root / "run/systemd")
    control = root / "sys/fs/cgroup/cgroup.subtree_control"
    control.write_text(f"{controllers}\n")
    (root / "sys/fs/cgroup/cpuset.mems.effective").write_text("0\n")
    before = tree(root)
    where = Tuned(root).survey().site
    here = "/sys/fs/cgroup/vcfwd"
    assert [(step.key, step.wanted, step.shell) for step in STAGE.plan(where)] == [
        ("controller:/sys/fs/cgroup/cgroup.subtree_control", "present",
         "echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control"),
        (f"dir:{here}", "present", f"mkdir {here}"),
        (f"cpus:{here}/cpuset.cpus", "1-3", f"echo 1-3 > {here}/cpuset.cpus"),
        (f"cpus:{here}/cpuset.mems", "0", f"echo 0 > {here}/cpuset.mems"),
        (f"text:{here}/cpuset.cpus.partition", "isolated",
         f"echo isolated > {here}/cpuset.cpus.partition"),
    ]  # fmt: skip
    Tuned(root).apply("isolation")
    assert "cpuset" in control.read_text().split() and verdict(root) == State.OK
    (root / here[1:] / "cpuset.cpus.partition").write_text("isolated invalid (Cpu list in use)\n")
    assert verdict(root) == State.PARTLY, "the kernel refused it afterwards"
    assert Tuned(root).revert().left == 1
    assert Tuned(root).revert(force=True).failed == 0
    assert tree(root) == before


def test_two_cpusets_where_there_is_no_partition(tmp_path):
    root = copied(CLOUD, tmp_path)
    before = tree(root)
    Tuned(root).apply("isolation")
    here = root / "sys/fs/cgroup/cpuset"
    found = {f"{part}/{name}": (here / part / f"cpuset.{name}").read_text().strip()
             for part in ("vcfwd", "vcfwd-rest") for name in ("cpus", "mems")}  # fmt: skip
    assert found == {
        "vcfwd/cpus": "1", "vcfwd/mems": "0", "vcfwd-rest/cpus": "0", "vcfwd-rest/mems": "0",
    }  # fmt: skip
    assert (here / "cpuset.sched_load_balance").read_text() == "0\n"
    assert (here / "vcfwd/cpuset.sched_load_balance").read_text() == "0\n"
    assert verdict(root) == State.OK
    Tuned(root).revert()
    assert tree(root) == before


def test_siblings_of_workers_are_nobodys(tmp_path):
    root = copied(LAPTOP, tmp_path)
    shutil.rmtree(root / "run/systemd")
    (root / "sys/fs/cgroup/cgroup.controllers").write_text("cpu io\n")
    (root / "sys/fs/cgroup/cpuset").mkdir()
    (root / "sys/fs/cgroup/cpuset/cpuset.cpus").write_text("0-7\n")
    conf = settings(dataplane_cpus=[2, 3], dataplane_workers=2)
    where = Tuned(root).survey(conf=conf).site
    wanted = {step.key: step.wanted for step in STAGE.plan(where)}
    assert where.layout.idle == (6, 7)
    assert wanted["cpus:/sys/fs/cgroup/cpuset/vcfwd-rest/cpuset.cpus"] == "0-1,4-5"
