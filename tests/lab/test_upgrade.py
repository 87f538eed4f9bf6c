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
LIFE = "p=$(systemctl show -P MainPID {unit}); echo $p $(cut -d' ' -f22 /proc/$p/stat)"
"""Says which process a unit is: its PID, and when it started."""
DATAPLANE, SUPERVISOR = LIFE.format(unit="vcfwd-dataplane"), LIFE.format(unit="vcfwd-supervisor")
LIBRARY = "$(ldconfig -p | awk '/libcrypto.so.3 /{print $NF; exit}')"


def test_an_upgrade_during_a_call(one_nic: Outside, tmp_path: Path) -> None:
    node = one_nic.machine
    newer = packages(NEWER)[1]
    service = Service(node, [0], 2)
    service.configure(PATIENCE)
    node.ssh(f"ethtool -L {service.names[0]} combined 2")
    service.start()
    service.create_room()
    node.copy(newer, "/root/newer.deb")
    before = node.ssh(DATAPLANE)
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
    assert node.ssh(DATAPLANE) == before
    status = check(service, outcome)
    assert status["version"].startswith(NEWER) and status["dataplane"]["adopted"]
    assert f"running {older}, installed {NEWER}" in service.journal(lines=400)


def test_needrestart_lets_the_data_plane_be(one_nic: Outside) -> None:
    """A library of both was upgraded: whoever uses the old one is restarted, but for the calls."""
    node = one_nic.machine
    service = Service(node, [0], 2)
    service.configure(PATIENCE)
    service.start()
    dataplane, supervisor = node.ssh(DATAPLANE), node.ssh(SUPERVISOR)
    for process in (dataplane, supervisor):
        assert "libcrypto" in node.ssh(f"cat /proc/{process.split()[0]}/maps")
    node.ssh(f"file={LIBRARY}; cp -p $file $file.new && mv $file.new $file")
    said = node.ssh("DEBIAN_FRONTEND=noninteractive needrestart -v -r a 2>&1", timeout_s=INSTALL_S)
    reading("needrestart.txt", said)
    service.wait_ready(START_S)
    assert node.ssh(SUPERVISOR) != supervisor, said
    assert node.ssh(DATAPLANE) == dataplane, said
