"""`vcfwd tune` on this machine, for real: veth in a namespace of the test, sysctls that
are put back, an unprivileged check, and `vcfwd up` that quotes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from nets import Pair, ip, veth_pair
from node_kit import Site, up, wait_for

from forwarder.demo.namespaces import Lab

pytestmark = pytest.mark.root
VCFWD = Path(sys.executable).with_name("vcfwd")
NOBODY = 65534


@pytest.fixture
def pair() -> Iterator[Pair]:
    with veth_pair("vctune", queues=4) as made:
        yield made


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(
        f'[node]\nrun_dir = "{tmp_path}/run"\nstate_dir = "{tmp_path}/state"\n'
        '[dataplane]\nbusy_poll = true\nscheduler = "other"\n'
    )
    return file


def tune(
    conf: Path, *words: str, netns: str = "", expect: int = 0, **more: object
) -> subprocess.CompletedProcess[str]:
    where = ["ip", "netns", "exec", netns] if netns else []
    done = subprocess.run(
        [*where, str(VCFWD), "tune", *words, "--config", str(conf)],
        capture_output=True, text=True, timeout=60, check=False, **more,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def settings(pair: Pair) -> dict[str, str]:
    """An independent look: what ethtool and sysfs say of v0."""
    exec_ = ["ip", "netns", "exec", pair.near]
    found = {}
    for flag in ("-l", "-k"):
        found[flag] = subprocess.run(
            [*exec_, "ethtool", flag, "v0"], capture_output=True, text=True, check=True
        ).stdout
    names = ["napi_defer_hard_irqs", "gro_flush_timeout", "threaded"]
    names += [f"queues/{way}-{q}/{kind}_cpus" for q in range(4) for way, kind in
              (("tx", "xps"), ("rx", "rps"))]  # fmt: skip
    for name in names:
        found[name] = subprocess.run(
            [*exec_, "cat", f"/sys/class/net/v0/{name}"], capture_output=True, text=True,
            check=False,
        ).stdout  # fmt: skip
    return found


NIC = (
    "channels",
    "rings",
    "rss",
    "ntuple",
    "offloads",
    "coalesce",
    "irq",
    "xps",
    "napi",
    "threaded",
)


def test_veth_is_tuned_and_put_back(pair: Pair, conf: Path) -> None:
    before = settings(pair)
    found = json.loads(
        tune(conf, "check", "--nic", "v0", "--json", netns=pair.near, expect=1).stdout
    )
    states = {entry["stage"]: entry["state"] for entry in found["stages"]}
    assert (states["channels"], states["napi"], states["rings"]) == (
        "not", "not", "not-applicable",
    )  # fmt: skip
    assert settings(pair) == before, "check changes nothing"

    told = tune(conf, "apply", *NIC, "--nic", "v0", netns=pair.near).stdout
    assert "channels: ok" in told and "napi: ok" in told
    after = settings(pair)
    assert after["napi_defer_hard_irqs"] == "100\n" and after["gro_flush_timeout"] == "200000\n"
    assert "RX:\t\t1" in after["-l"].partition("Current")[2]
    assert "tx-gre-segmentation: off" in after["-k"]
    tune(conf, "check", *NIC, "--nic", "v0", netns=pair.near)
    assert "0 settings changed" in tune(
        conf, "apply", *NIC, "--nic", "v0", netns=pair.near
    ).stdout  # fmt: skip

    assert "0 left alone, 0 failed" in tune(conf, "revert", netns=pair.near).stdout
    assert settings(pair) == before


@pytest.mark.parametrize("by_hand", [False, True])
def test_queues_of_a_real_nic_belong_to_their_workers(
    pair: Pair, conf: Path, by_hand: bool
) -> None:
    """XPS, RPS and threaded NAPI, as the kernel shows them, with two workers."""
    if not {0, 1} <= os.sched_getaffinity(0):
        pytest.skip("two workers need processors 0 and 1")
    conf.write_text(conf.read_text() + "workers = 2\ncpus = [0, 1]\n")
    here = "/sys/class/net/v0"
    script = (  # what an operator had; NAPI can be threaded where veth has some
        f"ethtool -K v0 gro on; ip link set v0 up; echo 1 > {here}/threaded; cd {here}/queues; "
        "echo 3 > tx-0/xps_cpus; echo 1 > tx-1/xps_cpus; echo 3 > rx-0/rps_cpus; "
        "echo 2 > tx-3/xps_cpus"
    )
    exec_ = ["ip", "netns", "exec", pair.near, "sh", "-euc"]
    subprocess.run([*exec_, script], check=True)
    before = settings(pair)
    assert (before["threaded"], before["queues/rx-0/rps_cpus"]) == ("1\n", "3\n")
    words = ("xps", "threaded", "--nic", "v0")
    if by_hand:
        lines = tune(conf, "apply", "--dry-run", *words, netns=pair.near).stdout
        subprocess.run([*exec_, lines], check=True)
        assert "0 settings changed" in tune(conf, "apply", *words, netns=pair.near).stdout
    else:
        told = tune(conf, "apply", *words, netns=pair.near).stdout
        assert "xps: ok" in told and "threaded: ok" in told
    wanted = {"queues/tx-0/xps_cpus": "1\n", "queues/tx-1/xps_cpus": "2\n",
              "queues/rx-0/rps_cpus": "0\n", "threaded": "0\n"}  # fmt: skip
    assert settings(pair) == before | wanted, "and the other queues are as they were"
    tune(conf, "check", *words, netns=pair.near)
    if not by_hand:
        assert "0 left alone, 0 failed" in tune(conf, "revert", netns=pair.near).stdout
        assert settings(pair) == before


def test_the_shell_lines_by_hand_do_the_same(pair: Pair, conf: Path) -> None:
    before = settings(pair)
    lines = tune(conf, "apply", "--dry-run", *NIC, "--nic", "v0", netns=pair.near).stdout
    assert "ethtool -L v0 rx 1\n" in lines and "gro_flush_timeout" in lines
    assert settings(pair) == before, "a dry run changes nothing"
    assert not (conf.parent / "state").exists(), "and journals nothing"
    subprocess.run(["ip", "netns", "exec", pair.near, "sh", "-euc", lines], check=True)
    by_hand = settings(pair)
    tune(conf, "check", *NIC, "--nic", "v0", netns=pair.near)
    again = tune(conf, "apply", *NIC, "--nic", "v0", netns=pair.near).stdout
    assert "0 settings changed" in again and settings(pair) == by_hand


def test_this_hosts_own_interfaces_are_left_alone(pair: Pair, conf: Path) -> None:
    def others() -> str:
        """All that ethtool and sysfs say of lo and of NICs that are hardware."""
        text = ""
        for name in [
            "lo",
            *(p.parent.name for p in sorted(Path("/sys/class/net").glob("*/device"))),
        ]:
            for flag in "lgckxn":
                words = ["ethtool", f"-{flag}", name]
                text += subprocess.run(words, capture_output=True, text=True, check=False).stdout
            here = Path("/sys/class/net", name)
            files = [*here.glob("gro_flush_timeout"), *here.glob("threaded"), here / "flags"]
            files += sorted(here.glob("queues/*/*ps_cpus"))
            for file in files:
                with contextlib.suppress(OSError):  # one queue has no xps_cpus
                    text += f"{file} {file.read_text()}"
        return text + "".join(
            path.read_text() for path in sorted(Path("/proc/irq").glob("*/smp_affinity_list"))
        )

    before = others()
    assert "/sys/class/net/lo/flags 0x" in before
    tune(conf, "apply", *NIC, "--nic", "v0", netns=pair.near)
    assert others() == before
    tune(conf, "revert", netns=pair.near)
    assert others() == before


def test_a_read_only_sysfs_is_a_sentence(pair: Pair, conf: Path) -> None:
    """As in a container: `ip netns exec` mounts /sys anew, here without leave to write."""
    before = settings(pair)
    words = f"{VCFWD} tune apply napi --nic v0 --config {conf}"
    done = subprocess.run(
        ["ip", "netns", "exec", pair.near, "sh", "-c", f"mount -o remount,ro /sys && {words}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "napi_defer_hard_irqs cannot be set: the file system is read-only" in done.stderr
    assert "0 settings are done and journaled" in done.stderr and "Traceback" not in done.stderr
    assert settings(pair) == before
    tune(conf, "revert", netns=pair.near)
    assert settings(pair) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("vxlan id 7 dstport 4789 dev v0", "x0 is a tunnel: XDP cannot bypass the kernel there"),
        ("macvlan", "x0 is a macvlan: XDP cannot bypass the kernel there; use v0"),
        ("bridge", "x0 is a bridge: XDP cannot bypass the kernel there"),
    ],
)
def test_real_devices_that_are_refused(pair: Pair, conf: Path, words: str, told: str) -> None:
    link = ["link", "v0"] if words == "macvlan" else []
    made = subprocess.run(
        ["ip", "-n", pair.near, "link", "add", *link, "name", "x0", "type", *words.split()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"the kernel makes no {words}: {made.stderr.strip()}")
    refused = tune(conf, "apply", "channels", "--nic", "x0", netns=pair.near, expect=3)
    assert told in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_a_nic_that_goes_half_way(pair: Pair, conf: Path) -> None:
    """For real: between two settings of one stage."""
    program = """
import subprocess, sys
from forwarder.cli.tune import Place
from forwarder.errors import HostError
from forwarder.host import apply as applying, stages
from forwarder.host.root import Host
from pathlib import Path

class Going(Host):
    def write(self, name, text):
        if name.endswith("gro_flush_timeout"):
            subprocess.run(["ip", "link", "del", "v0"], check=True)
        super().write(name, text)

place = Place(Path(sys.argv[1]), Path("/"))
place.host = Going()
site = place.survey(["v0"]).site
try:
    with place.journal.locked():
        applying.apply(site, stages.select(["napi"]), place.journal, place.audit, print, "run")
except HostError as error:
    print("told", error)
print("journaled", [entry.key.rpartition("/")[2] for entry in place.journal.live()])
"""
    done = subprocess.run(
        ["ip", "netns", "exec", pair.near, sys.executable, "-c", program, str(conf)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    told, journaled = done.stdout.splitlines()
    assert "napi: text:/sys/class/net/v0/gro_flush_timeout cannot be set: the NIC has gone" in told
    assert "1 settings are done and journaled" in told
    assert journaled == "journaled ['napi_defer_hard_irqs', 'gro_flush_timeout']"
    left = tune(conf, "revert", netns=pair.near, expect=1).stdout
    assert "0 settings put back, 0 left alone, 2 failed" in left


def test_a_real_napi_is_set_by_netlink(pair: Pair) -> None:
    """veth ties its NAPIs to no queue, so `tune` goes by sysfs there; the messages are real."""
    program = """
import errno
from forwarder.net.napi import Napis
napis = Napis()
(number,) = napis.values("v0")
assert napis.read("v0") == {}
for name, value in (("defer_hard_irqs", 100), ("gro_flush_timeout", 200_000)):
    napis.set_of(number, name, value)
    assert napis.values("v0")[number][name] == value
for nic, want in (("v0", errno.EOPNOTSUPP), ("nowhere", errno.ENODEV)):
    try:
        napis.set(nic, "0.defer_hard_irqs", 1)
    except OSError as error:
        assert error.errno == want, error
    else:
        raise AssertionError(nic)
print("told", napis.values("v0")[number])
"""
    ip("link", "set", "v0", "up", netns=pair.near)
    exec_ = ["ip", "netns", "exec", pair.near]
    subprocess.run([*exec_, "ethtool", "-L", "v0", "rx", "1"], check=True)
    subprocess.run([*exec_, "ethtool", "-K", "v0", "gro", "on"], check=True)
    done = subprocess.run(
        [*exec_, sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if "netdev netlink family" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("told {'defer_hard_irqs': 100, 'gro_flush_timeout': 200000}")


def test_a_foreign_hand_on_a_real_nic(pair: Pair, conf: Path) -> None:
    before = settings(pair)
    tune(conf, "apply", "channels", "--nic", "v0", netns=pair.near)
    subprocess.run(["ip", "netns", "exec", pair.near, "ethtool", "-L", "v0", "rx", "3"], check=True)
    told = tune(conf, "revert", netns=pair.near, expect=1).stdout
    assert "somebody else set it to '3' since (we had '1'): left alone" in told
    tune(conf, "revert", "--force", netns=pair.near)
    assert settings(pair) == before


def test_a_nic_that_has_gone_is_a_sentence(pair: Pair, conf: Path) -> None:
    tune(conf, "apply", "channels", "--nic", "v0", netns=pair.near)
    ip("link", "del", "v0", netns=pair.near)
    told = tune(conf, "revert", netns=pair.near, expect=1)
    assert "cannot be put back to '4': it is not there any more" in told.stdout
    assert "Traceback" not in told.stderr
    assert "no interface v0" in tune(
        conf, "check", "--nic", "v0", netns=pair.near, expect=3
    ).stderr  # fmt: skip


def test_without_the_capability_nothing_is_changed(pair: Pair, conf: Path) -> None:
    before = settings(pair)
    exec_ = ["ip", "netns", "exec", pair.near, "setpriv", "--bounding-set=-net_admin"]
    done = subprocess.run(
        [*exec_, str(VCFWD), "tune", "apply", "napi", "--nic", "v0", "--config", str(conf)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "napi needs CAP_NET_ADMIN: run this as root; nothing is changed" in done.stderr
    assert settings(pair) == before
    assert not (conf.parent / "state").exists()


def test_check_needs_no_privileges(conf: Path) -> None:
    done = subprocess.run(
        [str(VCFWD), "tune", "check", "--json"],
        capture_output=True, text=True, timeout=60, check=False, user=NOBODY, group=NOBODY,
        extra_groups=[], env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, done.stderr
    mine = json.loads(tune(conf, "check", "--json", expect=1).stdout)
    theirs = json.loads(done.stdout)
    assert [e["stage"] for e in theirs["stages"]] == [e["stage"] for e in mine["stages"]]


def test_the_journal_is_the_hosts_whoever_asks(tmp_path: Path) -> None:
    """Not one in a home, which root's revert would never find."""
    done = subprocess.run(
        [str(VCFWD), "tune", "revert"],
        capture_output=True, text=True, timeout=60, check=False, user=NOBODY, group=NOBODY,
        extra_groups=[], env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1 and "/var/lib/vcfwd" in done.stderr, done.stderr
    assert "Permission denied" in done.stderr and not list(tmp_path.iterdir())


def test_real_sysctls_are_set_and_put_back(conf: Path) -> None:
    names = ("vm/stat_interval", "kernel/timer_migration", "net/core/netdev_max_backlog")
    before = {name: Path("/proc/sys", name).read_text() for name in names}
    try:
        tune(conf, "apply", "sysctls")
        tune(conf, "check", "sysctls")
        assert Path("/proc/sys/kernel/timer_migration").read_text() == "0\n"
    finally:
        tune(conf, "revert", "--force")
    assert {name: Path("/proc/sys", name).read_text() for name in names} == before


def test_a_node_says_what_is_missing_and_runs_all_the_same(tmp_path: Path) -> None:
    with Lab(prefix="vctuneup") as lab:
        site = Site(tmp_path / "node", lab.fwd, lab.fwd_addresses, lab.interfaces, 4433)
        with up(site) as node:
            wait_for(lambda: "host not tuned: sysctls: partly" in node.words(), "it says so")
            assert "Traceback" not in node.words()
            assert node.process.poll() is None
            assert _told_class(site) == f"that runs are {_class(site)}"
            assert node.end() == 0
        assert _told_class(site).startswith("will be ")


def _told_class(site: Site) -> str:
    """What `check` says of `scheduler = "auto"`."""
    done = subprocess.run(
        ["ip", "netns", "exec", site.host.name, str(VCFWD), "tune", "check", "sysctls", "--json",
         "--config", str(site.config_file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    (note,) = [n for n in json.loads(done.stdout)["notes"] if "dataplane.scheduler" in n]
    return str(note).partition('"auto": the workers ')[2].removeprefix("of the data plane ")


def _class(site: Site) -> str:
    """Of the data plane's workers, as the kernel tells it."""
    (pid,) = site.dataplanes()
    tasks = Path("/proc", str(pid), "task")
    (worker,) = [t for t in tasks.iterdir() if (t / "comm").read_text() == "vcfwd-w0\n"]
    fifo = os.sched_getscheduler(int(worker.name)) & 0xFF == os.SCHED_FIFO
    return "fifo" if fifo else "other"


def test_a_node_without_interfaces_says_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path / "node")
    with up(site) as node:
        assert node.end() == 0
    assert "host not tuned" not in node.words()


def test_watch_puts_back_after_the_link_changed(pair: Pair, conf: Path) -> None:
    tune(conf, "apply", "napi", "--nic", "v0", netns=pair.near)
    command = ["ip", "netns", "exec", pair.near, str(VCFWD), "tune", "watch", "--json",
               "--interval", "3600", "--config", str(conf)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as keeper:
        timer = threading.Timer(60, keeper.kill)
        timer.start()
        try:
            assert keeper.stdout is not None
            first = json.loads(keeper.stdout.readline())
            assert first["reapplied"] == 0 and first["cores"]
            # Only a notice of the link can wake it before the hour is over.
            subprocess.run(
                ["ip", "netns", "exec", pair.near, "sh", "-c",
                 "echo 7 > /sys/class/net/v0/napi_defer_hard_irqs"], check=True,
            )  # fmt: skip
            ip("link", "set", "v0", "down", netns=pair.near)
            second = json.loads(keeper.stdout.readline())
            assert second["reapplied"] == 1
            assert settings(pair)["napi_defer_hard_irqs"] == "100\n"
            keeper.send_signal(signal.SIGTERM)
            assert keeper.wait(30) == 0
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                keeper.kill()


def test_the_ssh_session_is_found_behind_sudo(pair: Pair, conf: Path) -> None:
    """sudo takes the word away from its command; a parent still has it."""
    words = f"{VCFWD} tune check channels --nic v0 --json --config {conf}"
    conf.write_text(conf.read_text() + '[network]\ninterfaces = ["v0"]\n')
    ip("link", "set", "v0", "up", netns=pair.near)

    def notes(command: str, peer: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", pair.near, "sh", "-c", f"{command}; exit $?"],
            capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "SSH_CONNECTION": f"{peer} 50000 10.77.0.1 22"},
        )  # fmt: skip
        return str(json.loads(done.stdout)["notes"])

    words = words.replace("--nic v0 ", "")
    told = "v0: this ssh session runs over it, so it is management"
    for command in (words, f"env -u SSH_CONNECTION {words}", f"env -i sh -c '{words}; exit $?'"):
        assert told in notes(command, "10.77.0.2"), command
        assert told not in notes(command, "127.0.0.1"), command


def test_an_interface_by_its_other_name(pair: Pair, conf: Path) -> None:
    made = subprocess.run(
        ["ip", "-n", pair.near, "link", "property", "add", "dev", "v0", "altname", "enp1s0-x"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"the kernel gives no second name: {made.stderr.strip()}")
    first = tune(conf, "plan", "--json", "--nic", "v0", netns=pair.near).stdout
    other = tune(conf, "plan", "--json", "--nic", "enp1s0-x", netns=pair.near).stdout
    assert other == first and "/sys/class/net/v0/" in other
    wrong = tune(conf, "plan", "--nic", "enp1s0-y", netns=pair.near, expect=3).stderr
    assert "there is no interface enp1s0-y" in wrong


def test_a_name_that_a_shell_would_take_apart(pair: Pair, conf: Path) -> None:
    """The kernel takes it; the lines by hand are the apply all the same."""
    name = "a;b$(x)'c"
    ip("link", "set", "v0", "name", name, netns=pair.near)
    words = ("offloads", "napi", "threaded", "xps", "--nic", name)
    lines = tune(conf, "apply", "--dry-run", *words, netns=pair.near).stdout
    done = subprocess.run(
        ["ip", "netns", "exec", pair.near, "sh", "-euc", lines],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "0 settings changed" in tune(conf, "apply", *words, netns=pair.near).stdout
