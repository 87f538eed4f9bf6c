"""The netlink mirror: builds the header template of a leg, and tells when templates are stale.

Law: links, addresses and neighbours are copied at start and kept by the kernel's notices; when
notices were lost (ENOBUFS), everything is dumped again.  The way to an address is asked of the
kernel when a header is built.  `generation` rises with each change that could alter a header
that was asked for; `on_change` then runs in the event loop, once for a burst of notices.  An
unknown neighbour is probed, and `on_change` runs when it answers.

The mirror lives in the network namespace in which start() was called.  Limits: WATCHED_MAX next
hops; the least recently used are forgotten, which only means that their changes are not told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from forwarder.net.header import build_header
from forwarder.net.links import Address, Link, read_address, read_link
from forwarder.net.neighbours import NUD_STALE, Neighbour, NextHop, Prober, read_neighbour
from forwarder.net.netlink import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    Notices,
    Requests,
)
from forwarder.net.routes import NoWay, find_way
from forwarder.table import HeaderTemplate

log = logging.getLogger(__name__)

WATCHED_MAX = 65536
RETRY_S = 1.0
"""A watched next hop that does not answer is probed so often..."""
GIVE_UP_S = 60.0
"""...until nobody asked for its header for so long: clients that left are not searched for."""
REFRESH_TURNS = 15
"""AF_XDP traffic does not tell the kernel that a neighbour lives: one that has gone stale is
probed each REFRESH_TURNS times RETRY_S, so that its new MAC is learnt."""


@dataclass(frozen=True)
class Unresolved:
    """No header can be built now; on_change runs when that may have changed."""

    why: str


class Mirror:
    """See the module.  `interfaces`: names of those with AF_XDP sockets, in set-up order."""

    def __init__(
        self, interfaces: Sequence[str] = (), on_change: Callable[[int], None] | None = None
    ) -> None:
        self.on_change = on_change
        self.generation = 1
        self.redumps = 0
        """How often notices were lost and everything was dumped again."""
        self._ports = {name: i for i, name in enumerate(interfaces)}
        self._links: dict[int, Link] = {}
        self._addresses: set[Address] = set()
        self._neighbours: dict[NextHop, Neighbour] = {}
        self._watched: OrderedDict[NextHop, bytes | None] = OrderedDict()
        self._asked: dict[NextHop, float] = {}
        self._told = self.generation
        self._telling = False
        self._turn = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refresh: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Opens the sockets (in this thread's network namespace) and takes the first copy."""
        self._loop = asyncio.get_running_loop()
        self._requests = Requests()
        self._notices = Notices()  # before the dump: nothing falls between the two
        self._prober = Prober()
        self._dump()
        self._loop.add_reader(self._notices.fileno(), self._on_notices)
        self._refresh = self._loop.call_later(RETRY_S, self._on_refresh)

    def close(self) -> None:
        if self._loop is None:
            return
        self._loop.remove_reader(self._notices.fileno())
        if self._refresh is not None:
            self._refresh.cancel()
        for part in (self._requests, self._notices, self._prober):
            part.close()
        self._loop = None

    # ---- what others ask --------------------------------------------------------------------

    def addresses(self, interface: str | None = None) -> list[str]:
        """Addresses of this host (of one interface), link-local ones left out: what a wildcard
        in the configuration stands for."""
        found = [
            a.ip
            for a in self._addresses
            if interface is None or (a.ifindex in self._links
                                     and self._links[a.ifindex].name == interface)
        ]  # fmt: skip
        return sorted(ip for ip in found if not ip_address(ip).is_link_local)

    def link(self, name: str) -> Link | None:
        """The interface of this name."""
        return next((link for link in self._links.values() if link.name == name), None)

    def header_for(
        self, local_ip: str, remote_ip: str, local_port: int, remote_port: int
    ) -> HeaderTemplate | Unresolved:
        """The header from a local to a remote address, or why there is none now."""
        way = find_way(self._requests, local_ip, remote_ip)
        if isinstance(way, NoWay):
            return Unresolved(way.why)
        link = self._links.get(way.ifindex)
        if link is None:  # its notice is still on its way
            return Unresolved(f"interface {way.ifindex} is not known yet")
        bearer, vlan = self._bearer(link)
        port = self._ports.get(bearer.name)
        if way.local or port is None or not bearer.ethernet:
            return HeaderTemplate(way.ifindex, None, 0, b"", self.generation)
        hop = (way.ifindex, way.next_hop)
        neighbour = self._neighbours.get(hop)
        self._watch(hop, neighbour.mac if neighbour else None)
        if neighbour is None or neighbour.mac is None:
            self._prober.probe(hop, time.monotonic())
            return Unresolved(f"{way.next_hop} on {link.name} does not answer yet")
        if not link.usable:
            return Unresolved(f"{link.name} is down")
        l3_off, header = build_header(
            link.mac, neighbour.mac, vlan, (local_ip, local_port), (remote_ip, remote_port)
        )
        return HeaderTemplate(bearer.ifindex, port, l3_off, header, self.generation)

    def _bearer(self, link: Link) -> tuple[Link, int | None]:
        """The interface that carries the frames of `link`, and their VLAN tag."""
        if link.vlan is not None and link.parent is not None:
            return self._slave(self._links.get(link.parent, link)), link.vlan
        return self._slave(link), None

    def _slave(self, link: Link) -> Link:
        """Of a bond the slave that sends, or one that is usable and ours; any other as it is."""
        if link.active is None:
            return link
        slaves = [other for other in self._links.values() if other.master == link.ifindex]
        ours = [other for other in slaves if other.usable and other.name in self._ports]
        chosen = [other for other in slaves if other.ifindex == link.active] or ours
        return chosen[0] if chosen else link

    def _watch(self, hop: NextHop, mac: bytes | None) -> None:
        self._watched[hop] = mac
        self._watched.move_to_end(hop)
        self._asked[hop] = time.monotonic()
        if len(self._watched) > WATCHED_MAX:
            oldest, _ = self._watched.popitem(last=False)
            del self._asked[oldest]

    # ---- what the kernel tells --------------------------------------------------------------

    def _dump(self) -> None:
        self._links = {
            link.ifindex: link for link in map(read_link, self._requests.dump(RTM_GETLINK))
        }
        self._addresses = set(map(read_address, self._requests.dump(RTM_GETADDR)))
        found = map(read_neighbour, self._requests.dump(RTM_GETNEIGH))
        self._neighbours = {n.hop: n for n in found if n is not None}

    def _on_notices(self) -> None:
        messages = self._notices.read()
        if messages is None:
            log.warning("netlink notices were lost: reading everything again")
            self.redumps += 1
            self._dump()
            for hop in self._watched:
                neighbour = self._neighbours.get(hop)
                self._watched[hop] = neighbour.mac if neighbour else None
            self._changed()
            return
        for message in messages:
            self._on_message(message["header"]["type"], message)

    def _on_message(self, kind: int, message: Any) -> None:
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            self._on_neighbour(kind, message)
        elif kind in (RTM_NEWLINK, RTM_DELLINK):
            if message["family"] != 0:  # a bridge port's or IPv6's view of a link
                return
            link = read_link(message)
            before = self._links.get(link.ifindex)
            if kind == RTM_DELLINK:
                self._links.pop(link.ifindex, None)
                self._changed()
            elif link != before:
                self._links[link.ifindex] = link
                self._changed()
        elif kind in (RTM_NEWADDR, RTM_DELADDR):
            address = read_address(message)
            if (address in self._addresses) != (kind == RTM_NEWADDR):
                (self._addresses.add if kind == RTM_NEWADDR else self._addresses.discard)(address)
                self._changed()
        elif kind in (RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWRULE, RTM_DELRULE):
            self._changed()

    def _on_neighbour(self, kind: int, message: Any) -> None:
        neighbour = read_neighbour(message)
        if neighbour is None:
            return
        if kind == RTM_DELNEIGH:
            neighbour = Neighbour(neighbour.hop, None, 0)
            self._neighbours.pop(neighbour.hop, None)
        else:
            self._neighbours[neighbour.hop] = neighbour
        if neighbour.hop not in self._watched:
            return
        if neighbour.mac != self._watched[neighbour.hop]:
            self._watched[neighbour.hop] = neighbour.mac
            self._changed()

    def _changed(self) -> None:
        self.generation += 1
        if not self._telling and self._loop is not None:
            self._telling = True
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        if self._loop is not None and self._told != self.generation:
            self._told = self.generation
            if self.on_change is not None:
                self.on_change(self.generation)

    def _to_probe(self, now: float) -> list[NextHop]:
        found = []
        for hop, asked in self._asked.items():
            neighbour = self._neighbours.get(hop)
            if neighbour is None or neighbour.mac is None:
                if now - asked < GIVE_UP_S:
                    found.append(hop)
            elif neighbour.state & NUD_STALE and self._turn == 0:
                found.append(hop)
        return found

    def _on_refresh(self) -> None:
        """Probes the watched next hops that are stale or do not answer, as the limits allow."""
        now = time.monotonic()
        self._turn = (self._turn + 1) % REFRESH_TURNS
        for hop in self._to_probe(now):
            self._prober.probe(hop, now)
        if self._loop is not None:
            self._refresh = self._loop.call_later(RETRY_S, self._on_refresh)
