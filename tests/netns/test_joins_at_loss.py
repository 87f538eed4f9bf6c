"""50 of 50 joins while 5 % of all datagrams are lost each way: STUN, DTLS, RTP and RTCP alike."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import bare_peer
import pytest
from nets import ip
from node_kit import Site, up

from forwarder.demo.browser.losses import OBJECTS, SEED, Losses
from forwarder.demo.namespaces import Bpffs, Host, Lab
from forwarder.rooms.roles import Role

pytest.importorskip("forwarder.dataplane._bpf", reason="_bpf is not built")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (OBJECTS / "loss.bpf.o").exists(), reason="build/demo/loss.bpf.o is not built"
    ),
]

LOSS = 0.05
PUBLISHERS, VIEWERS = 10, 40
AT_ONCE = 10
LIMIT_S = 120.0


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(prefix="vctloss") as made:
        for host, gate in zip((made.pub, made.sub), made.fwd_addresses, strict=True):
            ip("route", "add", "default", "via", gate, netns=host.name)
        yield made


@pytest.fixture
def losses(lab: Lab, tmp_path: Path) -> Iterator[Losses]:
    """On both links, both ways, for this port."""
    with Bpffs(tmp_path / "pins"), Losses(tmp_path / "pins", 4433, LOSS) as made:
        made.add(lab.pub, "pub0")
        made.add(lab.sub, "sub0")
        yield made


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "node", lab.fwd, lab.fwd_addresses, lab.interfaces, 4433)
    with up(made):
        yield made


@contextlib.asynccontextmanager
async def peers(
    host: Host, site: Site, address: str, **order: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """bare_peer.py on a host; it ends when its stdin does."""
    order |= {
        "url": site.url(address),
        "ca": str(site.base / "state" / "dev-cert.pem"),
        "room": "r",
        "at_once": AT_ONCE,
        "media": True,
    }
    process = await asyncio.create_subprocess_exec(
        *host.command(sys.executable, bare_peer.__file__, json.dumps(order)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def outcome(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(await asyncio.wait_for(process.stdout.readline(), LIMIT_S)))


async def test_every_join_succeeds(
    lab: Lab, site: Site, losses: Losses, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checks are sent again by the clients, flights of DTLS by the timers of both sides; a viewer
    has joined when media opens.  One handshake each: nobody tries anew."""
    assert site.status()["path"] == "xdp-native"
    await site.room()
    speak, view = site.token("speaker"), site.token("viewer", Role.PASSIVE)
    near, far = lab.fwd_addresses
    async with peers(lab.pub, site, near, kind="whip", token=speak, count=PUBLISHERS) as publishers:
        spoken = await outcome(publishers)
        assert (spoken["connected"], spoken["failed"]) == (PUBLISHERS, {})
        async with peers(lab.sub, site, far, kind="whep", token=view, count=VIEWERS) as viewers:
            seen = await outcome(viewers)
            assert (seen["connected"], seen["failed"]) == (VIEWERS, {})
        status = await asyncio.to_thread(site.status)
    lost = losses.read()
    dtls = status["dtls"]
    with capsys.disabled():
        print(
            f"\n{PUBLISHERS + VIEWERS} joins at {LOSS:.0%} loss (seed {SEED}) in "
            f"{spoken['seconds']} s and {seen['seconds']} s; {lost.dropped} of {lost.offered} "
            f"datagrams lost; flights of DTLS sent again: {dtls['retransmitted']} by the node, "
            f"{spoken['retransmitted'] + seen['retransmitted']} by the clients"
        )
    assert dtls["completed"] == dtls["started"] == PUBLISHERS + VIEWERS
    assert dtls["retransmitted"] > 0 and spoken["retransmitted"] + seen["retransmitted"] > 0
    assert lost.offered > 1000
    assert 0.6 * LOSS < lost.dropped / lost.offered < 1.4 * LOSS
    assert status["balanced"], status["imbalance"]
