"""Bad input to a node that is at work: each kind is refused with its own counter or error, memory
stays bounded, and the call of others goes on without a packet lost.  (10,000 that never finish to
join: test_half_open.py.)"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
from bare_peer import OPUS, PATIENCE_S, VP8, Peer, rtp
from node_kit import Call, Site, call_on, node_of, until
from webrtc_kit import http

from forwarder.ice.dtls import HANDSHAKE_BYTES_MAX
from forwarder.rooms.plan import plan
from forwarder.rooms.roles import Role
from forwarder.supervisor.node import Node

BAD = "bad"
"""Their room; the call is in another."""


class World:
    """A node, and a call through it that must not notice anything."""

    def __init__(self, site: Site, node: Node, call: Call, client: httpx.AsyncClient) -> None:
        self.site, self.node, self.call, self.client = site, node, call, client

    def peer(self, kind: str) -> Peer:
        role = Role.ACTIVE if kind == "whip" else Role.PASSIVE
        return Peer(kind, self.site.token(kind, role, BAD), BAD)

    @property
    def dtls(self) -> dict[str, int]:
        return dict(self.node._dtls.counters)

    @property
    def ice(self) -> dict[str, int]:
        return dict(self.node._ice.counters)

    def counted(self) -> dict[str, int]:
        """Counters and drops of the worker."""
        tally = self.node.datapath.plane.counters()
        return {**tally.counters, **{f"drop_{k}": v for k, v in tally.drops.items()}}

    async def counts(self, name: str, least: int) -> None:
        await until(
            lambda: self.counted()[name] >= least, f"{name} >= {least} ({self.counted()[name]})"
        )

    async def dropped(self, least: int) -> None:
        """Media before there are keys: the selector knows no flow, or the worker no key."""

        async def so_far() -> int:
            status = await self.node.status()
            verdicts = status["steering"].get("select_verdicts", {})
            drops = status["drops"]["unknown_flow"] + status["drops"]["leg_no_keys"]
            return int(drops + verdicts.get("drop_unknown_flow", 0))

        async with asyncio.timeout(PATIENCE_S):
            while await so_far() < least:
                await asyncio.sleep(0.02)

    async def undisturbed(self) -> None:
        """The others' call goes on, and has gone on all the time."""
        await self.call.flows()
        await self.call.end()
        assert self.call.lost() == []
        for client in (self.call.publisher, self.call.subscriber):
            assert (client.resumed, client.rejoined) == (0, 0)
        status = await self.node.status()
        assert status["balanced"], status["imbalance"]


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    site = Site(tmp_path)
    async with node_of(site) as node, call_on(site) as call, http(site) as client:
        await site.room(BAD)
        yield World(site, node, call, client)


# ---- STUN and DTLS --------------------------------------------------------------------------


async def test_a_certificate_that_is_not_the_offers(world: World) -> None:
    """It gets no keys: its handshake never ends, and media under any key is dropped."""
    async with world.peer("whip") as liar:
        liar.fingerprint = ":".join(["AB"] * 32)
        await liar.join(world.client)
        await liar.check()
        handshake = asyncio.create_task(liar.handshake())
        await until(lambda: world.dtls.get("wrong_fingerprint") == 1, "it is found out")
        handshake.cancel()
        for _ in range(20):
            liar.send(b"\x80\x6f" + bytes(60))
        await world.dropped(20)
        assert world.dtls.get("completed", 0) == 0
    await world.undisturbed()


async def test_dtls_that_is_cut_too_long_or_nonsense(world: World) -> None:
    """From an address that is checked, so that it reaches OpenSSL.  An honest client goes on."""
    chance = random.Random(11)
    async with world.peer("whep") as liar, world.peer("whep") as honest:
        await liar.join(world.client)
        await liar.check()
        for _ in range(30):  # no handshake begins by these
            liar.send(b"\x16" + chance.randbytes(12))
        await until(lambda: world.dtls.get("no_client_hello", 0) == 30, "they are counted")
        (hello,) = liar.dtls.step()
        for cut in range(14, len(hello), 9):
            liar.send(hello[:cut])
        await until(lambda: world.dtls.get("started", 0) == 1, "a handshake begins")
        for size in (1400, 5000):  # the longer one is cut as it is read
            claims = struct.pack("!H", 60000)
            liar.send(b"\x16\xfe\xfd" + bytes(8) + claims + chance.randbytes(size))
        flood = b"\x16\xfe\xfd" + bytes(8) + struct.pack("!H", 1400) + chance.randbytes(1400)
        sent = 0

        def refused() -> bool:
            nonlocal sent
            for _ in range(8):
                liar.send(flood)
                sent += len(flood)
            return world.dtls.get("too_many_bytes", 0) + world.dtls.get("handshake_failed", 0) > 0

        await until(refused, "the handshake is given up")
        assert sent <= 4 * HANDSHAKE_BYTES_MAX
        liar.send(hello)
        await until(lambda: world.dtls.get("after_failure", 0) > 0, "nor does it begin anew")
        await honest.connect(world.client)
        await until(lambda: world.dtls.get("completed") == 1, "an honest client joins")
    await world.undisturbed()


async def test_a_flood_of_stun(world: World) -> None:
    """Garbage, forged and foreign checks by the thousand, from strangers: no answer to any."""
    chance = random.Random(12)
    async with world.peer("whep") as victim, world.peer("whep") as other:
        await victim.join(world.client)
        other.answer = re.sub("ice-pwd:.*", "ice-pwd:" + "x" * 24, victim.answer)
        good = victim.binding_request()
        forged = [bytes(other.binding_request()) for _ in range(20)]
        unsigned = [good[:-8] + chance.randbytes(8) for _ in range(20)]  # of FINGERPRINT
        cut = [good[:n] for n in range(1, len(good))]
        garbage = [bytes([chance.randrange(4)]) + chance.randbytes(60) for _ in range(50)]
        before, sent = sum(world.ice.values()), 0
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setblocking(False)
            for _ in range(15):
                for data in (*forged, *unsigned, *cut, *garbage):
                    await loop.sock_sendto(stranger, data, victim.node)
                    sent += 1
                seen = before + sent // 2  # the socket's buffer may be full meanwhile
                await until(lambda least=seen: sum(world.ice.values()) >= least, "counted")
            try:
                answer = stranger.recv(2048)
            except BlockingIOError:
                answer = b""
        assert answer == b""
        assert world.ice.get("bad_integrity", 0) > 0 and world.ice.get("malformed", 0) > 0
        await victim.check()  # whom it was about is not locked out
        await victim.handshake()
    await world.undisturbed()


# ---- RTP ------------------------------------------------------------------------------------


async def test_rtp_on_a_mid_that_is_not_bound(world: World) -> None:
    async with world.peer("whip") as liar:
        await liar.connect(world.client)
        base = world.counted()
        for n in range(50):
            liar.send_rtp(rtp(VP8, 0x1000, n, bytes(50), mid="9"))
            liar.send_rtp(rtp(VP8, 0x1001, n, bytes(50)))  # no label, two m-lines
        await world.counts("drop_unknown_ssrc", base["drop_unknown_ssrc"] + 50)
        liar.send_rtp(rtp(OPUS, 0x2000, 1, bytes(50), mid="0", level=40))
        await world.counts("routed", 1)
        (mine,) = [p for p in world.node.rooms.participants() if p.name == "whip"]
        assert {t.spec.mid for t in mine.tracks.values()} == {"0", "1"}
    await world.undisturbed()


async def test_a_flood_of_ssrcs(world: World) -> None:
    """A thousand streams under the labels of two: two sources go with a few of them."""
    async with world.peer("whip") as liar:
        await liar.connect(world.client)
        base = world.counted()
        for ssrc in range(0x3000, 0x3000 + 1000):
            liar.send_rtp(rtp(OPUS, ssrc, 1, bytes(50), mid="0"))
            liar.send_rtp(rtp(VP8, ssrc + 0x1000, 1, bytes(50), mid="1"))
            if ssrc % 50 == 0:
                least = base["drop_unknown_ssrc"] + (ssrc - 0x3000)
                await world.counts("drop_unknown_ssrc", least)
        late = rtp(OPUS, 0x3000, 2, bytes(50))  # the first one was bound, and was left for good
        await until(
            lambda: world.counted()["drop_unknown_ssrc"] >= base["drop_unknown_ssrc"] + 1900,
            "all but a few are dropped",
        )
        liar.send_rtp(late)
        meters = world.node.datapath.plane.source_meters(
            0, range(world.node.datapath.plane.setup.sources_max)
        )
        busy = [m for m in meters.values() if m.packets]
        assert len(busy) == 3  # its two, and that of the others' call
    await world.undisturbed()


async def test_rtp_that_is_garbage(world: World) -> None:
    """Sealed nonsense and nonsense that is not sealed."""
    chance = random.Random(13)
    async with world.peer("whip") as liar:
        await liar.connect(world.client)
        good = liar.seal_rtp(rtp(OPUS, 0x4000, 1, bytes(50), mid="0"))
        liar.send(good)
        for _ in range(20):
            liar.send(good)
        for n in range(2, 200):
            liar.send(bytes([128 + chance.randrange(64)]) + chance.randbytes(n))
        await world.counts("drop_replayed", 20)
        for name in ("drop_rtp_truncated", "drop_unknown_ssrc", "drop_rtcp_auth_failed"):
            await world.counts(name, 1)
        sealed = [rtp(VP8, 0x5000, n, chance.randbytes(n), mid="1") for n in range(400)]
        for packet in sealed:
            liar.send_rtp(packet)  # payloads that no VP8 decoder would take
        long = rtp(OPUS, 0x4000, 2, bytes(900), mid="0")
        liar.send_rtp(long)
        await world.counts("drop_too_long", 1)
    await world.undisturbed()


# ---- RTCP -----------------------------------------------------------------------------------


def feedback(kind: int, form: int, media: int, body: bytes = b"", sender: int = 1) -> bytes:
    words = 2 + len(body) // 4
    return struct.pack("!BBHII", 0x80 | form, kind, words, sender, media) + body


def receiver_report(ssrc: int, fraction: int, highest: int) -> bytes:
    block = struct.pack("!IIIIII", ssrc, fraction << 24, highest, 7, 0, 0)
    return struct.pack("!BBHI", 0x81, 201, 7, 1) + block


async def test_rtcp_that_lies(world: World) -> None:
    """Reports about what was never sent, requests for the streams of others, estimates beyond
    reason, lengths that run out."""
    async with world.peer("whep") as liar:
        await liar.connect(world.client)
        await until(lambda: liar.ssrcs, "its answer names streams")
        others = 0xDEADBEEF
        base = world.counted()
        liar.send_rtcp(receiver_report(others, 255, 9))
        liar.send_rtcp(feedback(206, 1, others))  # PLI
        liar.send_rtcp(feedback(206, 15, 0, b"REMB\x01\x00\x27\x10" + struct.pack("!I", others)))
        await world.counts("rtcp_unknown", base["rtcp_unknown"] + 3)
        liar.send_rtcp(feedback(205, 1, others, struct.pack("!HH", 1, 0xFFFF)))
        await world.counts("resend_unknown", base["resend_unknown"] + 17)
        liar.send_rtcp(feedback(206, 15, 0, b"REMB\x00\xff\xff\xff"))
        await world.counts("rtcp_absurd", base["rtcp_absurd"] + 1)
        liar.send_rtcp(struct.pack("!BBHI", 0x9F, 201, 1, 1))  # 31 blocks that are not there
        liar.send_rtcp(feedback(206, 15, 0, b"REMB\xff\x00\x00\x01"))
        await world.counts("drop_rtcp_truncated", base["drop_rtcp_truncated"] + 2)
        liar.send_rtcp(struct.pack("!BBHI", 0x81, 203, 1, others))  # somebody else's goodbye
        await world.counts("rtcp_unknown", base["rtcp_unknown"] + 4)
        chance = random.Random(14)
        for n in range(40):  # transport-wide feedback, which its answer left out
            body = chance.randbytes(4 * (1 + n % 20))
            liar.send_rtcp(feedback(205, 15, chance.choice([*liar.ssrcs, others]), body))
        await world.counts("rtcp_unknown", base["rtcp_unknown"] + 44)
        (me,) = (p for p in world.node.rooms.participants() if p.name == "whep")
        before = world.node.datapath.plane.counters()["consumed"]
        for n in range(10):  # nothing at all: no estimate, and no leg without pacing
            liar.send_rtcp(feedback(206, 15, 0, b"REMB\x00" + bytes([n << 2, 0, 0])))
        await world.counts("consumed", before + 10)
        assert me.rate_bps == 0 and plan(world.node.rooms).legs[me.leg].rate_bps > 0
    await world.undisturbed()


async def test_requests_without_end(world: World) -> None:
    """A viewer that asks for key frames and resends by the thousand: its publisher is asked a few
    times, and its share of resends has an end."""
    async with world.peer("whip") as source, world.peer("whep") as greedy:
        await source.connect(world.client)
        await greedy.connect(world.client)
        frame = b"\x10\x00\x9d\x01\x2a" + bytes(600)  # a VP8 key frame begins
        number = 0

        def sends() -> Any:
            nonlocal number
            number += 1
            source.send_rtp(rtp(VP8, 0x6000, number, frame, mid="1"))
            return world.counted()["transmitted"]

        base = world.counted()
        await until(lambda: sends() and number > 50, "pictures are sent")
        target = greedy.ssrcs
        for asked in range(1, 201):
            for ssrc in target:
                greedy.send_rtcp(feedback(206, 1, ssrc))
                nack = struct.pack("!HH", 0, 0xFFFF) * 30
                greedy.send_rtcp(feedback(205, 1, ssrc, nack))
            if asked % 20 == 0:
                await world.counts("consumed", base["consumed"] + asked // 2)
        tally = world.counted()
        assert 0 < tally["keyframe_requests"] - base["keyframe_requests"] < 100
        assert tally["nack_rx"] - base["nack_rx"] > 10_000
        resent = tally["resent_rtx"] + tally["resent_plain"] - base["resent_rtx"]
        assert resent < (tally["nack_rx"] - base["nack_rx"]) / 10
    await world.undisturbed()
