"""WebRTC through a real node, packet by packet: layers by rid, resends both ways, who speaks."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from bare_peer import OPUS, RTX, VP8, Peer, rtp
from media_kit import RIDS, SIZES, Camera, Ears, filming, labelled, picture, section
from node_kit import PATIENCE_S, PERIOD_S, Site, node_of, until
from session_kit import Page
from webrtc_kit import http, impatient, meeting, on_loopback

from forwarder.client import rtcp
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant
from forwarder.signaling import messages as m
from forwarder.supervisor.node import Node

__all__ = ["impatient", "on_loopback"]


def viewer(site: Site) -> Ears:
    return Ears("whep", site.token("eve", Role.PASSIVE))


def person(node: Node, name: str) -> Participant:
    return next(p for p in node.rooms.participants() if p.name == name)


async def test_layers_are_known_by_rid_and_switched_by_wish(tmp_path: Path) -> None:
    """No SSRC is signalled: the worker binds both layers at their first packets; `&layer=` chooses,
    numbers and picture ids go on without a seam."""
    site = Site(tmp_path)
    camera = Camera("whip", site.token("camera"))
    low = Ears("whep", site.token("low", Role.PASSIVE), "?layer=low")
    high = Ears("whep", site.token("high", Role.PASSIVE), "?layer=high")
    async with meeting(site, camera, low, high) as (node, _):
        video = section(camera.answer, "video")
        assert [f"a=rid:{rid} recv" in video for rid in RIDS] == [True, True]
        assert f"a=simulcast:recv {';'.join(RIDS)}" in video
        (track,) = [t for t in node.rooms.state.tracks.values() if t.kind == "video"]
        assert [layer.spec.rid for layer in track.layers] == list(RIDS)
        sizes = {len(picture(1, key=False, size=size)) for size in SIZES}
        async with filming(camera):
            for screen, size in ((low, min(sizes)), (high, max(sizes))):
                await until(lambda s=screen: len(s.of(VP8)) > 40, "pictures come")  # type: ignore[misc]
                deltas = {len(p.payload) for p in screen.of(VP8)[5:] if p.payload[3] & 1}
                assert deltas == {size}
                numbers = [packet.seq for packet in screen.of(VP8)]
                assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
        assert (await node.status())["drops"].get("unknown_ssrc", 0) == 0


async def test_a_receiver_that_can_take_less_gets_the_lower_layer(tmp_path: Path) -> None:
    """REMB chooses; the switch is at a key frame, the stream stays the same one."""
    site = Site(tmp_path)
    camera, eve = Camera("whip", site.token("camera")), viewer(site)
    async with meeting(site, camera, eve) as (node, _):
        me = person(node, "eve")

        def layer() -> int:
            (found,) = [s.layer for s in me.subscriptions.values() if s.track.kind == "video"]
            return found

        def repeats(bps: int) -> None:
            """As receivers do: one word may be a slip of its machine."""
            eve.send_rtcp(remb(bps, eve.ssrcs))

        async with filming(camera):
            await until(lambda: len(eve.of(VP8)) > 20 and layer() == 1, "the top layer comes")
            (track,) = [t for t in node.rooms.state.tracks.values() if t.kind == "video"]
            await until(lambda: all(x.bitrate for x in track.layers), "the layers are measured")
            low, high = (x.bitrate or 0 for x in track.layers)
            assert 2 * low < high
            await until(lambda: repeats(int(1.3 * low)) or layer() == 0, "the lower one is chosen")
            had = len(eve.of(VP8))
            small = len(picture(0, key=False, size=SIZES[0]))

            def lower() -> bool:
                return [len(p.payload) for p in eve.of(VP8)[had:]][-5:].count(small) >= 4

            await until(lower, "the lower layer comes")
        packets = eve.of(VP8)
        assert len({packet.ssrc for packet in packets}) == 1
        numbers = [packet.seq for packet in packets]
        assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
        ids = [packet.payload[2] for packet in packets]
        assert all((b - a) & 0x7F == 1 for a, b in pairwise(ids)), ids


def remb(bps: int, ssrcs: list[int]) -> bytes:
    """draft-alvestrand-rmcat-remb-03 behind an empty receiver report."""
    exponent = max(0, bps.bit_length() - 18)
    body = struct.pack("!II4sBBH", 1, 0, b"REMB", len(ssrcs), 0, 0)
    body = body[:-3] + ((exponent << 18) | (bps >> exponent)).to_bytes(3, "big")
    body += b"".join(struct.pack("!I", ssrc) for ssrc in ssrcs)
    return rtcp.receiver_report(1, []) + struct.pack("!BBH", 0x8F, 206, len(body) // 4) + body


def nack(ssrc: int, numbers: list[int]) -> bytes:
    """RFC 4585 section 6.2.1."""
    body = struct.pack("!II", 1, ssrc) + b"".join(struct.pack("!HH", n, 0) for n in numbers)
    return rtcp.receiver_report(1, []) + struct.pack("!BBH", 0x81, 205, len(body) // 4) + body


async def test_what_is_lost_comes_again_on_rtx_both_ways(tmp_path: Path) -> None:
    """The node asks the publisher for a gap and takes it from its RTX stream; a viewer that asks
    gets it on the RTX stream of its slot (RFC 4588)."""
    site = Site(tmp_path)
    camera, eve = Ears("whip", site.token("camera")), viewer(site)
    async with meeting(site, camera, eve):
        assert "a=ssrc-group:FID" in section(eve.answer, "video")

        def send(number: int) -> None:
            data = picture(number, key=number == 0)
            camera.send_rtp(labelled(VP8, 0xC0, number, data, mid="1"))

        lost = 20
        number = 0
        async with asyncio.timeout(PATIENCE_S):
            while lost not in camera.gaps or len(eve.of(VP8)) < 30:
                if number != lost:
                    send(number)
                number += 1
                await asyncio.sleep(PERIOD_S)
        before = {packet.payload[2] for packet in eve.of(VP8)}
        assert lost not in before
        again = lost.to_bytes(2, "big") + picture(lost, key=False)
        camera.send_rtp(labelled(RTX, 0xC1, 1, again, at=lost, mid="1"))
        await until(
            lambda: lost in {packet.payload[2] for packet in eve.of(VP8)}, "the gap is filled"
        )
        packets = sorted(eve.of(VP8), key=lambda packet: packet.payload[2])
        asked = packets[5]
        eve.send_rtcp(nack(asked.ssrc, [asked.seq]))
        await until(lambda: eve.of(RTX), "a resend comes")
        (resent,) = eve.of(RTX)
        assert resent.ssrc != asked.ssrc and resent.ssrc in eve.ssrcs
        assert resent.payload == asked.seq.to_bytes(2, "big") + asked.payload


async def speak(peer: Peer, level: int, condition: Callable[[], object], first: int) -> int:
    """Sound of this level (-dBov) until it is so; the number of the next packet."""
    number = first
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            peer.send_rtp(rtp(OPUS, 0xA0, number, bytes(40), mid="0", level=level))
            number += 1
            await asyncio.sleep(0.02)
    return number


@pytest.mark.usefixtures("on_loopback", "impatient")
async def test_who_speaks_is_told_and_heard_without_a_pair(tmp_path: Path) -> None:
    """The whole way: levels in the worker, the judgement in the rooms, `speaker` to the page; a
    voice without a pair gets the slot for sound alone."""
    site = Site(tmp_path)
    ada, bob = Ears("whip", site.token("ada")), Ears("whip", site.token("bob"))
    eve = Page(site, "eve", Role.PASSIVE, pairs=1, sounds=1)
    async with meeting(site, ada, bob, eve) as (node, _):
        ids = {p.name: p.id for p in node.rooms.participants()}
        await eve.shows(ids["ada"])
        await until(lambda: eve.pc.connectionState == "connected", "connected")
        assert eve.of(m.SpeakerChanged) == []

        def speaker() -> str | None:
            told = eve.of(m.SpeakerChanged)
            return told[-1].participant_id if told else None

        await speak(bob, 20, lambda: speaker() == ids["bob"], 1)
        (alone,) = [slot for slot in eve.slots.values() if slot.pair == -1]
        assert alone.kind == "audio"

        def heard() -> bool:
            return eve.slots[alone.mid].participant_id == ids["bob"]

        await speak(bob, 20, heard, 5000)
        await speak(ada, 10, lambda: speaker() == ids["ada"], 1)
        async with Page(site, "late", Role.PASSIVE, pairs=1) as late:
            await late.join()
            told = await until(lambda: late.of(m.SpeakerChanged), "who comes late is told too")
            assert told[0].participant_id == ids["ada"]


async def test_a_viewer_by_whep_follows_who_speaks(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ada, bob = Ears("whip", site.token("ada")), Ears("whip", site.token("bob"))
    async with meeting(site, ada, bob, viewer(site)) as (node, client):
        me = person(node, "eve")

        def shown() -> set[str]:
            return {s.track.publisher.name for s in me.subscriptions.values()}

        await until(lambda: shown() == {"ada"}, "who came first is shown first")
        number = await speak(bob, 20, lambda: shown() == {"bob"}, 1)
        assert number > 1
        query = f"?participant={person(node, 'ada').id}"
        async with Ears("whep", site.token("pin", Role.PASSIVE), query) as pinned:
            await pinned.connect(client)
            other = person(node, "pin")
            await until(lambda: other.subscriptions, "it is shown somebody")
            assert {s.track.publisher.name for s in other.subscriptions.values()} == {"ada"}


async def test_candidates_are_the_advertised_addresses(tmp_path: Path) -> None:
    """Behind a 1:1 NAT the node is asked at an address that it does not have."""
    site = Site(tmp_path, change={"network": {"advertised_addresses": ["192.0.2.10"]}})
    async with (
        node_of(site) as node,
        http(site) as client,
        Peer("whip", site.token("ada")) as ada,
    ):
        await site.room()
        await ada.join(client)
        candidates = re.findall(r"^a=candidate:(.*)\r$", ada.answer, re.MULTILINE)
        assert {line.split()[4] for line in candidates} == {"192.0.2.10"}
        assert {int(line.split()[5]) for line in candidates} == {site.port}
        ada.node = ("127.0.0.1", site.port)  # what the NAT makes of it
        await ada.check()
        await ada.handshake()
        (me,) = node.rooms.participants()
        await until(lambda: me.keyed, "it has its keys")
        assert me.tuples[0].local_ip == "127.0.0.1"


@pytest.mark.parametrize("who", ["camera", "eve"])
async def test_a_browsers_nat_rebinds(tmp_path: Path, who: str) -> None:
    """Media from an address that is not validated is dropped; the next check moves the leg, with
    the same keys and streams and without a word of HTTP."""
    site = Site(tmp_path)
    camera, eve = Camera("whip", site.token("camera")), viewer(site)
    async with meeting(site, camera, eve) as (node, _):
        moving: Ears = {"camera": camera, "eve": eve}[who]
        me = person(node, who)

        async def flows() -> None:
            had = len(eve.of(VP8))
            await until(lambda: len(eve.of(VP8)) > had + 20, "pictures come")

        async with filming(camera):
            await flows()
            moving.rebind()
            port = moving.sock.getsockname()[1]
            if who == "camera":
                before = node.datapath.plane.counters()["routed"]
                await until(lambda: unknown(node) > 20, "its media is dropped")
                assert node.datapath.plane.counters()["routed"] <= before + 2
            moving.send(moving.binding_request())
            await flows()
            assert me.nominated is not None and me.tuples[me.nominated].remote_port == port
            assert len(me.tuples) == 2  # the old one stays until its consent ends
        status = await node.status()
        assert status["drops"]["auth_failed"] == 0
        assert status["dtls"]["completed"] == 2


def unknown(node: Node) -> int:
    """Media of flows that the node does not know, dropped by the selector or by the worker."""
    steering = node.datapath.steering
    verdicts = steering.select_verdicts() if steering is not None else {}
    drops = node.datapath.plane.counters().drops["unknown_flow"]
    return int(drops + verdicts.get("drop_unknown_flow", 0))
