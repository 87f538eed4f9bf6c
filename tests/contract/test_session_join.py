"""Joining by an offer in a session, through a real node on loopback, with aiortc as the browser."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sdp_transform
from node_kit import Site, Up, node_of, until, up
from session_kit import Page
from webrtc_kit import Picture, http, impatient, meeting, on_loopback, publisher, viewer

from forwarder.client.control import ClientError
from forwarder.errors import ErrorCode
from forwarder.ice import dtls
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec, Kind
from forwarder.signaling import messages as m

pytestmark = pytest.mark.usefixtures("on_loopback", "impatient")
__all__ = ["impatient", "on_loopback"]
FIXTURES = Path(__file__).parents[1] / "unit" / "sdp"
MIC = m.TrackOffer(label="mic", kind=Kind.AUDIO, codec=Codec.OPUS, pt=111, clock_hz=48_000, ssrc=7)


def two_and_a_viewer(site: Site) -> tuple[Page, Page, Page]:
    """Two that send and see nobody; one with a single pair of slots."""
    return (
        Page(site, "ada", brightness=60, pairs=0),
        Page(site, "bob", brightness=220, pairs=0),
        Page(site, "eve", Role.PASSIVE, pairs=1),
    )


async def test_two_pages_see_and_hear_each_other(tmp_path: Path) -> None:
    """One round trip: the offer in join, the answer and the slots in welcome."""
    site = Site(tmp_path)
    ada, bob = Page(site, "ada", brightness=60), Page(site, "bob", brightness=220)
    async with meeting(site, ada, bob) as (node, _):
        first = ada.welcomes[0]
        assert first.media is None and not first.resumed
        assert [(s.pair, s.kind, s.state) for s in first.slots] == [
            (0, "audio", "waiting"),
            (0, "video", "waiting"),
            (1, "audio", "waiting"),
            (1, "video", "waiting"),
        ]
        for one, other, brightness in ((ada, bob, 220), (bob, ada, 60)):
            slot = await one.shows(other.id)
            sound = one.slot_of(other.id, "audio")
            assert sound is not None and sound.pair == slot.pair == 0
            await one.sees(slot.mid, brightness)
            await one.hears(sound.mid)
        await until(lambda: ada.of(m.LegState), "the leg is live")
        assert (await node.status())["dtls"]["completed"] == 2
        await bob.control.leave()
        await until(lambda: ada.slot_of(bob.id) is None, "the slot is free again")
        assert ada.of(m.ParticipantLeft)[0].participant_id == bob.id


async def test_the_page_of_the_grid_turns_without_sdp(tmp_path: Path) -> None:
    """One pair, two publishers: `view` says who is in it; the slot's stream stays the same one."""
    site = Site(tmp_path)
    ada, bob, eve = two_and_a_viewer(site)
    async with meeting(site, ada, bob, eve) as (node, _):
        slot = await eve.shows(ada.id)
        await eve.sees(slot.mid, 60)
        (route,) = [s.route for s in node.rooms.participant(eve.id).slots if s.spec.mid == slot.mid]
        for who, brightness in ((bob, 220), (ada, 60), (bob, 220)):
            await eve.control.request(m.View, participants=[who.id])
            assert (await eve.shows(who.id)).mid == slot.mid
            await eve.sees(slot.mid, brightness)
        (same,) = [s.route for s in node.rooms.participant(eve.id).slots if s.spec.mid == slot.mid]
        assert same == route
        await eve.control.request(m.View, participants=[])
        await until(lambda: eve.slot_of(bob.id) is None, "nobody is shown")
        await eve.control.request(m.View, participants=None)
        await eve.shows(ada.id)
        assert (await node.status())["table"].get("refused", 0) == 0


async def test_growth_is_asked_for_and_offered_again(tmp_path: Path) -> None:
    """`grow` comes ahead of need; the further offer adds m-lines and changes nothing old."""
    site = Site(tmp_path)
    ada, bob, eve = two_and_a_viewer(site)
    async with meeting(site, ada, bob, eve):
        first = eve.welcomes[0]
        old = await eve.shows(ada.id)
        asked = (await until(lambda: eve.of(m.Grow), "more pairs are asked for"))[0]
        assert asked.pairs > 1
        eve.grow(asked.pairs - 1)
        answer = await eve.offer_again()
        new = await eve.shows(bob.id)
        assert new.pair > 0 and new.mid not in {slot.mid for slot in first.slots}
        assert (await eve.shows(ada.id)).mid == old.mid
        await eve.sees(new.mid, 220)
        await eve.sees(old.mid, 60)
        assert first.answer is not None
        before, after = (sdp_transform.parse(text) for text in (first.answer, answer))
        assert [x["ssrcs"] for x in before["media"]] == [x["ssrcs"] for x in after["media"]][:2]
        assert before["origin"]["sessionId"] == after["origin"]["sessionId"]
        assert before["origin"]["sessionVersion"] < after["origin"]["sessionVersion"]


async def test_a_track_comes_and_goes_by_further_offers(tmp_path: Path) -> None:
    """A second picture (a screen) is published by another offer and ends by the next."""
    site = Site(tmp_path)
    ada = Page(site, "ada", brightness=60, pairs=0)
    eve = Page(site, "eve", Role.PASSIVE, pairs=2)
    async with meeting(site, ada, eve) as (node, _):
        await eve.sees((await eve.shows(ada.id)).mid, 60)
        screen = ada.add(Picture(220))
        await ada.offer_again()
        published = node.rooms.show_room("r").tracks
        assert [t.kind for t in published] == ["audio", "video", "video"]
        assert len({t.label for t in published}) == 3
        (told,) = await until(lambda: eve.of(m.TrackPublished), "the others are told")

        def slots() -> list[m.SlotInfo]:
            return [s for s in eve.slots.values() if s.track_id == told.track.id]

        (slot,) = await until(slots, "it has a slot")
        await eve.sees(slot.mid, 220)
        screen.direction = "inactive"
        await ada.offer_again()
        assert len(node.rooms.show_room("r").tracks) == 2
        await until(lambda: not slots(), "its slot is free")
        await eve.sees((await eve.shows(ada.id)).mid, 60)


async def test_what_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ada = Page(site, "ada", brightness=60, pairs=0)
    eve = Page(site, "eve", Role.PASSIVE, pairs=1, codecs=("H264",))
    async with meeting(site, ada, eve):

        def slot(kind: str) -> m.SlotInfo:
            (found,) = [s for s in eve.slots.values() if s.kind == kind]
            return found

        await until(lambda: slot("audio").state == "playing", "its sound plays")
        unsupported = await until(
            lambda: slot("video").state == "codec_unsupported" and slot("video"), "it is told"
        )
        assert unsupported.participant_id == ada.id and unsupported.track_id
        await eve.hears(slot("audio").mid)


async def test_a_room_that_wants_h264_first_gets_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with node_of(site) as node, Page(site, "ada", brightness=60, pairs=0) as ada:
        await site.room(codecs=["h264", "vp8"])
        await ada.join()
        assert [t.codec for t in node.rooms.show_room("r").tracks] == ["opus", "h264"]


async def test_the_supervisor_is_killed_under_two_pages(tmp_path: Path) -> None:
    """The peer connections do not notice; the sessions come back as the same participants, and a
    supervisor that never saw the first offers takes the next ones."""
    site = Site(tmp_path)
    with up(site) as first:
        async with (
            Page(site, "ada", brightness=60, pairs=1) as ada,
            Page(site, "bob", brightness=220, pairs=1) as bob,
        ):
            await site.room()
            await ada.join()
            await bob.join()
            slot = await ada.shows(bob.id)
            await ada.sees(slot.mid, 220)
            states: list[str] = []
            ada.pc.on("connectionstatechange", lambda: states.append(ada.pc.connectionState))
            first.kill()
            await ada.sees(slot.mid, 220)  # nobody is there, and nobody is missed
            second = Up(site)
            try:
                await asyncio.to_thread(second.ready)
                for one in (ada, bob):
                    await until(lambda one=one: len(one.welcomes) == 2, "it is welcome again")
                    before, after = one.welcomes
                    assert after.resumed and after.participant_id == before.participant_id
                    assert after.answer is None and after.media is None
                assert (await ada.shows(bob.id)).mid == slot.mid
                await ada.sees(slot.mid, 220)
                assert states == [] and ada.pc.connectionState == "connected"
                ada.grow(1)
                await ada.offer_again()
                with pytest.raises(ClientError) as refused:
                    await ada.control.request(m.Publish, tracks=[MIC])
                assert refused.value.code is ErrorCode.FORBIDDEN
                await ada.control.leave()
                await until(lambda: bob.slot_of(ada.id) is None, "the other is told")
            finally:
                second.clean_up()


async def test_pages_whip_and_whep_share_a_room(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with (
        node_of(site) as node,
        http(site) as client,
        publisher(site, 220, "camera") as camera,
        viewer(site) as seen,
        Page(site, "ada", brightness=60, pairs=1) as ada,
    ):
        await site.room()
        await ada.join()
        await seen.join(client)
        await until(lambda: any(abs(b - 60) < 20 for b in seen.brightness), "WHEP shows the page")
        await camera.join(client)
        await until(lambda: len(list(node.rooms.participants())) == 3, "all are here")
        who = next(p.id for p in node.rooms.participants() if p.name == "camera")
        await ada.sees((await ada.shows(who)).mid, 220)


REFUSED = [
    ("no SDP", "hello", ErrorCode.BAD_MESSAGE),
    ("empty", "", ErrorCode.BAD_MESSAGE),
    ("nothing in common", "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", ErrorCode.CODEC_UNSUPPORTED),
]


@pytest.mark.parametrize(("what", "text", "code"), REFUSED)
async def test_an_offer_that_is_refused_leaves_nobody(
    tmp_path: Path, what: str, text: str, code: ErrorCode
) -> None:
    site = Site(tmp_path)
    async with node_of(site) as node, Page(site, "eve", pairs=1) as eve:
        await site.room()
        with pytest.raises(ClientError) as refused:
            await eve.control.join(text)
        assert refused.value.code is code and len(str(refused.value)) > 20
        assert not list(node.rooms.participants())
        await eve.join()  # and may try again


async def test_a_passive_that_publishes_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with node_of(site) as node, Page(site, "eve", Role.PASSIVE, brightness=60) as eve:
        await site.room()
        with pytest.raises(ClientError) as refused:
            await eve.join()
        assert refused.value.code is ErrorCode.FORBIDDEN
        assert not list(node.rooms.participants())


async def test_further_offers_change_nothing_old(tmp_path: Path) -> None:
    """What is refused is refused with a sentence, and the call goes on."""
    site = Site(tmp_path)
    ada = Page(site, "ada", brightness=60, pairs=1)
    bob = Page(site, "bob", brightness=220, pairs=1)
    async with meeting(site, ada, bob) as (node, _):
        slot = await ada.shows(bob.id)
        good = str(ada.pc.localDescription.sdp)
        payload = next(line for line in good.splitlines() if "VP8/90000" in line)
        pt = payload.removeprefix("a=rtpmap:").split()[0]
        fingerprint = next(line for line in good.splitlines() if "fingerprint" in line)
        for bad in (
            good.replace(f":{pt} ", ":126 ").replace(f" {pt} ", " 126 "),
            good.replace("sdes:mid", "sdes:other"),
            good.replace("a=sendonly", "a=recvonly"),
            good.replace("a=recvonly", "a=inactive"),
            good.replace(fingerprint, fingerprint[:-2] + "00"),
            "v=0",
        ):
            assert bad != good
            with pytest.raises(ClientError) as refused:
                await ada.control.request(m.Offer, sdp=bad)
            assert refused.value.code is ErrorCode.BAD_MESSAGE, bad
        with pytest.raises(ClientError):
            await ada.control.request(m.LayerWish, mid="nope", layer=0)
        await ada.control.request(m.LayerWish, mid=slot.mid, layer=0)
        await ada.control.request(m.LayerWish, mid=slot.mid, layer="auto")
        assert len(node.rooms.show_room("r").tracks) == 4
        await ada.sees(slot.mid, 220)
        await bob.sees((await bob.shows(ada.id)).mid, 60)


async def test_ice_restarts_by_an_offer(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ada = Page(site, "ada", brightness=60, pairs=1)
    async with meeting(site, ada) as (node, _):
        first = ada.welcomes[0]
        await until(lambda: ada.pc.connectionState == "connected", "connected")
        me = node.rooms.participant(ada.id)
        old = (me.ufrag, me.password, me.tuples)
        text = str(ada.pc.localDescription.sdp)
        ufrag = sdp_transform.parse(text)["media"][0]["iceUfrag"]
        answer = await ada.control.request(m.Offer, sdp=text.replace(str(ufrag), "NewU"))
        assert me.ufrag != old[0] and me.password != old[1] and me.tuples == old[2]
        assert f"a=ice-ufrag:{me.ufrag}\r\n" in answer.sdp
        assert first.answer is not None and first.answer.count("m=") == answer.sdp.count("m=")
        assert me.peer is not None and me.peer.ufrag == "NewU"


@pytest.mark.parametrize("browser", ["chromium", "firefox"])
async def test_offers_of_real_browsers_fill_nine_pairs_and_three_sounds(
    tmp_path: Path, browser: str
) -> None:
    site = Site(tmp_path)
    text = (FIXTURES / f"{browser}-session.sdp").read_text().replace("\n", "\r\n")
    async with node_of(site) as node, Page(site, "ada", pairs=0) as ada:
        await site.room()
        welcome = await ada.control.join(text)
        pairs = [slot.pair for slot in welcome.slots]
        assert sorted(pairs) == [-1] * 3 + sorted([*range(9)] * 2)
        assert len({slot.mid for slot in welcome.slots}) == 21
        assert welcome.answer is not None and welcome.answer.count("a=setup:passive") == 23
        me = node.rooms.participant(welcome.participant_id)
        assert me.peer is not None and me.peer.feedback and me.peer.nack
        assert all(slot.rtx_ssrc for slot in me.slots if slot.spec.kind is Kind.VIDEO)
        assert len(me.tracks) == 2


async def test_a_page_whose_handshake_never_comes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The participant leaves at the deadline, and its session ends with the reason."""
    monkeypatch.setattr(dtls, "DEADLINE_S", 0.3)
    site = Site(tmp_path)
    async with node_of(site) as node, Page(site, "ada", brightness=60, pairs=1) as ada:
        await site.room()
        await ada.control.join(await ada.offer())  # and nothing is done with the answer
        told = await until(lambda: ada.of(m.Closing), "the session ends")
        assert "handshake" in told[0].reason
        assert not list(node.rooms.participants())
        assert (await node.status())["dtls"]["expired"] == 1


async def test_too_many_handshakes_are_refused_in_a_session_too(tmp_path: Path) -> None:
    site = Site(tmp_path, change={"ice": {"max_half_open": 1}})
    async with (
        node_of(site) as node,
        Page(site, "ada", pairs=1) as ada,
        Page(site, "bob", pairs=1) as bob,
    ):
        await site.room()
        await ada.control.join(await ada.offer())
        with pytest.raises(ClientError) as refused:
            await bob.join()
        assert refused.value.code is ErrorCode.UNAVAILABLE
        assert len(list(node.rooms.participants())) == 1
