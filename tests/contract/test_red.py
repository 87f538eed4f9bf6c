"""Opus RED (RFC 2198) from one WebRTC client to others: whole to those that take it, its newest
block as plain Opus to those that do not, or know Opus by another number than its blocks say."""

from __future__ import annotations

import asyncio
import struct
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from bare_peer import rtp
from media_kit import Ears, section
from node_kit import PERIOD_S, Site, node_of
from webrtc_kit import http

from forwarder.rooms.roles import Role

OPUS, RED = 111, 63
PLAIN = "m=audio 9 UDP/TLS/RTP/SAVPF 111"
SSRC, PACKETS = 0xA0, 60


class Talker(Ears):
    """Offers RED before Opus (1), after it (2) or not (0), the two under these numbers."""

    def __init__(self, kind: str, token: str, order: int, opus: int = OPUS, red: int = RED) -> None:
        super().__init__(kind, token)
        self.order, self.opus, self.red = order, opus, red

    def offer(self) -> str:
        line = {1: f"{self.red} 111", 2: f"111 {self.red}", 0: "111"}[self.order]
        text = super().offer().replace(PLAIN, PLAIN[:-3] + line)
        if self.order:
            said = f"a=rtpmap:{self.red} red/48000/2\r\na=fmtp:{self.red} 111/111\r\n"
            text = text.replace("a=rtpmap:111 opus", said + "a=rtpmap:111 opus")
        # Where Opus has another number, in the m-line and in each line about it.
        head, audio = text.split("m=audio", 1)
        audio, video = audio.split("m=video", 1)
        return f"{head}m=audio{audio.replace('111', str(self.opus))}m=video{video}"

    async def joined(self, client: httpx.AsyncClient) -> list[int]:
        """The payload types of sound in the answer, best first."""
        await self.connect(client)
        line = section(self.answer, "audio").split("\r\n", 1)[0]
        return [int(word) for word in line.split()[3:]]


def block(number: int) -> bytes:
    """What Opus made of one frame, of its own size."""
    return number.to_bytes(2, "big") * (20 + number % 30)


def redundant(number: int) -> bytes:
    """A frame with the one before it."""
    old, new = block(number - 1), block(number)
    head = struct.pack("!BHB", 0x80 | OPUS, 960 << 2 | len(old) >> 8, len(old) & 0xFF)
    return head + bytes([OPUS]) + old + new


async def talk(peer: Talker, number: int) -> None:
    """RED, but for each fifth packet: a sender may go without at any time."""
    plain = number % 5 == 0
    payload = block(number) if plain else redundant(number)
    peer.send_rtp(rtp(OPUS if plain else RED, SSRC, number, payload, mid="0", level=30))
    await asyncio.sleep(PERIOD_S)


@pytest.mark.parametrize("order", [1, 2], ids=["first", "second"])
async def test_each_viewer_gets_what_it_can_take(tmp_path: Path, order: int) -> None:
    site = Site(tmp_path)
    async with node_of(site) as node, http(site) as client, AsyncExitStack() as made:
        await site.room()
        tokens = [site.token(name, Role.PASSIVE) for name in ("both", "plain", "other")]
        ada = await made.enter_async_context(Talker("whip", site.token("ada"), order))
        both = await made.enter_async_context(Talker("whep", tokens[0], 2))
        plain = await made.enter_async_context(Talker("whep", tokens[1], 0))
        other = await made.enter_async_context(Talker("whep", tokens[2], 2, 109, 45))
        # What is first in an answer is what a browser sends.
        assert await ada.joined(client) == ([RED, OPUS] if order == 1 else [OPUS, RED])
        assert await both.joined(client) == [OPUS, RED]
        assert await plain.joined(client) == [OPUS]
        assert await other.joined(client) == [109, 45]
        viewers = (both, plain, other)
        number = 1
        while not all(len(viewer.packets) >= PACKETS for viewer in viewers):
            assert number < 100 * PACKETS, [len(viewer.packets) for viewer in viewers]
            await talk(ada, number)
            number += 1
        for viewer, opus in ((both, OPUS), (plain, OPUS), (other, 109)):
            assert {packet.pt for packet in viewer.packets} == (
                {OPUS, RED} if viewer is both else {opus}
            )
            seqs = [packet.seq for packet in viewer.packets]
            assert seqs == [(seqs[0] + n) & 0xFFFF for n in range(len(seqs))], "no gap"
            first = int.from_bytes(viewer.packets[0].payload[-2:], "big")
            for n, packet in enumerate(viewer.packets):
                whole = packet.pt == RED and viewer is both
                assert packet.payload == (redundant if whole else block)(first + n)
                assert packet.timestamp == (viewer.packets[0].timestamp + 960 * n) & 0xFFFFFFFF
        status = await node.status()
        assert status["balanced"], status["imbalance"]
        assert status["copy_drops"]["filter"] == 0
