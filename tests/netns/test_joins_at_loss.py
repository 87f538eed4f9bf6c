"""50 of 50 joins, by WHIP and WHEP or by session, while 5 % of all datagrams are lost each way:
STUN, DTLS, QUIC, RTP and RTCP alike."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowd_kit import crowd, site
from nets import ip
from node_kit import Site

from forwarder.demo.browser.losses import OBJECTS, SEED, Losses
from forwarder.demo.namespaces import Bpffs, Lab
from forwarder.rooms.roles import Role

pytest.importorskip("forwarder.dataplane._bpf", reason="_bpf is not built")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (OBJECTS / "loss.bpf.o").exists(), reason="build/demo/loss.bpf.o is not built"
    ),
]

__all__ = ["site"]
LOSS = 0.05
PUBLISHERS, VIEWERS = 10, 40
AT_ONCE = 10


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


@pytest.mark.parametrize("session", [False, True], ids=["whip-whep", "session"])
async def test_every_join_succeeds(
    lab: Lab, site: Site, losses: Losses, session: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checks are sent again by the clients, flights of DTLS by the timers of both sides, what was
    said in a session by QUIC; a viewer has joined when media opens.  One handshake each: nobody
    tries anew."""
    assert site.status()["path"] == "xdp-native"
    await site.room()
    order = {"session": session, "at_once": AT_ONCE, "media": True}
    speakers = {"kind": "whip", "token": site.token("speaker"), "count": PUBLISHERS}
    viewers = {"kind": "whep", "token": site.token("viewer", Role.PASSIVE), "count": VIEWERS}
    near, far = lab.fwd_addresses
    async with crowd(lab.pub, site, near, **order, **speakers) as speaking:
        spoken = await speaking.joined()
        assert (spoken["connected"], spoken["failed"]) == (PUBLISHERS, {})
        async with crowd(lab.sub, site, far, **order, **viewers) as viewing:
            seen = await viewing.joined()
            assert (seen["connected"], seen["failed"]) == (VIEWERS, {})
        status = await asyncio.to_thread(site.status)
    lost = losses.read()
    dtls = status["dtls"]
    with capsys.disabled():
        print(
            f"\n{PUBLISHERS + VIEWERS} joins by {'session' if session else 'WHIP and WHEP'} at "
            f"{LOSS:.0%} loss (seed {SEED}) in {spoken['seconds']} s and {seen['seconds']} s; "
            f"{lost.dropped} of {lost.offered} datagrams lost; flights of DTLS sent again: "
            f"{dtls['retransmitted']} by the node, "
            f"{spoken['retransmitted'] + seen['retransmitted']} by the clients"
        )
    assert dtls["completed"] == dtls["started"] == PUBLISHERS + VIEWERS
    assert dtls["retransmitted"] + spoken["retransmitted"] + seen["retransmitted"] > 0
    assert (status["slow_path"].get("quic", 0) > 0) == session
    assert lost.offered > 1000
    assert 0.6 * LOSS < lost.dropped / lost.offered < 1.4 * LOSS
    assert status["balanced"], status["imbalance"]
