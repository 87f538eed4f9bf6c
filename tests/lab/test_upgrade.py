"""The package is upgraded while a call runs: its data plane goes on, nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forwarder.demo.run import find_clip
from tests.lab.conftest import INSTALL_S, packages
from tests.lab.outside import Outside
from tests.lab.report import fact, reading
from tests.lab.service import START_S, Result, Service, call, check

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]
NEWER = "99.0"
# Without a supervisor the data plane forwards for a minute, by default.  A new one starts within a
# second or two, but on a processor that is emulated, and shared, in 15 s to minutes.
PATIENCE = "orphan_s = 900"


def test_an_upgrade_during_a_call(one_nic: Outside, tmp_path: Path) -> None:
    node = one_nic.machine
    newer = packages(NEWER)[1]
    service = Service(node, [0], 2)
    service.configure(PATIENCE)
    node.ssh(f"ethtool -L {service.names[0]} combined 2")
    service.start()
    service.create_room()
    node.copy(newer, "/root/newer.deb")
    life = "p=$(systemctl show -P MainPID vcfwd-dataplane); echo $p $(cut -d' ' -f22 /proc/$p/stat)"
    before = node.ssh(life)
    older = service.status()["version"]

    def upgrade() -> None:
        node.ssh("DEBIAN_FRONTEND=noninteractive dpkg -i /root/newer.deb", timeout_s=INSTALL_S)
        service.wait_ready(START_S)

    async def upgraded() -> Result:
        async with call(service, one_nic, find_clip(None), tmp_path) as running:
            await asyncio.to_thread(upgrade)
            await running.wait_flowing()
            return await running.end()

    outcome = asyncio.run(upgraded())
    fact("upgrade_packets", outcome.received)
    fact("upgrade_lost", outcome.expected - outcome.received)
    reading("upgrade.txt", service.journal(lines=400))
    assert node.ssh(life) == before
    status = check(service, outcome)
    assert status["version"].startswith(NEWER) and status["dataplane"]["adopted"]
    assert f"running {older}, installed {NEWER}" in service.journal(lines=400)
