"""`vcfwd tune` in process: exit statuses, JSON, wrong arguments, on the fixture hosts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from host_kit import CLOUD, ENA, EPYC, FIXTURES, LAPTOP, NAMES, VM, XEON, copied
from typer.testing import CliRunner

from forwarder.cli.app import app
from forwarder.host import stages
from forwarder.host.root import Host, Unreadable

STEP = {"stage", "current", "wanted", "why", "shell", "risk"}


def run(*words: object, expect: int = 0) -> str:
    done = CliRunner().invoke(app, ["tune", *map(str, words)])
    assert done.exit_code == expect, done.output
    return done.output


def out(*words: object) -> dict:
    """The only line of standard output."""
    done = CliRunner().invoke(app, ["tune", *map(str, words)])
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.mark.parametrize("name", NAMES)
def test_plan(name):
    plan = out("plan", "--json", "--root", FIXTURES / name)
    assert list(plan) == ["workers", "housekeeping", "steps"]
    assert plan["workers"] and plan["housekeeping"]
    text = run("plan", "--root", FIXTURES / name)
    assert re.search(r"^supervisor +\d+$", text, re.M), "people see where it runs"
    assert not set(plan["workers"]) & set(plan["housekeeping"])
    assert plan["steps"]
    for step in plan["steps"]:
        assert set(step) == STEP
        assert step["shell"] and step["why"]
        assert step["risk"] in ("safe", "resets-link", "needs-reboot")
        if step["risk"] == "resets-link":
            assert "the link: it is gone for" in step["why"]
    met = [step for step in plan["steps"] if step["current"] == step["wanted"]]
    assert met and len(met) < len(plan["steps"]), "those already met are listed too"


@pytest.mark.parametrize("name", NAMES)
def test_check_has_a_sentence_for_each_stage(name):
    found = out("check", "--json", "--root", FIXTURES / name)
    assert [entry["stage"] for entry in found["stages"]] == list(stages.BY_NAME)
    assert all(set(entry) == {"stage", "state", "sentence"} for entry in found["stages"])
    assert all(entry["sentence"] for entry in found["stages"])
    assert found["status"] == 1
    planned = {s["stage"] for s in out("plan", "--json", "--root", FIXTURES / name)["steps"]}
    absent = {e["stage"] for e in found["stages"] if e["state"] == "not-applicable"}
    assert not absent & planned, "not-applicable ones are only in check"


def test_check_ends_with_zero_when_all_is_well(tmp_path):
    root = copied(CLOUD, tmp_path)
    run("apply", "--root", root)
    cmdline = (root / "etc/default/grub.d/60-vcfwd.cfg").read_text()
    run("check", "--root", root, expect=1)  # the restart is still to come
    (root / "proc/cmdline").write_text(cmdline.partition("DEFAULT ")[2].strip().strip('"') + "\n")
    (root / "sys/devices/system/cpu/isolated").write_text("1\n")
    run("check", "--root", root)


def test_check_that_cannot_tell_ends_with_two(tmp_path):
    root = copied(CLOUD, tmp_path)
    file = root / "sys/kernel/mm/transparent_hugepage/enabled"

    def check(*names: str) -> int:
        from forwarder.host.root import Host, Unreadable

        real = Host.read

        def read(self: Host, name: str) -> str | None:
            if name.endswith(file.name):
                raise Unreadable(f"{name} can be read by root only")
            return real(self, name)

        with pytest.MonkeyPatch.context() as monkey:
            monkey.setattr(Host, "read", read)
            words = ["tune", "check", *names, "--root", str(root)]
            return CliRunner().invoke(app, words).exit_code

    assert check("thp") == 2
    assert check("thp", "smt") == 2, "what could not be told goes before what is well"
    assert check("thp", "sysctls") == 1, "and something to do before both"
    assert check("thp", "sysctls", "nothing") == 3, "and wrong arguments before all"


@pytest.mark.parametrize("fault", [Unreadable("only root"), OSError(5, "Input/output error")])
def test_a_host_that_cannot_be_read_is_no_wrong_argument(fault, tmp_path, monkeypatch):
    def names(self: Host, name: str) -> list[str]:
        raise fault

    root = copied(CLOUD, tmp_path)
    monkeypatch.setattr(Host, "names", names)
    for words, status in ((["check"], 2), (["plan"], 1), (["apply"], 1), (["show"], 1)):
        said = run(*words, "--root", root, expect=status)
        assert str(getattr(fault, "strerror", None) or fault) in said
    assert not (root / "var").exists()


def test_a_folder_that_is_no_capture_is_a_wrong_argument(tmp_path):
    root = copied(CLOUD, tmp_path)
    (root / "ethtool.json").write_text("{torn")
    for command in ("check", "plan", "show", "apply"):
        assert "not JSON" in run(command, "--root", root, expect=3)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["check", "--nic", "enp9s9"], "there is no interface enp9s9"),
        (["check", "--nic", "ens5x"], "did you mean ens5?"),
        (["check", "sysctl"], "did you mean sysctls?"),
        (["check", "--what"], "No such option"),
        (["what"], "No such command"),
        (["check", "--config", "/nonexistent.toml"], "cannot be read"),
        (["plan", "--nic", "lo"], "loopback"),
        (["apply", "--confirm", "soon"], "Invalid value"),
        (["apply", "--confirm", "1"], "Invalid value"),
    ],
)
def test_wrong_arguments_end_with_three(words, sentence):
    where = ["--root", str(FIXTURES / ENA)] if words != ["what"] else []
    done = CliRunner().invoke(app, ["tune", *words, *where])
    assert done.exit_code == 3, done.output
    assert sentence in done.output and "Traceback" not in done.output


def test_cores_that_do_not_exist(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text("[dataplane]\ncpus = [99]\nworkers = 1\n")
    told = run("check", "--config", file, "--root", FIXTURES / VM, expect=3)
    assert "names core 99, which this host does not have: it has 0-3" in told


def test_cores_that_serve_no_nic(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text("[dataplane]\ncpus = [0]\nworkers = 1\n[tune]\nhousekeeping = [0]\n")
    told = run("check", "--config", file, "--root", FIXTURES / VM, expect=3)
    assert "core 0 is in dataplane.cpus and in tune.housekeeping" in told


def test_a_configured_management_nic_is_tuned_but_never_reset(tmp_path):
    """As vcfwd-tune.service does it on a server with one NIC: each boot, and it ends well."""
    root, file = copied(ENA, tmp_path), tmp_path / "node.toml"
    file.write_text('[network]\ninterfaces = ["ens5"]\n')
    told = run("plan", "--config", file, "--root", root)
    assert "ens5: it carries the default route, so it is management: of its steps only" in told
    told = run("apply", "--config", file, "--root", root)
    assert "--nic ens5 plans them all, and apply does them with --confirm" in told
    assert tool(root, "ens5")["channels"]["combined_count"] == 4, "that would reset its link"
    assert tool(root, "ens5")["rings"]["rx"] == 1024
    assert tool(root, "ens5")["coalesce"]["use_adaptive_rx"] == 0, "this does not"
    checked = out("check", "channels", "--json", "--config", file, "--root", root)
    assert checked["stages"][0]["state"] == "not-applicable"
    assert "--nic ens5 with --confirm SECONDS does it" in checked["stages"][0]["sentence"]

    refused = run("apply", "channels", "--nic", "ens5", "--config", file, "--root", root, expect=1)
    assert "ens5 is a management NIC (it carries the default route)" in refused
    run("apply", "channels", "--confirm", "3600", "--config", file, "--root", root)
    assert tool(root, "ens5")["channels"]["combined_count"] == 1, "confirmed: the other steps too"
    end_clocks(root)


def test_a_root_that_is_not_there():
    assert "no such directory" in run("check", "--root", "/nonexistent", expect=3)


@pytest.mark.parametrize(
    ("nic", "sentence"),
    [("br0", "is a bridge: XDP cannot bypass the kernel there"), ("lo", "loopback")],
)
def test_devices_that_are_refused(nic, sentence):
    assert sentence in run("plan", "--nic", nic, "--root", FIXTURES / EPYC, expect=3)


def tuned_nics(plan: dict) -> set[str]:
    """The interfaces that its lines of ethtool are about."""
    lines = (re.match(r"ethtool -\w (\S+)", step["shell"]) for step in plan["steps"])
    return {line[1] for line in lines if line}


def test_a_bond_means_its_slaves_and_a_vlan_its_parent():
    plan = out("plan", "--json", "--nic", "bond0", "--root", FIXTURES / EPYC)
    assert tuned_nics(plan) == {"eno1", "eno2"}
    plan = out("plan", "--json", "--nic", "ens3.100", "--root", FIXTURES / EPYC)
    assert tuned_nics(plan) == {"ens3"}
    tags = [s for s in plan["steps"] if "rxvlan" in s["shell"]]
    assert [(s["current"], s["wanted"]) for s in tags] == [("on", "off")]


def test_pins_of_the_configuration(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text(
        "[dataplane]\ncpus = [2, 3]\nworkers = 2\n[tune]\nhousekeeping = [0]\n"
        '[network]\ninterfaces = ["eth1"]\n'
    )
    plan = out("plan", "--json", "--config", file, "--root", FIXTURES / VM)
    assert (plan["workers"], plan["housekeeping"]) == ([2, 3], [0])
    assert tuned_nics(plan) == {"eth1"}


@pytest.mark.parametrize(
    ("name", "stage", "sentence"),
    [
        (EPYC, "governor", "tuned (throughput-performance) sets this as well: systemctl disable"),
        (XEON, "irq", "irqbalance sets this as well: vcfwd tune apply irqbalance"),
        (LAPTOP, "rings", "the link file 10-fast.link"),
        (LAPTOP, "governor", "power-profiles-daemon"),
    ],
)
def test_conflicts_by_name(name, stage, sentence):
    (entry,) = out("check", stage, "--json", "--root", FIXTURES / name)["stages"]
    assert entry["state"] == "conflict" and sentence in entry["sentence"]


def test_dry_run_prints_lines_and_writes_nothing(tmp_path):
    root = copied(XEON, tmp_path)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    done = CliRunner().invoke(app, ["tune", "apply", "--dry-run", "--root", str(root)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "sysctl -w kernel.numa_balancing=0" in lines
    assert "ethtool -L ens1f0 combined 3" in lines
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_the_audit_trail_says_who_and_what(tmp_path):
    root = copied(CLOUD, tmp_path)
    run("apply", "thp", "--root", root)
    run("revert", "--root", root)
    lines = out("log", "--json", "--root", root)
    assert all(line["who"] and line["time"] for line in lines)
    assert [line["what"].partition(":")[0] for line in lines] == [
        "choice", "apply", "revert choice", "revert",
    ]  # fmt: skip
    assert "is madvise again" in run("log", "--root", root)


def test_a_reset_that_is_not_confirmed_is_taken_back(tmp_path):
    root = copied(ENA, tmp_path)
    run("apply", "thp", "--root", root)  # an earlier apply stays
    run("apply", "channels", "--nic", "ens5", "--root", root, expect=1)
    told = run("apply", "channels", "--nic", "ens5", "--confirm", "5", "--root", root)
    assert "channels: ok: as wanted: ens5:channels.combined_count 1" in told
    end = time.monotonic() + 60
    while (root / "var/lib/vcfwd/tune/pending.json").exists():
        assert time.monotonic() < end, "nobody took it back"
        time.sleep(0.1)
    assert tool(root, "ens5")["channels"]["combined_count"] == 4
    assert (root / "sys/kernel/mm/transparent_hugepage/enabled").read_text() == "never\n"
    assert "no apply waits" in run("confirm", "--root", root, expect=1)


def test_one_that_waits_is_not_joined_by_another(tmp_path):
    root = copied(ENA, tmp_path)
    run("apply", "channels", "--nic", "ens5", "--confirm", "3600", "--root", root)
    assert tool(root, "ens5")["channels"]["combined_count"] == 1
    assert "still waits" in run("apply", "--confirm", "5", "--root", root, expect=1)
    end_clocks(root)


def test_what_is_confirmed_stays(tmp_path):
    root = copied(ENA, tmp_path)
    run("apply", "channels", "--nic", "ens5", "--confirm", "3600", "--root", root)
    run("confirm", "--root", root)
    token = last_apply(root)
    run("revert", "--unconfirmed", token, "--root", root)  # the clock comes too late
    assert tool(root, "ens5")["channels"]["combined_count"] == 1
    end_clocks(root)


def last_apply(root: Path) -> str:
    lines = (root / "var/lib/vcfwd/tune/journal.jsonl").read_text().splitlines()
    return [each["apply"] for each in map(json.loads, lines) if each["event"] == "intend"][-1]


def end_clocks(root: Path) -> None:
    """The process that would wait for an hour before it takes the last apply back."""
    token = last_apply(root).encode()
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        if token in command_line(pid):
            os.kill(pid, 15)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def tool(root: Path, nic: str) -> dict:
    return json.loads((root / "ethtool.json").read_text())[nic]


def test_tune_imports_nothing_heavy():
    names = [f.stem for f in (Path(stages.__file__).parent).glob("*.py") if f.stem != "__init__"]
    lines = [f"import forwarder.host.{name}" for name in names]
    heavy = "[m for m in ('numba', 'aioquic', 'av', 'cffi', 'fastapi') if m in sys.modules]"
    code = "\n".join(["import sys, forwarder.cli.tune", *lines, f"print({heavy})"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("words", ["show", "plan", "check", "apply --dry-run", "watch --count 1"])
def test_a_command_of_tune_imports_nothing_heavy(words):
    """What a command imports while it runs, through the whole command line."""
    heavy = "[m for m in ('numba', 'aioquic', 'av', 'cffi', 'fastapi') if m in sys.modules]"
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print({heavy}))\n"
        "from forwarder.cli.app import app\n"
        "app(sys.argv[1:])\n"
    )
    line = [sys.executable, "-c", code, "tune", *words.split(), "--root", str(FIXTURES / NAMES[0])]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_show(name):
    facts = out("show", "--json", "--root", FIXTURES / name)
    online = sorted(cpu["number"] for cpu in facts["cpus"])
    assert online == sorted(cpu for cpus in facts["nodes"].values() for cpu in cpus)
    physical = {n: nic for n, nic in facts["nics"].items() if nic["kind"] == "physical"}
    assert physical and all(nic["driver"] for nic in physical.values())
    text = run("show", "--root", FIXTURES / name)
    for nic, body in physical.items():
        assert f"{nic}: physical, driver {body['driver']}" in text
