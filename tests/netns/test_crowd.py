"""Many clients behind one address join while another prefix floods: the guard charges each for its
own."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest
from crowd_kit import crowd, site
from nets import entered
from node_kit import Site, until

from forwarder.demo.namespaces import Lab
from forwarder.rooms.roles import Role

pytest.importorskip("forwarder.dataplane._bpf", reason="_bpf is not built")
pytestmark = pytest.mark.root
__all__ = ["site"]

CLIENTS = 200
AT_ONCE = 32
FLOOD_BURST, FLOOD_PAUSE_S = 150, 0.01  # datagrams, and how often: five times what a prefix has


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(prefix="vctcrowd") as made:
        yield made


class Flood:
    """STUN from somewhere else, none of it authentic, without end."""

    def __init__(self, lab: Lab, port: int) -> None:
        self._to = (lab.fwd_addresses[1], port)
        with entered(lab.sub.name):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self.sent = 0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        data = struct.pack("!HHI", 1, 0, 0x2112A442) + bytes(12)
        while True:
            for _ in range(FLOOD_BURST):
                try:
                    self._sock.sendto(data, self._to)
                    self.sent += 1
                except BlockingIOError:
                    break
            await asyncio.sleep(FLOOD_PAUSE_S)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._sock.close()


async def test_200_clients_behind_one_address_join_beside_a_flood(
    lab: Lab, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    await site.room()
    flood = Flood(lab, site.port)
    try:
        await until(lambda: dropped(site) > 1000, "the guard drops of the flood")
        token, near = site.token("viewer", Role.PASSIVE), lab.fwd_addresses[0]
        clients = {"token": token, "count": CLIENTS, "at_once": AT_ONCE}
        async with crowd(lab.pub, site, near, **clients) as behind_one_address:
            done = await behind_one_address.joined()
        assert done["failed"] == {} and done["connected"] == CLIENTS
        sent, lost = flood.sent, dropped(site)
    finally:
        await flood.end()
    status = await asyncio.to_thread(site.status)
    assert status["dtls"]["completed"] == CLIENTS
    assert status["balanced"], status["imbalance"]
    with capsys.disabled():
        print(
            f"\n{CLIENTS} clients behind one address joined in {done['seconds']} s, beside a flood "
            f"of {sent} datagrams of which the guard dropped {lost}"
        )


def dropped(site: Site) -> int:
    steering = site.status()["steering"]
    return sum(
        int(verdicts.get("drop_prefix_rate", 0))
        for name, verdicts in steering.items()
        if name.endswith("verdicts")
    )
