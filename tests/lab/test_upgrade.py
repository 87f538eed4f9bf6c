"""The package is upgraded while a call runs: its data plane goes on, nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forwarder.demo.run import find_clip
from tests.lab.conftest import INSTALL_S, packages
from tests.lab.outside import Outside
from tests.lab.report import fact
from tests.lab.service import START_S, Result, call, check
from tests.lab.test_trouble import served

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]
NEWER = "99.0"


def test_an_upgrade_during_a_call(one_nic: Outside, tmp_path: Path) -> None:
    node, service = one_nic.machine, served(one_nic)
    node.copy(packages(NEWER)[1], "/root/newer.deb")
    life = "p=$(systemctl show -P MainPID vcfwd-dataplane); echo $p $(cut -d' ' -f22 /proc/$p/stat)"
    before = node.ssh(life)

    def upgrade() -> None:
        node.ssh("DEBIAN_FRONTEND=noninteractive dpkg -i /root/newer.deb", timeout_s=INSTALL_S)
        service.wait_ready(START_S)

    async def upgraded() -> Result:
        async with call(service, one_nic, find_clip(None), tmp_path) as running:
            await asyncio.to_thread(upgrade)
            await running.wait_flowing()
            return await running.end()

    outcome = asyncio.run(upgraded())
    status = check(service, outcome)
    assert node.ssh(life) == before
    assert status["version"].startswith(NEWER)
    assert f"installed {NEWER}" in service.journal(lines=400)
    fact("upgrade_packets", outcome.received)
    fact("upgrade_lost", outcome.expected - outcome.received)
