"""The end of a handshake at a real node: its last flight leaves when the worker has the keys, so
that the first packet of the client, a round trip later, is never met without them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bare_peer import OPUS, Peer, rtp
from node_kit import Site, node_of, until
from webrtc_kit import http

CHANGE_CIPHER_SPEC = 20  # the first record of a last flight
HUNG_MS = 10_000  # so long a worker may be stopped


async def test_the_last_flight_leaves_when_the_worker_has_the_keys(tmp_path: Path) -> None:
    site = Site(tmp_path, change={"dataplane": {"watchdog_ms": HUNG_MS}})
    async with node_of(site) as node, http(site) as client, Peer("whip", site.token()) as ada:
        await site.room()
        await ada.join(client)
        await ada.check()
        flight = ada.dtls.step()
        while not any(data[3:5] == b"\0\1" for data in flight):  # its Finished is sealed
            for data in flight:
                ada.send(data)
            flight = ada.dtls.step(await ada._next(range(20, 64), ada.dtls.timeout()))
        plane = node.datapath.plane
        os.kill(plane.pid, signal.SIGSTOP)
        try:
            for data in flight:
                ada.send(data)
            await until(lambda: node._dtls.counters["completed"] == 1, "the node has the keys")
            for _ in range(3):  # whatever the node had to say before these answers is here
                await ada.check()
            assert not [data for data in ada.media if data[0] == CHANGE_CIPHER_SPEC]
        finally:
            os.kill(plane.pid, signal.SIGCONT)
        while not ada.dtls.done:
            data = await ada._next(range(20, 64), ada.dtls.timeout())
            flight = ada.dtls.step(data) if data else ada.dtls.again()
            for data in flight:
                ada.send(data)
        await ada.handshake()  # only the keys are left
        for number in range(20):
            ada.send_rtp(rtp(OPUS, 0xA0, number, bytes(40), mid="0", level=40))
        await until(lambda: plane.counters()["routed"] == 20, "each packet is taken, the first too")
        drops = plane.counters().drops
        assert drops["leg_no_keys"] == drops["unknown_flow"] == 0
        assert plane.restarts == 0
