"""The workers' cores: taken back while a call runs, and where no systemd keeps them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from forwarder.demo.run import find_clip
from tests.lab.machine import Machine
from tests.lab.outside import Outside
from tests.lab.report import reading
from tests.lab.service import START_S, Result, Service, call, check
from tests.lab.tuning import APPLY_S, cpus

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

ISOLATED = "/sys/fs/cgroup/cpuset.cpus.isolated"
SLICE = "/sys/fs/cgroup/vcfwd.slice"
STAGES = "workqueues isolation sysctls noise"
"""Of the host: what is done to a NIC resets its link."""
_LIFE = "p=$(systemctl show -P MainPID vcfwd-dataplane); echo $p $(cut -d' ' -f22 /proc/$p/stat)"


def tune(node: Machine, words: str) -> str:
    return node.ssh(f"vcfwd tune {words}", timeout_s=APPLY_S)


def state(node: Machine) -> dict[str, str]:
    """What the kernel says of the slice."""
    files = {
        "isolated": ISOLATED,
        "cores": f"{SLICE}/cpuset.cpus.effective",
        "partition": f"{SLICE}/cpuset.cpus.partition",
    }
    return {
        name: node.ssh(f"cat {file} 2>/dev/null || true").strip() for name, file in files.items()
    }


def pins(node: Machine, pid: str = "$(pidof vcfwd-dataplane)") -> dict[str, set[int]]:
    lines = node.ssh(
        f"for t in /proc/{pid}/task/*; do echo $(cat $t/comm) "
        "$(grep Cpus_allowed_list $t/status | cut -f2); done"
    ).splitlines()
    found = [line.split() for line in lines]
    return {name: cpus(allowed) for name, allowed in found if name.startswith("vcfwd-w")}


def test_a_revert_during_a_call(one_nic: Outside, tmp_path: Path) -> None:
    node = one_nic.machine
    service = Service(node, [0], 2)
    service.configure("cpus = [1, 2]\norphan_s = 900")
    node.ssh(f"ethtool -L {service.names[0]} combined 2")
    before = state(node)
    tune(node, f"apply {STAGES}")
    assert state(node) == {"isolated": "1-2", "cores": "1-2", "partition": "isolated"}
    service.start()
    service.create_room()
    life, seen = node.ssh(_LIFE), []

    def back_and_again() -> None:
        for words in ("revert", "apply isolation", "revert"):
            reading(f"isolation-{len(seen)}.txt", tune(node, words))
            seen.append((node.ssh(_LIFE), state(node), pins(node)))

    async def reverted() -> Result:
        async with call(service, one_nic, find_clip(None), tmp_path) as running:
            await asyncio.to_thread(back_and_again)
            await running.wait_flowing()
            return await running.end()

    outcome = asyncio.run(reverted())
    reading("isolation.json", json.dumps([[a, b] for a, b, _ in seen]))
    free = {"isolated": "", "cores": "0-3", "partition": "member"}
    kept = {"isolated": "1-2", "cores": "1-2", "partition": "isolated"}
    assert [found for _, found, _ in seen] == [free, kept, free]
    assert {now for now, _, _ in seen} == {life}, "the data plane is the same process"
    assert all(at == {"vcfwd-w0": {1}, "vcfwd-w1": {2}} for _, _, at in seen)
    status = check(service, outcome, complete=False)
    told = sum(status["drops"].values()) + sum(status["copy_drops"].values())
    assert outcome.expected - outcome.received <= told, "nothing is lost that no counter tells"

    tune(node, "apply isolation")
    node.ssh("systemctl stop vcfwd-supervisor vcfwd-dataplane", timeout_s=START_S)
    tune(node, "revert")
    assert state(node) == before, "nobody is in the slice: it is gone"
    assert node.ssh("systemctl is-active vcfwd.slice || true").strip() == "inactive"


_RAW = """
mount -t tmpfs none /run/systemd || exit 1
echo $$ > /root/raw.pid
while [ ! -e /root/raw.end ]; do
  if [ -e /root/raw.sh ]; then
    mv /root/raw.sh /root/raw.now
    sh /root/raw.now > /root/raw.out 2>&1
    mv /root/raw.out /root/raw.said
  fi; sleep 0.2
done
"""
"""A shell of a mount namespace in which there is no systemd; it does what lies in raw.sh."""


def test_without_systemd_a_partition_of_our_own(node: Machine) -> None:
    """The unified hierarchy with no systemd to be seen, and `vcfwd up` by hand."""
    Service(node, [0], 2).configure("cpus = [1, 2]")
    config, up = "/root/raw.toml", "VCFWD_DATAPLANE=/root/vcfwd-dataplane vcfwd up"
    places = 'run_dir = "/run/raw"\\nstate_dir = "/root/raw-state"'
    node.ssh(
        f"""sed -e 's#^name = .*#&\\n{places}#' -e 's#^port = .*#&\\npath = "udp"#' \\
            /etc/vcfwd/vcfwd.toml > {config}
        cp /usr/lib/vcfwd/vcfwd-dataplane /root/  # the profile of the package is for its own place
        cat > /root/raw
        setsid unshare -m sh /root/raw < /dev/null > /dev/null 2>&1 &""",
        data=_RAW.encode(),
    )

    def raw(words: str) -> str:
        """There, and what it said; the last line is its status."""
        node.ssh("cat > /root/raw.tmp && mv /root/raw.tmp /root/raw.sh",
                 data=f"{words}\necho status $?\n".encode())  # fmt: skip
        said = "/root/raw.said"
        wait = f"while [ ! -e {said} ]; do sleep 0.2; done; cat {said}; rm {said}"
        return node.ssh(f"timeout {APPLY_S:g} sh -c '{wait}'", timeout_s=APPLY_S)

    def running() -> bool:
        return "workers" in node.ssh(
            "vcfwd status --json --run-dir /run/raw || true", timeout_s=APPLY_S
        )

    root = "/sys/fs/cgroup"
    wanted = f"cat {root}/cgroup.subtree_control"
    before = node.ssh(wanted)
    said = raw(f"vcfwd tune apply isolation --config {config}")
    reading("isolation-raw.txt", said)
    assert "isolation: ok" in said and said.endswith("status 0\n"), said
    found = node.ssh(f"cat {ISOLATED} {root}/vcfwd/cpuset.cpus.partition").split()
    assert found == ["1-2", "isolated"]
    assert raw(f"vcfwd tune check isolation --config {config}").endswith("status 0\n")
    mine = "grep Cpus_allowed_list /proc/self/status | cut -f2"
    assert cpus(node.ssh(mine).strip()) == {0, 3}, "others are kept off"

    raw(f"{up} --config {config} > /root/up.log 2>&1 & echo $! > /root/up.pid")
    end = time.monotonic() + START_S
    while not running():
        assert time.monotonic() < end, node.ssh("cat /root/up.log")
    reading("isolation-up.txt", node.ssh("cat /root/up.log"))
    assert node.ssh("cat /proc/$(pidof vcfwd-dataplane)/cgroup").strip() == "0::/vcfwd"
    assert pins(node) == {"vcfwd-w0": {1}, "vcfwd-w1": {2}}

    pid = node.ssh("pidof vcfwd-dataplane")
    said = raw(f"vcfwd tune revert --config {config}")
    reading("isolation-raw-revert.txt", said)
    assert said.endswith("status 0\n"), said
    assert node.ssh("pidof vcfwd-dataplane") == pid
    assert pins(node) == {"vcfwd-w0": {1}, "vcfwd-w1": {2}}
    assert node.ssh(f"cat {ISOLATED}").strip() == "" and node.ssh(wanted) == before
    assert "No such" in node.ssh(f"ls {root}/vcfwd 2>&1 || true")
    node.ssh("kill -INT $(cat /root/up.pid); touch /root/raw.end")
