"""A picture that ends by a further offer and comes back by the next is the same SRTP stream: same
keys, same SSRC, and a roll-over counter that went on (RFC 3711 section 3.3.1).  By labels and by
signalled SSRCs, with RTX, for each way to end an m-line, and over the death of either process."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
from bare_peer import OPUS, RTX, VP8, rtp
from layer_kit import Kept, Seat
from media_kit import labelled, picture
from node_kit import Site, Up, node_of, until, up
from test_slots import filming
from webrtc_kit import http

from forwarder.client.control import Control
from forwarder.client.quic import Target, parse_hash
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as m

SOUND, PICTURE, REPAIR = 0xA0, 0xC0, 0xC1  # SSRCs
FIRST, FIRST_REPAIR = 65_500, 65_534  # both counters roll over in the first life
FRAMES = 60  # of a life
LOST = 7  # of each 15 frames this one does not come, but its repair does
WAYS = ("inactive", "port 0", "left out")


class Filmer(Kept):
    """A session that sends sound, and a picture where `ended` is empty."""

    def __init__(self, site: Site, signalled: bool) -> None:
        super().__init__("whip")
        self.signalled = signalled
        self.ended = ""
        self.number, self.repairs, self.sounds = FIRST, FIRST_REPAIR, 0
        self.sent: list[bytes] = []
        """Of its picture, sealed."""
        self.control = Control(
            Target(site.url(), parse_hash(site.cert_hash)),
            site.token("filmer"),
            name="filmer",
            suites=[Suite.GCM],
            on_message=lambda message: None,
            on_back=self._came_back,
        )

    def offer(self) -> str:
        head, audio, video = super().offer().split("m=")
        if self.signalled:
            audio += f"a=ssrc:{SOUND} cname:f\r\n"
            video += f"a=ssrc-group:FID {PICTURE} {REPAIR}\r\n"
            video += f"a=ssrc:{PICTURE} cname:f\r\na=ssrc:{REPAIR} cname:f\r\n"
        if self.ended == "inactive":
            video = video.replace("a=sendonly", "a=inactive")
        elif self.ended:
            head = head.replace("BUNDLE 0 1", "BUNDLE 0")
            video = video.replace("video 9", "video 0")
        return "m=".join([head, audio] if self.ended == "left out" else [head, audio, video])

    async def becomes(self, ended: str) -> None:
        """By a further offer."""
        self.ended = ended
        await self.control.request(m.Offer, sdp=self.offer())

    async def film(self, frames: int = FRAMES) -> range:
        """The numbers of these frames, where a picture is sent."""
        start = self.number
        for _ in range(frames):
            number = self.number
            self.send_rtp(rtp(OPUS, SOUND, self.sounds, bytes(40), mid="0", level=127))
            self.sounds += 1
            if not self.ended:
                mark = struct.pack("!I", number)
                self._picture(number, picture(number, key=number % 15 == 0)[:-4] + mark)
                self.number += 1
            await asyncio.sleep(1 / 60)
        return range(start, self.number)

    def _picture(self, number: int, shown: bytes) -> None:
        packet = labelled(VP8, PICTURE, number, shown, mid="1")
        if number % 15 == LOST:
            original = struct.pack("!H", number & 0xFFFF)
            packet = labelled(RTX, REPAIR, self.repairs, original + shown, at=number, mid="1")
            self.repairs += 1
        self.sent.append(self.seal_rtp(packet))
        self.send(self.sent[-1])


def numbers(eve: Seat, of: range) -> list[int]:
    """Of these frames, those that came."""
    came = [int(struct.unpack("!I", packet.payload[-4:])[0]) for packet in eve.of(VP8)]
    return [number for number in came if number in of]


async def life(filmer: Filmer, eve: Seat) -> None:
    """All that is filmed from the first key frame on is seen, once, repairs included."""
    frames = await filmer.film()

    def whole() -> bool:
        came = sorted(numbers(eve, frames))
        return bool(came) and came == list(range(came[0], frames.stop))

    await until(whole, f"{frames} is seen (came: {numbers(eve, frames)})")
    assert len(numbers(eve, frames)) >= FRAMES - 15


async def played_again(filmer: Filmer, eve: Seat) -> None:
    """Some of each life before: whoever recorded it gets nobody to see it."""
    had = len(eve.of(VP8))
    old = filmer.sent[:-FRAMES]
    for packet in (*old[::9], *old[-3:]):
        filmer.send(packet)
    await life(filmer, eve)
    assert len(eve.of(VP8)) <= had + FRAMES


def in_order(status: dict[str, Any], *, replayed: bool) -> None:
    assert status["balanced"], status["imbalance"]
    drops = status["drops"]
    assert drops.get("auth_failed", 0) == 0, drops
    assert (drops.get("replayed", 0) > 0) is replayed, drops
    assert status["table"].get("refused", 0) == 0, status["table"]


@pytest.mark.parametrize("signalled", [False, True], ids=["labels", "signalled"])
async def test_a_picture_ends_and_comes_back(tmp_path: Path, signalled: bool) -> None:
    """Three times, each by another way; meanwhile somebody else gets the places that it had."""
    site = Site(tmp_path)
    async with (
        node_of(site) as node,
        http(site) as client,
        Filmer(site, signalled) as filmer,
        Seat(site, "eve") as eve,
    ):
        await site.room()
        await filmer.connect(client)
        await eve.connect(client)
        await life(filmer, eve)
        for way in WAYS:
            await filmer.becomes(way)
            assert [t.kind for t in node.rooms.show_room("r").tracks] == ["audio"]
            await filmer.film(5)
            async with filming(site, client, "bob", 300):
                await filmer.becomes("")
                await life(filmer, eve)
                await played_again(filmer, eve)
        in_order(await node.status(), replayed=True)
        assert (eve.unopened, eve.tap.reused) == (0, 0)
        await filmer.leave()
        await eve.leave()


@pytest.mark.parametrize("dies", ["supervisor", "data plane"])
@pytest.mark.parametrize("signalled", [False, True], ids=["labels", "signalled"])
async def test_a_process_dies_meanwhile(tmp_path: Path, signalled: bool, dies: str) -> None:
    """kill -9 while the picture is ended: its indices are with the leg, in memory that outlives
    both.  Somebody else gets the places that it had."""
    site = Site(tmp_path)
    with up(site) as first:
        async with (
            http(site) as client,
            Filmer(site, signalled) as filmer,
            Seat(site, "eve") as eve,
        ):
            await site.room()
            await filmer.connect(client)
            await eve.connect(client)
            await life(filmer, eve)
            await filmer.becomes("inactive")
            second: Up | None = None
            if dies == "supervisor":
                first.kill()
                second = Up(site)
            else:
                (old,) = site.dataplanes()
                os.kill(old, signal.SIGKILL)
                await until(lambda: site.dataplanes() not in ([], [old]), "it is started again")
            try:
                if second is not None:
                    await asyncio.to_thread(second.ready)
                    await until(lambda: filmer.back == eve.back == 1, "sessions are back")
                async with filming(site, client, "bob", 300):
                    await filmer.becomes("")
                    await life(filmer, eve)
                    await played_again(filmer, eve)
                in_order(await asyncio.to_thread(site.status), replayed=True)
                assert (eve.unopened, eve.tap.reused) == (0, 0)
                await filmer.leave()
                await eve.leave()
            finally:
                if second is not None:
                    second.clean_up()
