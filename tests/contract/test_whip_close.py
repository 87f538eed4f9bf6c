"""A client that closes its connection has left at once: nobody waits for its consent to end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from bare_peer import Peer
from node_kit import Site, node_of, until
from OpenSSL import SSL
from webrtc_kit import http

from forwarder.ice.lite import CONSENT_S
from forwarder.rooms.room import Participant


async def test_a_page_that_closes_its_connection_leaves(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with (
        node_of(site) as node,
        http(site) as client,
        Peer("whip", site.token()) as stays,
        Peer("whip", site.token()) as goes,
    ):
        await site.room()
        await stays.connect(client)
        await goes.connect(client)

        def people() -> list[Participant]:
            return list(node.rooms.participants())

        await until(lambda: all(p.keyed for p in people()), "both have keys")
        assert len(people()) == 2
        read = (await node.status())["slow_path"]["dtls"]
        with contextlib.suppress(SSL.Error):
            goes.dtls.connection.shutdown()
        (alert,) = goes.dtls.outgoing()
        forged = alert[:-1] + bytes([alert[-1] ^ 1])
        stays.send(alert)  # another's: it says nothing of who sends it
        goes.send(forged)
        while (await node.status())["slow_path"]["dtls"] < read + 2:
            await asyncio.sleep(0.02)
        assert len(people()) == 2
        began = time.monotonic()
        while len(people()) == 2 and time.monotonic() - began < CONSENT_S / 2:
            goes.send(alert)
            await asyncio.sleep(0.05)
        assert len(people()) == 1
        assert (await node.status())["dtls"]["closed"] == 1
        gone = await client.delete(goes.location, headers=goes.headers)
        assert gone.status_code == 404
        assert (await client.delete(stays.location, headers=stays.headers)).status_code == 200
