"""A client that closes its connection, or deletes its session, has left at once: nobody waits for
its consent to end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from bare_peer import VP8, Peer
from media_kit import Ears, labelled, picture
from node_kit import Site, node_of, until
from OpenSSL import SSL
from webrtc_kit import http

from forwarder.ice.lite import CONSENT_S
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant
from forwarder.supervisor.node import Node


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


async def test_a_session_that_is_deleted_ends_at_once(tmp_path: Path) -> None:
    """RFC 9725 section 4.2, RFC 7675 section 5.2: consent is revoked; checks with the right
    password are not answered, what it sends is nobody's, and it is sent nothing more."""
    site = Site(tmp_path)
    async with (
        node_of(site) as node,
        http(site) as client,
        Ears("whip", site.token()) as camera,
        Ears("whep", site.token("stays", Role.PASSIVE)) as stays,
        Ears("whep", site.token("goes", Role.PASSIVE)) as goes,
    ):
        await site.room()
        for peer in (camera, stays, goes):
            await peer.connect(client)
        number = 0

        def shoot() -> None:
            nonlocal number
            data = picture(number, key=number % 15 == 0)
            camera.send_rtp(labelled(VP8, 0xC0, number, data, mid="1"))
            number += 1

        async def film(what: str, so: Callable[[], bool]) -> None:
            def sent() -> bool:
                shoot()
                return so()

            await until(sent, what)

        def at_the_end() -> bool:
            return goes.of(VP8)[-1].payload == picture(number - 1, key=number % 15 == 1)

        await film("both see it", lambda: min(len(p.of(VP8)) for p in (stays, goes)) > 5)
        await until(at_the_end, "nothing is under way")
        check = goes.binding_request()
        assert (await client.delete(goes.location, headers=goes.headers)).status_code == 200
        had, others = len(goes.packets), len(stays.packets)
        refused = node._ice.counters["unknown_ufrag"]
        goes.send(check)
        await film("the other one sees on", lambda: len(stays.packets) > others + 20)
        assert len(goes.packets) == had
        await until(lambda: node._ice.counters["unknown_ufrag"] == refused + 1, "it is counted")
        assert (await client.delete(camera.location, headers=camera.headers)).status_code == 200
        gone = unknown(node)
        for _ in range(20):
            shoot()
        await until(lambda: unknown(node) >= gone + 20, "its media is dropped")
        assert [person.name for person in node.rooms.participants()] == ["stays"]
        status = await node.status()
        assert status["balanced"], status["imbalance"]


def unknown(node: Node) -> int:
    """Media of flows that the node does not know, dropped by the selector or by the worker."""
    steering = node.datapath.steering
    verdicts = steering.select_verdicts() if steering is not None else {}
    drops = node.datapath.plane.counters().drops["unknown_flow"]
    return int(drops + verdicts.get("drop_unknown_flow", 0))
