"""The workers' cores without systemd, on this machine's cgroup v1: who is kept off them, and that a
data plane joins.  All of it happens below a cpuset of the test's own, which a mount namespace shows
where the kernel's lies: nobody else's tasks are moved.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from node_kit import Site, up, wait_for

from forwarder.demo.namespaces import Host
from forwarder.host import cpulist

ROOT = Path("/sys/fs/cgroup/cpuset")
VCFWD = Path(sys.executable).with_name("vcfwd")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (ROOT / "cpuset.cpus").exists() or len(os.sched_getaffinity(0)) < 2,
        reason="needs cgroup v1 cpusets and two cores",
    ),
]


@dataclass(frozen=True)
class Cell(Host):
    """Below `folder`, seen as the whole from within; `shell` is a process that was there before."""

    folder: Path = ROOT
    shell: int = 0

    def command(self, *command: str) -> list[str]:
        """As a child of that shell would: in the cpuset where that is now."""
        enter = 'echo $$ > "$0/tasks" && exec nsenter -m -t "$@"'
        return ["sh", "-c", enter, str(cpuset(self.shell)), str(self.shell), "--", *command]

    def run(self, *command: str, expect: int = 0) -> str:
        done = subprocess.run(
            self.command(*command), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    def tune(self, site: Site, *words: str, expect: int = 0) -> str:
        return self.run(
            str(VCFWD), "tune", *words, "--config", str(site.config_file), expect=expect
        )

    def read(self, name: str) -> str:
        return (self.folder / name).read_text().strip()


def cpuset(pid: int) -> Path:
    return ROOT / Path(f"/proc/{pid}/cpuset").read_text().strip().lstrip("/")


def allowed(pid: int | str) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    return status.partition("Cpus_allowed_list:")[2].split()[0]


def workers(pid: int) -> dict[str, str]:
    """Worker thread -> where it may run."""
    tasks = Path(f"/proc/{pid}/task")
    names = {each.name: (each / "comm").read_text().strip() for each in tasks.iterdir()}
    return {name: allowed(tid) for tid, name in names.items() if name.startswith("vcfwd-w")}


def put(folder: Path, **values: str) -> None:
    for name, value in values.items():
        (folder / f"cpuset.{name}").write_text(value)


@pytest.fixture
def cell() -> Iterator[Cell]:
    folder = ROOT / f"vctest{os.getpid()}"
    folder.mkdir()
    try:
        put(
            folder, cpus=(ROOT / "cpuset.cpus").read_text(), mems=(ROOT / "cpuset.mems").read_text()
        )
        put(folder, cpu_exclusive="1")
        line = f"echo $$ > {folder}/tasks && mount --bind {folder} {ROOT} && echo && exec sleep 600"
        with subprocess.Popen(["unshare", "-m", "sh", "-c", line], stdout=subprocess.PIPE) as shell:
            try:
                assert shell.stdout is not None and shell.stdout.read(1), "the cell opens"
                yield Cell("", "127.0.0.1", folder, shell.pid)
            finally:
                shell.kill()
    finally:
        for part in (folder / "vcfwd", folder / "vcfwd-rest", folder):
            if part.is_dir():
                for task in (part / "tasks").read_text().split():
                    (ROOT / "tasks").write_text(task)
                part.rmdir()


@pytest.fixture
def site(cell: Cell, tmp_path: Path) -> Site:
    cores = sorted(os.sched_getaffinity(cell.shell))
    change = {"dataplane": {"workers": 1, "cpus": cores[-1:], "scheduler": "other"}}
    return Site(tmp_path / "node", cell, change=change)


def test_others_are_kept_off_and_the_data_plane_joins(cell: Cell, site: Site) -> None:
    every, (core,) = allowed(cell.shell), site.change["dataplane"]["cpus"]
    others = cpulist.show(set(cpulist.parse(every)) - {core})
    assert "isolation: ok" in cell.tune(site, "apply", "isolation")
    assert allowed(cell.shell) == others, "who was there is moved"
    mine = "grep Cpus_allowed_list /proc/self/status"
    assert cell.run("sh", "-c", mine).split()[-1] == others, "so is what it starts"
    balanced = [
        cell.read(f"{part}cpuset.sched_load_balance") for part in ("", "vcfwd/", "vcfwd-rest/")
    ]
    assert balanced == ["0", "0", "1"], "nothing is balanced onto the worker's core"
    cell.tune(site, "check", "isolation")
    assert "0 settings changed" in cell.tune(site, "apply", "isolation")

    with up(site) as node:
        assert allowed(node.pid) == others
        (first,) = site.dataplanes()
        assert workers(first) == {"vcfwd-w0": str(core)}
        assert cpuset(first) == cell.folder / "vcfwd"
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: site.dataplanes() not in ([], [first]) and site.status(), "another one")
        (second,) = site.dataplanes()
        wait_for(lambda: workers(second) == {"vcfwd-w0": str(core)}, "it is pinned too")
        assert cpuset(second) == cell.folder / "vcfwd"

        told = cell.tune(site, "revert")
        assert "0 left alone, 0 failed" in told
        assert site.dataplanes() == [second], "it goes on"
        assert workers(second) == {"vcfwd-w0": str(core)}, "where it was"
        assert cpuset(second) == cpuset(cell.shell) == cell.folder
        assert (allowed(cell.shell), allowed(node.pid)) == (every, every)
        assert not (cell.folder / "vcfwd").exists() and not (cell.folder / "vcfwd-rest").exists()
        assert cell.read("cpuset.sched_load_balance") == "1"
        assert node.end() == 0


def test_who_is_on_the_core_all_the_same_is_named(cell: Cell, site: Site) -> None:
    (core,) = site.change["dataplane"]["cpus"]
    pinned = cell.command("taskset", "-c", str(core), "sleep", "600")
    with subprocess.Popen(pinned) as intruder:
        try:
            wait_for(lambda: allowed(intruder.pid) == str(core), "it is pinned")
            told = cell.tune(site, "apply", "isolation")
            sentence = f"somebody pinned threads that are not the workers': sleep ({intruder.pid})"
            assert "isolation: partly" in told and sentence in told
            assert allowed(intruder.pid) == str(core), "it is the operator's"
            cell.tune(site, "check", "isolation", expect=1)
        finally:
            intruder.kill()
    cell.tune(site, "check", "isolation")

    (cell.folder / "tasks").write_text(str(cell.shell))  # somebody comes back
    found = json.loads(cell.tune(site, "check", "isolation", "--json", expect=1))
    assert f"may run threads that are not the workers': sleep ({cell.shell})" in str(found)
    assert "1 settings changed" in cell.tune(site, "apply", "isolation")
    cell.tune(site, "check", "isolation")
    cell.tune(site, "revert")


def test_the_shell_lines_by_hand_do_the_same(cell: Cell, site: Site) -> None:
    lines = cell.tune(site, "apply", "--dry-run", "isolation")
    assert not (cell.folder / "vcfwd").exists(), "a dry run changes nothing"
    cell.run("sh", "-euc", lines)
    assert cpuset(cell.shell) == cell.folder / "vcfwd-rest"
    cell.tune(site, "check", "isolation")
    assert "0 settings changed" in cell.tune(site, "apply", "isolation")


def test_workers_that_nobody_pins_run_where_the_plan_says(cell: Cell, tmp_path: Path) -> None:
    site = Site(tmp_path / "node", cell, change={"dataplane": {"workers": 1}})
    cell.tune(site, "apply", "isolation")
    with up(site) as node:
        (plane,) = site.dataplanes()
        assert cpuset(plane) == cell.folder / "vcfwd"
        tasks = Path(f"/proc/{plane}/task").iterdir()
        (worker,) = [t for t in tasks if (t / "comm").read_text().startswith("vcfwd-w")]
        assert allowed(worker.name) == cell.read("vcfwd/cpuset.cpus")
        assert node.end() == 0
    cell.tune(site, "revert")


def test_more_workers_than_were_planned_stay_outside_and_say_so(cell: Cell, tmp_path: Path) -> None:
    planned = Site(tmp_path / "node", cell, change={"dataplane": {"workers": 1}})
    cell.tune(planned, "apply", "isolation")
    site = Site(tmp_path / "node", cell, change={"dataplane": {"workers": 2}})
    with up(site) as node:
        (plane,) = site.dataplanes()
        assert cpuset(plane) == cell.folder / "vcfwd-rest"
        assert "they run elsewhere: dataplane.cpus does not pin them" in node.words()
        assert node.end() == 0
    cell.tune(site, "revert")
