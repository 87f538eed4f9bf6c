"""The netlink mirror against a real kernel: neighbours, links, routes, addresses, lost notices."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from nets import Pair, entered, ip, veth_pair

from forwarder.net.mirror import Mirror, Unresolved
from forwarder.table import HeaderTemplate

pytestmark = pytest.mark.root

V4 = ("10.77.0.1", "10.77.0.2", 4433, 5000)
V6 = ("fd77::1", "fd77::2", 4433, 5000)


class Watched:
    """A mirror in the near namespace, and a way to wait for it."""

    def __init__(self, mirror: Mirror, pair: Pair) -> None:
        self.mirror, self.pair = mirror, pair
        self._changed = asyncio.Event()
        mirror.on_change = lambda generation: self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until the condition holds; it is looked at after each change that is told."""
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def header(self, args: tuple[str, str, int, int]) -> HeaderTemplate:
        def there() -> bool:
            return isinstance(self.mirror.header_for(*args), HeaderTemplate)

        await self.until(there)
        result = self.mirror.header_for(*args)
        assert isinstance(result, HeaderTemplate)
        return result


@pytest_asyncio.fixture
async def watched() -> AsyncIterator[Watched]:
    with veth_pair("vcfmir") as pair:
        mirror = Mirror(["v0"])
        with entered(pair.near):
            mirror.start()
        try:
            yield Watched(mirror, pair)
        finally:
            mirror.close()


def mac(netns: str) -> bytes:
    words = ip("link", "show", "v0", netns=netns).split()
    return bytes.fromhex(words[words.index("link/ether") + 1].replace(":", ""))


@pytest.mark.parametrize("args", [V4, V6])
async def test_an_unknown_neighbour_is_probed_and_told(watched: Watched, args) -> None:
    first = watched.mirror.header_for(*args)
    assert isinstance(first, Unresolved)
    assert args[1] in first.why
    header = await watched.header(args)
    assert header.interface == 0
    assert header.l3_off == 14
    assert header.header[:12] == mac(watched.pair.far) + mac(watched.pair.near)
    assert len(header.header) == 14 + (20 if args is V4 else 40) + 8


async def test_the_header_reaches_the_peers_socket(watched: Watched) -> None:
    """A frame made from the template arrives as a datagram: addresses, ports and MACs are right."""
    template = await watched.header(V4)
    with entered(watched.pair.far):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind(("10.77.0.2", 5000))
        sink.settimeout(5)
    with entered(watched.pair.near):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind(("v0", 0))
    frame = bytearray(template.header + b"hello")
    frame[16:18] = (20 + 8 + 5).to_bytes(2, "big")
    frame[38:40] = (8 + 5).to_bytes(2, "big")
    words = sum(int.from_bytes(frame[i : i + 2], "big") for i in range(14, 34, 2))
    frame[24:26] = (~(words % 0xFFFF) & 0xFFFF).to_bytes(2, "big")
    with sink, raw:
        raw.send(frame)
        assert sink.recvfrom(100) == (b"hello", ("10.77.0.1", 4433))


@pytest.mark.parametrize("args", [V4, V6])
async def test_a_peers_new_mac_is_told(watched: Watched, args) -> None:
    before = await watched.header(args)
    ip("neigh", "replace", args[1], "lladdr", "02:00:00:00:00:99", "dev", "v0", "nud",
       "reachable", netns=watched.pair.near)  # fmt: skip
    await watched.until(lambda: watched.mirror.generation > before.generation)
    after = await watched.header(args)
    assert after.header[:6] == bytes.fromhex("020000000099")
    assert after.generation > before.generation


async def test_link_down_and_up(watched: Watched) -> None:
    await watched.header(V4)
    ip("link", "set", "v0", "down", netns=watched.pair.near)
    await watched.until(lambda: isinstance(watched.mirror.header_for(*V4), Unresolved))

    def down() -> bool:
        link = watched.mirror.link("v0")
        return link is not None and not link.usable

    await watched.until(down)
    ip("link", "set", "v0", "up", netns=watched.pair.near)
    assert (await watched.header(V4)).interface == 0


async def test_own_mac_change(watched: Watched) -> None:
    await watched.header(V4)
    ip("link", "set", "v0", "address", "02:00:00:00:00:55", netns=watched.pair.near)
    new = bytes.fromhex("020000000055")

    def holds() -> bool:
        header = watched.mirror.header_for(*V4)
        return isinstance(header, HeaderTemplate) and header.header[6:12] == new

    await watched.until(holds)


async def test_a_route_through_a_gateway_and_its_change(watched: Watched) -> None:
    far_away = ("10.77.0.1", "192.0.2.77", 4433, 5000)
    assert isinstance(watched.mirror.header_for(*far_away), Unresolved)
    ip("route", "add", "192.0.2.0/24", "via", "10.77.0.2", netns=watched.pair.near)
    header = await watched.header(far_away)
    assert header.header[:6] == mac(watched.pair.far)
    assert header.header[30:34] == socket.inet_aton("192.0.2.77")
    ip("neigh", "replace", "10.77.0.9", "lladdr", "02:00:00:00:00:09", "dev", "v0", "nud",
       "permanent", netns=watched.pair.near)  # fmt: skip
    ip("route", "replace", "192.0.2.0/24", "via", "10.77.0.9", netns=watched.pair.near)

    def moved() -> bool:
        now = watched.mirror.header_for(*far_away)
        return isinstance(now, HeaderTemplate) and now.header[5] == 9

    await watched.until(moved)


async def test_a_gateway_by_its_link_local_address(watched: Watched) -> None:
    lines = ip("-6", "-o", "addr", "show", "v0", "scope", "link", netns=watched.pair.far).split()
    gateway = lines[lines.index("inet6") + 1].split("/")[0]
    ip("-6", "route", "add", "2001:db8:9::/64", "via", gateway, "dev", "v0",
       netns=watched.pair.near)  # fmt: skip
    header = await watched.header(("fd77::1", "2001:db8:9::7", 4433, 5000))
    assert header.header[:6] == mac(watched.pair.far)


async def test_addresses_come_and_go(watched: Watched) -> None:
    assert watched.mirror.addresses("v0") == ["10.77.0.1", "fd77::1"]
    ip("addr", "add", "10.78.0.1/24", "dev", "v0", netns=watched.pair.near)
    await watched.until(lambda: "10.78.0.1" in watched.mirror.addresses())
    ip("addr", "del", "10.78.0.1/24", "dev", "v0", netns=watched.pair.near)
    await watched.until(lambda: "10.78.0.1" not in watched.mirror.addresses())


async def test_an_interface_that_is_not_ours_uses_the_media_socket(watched: Watched) -> None:
    loopback = watched.mirror.header_for("127.0.0.1", "127.0.0.1", 4433, 5000)
    assert isinstance(loopback, HeaderTemplate)
    assert (loopback.interface, loopback.header) == (None, b"")


async def test_lost_notices_lead_to_a_full_reading(watched: Watched) -> None:
    before = await watched.header(V4)
    watched.mirror._notices.shrink(1)  # the kernel's least; a burst overflows it
    for i in range(200):
        ip("neigh", "replace", f"10.77.0.{i % 200 + 20}", "lladdr", "02:00:00:00:00:20", "dev",
           "v0", "nud", "permanent", netns=watched.pair.near)  # fmt: skip
    ip("neigh", "replace", V4[1], "lladdr", "02:00:00:00:00:98", "dev", "v0", "nud",
       "permanent", netns=watched.pair.near)  # fmt: skip
    await watched.until(lambda: watched.mirror.redumps > 0)
    after = await watched.header(V4)
    assert after.header[5] == 0x98
    assert after.generation > before.generation
