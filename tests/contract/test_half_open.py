"""10,000 clients that begin to join and never finish, at a whole node with its defaults: its HTTP,
STUN, DTLS, supervisor and data plane are real.  At most `ice.max_half_open` of them are let in at
a time, the others hear when to come back; memory stays bounded, the workers hold nothing for them,
a call of others goes on, and after the deadline there is room again."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from bare_peer import Peer
from dtls_kit import Peer as DtlsClient
from node_kit import PATIENCE_S, Site, call_on, up
from webrtc_kit import http

from forwarder.config import defaults
from forwarder.ice.dtls import DEADLINE_S
from forwarder.rooms.roles import Role

ATTEMPTS = 10_000
CLIENTS = 16  # HTTP connections, kept alive
ROOMS = [f"half{n}" for n in range(4)]
PUBLISHERS = 8  # one client of so many comes by WHIP, the others by WHEP
GROWN_MAX_MIB = 100.0
LOOK = 200  # attempts between two looks at the node
HELD = ("legs", "sources", "histories", "routes")


class Line:
    """One HTTP connection; little more than bytes, so that the crowd costs less than the node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, site: Site) -> Line:
        trust = ssl.create_default_context(cafile=str(site.base / "state" / "dev-cert.pem"))
        return cls(*await asyncio.open_connection(site.addresses[0], site.port, ssl=trust))

    async def post(self, target: str, *, content: str, headers: dict[str, str]) -> httpx.Response:
        lines = [f"POST {target} HTTP/1.1", "host: node", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", content]).encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.strip().split("\r\n")
        fields = dict(line.split(": ", 1) for line in rest)
        body = await self._reader.readexactly(int(fields["content-length"]))
        return httpx.Response(int(first.split()[1]), headers=fields, content=body)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Crowd:
    """Those who begin, what the node says to them, and how it looks meanwhile."""

    def __init__(self, site: Site) -> None:
        self.site = site
        roles = {"whip": Role.ACTIVE, "whep": Role.PASSIVE}
        self.tokens = {(k, room): site.token(k, roles[k], room) for k in roles for room in ROOMS}
        self.fragment, *more = DtlsClient(b"SRTP_AEAD_AES_128_GCM", mtu=260).step()
        assert more, "the ClientHello comes in fragments"
        self.begun = self.made = 0
        self.answers: Counter[int] = Counter()
        self.retry: set[str] = set()
        self.inside: list[Peer] = []
        self.looks: list[dict[str, Any]] = []
        self.resident_mib: list[float] = []

    def newcomer(self) -> Peer:
        number, self.made = self.made, self.made + 1
        kind = "whep" if number % PUBLISHERS else "whip"
        room = ROOMS[number // PUBLISHERS % len(ROOMS)]
        return Peer(kind, self.tokens[kind, room], room)

    async def come(self, line: Line) -> None:
        """One attempt after the other; who is refused tries again.  Who is let in checks its
        address, sends a part of a ClientHello, and is silent."""
        peer = self.newcomer()
        try:
            while self.begun < ATTEMPTS:
                self.begun += 1
                if self.begun % LOOK == 0:
                    await self.look()
                made = await peer.post(line)
                self.answers[made.status_code] += 1
                if made.status_code == 503:
                    self.retry.add(made.headers["retry-after"])
                    continue
                assert made.status_code == 201, made.text
                peer.accept(made.text, made.headers["location"])
                await peer.check()
                peer.send(self.fragment)
                self.inside.append(peer)
                peer = self.newcomer()
        finally:
            peer.close()

    async def look(self) -> dict[str, Any]:
        status = await asyncio.to_thread(self.site.status)
        self.looks.append(status)
        pids = status["pid"], status["dataplane"]["pid"]
        self.resident_mib.append(sum(map(resident_mib, pids)))
        return status

    def close(self) -> None:
        for peer in self.inside:
            peer.close()


def resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def held(status: dict[str, Any]) -> list[int]:
    """What the workers hold."""
    return [status["memory"]["pools"][name]["count"] for name in HELD]


async def test_ten_thousand_that_never_finish(tmp_path: Path) -> None:
    site = Site(tmp_path)
    limit = defaults()["ice"]["max_half_open"]
    with up(site):
        async with call_on(site) as call, http(site) as client:
            for name in ROOMS:
                await site.room(name)
            crowd = Crowd(site)
            lines = [await Line.open(site) for _ in range(CLIENTS)]
            quiet = await crowd.look()
            try:
                await asyncio.gather(*(crowd.come(line) for line in lines))
                async with asyncio.timeout(PATIENCE_S):
                    while (await crowd.look())["legs"]["count"] > quiet["legs"]["count"]:
                        await asyncio.sleep(0.1)
                async with Peer("whep", site.token("late", Role.PASSIVE)) as late:
                    await late.connect(client)
                    await late.hears()
                status = await crowd.look()
            finally:
                crowd.close()
                for line in lines:
                    await line.close()
            await call.flows()
            await call.end()
            others, began = quiet["legs"]["count"], crowd.resident_mib[0]
            most = max(look["legs"]["count"] for look in crowd.looks) - others
            grown = max(crowd.resident_mib) - began
            print(f"{dict(crowd.answers)}, {most} at a time: it grew by {grown:.0f} MiB at most")
            assert set(crowd.answers) == {201, 503} and crowd.answers.total() == ATTEMPTS
            assert crowd.retry == {f"{DEADLINE_S:g}"}
            assert most == limit
            assert all(held(look) == held(quiet) for look in crowd.looks[:-1])
            assert crowd.answers[201] == len(crowd.inside) == status["dtls"]["expired"] >= limit
            assert status["dtls"]["started"] >= limit  # by no more than a fragment
            assert status["dtls"]["completed"] == 1  # who came late
            assert status["legs"]["count"] == others + 1
            assert grown < GROWN_MAX_MIB
            assert status["balanced"], status["imbalance"]
            assert call.lost() == []
            for one in (call.publisher, call.subscriber):
                assert (one.resumed, one.rejoined) == (0, 0)
