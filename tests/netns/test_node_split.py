"""A node whose two interfaces lie, by its configuration, on two NUMA nodes: a worker for each.

        peer0 --------- peer1
    pub  pub0 ---- in0  fwd  out0 ---- sub0  sub

Each interface has one queue, so two workers fit only where they do not both serve both.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from nets import entered, ip
from node_kit import Call, Site, Up, up

from forwarder.demo.namespaces import Lab
from forwarder.demo.tap import Indices, udp_of

pytestmark = pytest.mark.root

PORT = 4433
ETH_P_ALL, PACKET_OUTGOING = 3, 4
PUB, SUB = "10.98.0.2", "10.99.0.2"  # addresses of clients that live behind either interface


def write(name: str, value: str) -> None:
    """A sysctl of the namespace that we are in."""
    Path("/proc/sys", *name.split(".")).write_text(value)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(prefix="vcsplit") as made:
        pub, fwd, sub = made.pub.name, made.fwd.name, made.sub.name
        for host in (pub, sub):
            with entered(host):
                for name in ("ip_forward", "conf.all.forwarding"):
                    write(f"net.ipv4.{name}", "1")
                for link in ("all", "default", "pub0" if host == pub else "sub0"):
                    write(f"net.ipv4.conf.{link}.rp_filter", "0")
        ip("link", "add", "peer0", "type", "veth", "peer", "name", "peer1", "netns", sub, netns=pub)
        ip("addr", "add", "10.77.9.1/24", "dev", "peer0", netns=pub)
        ip("addr", "add", "10.77.9.2/24", "dev", "peer1", netns=sub)
        ip("link", "set", "peer0", "up", netns=pub)
        ip("link", "set", "peer1", "up", netns=sub)
        for host, own, other, there, link in (
            (pub, PUB, SUB, "10.77.9.2", "pub0"),
            (sub, SUB, PUB, "10.77.9.1", "sub0"),
        ):
            ip("addr", "add", f"{own}/32", "dev", "lo", netns=host)
            ip("route", "add", other, "via", there, netns=host)
            via = made.fwd_addresses[0 if link == "pub0" else 1]
            ip("route", "add", "default", "via", via, netns=host)
        ip("route", "add", PUB, "via", "10.77.1.2", netns=fwd)
        ip("route", "add", SUB, "via", "10.77.2.2", netns=fwd)
        yield made


def site_of(lab: Lab, base: Path, nodes: list[int]) -> Site:
    change = {
        "network": {"path": "xdp", "numa_nodes": nodes},
        "dataplane": {"workers": 2},
    }
    return Site(base, lab.fwd, lab.fwd_addresses, lab.interfaces, PORT, change)


@contextmanager
def tapped(host: str) -> Iterator[Indices]:
    """Every SRTP index that reaches a host, over whichever interface."""
    found = Indices(srtcp_tail=0)
    with entered(host):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    tap.setblocking(False)

    def take() -> None:
        try:
            frame, address = tap.recvfrom(65536)
        except BlockingIOError:
            return
        udp = udp_of(frame)
        if address[2] == PACKET_OUTGOING or udp is None or udp[0] != PORT or not udp[2]:
            return
        if 128 <= udp[2][0] <= 191:
            found.add(udp[1], udp[2])

    loop = asyncio.get_running_loop()
    loop.add_reader(tap, take)
    try:
        yield found
    finally:
        loop.remove_reader(tap)
        tap.close()


@asynccontextmanager
async def calling(lab: Lab, site: Site) -> AsyncIterator[Call]:
    await site.room()
    call = Call(site, addresses=(lab.fwd_addresses[0], lab.fwd_addresses[1]), bind=SUB)
    call.publisher = site.client("publisher", address=lab.fwd_addresses[0], bind_address=PUB)
    try:
        with entered(lab.pub.name):
            await call.publisher.__aenter__()
        with entered(lab.sub.name):
            await call.subscriber.__aenter__()
        await call.begin()
        yield call
    finally:
        await call.stop_sending()
        await call.subscriber.close()
        await call.publisher.close()


async def status_of(site: Site) -> dict[str, Any]:
    return await asyncio.to_thread(site.status)


def moved(status: dict[str, Any]) -> int:
    return int(status["table"].get("moved", 0))


def legs(status: dict[str, Any]) -> list[int]:
    return [worker["counters"]["legs"] for worker in status["workers"]]


async def test_each_worker_serves_its_interface(lab: Lab, tmp_path: Path) -> None:
    site = site_of(lab, tmp_path, [0, 1])
    with up(site):
        async with calling(lab, site) as call:
            first = await status_of(site)
            assert first["path"] == "xdp-native" and legs(first) == [1, 1]
            with tapped(lab.sub.name) as indices:
                await call.flows(300)
                await call.end()
            status = await status_of(site)
        assert call.lost() == []
        assert status["balanced"], status["imbalance"]
        assert indices.packets >= 300 and indices.reused == indices.repeated == 0
        rx, tx = (worker["counters"] for worker in status["workers"])
        assert rx["routed"] >= call.sent and rx["transmitted"] == 0
        assert tx["routed"] == 0 and tx["transmitted"] >= call.sent
        assert status["counters"]["tx_socket"] == status["counters"]["rx_wrong_queue"] == 0
        assert status["slow_path"].get("media", 0) == 0


def test_two_workers_on_one_queue_each_are_refused_otherwise(lab: Lab, tmp_path: Path) -> None:
    site = site_of(lab, tmp_path, [0, 0])
    node = Up(site)
    try:
        assert node.process.wait(30) == 1
        assert "cannot bind to the queue" in node.words() and "Traceback" not in node.words()
    finally:
        node.clean_up()
        site.clean_up()


def test_the_next_supervisor_takes_the_split_over(lab: Lab, tmp_path: Path) -> None:
    site = site_of(lab, tmp_path, [0, 1])
    with up(site) as first:
        pids = site.dataplanes()
        first.kill()
        with up(site) as second:
            assert site.dataplanes() == pids and site.status()["dataplane"]["adopted"]
            assert second.end() == 0


@pytest.mark.parametrize("who", ["subscriber", "publisher"])
async def test_a_leg_follows_its_route_to_another_interface(
    lab: Lab, tmp_path: Path, who: str
) -> None:
    """The client's address and its own way to the node stay; only the node's way to it changes."""
    address, here, there = {
        "subscriber": (SUB, "10.77.2.2", "10.77.1.2"),
        "publisher": (PUB, "10.77.1.2", "10.77.2.2"),
    }[who]
    fwd = lab.fwd.name
    site = site_of(lab, tmp_path, [0, 1])
    with up(site):
        async with calling(lab, site) as call:
            before = await status_of(site)
            both = [2, 0] if who == "subscriber" else [0, 2]
            with tapped(lab.sub.name) as indices, tapped(lab.pub.name) as others:
                for count, via, wanted in ((1, there, both), (2, here, [1, 1])):
                    ip("route", "replace", address, "via", via, netns=fwd)
                    async with asyncio.timeout(40):
                        while moved(now := await status_of(site)) < moved(before) + count:
                            await asyncio.sleep(0.02)
                    await call.flows(100)
                    now = await status_of(site)
                    assert legs(now) == wanted
                await call.end()
            status = await status_of(site)
            assert (call.publisher.rejoined, call.subscriber.rejoined) == (0, 0)
        assert status["balanced"], status["imbalance"]
        assert moved(status) == moved(before) + 2
        assert indices.packets >= 200 and indices.reused == 0 and others.reused == 0
        if who == "publisher":
            assert status["counters"]["rx_wrong_queue"] > 0, "it came in where it always did"
        assert status["dataplane"]["restarts"] == 0
        assert status["table"].get("refused", 0) == 0
        gaps = [b for a, b in pairwise(call.lost()) if b != a + 1]
        assert len(gaps) <= 1, f"lost outside of the two moves: {call.lost()}"
