"""The deferral of interrupts: of each queue's NAPI from Linux 6.13, of the interface before."""

from __future__ import annotations

import json
import subprocess

import pytest
from host_kit import LAPTOP, VM, XEON, Tuned, copied
from host_kit import settings as configured

from forwarder.host import settings
from forwarder.host.root import Host
from forwarder.host.stages import BY_NAME

POLLING = configured(dataplane_busy_poll=True)
NAPI = BY_NAME["napi"]


def keys(tuned: Tuned, nic: str, polled: bool) -> dict[str, str]:
    site = tuned.survey(nic, conf=POLLING if polled else None).site
    return {step.key: step.wanted for step in NAPI.plan(site)}


def test_each_queue_that_a_worker_serves_from_6_13(tmp_path):
    tuned = Tuned(copied(LAPTOP, tmp_path))
    assert tuned.survey("enp1s0").site.facts.release >= (6, 13)
    assert keys(tuned, "enp1s0", True) == {
        "ethtool:enp1s0:napi.0.defer_hard_irqs": "100",
        "ethtool:enp1s0:napi.0.gro_flush_timeout": "200000",
    }
    assert set(keys(tuned, "enp1s0", False).values()) == {"0"}


def test_queues_of_others_are_left_alone(tmp_path):
    """A NIC with more queues than workers: a service beside us may poll the rest."""
    root = copied(XEON, tmp_path)
    (root / "proc/sys/kernel/osrelease").write_text("6.13.0\n")
    nics = json.loads((root / "ethtool.json").read_text())
    names = ("defer_hard_irqs", "gro_flush_timeout")
    nics["ens1f0"]["napi"] = {f"{queue}.{name}": 0 for queue in range(8) for name in names}
    (root / "ethtool.json").write_text(json.dumps(nics))
    tuned = Tuned(root)
    workers = len(tuned.survey("ens1f0").site.layout.of("ens1f0"))
    found = keys(tuned, "ens1f0", True)
    assert set(found) == {
        f"ethtool:ens1f0:napi.{queue}.{name}" for queue in range(workers) for name in names
    }
    assert workers < 8


@pytest.mark.parametrize("change", ["an older kernel", "a driver that ties none"])
def test_else_the_interface_in_sysfs(change, tmp_path):
    root = copied(LAPTOP, tmp_path)
    if change == "an older kernel":
        (root / "proc/sys/kernel/osrelease").write_text("6.12.9\n")
    else:
        nics = json.loads((root / "ethtool.json").read_text())
        del nics["enp1s0"]["napi"]
        (root / "ethtool.json").write_text(json.dumps(nics))
    assert keys(Tuned(root), "enp1s0", True) == {
        "text:/sys/class/net/enp1s0/napi_defer_hard_irqs": "100",
        "text:/sys/class/net/enp1s0/gro_flush_timeout": "200000",
    }
    assert set(keys(Tuned(copied(VM, tmp_path)), "eth1", True).values()) == {"100", "200000"}


def test_applied_and_reverted(tmp_path):
    root = copied(LAPTOP, tmp_path)
    before = (root / "ethtool.json").read_text()
    tuned = Tuned(root)
    where = tuned.survey("enp1s0", conf=POLLING).site
    steps = NAPI.plan(where)
    for step in steps:
        NAPI.init(tuned.host, step)
    assert json.loads((root / "ethtool.json").read_text())["enp1s0"]["napi"] == {
        "0.defer_hard_irqs": 100, "0.gro_flush_timeout": 200000,
    }  # fmt: skip
    assert NAPI.check(tuned.survey("enp1s0", conf=POLLING).site).state == "ok"
    for step in steps:
        NAPI.revert(tuned.host, step.key, str(step.current))
    assert json.loads((root / "ethtool.json").read_text()) == json.loads(before)


def test_the_line_by_hand_is_the_kernels_own_tool():
    """Its words, as ynl and jq would get them."""
    line = settings.shell(Host(), "ethtool:lo:napi.2.defer_hard_irqs", "100")
    stubs = """
        ynl() { case "$*" in
            *queue-get*) printf '%s\\n' "$*" >&2; echo '[]' ;;
            *) printf '%s\\n' "${@: -1}" ;;
        esac; }
        jq() { printf '%s\\n' "$1" >&2; echo 257; }
    """
    done = subprocess.run(
        ["bash", "-euc", f"{stubs}\n{line}"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"id": 257, "defer-hard-irqs": 100}
    assert '{"ifindex": 1}' in done.stderr
    assert '.type == "rx" and .id == 2' in done.stderr
