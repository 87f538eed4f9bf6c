"""Between SDP and rooms: what a further offer is compared with, also by a supervisor that was
started anew and never saw the first one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rooms_kit import SeededSecrets
from test_sdp import offer
from test_sdp_clients import with_pairs

from forwarder.errors import ProtocolError
from forwarder.rooms.admission import Limits
from forwarder.rooms.core import Rooms
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant
from forwarder.rooms.snapshot import restore, snapshot
from forwarder.rtp.codecs import Kind
from forwarder.signaling.sdp import SESSION, Negotiation, negotiate, parse_offer
from forwarder.supervisor.offers import (
    BOTH,
    begun_anew,
    check_kept,
    check_session,
    local,
    peer_of,
    remembered,
    session_id,
    slot_spec,
    track_specs,
)
from forwarder.table import Ext

TEXT = offer("chromium-session").decode()


class World:
    def __init__(self) -> None:
        self.rooms = Rooms(Limits(), SeededSecrets())
        self.rooms.create_room("r", now=0.0)
        self.made = negotiate(parse_offer(TEXT.encode()), SESSION)
        self.me = self.rooms.join_peer(
            "r",
            name="n",
            role=Role.ACTIVE,
            peer=peer_of(self.made, BOTH),
            tracks=track_specs(self.made),
            places=[slot_spec(item) for item in self.made.send],
            now=0.0,
        )
        self.me.keyed = True

    def restarted(self) -> Participant:
        """What the next supervisor knows of it."""
        rooms, faults = restore(snapshot(self.rooms), Limits(), SeededSecrets(2), 5.0)
        assert not faults
        return rooms.participant(self.me.id)


def again(me: Participant, text: str, version: int = 7) -> Negotiation:
    parsed = parse_offer(text.encode())
    made = negotiate(parsed, SESSION, remembered(me, negotiate(parsed, SESSION), None, version))
    check_kept(me, made)
    return made


def test_the_same_offer_again_changes_nothing() -> None:
    world = World()
    made = again(world.restarted(), TEXT)
    assert [(a.mid, a.pair) for a in made.send] == [(a.mid, a.pair) for a in world.made.send]
    assert made.version == 8


def test_new_pairs_go_on_from_the_old_ones() -> None:
    """Taken alone, the offer would make pairs of the lines that are for sound alone."""
    world = World()
    text = with_pairs(TEXT, 3)
    fresh = negotiate(parse_offer(text.encode()), SESSION)
    made = again(world.restarted(), text)
    old = {slot.spec.mid: slot.spec.pair for slot in world.me.slots}
    assert {a.mid: a.pair for a in fresh.send if a.mid in old} != old
    assert {a.mid: a.pair for a in made.send if a.mid in old} == old
    new = [(a.kind, a.pair) for a in made.send if a.mid not in old]
    assert sorted(new) == sorted((kind, pair) for kind in Kind for pair in (9, 10, 11))


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new)


BAD = {
    "payload types": lambda: changed("a=rtpmap:96 VP8/90000", "a=rtpmap:96 VP9/90000"),
    "a place": lambda: changed("a=recvonly", "a=inactive"),
    "another way": lambda: changed("a=sendonly", "a=recvonly"),
    "ids of extensions": lambda: changed(
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=extmap:13 urn:ietf:params:rtp-hdrext:sdes:mid",
    ).replace("a=extmap:13 urn:3gpp", "a=extmap:4 urn:3gpp"),
    "an extension less": lambda: changed(":ssrc-audio-level", ":nothing"),
}


@pytest.mark.parametrize("what", BAD)
def test_nothing_old_may_change(what: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        again(World().restarted(), BAD[what]())
    assert len(str(refused.value)) > 30


def test_a_line_that_ends_takes_its_extensions_along() -> None:
    """Nothing else maps them: what is left is as before, and they come back with the line."""
    world = World()
    (audio,) = [x.media.mid for x in world.made.receive if x.kind is Kind.AUDIO]
    assert world.me.peer is not None
    level = world.me.peer.rx_ext[Ext.AUDIO_LEVEL]
    head, *sections = TEXT.split("m=")
    ended = [
        x.replace("a=sendonly", "a=inactive") if f"a=mid:{audio}\r\n" in x else x for x in sections
    ]
    made = again(world.me, "m=".join([head, *ended]))
    assert [item.kind for item in made.receive] == [Kind.VIDEO]
    left = peer_of(made, BOTH).rx_ext
    assert level and not left[Ext.AUDIO_LEVEL] and left[Ext.MID]
    world.rooms.set_peer(world.me.id, peer_of(made, BOTH))
    assert peer_of(again(world.me, TEXT), BOTH).rx_ext[Ext.AUDIO_LEVEL] == level


def test_two_pictures_have_labels_of_their_own() -> None:
    world = World()
    (video,) = [item for item in world.made.receive if item.kind is Kind.VIDEO]
    other = replace(video, media=replace(video.media, mid="77", index=50))
    made = replace(world.made, accepted=(*world.made.accepted, other))
    assert [spec.label for spec in track_specs(made)] == ["audio", "video", "video-77"]
    assert [s.label for s in track_specs(made, ["audio"])] == ["audio-0", "video", "video-77"]


def test_a_session_must_be_able_to_name_its_tracks() -> None:
    made = World().made
    check_session(made)

    def without_mids(ssrc: int | None) -> Negotiation:
        """The extension is not agreed on; each stream has this SSRC."""
        items = tuple(
            replace(item, layers=tuple(replace(one, ssrc=ssrc) for one in item.layers))
            for item in made.accepted
        )
        return replace(made, rx_extensions={}, accepted=items)

    check_session(without_mids(5))
    with pytest.raises(ProtocolError):
        check_session(without_mids(None))


def test_the_two_of_a_pair_are_one_stream() -> None:
    world = World()
    side = local(world.me, "AA", ())
    names = {slot.spec.mid: slot.spec.pair for slot in world.me.slots}
    streams: dict[str, set[int]] = {}
    for mid, stream in side.streams.items():
        streams.setdefault(stream.stream, set()).add(names[mid])
    assert sorted(streams) == sorted(
        [f"pair{n}" for n in range(9)] + [n for n in streams if n.startswith("sound")]
    )
    assert len(streams) == 12 and all(len(pairs) == 1 for pairs in streams.values())
    assert side.session_id == session_id(world.restarted())


def test_a_sender_that_was_put_in_anew_is_another_track() -> None:
    """Chromium: removeTrack and addTrack give the m-line other SSRCs, the mid stays."""
    me = World().restarted()
    (track,) = (t for t in me.tracks.values() if t.spec.ssrcs)
    (ssrc,) = track.spec.ssrcs
    text = changed(f"a=ssrc:{ssrc} ", f"a=ssrc:{ssrc ^ 1} ")
    made = again(me, text)
    assert begun_anew(me, made) == {track.spec.mid}
    (line,) = (item for item in made.receive if item.media.mid == track.spec.mid)
    assert [layer.ssrc for layer in line.layers] == [ssrc ^ 1]
    assert begun_anew(me, again(me, TEXT)) == frozenset()
