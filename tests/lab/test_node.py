"""The node itself: what the other tests of the lab stand on."""

from __future__ import annotations

import json

import pytest

from tests.lab.machine import Machine
from tests.lab.outside import Outside
from tests.lab.report import fact, reading
from tests.lab.service import CONFIG, Service, nic_names

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]


def test_two_numa_nodes_with_a_nic_each(node: Machine) -> None:
    found = [
        node.ssh(f"cd /sys/class/net/{name}/device; cat numa_node; readlink driver").split()
        for name in nic_names(node)
    ]
    assert sorted(numa for numa, _ in found) == ["0", "1"]
    assert all(driver.endswith("/igb") for _, driver in found)
    fact("kernel", node.ssh("uname -r").strip())


@pytest.mark.lab_quick
def test_doctor_finds_zero_copy_usable(one_nic: Outside) -> None:
    node = one_nic.machine
    service = Service(node, [0], 2)
    service.configure()
    text = node.ssh(f"vcfwd doctor --json --config {CONFIG}", timeout_s=120)
    reading("doctor.json", text)
    paths = {
        item["name"]: {path["name"]: path for path in item["paths"]}
        for item in json.loads(text)["interfaces"]
    }
    assert paths[service.names[0]]["xdp-zerocopy"]["usable"] is True
