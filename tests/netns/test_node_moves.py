"""The network changes under a call on AF_XDP: forwarding resumes by itself, without a rejoin.

pub  pub0 ---- in0  fwd  out0 ---- sub0  sub
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from nets import entered, ip
from node_kit import PATIENCE_S, Call, Site, up

from forwarder.demo.namespaces import Lab

pytestmark = pytest.mark.root

FAST = {  # so that a test need not wait for a neighbour's half-minute
    "base_reachable_time_ms": "1500",
    "delay_first_probe_time": "1",
    "retrans_time_ms": "200",
}
ETH_P_IP = 0x0800


def write(name: str, value: str) -> None:
    """A sysctl of the namespace that we are in."""
    Path("/proc/sys", *name.split(".")).write_text(value)


@contextmanager
def lab(**options: Any) -> Iterator[Lab]:
    with Lab(prefix="vctmov", **options) as made:
        family = "ipv6" if made.ipv6 else "ipv4"
        for host, links in (
            (made.fwd, ("in0", "out0")),
            (made.pub, ["pub0"]),
            (made.sub, ["sub0"]),
        ):
            with entered(host.name):
                for link in links:
                    for name, value in FAST.items():
                        write(f"net.{family}.neigh.{link}.{name}", value)
        yield made


class World:
    def __init__(self, made: Lab, site: Site, call: Call) -> None:
        self.lab, self.site, self.call = made, site, call

    async def status(self) -> dict[str, Any]:
        return await asyncio.to_thread(self.site.status)

    async def recovered(self) -> None:
        """Media flows, past the sockets, and nobody had to join anew."""
        await self.call.flows()
        async with asyncio.timeout(PATIENCE_S):
            before = (await self.status())["counters"]
            while True:
                after = (await self.status())["counters"]
                steered = after["rx_xsk"] - before["rx_xsk"], after["tx_xsk"] - before["tx_xsk"]
                if min(steered) >= 20:
                    break
                await asyncio.sleep(0.05)
        await self.call.flows()
        assert (self.call.publisher.rejoined, self.call.subscriber.rejoined) == (0, 0)

    async def some_time(self) -> None:
        """Some packets long."""
        sent = self.call.sent + self.call.failed
        async with asyncio.timeout(PATIENCE_S):
            while self.call.sent + self.call.failed < sent + 20:
                await asyncio.sleep(0.02)

    async def balanced(self) -> None:
        await self.call.end()
        status = await self.status()
        assert status["path"] == "xdp-native"
        assert status["balanced"], status["imbalance"]
        assert status["dataplane"]["restarts"] == 0
        assert status["slow_path"].get("media", 0) == 0
        assert status["legs"]["unresolved"] == {}


@asynccontextmanager
async def call_in(made: Lab, base: Path, bind: str | None = None) -> AsyncIterator[World]:
    site = Site(
        base, made.fwd, made.fwd_addresses, made.interfaces, 4433, {"network": {"path": "xdp"}}
    )
    with up(site):
        await site.room()
        call = Call(site, addresses=(made.fwd_addresses[0], made.fwd_addresses[1]), bind=bind)
        try:
            with entered(made.pub.name):
                await call.publisher.__aenter__()
            with entered(made.sub.name):
                await call.subscriber.__aenter__()
            await call.begin()
            yield World(made, site, call)
        finally:
            await call.stop_sending()
            await call.subscriber.close()
            await call.publisher.close()


async def down_and_up(world: World, link: str) -> None:
    fwd = world.lab.fwd.name
    ip("link", "set", link, "down", netns=fwd)
    await world.some_time()
    ip("link", "set", link, "up", netns=fwd)
    if world.lab.ipv6:  # the kernel forgets IPv6 addresses with the link
        address = world.lab.fwd_addresses[world.lab.interfaces.index(link)]
        ip("addr", "replace", f"{address}/64", "dev", link, "nodad", netns=fwd)


async def another_mac(world: World, link: str) -> None:
    """Of a peer: the forwarder's address and route stay, only the neighbour is another."""
    host = {"pub0": world.lab.pub, "sub0": world.lab.sub}.get(link, world.lab.fwd)
    last = world.lab.interfaces.index(link) if link in world.lab.interfaces else 7
    ip("link", "set", link, "address", f"02:00:00:00:00:{last:02x}", netns=host.name)


async def address_goes_and_comes(world: World, link: str) -> None:
    fwd, width = world.lab.fwd.name, "64" if world.lab.ipv6 else "24"
    address = f"{world.lab.fwd_addresses[world.lab.interfaces.index(link)]}/{width}"
    ip("addr", "del", address, "dev", link, netns=fwd)
    await world.some_time()
    flags = ["nodad"] if world.lab.ipv6 else []
    ip("addr", "add", address, "dev", link, *flags, netns=fwd)


CHANGES = [
    (down_and_up, "out0"),
    (down_and_up, "in0"),
    (another_mac, "sub0"),
    (another_mac, "pub0"),
    (another_mac, "out0"),
    (another_mac, "in0"),
    (address_goes_and_comes, "out0"),
    (address_goes_and_comes, "in0"),
]


@pytest.mark.parametrize("version", [4, 6])
async def test_forwarding_resumes(version: int, tmp_path: Path) -> None:
    with lab(ipv6=version == 6) as made:
        async with call_in(made, tmp_path) as world:
            for change, link in CHANGES:
                print(f"{change.__name__} {link}")  # pytest shows it with a failure
                await change(world, link)
                await world.recovered()
            await world.balanced()


def media_frame(sock: socket.socket) -> bytes | None:
    """The destination MAC of a media frame, if this one is one."""
    try:
        frame = sock.recv(2048)
    except BlockingIOError:
        return b""
    udp = frame[14:34][9:10] == b"\x11" and len(frame) > 42 and 128 <= frame[42] <= 191
    return frame[:6] if udp else None


async def test_the_default_route_is_replaced(tmp_path: Path) -> None:
    """The subscriber lives behind a router; another router takes over."""
    with lab() as made:
        sub, fwd = made.sub.name, made.fwd.name
        ip("addr", "add", "10.99.0.2/32", "dev", "lo", netns=sub)
        ip("link", "add", "other", "link", "sub0", "type", "macvlan", "mode", "bridge", netns=sub)
        ip("link", "set", "other", "address", "02:00:00:00:00:99", "up", netns=sub)
        ip("addr", "add", "10.77.2.3/32", "dev", "other", netns=sub)
        ip("route", "add", "default", "via", "10.77.2.2", netns=fwd)
        alone = "net.ipv4.conf.all.arp_ignore"  # each address is answered for by its interface
        with entered(sub):
            write(alone, "1")
            wire = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_IP)
            )
            wire.bind(("sub0", ETH_P_IP))
        async with call_in(made, tmp_path, bind="10.99.0.2") as world:
            ip("route", "replace", "default", "via", "10.77.2.3", netns=fwd)
            async with asyncio.timeout(PATIENCE_S):
                while (to := media_frame(wire)) != b"\x02\x00\x00\x00\x00\x99":
                    if to == b"":
                        await asyncio.sleep(0.02)
            await world.recovered()
            await world.balanced()
        wire.close()
