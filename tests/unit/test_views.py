"""Rooms as messages: who is told what, and that keys leave the node in one place only."""

from __future__ import annotations

import base64

import pytest
from rooms_kit import audio, join, make_rooms, tuple5, video

from forwarder.errors import ErrorCode
from forwarder.rooms import events
from forwarder.rooms.core import Rooms
from forwarder.rooms.room import Participant, view_participant, view_track
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as m
from forwarder.supervisor import views


@pytest.fixture
def rooms() -> Rooms:
    made = make_rooms()
    made.create_room("r", now=0.0)
    return made


def person(rooms: Rooms, suite: Suite = Suite.GCM) -> Participant:
    from forwarder.rooms.roles import Role

    return rooms.join("r", name="Ada", role=Role.ACTIVE, suites=[suite], now=0.0)


@pytest.mark.parametrize(("suite", "size"), [(Suite.GCM, 16 + 12), (Suite.SHA1, 16 + 14)])
def test_the_offer_has_the_keys_from_the_clients_side(
    rooms: Rooms, suite: Suite, size: int
) -> None:
    me = person(rooms, suite)
    offer = views.media_offer(me, [("192.0.2.1", 443)])
    send, receive = base64.b64decode(offer.send_key), base64.b64decode(offer.receive_key)
    assert (len(send), len(receive)) == (size, size)
    assert send[:16] == me.rx_key and receive[:16] == me.tx_key and send != receive
    assert (offer.ufrag, offer.password) == (me.ufrag, me.password)
    assert offer.addresses == [("192.0.2.1", 443)] and offer.rtcp_ssrc == me.rtcp_ssrc


def test_the_welcome_shows_others_and_their_tracks(rooms: Rooms) -> None:
    other, me = person(rooms), person(rooms)
    (track,) = rooms.publish(other.id, [audio(11, "mic")])
    found = views.welcome(
        me,
        rooms.others(me.id),
        rooms.tracks_of_others(me.id),
        views.media_offer(me, []),
        re=5,
        resumed=False,
    )
    assert found.re == 5 and found.participant_id == me.id and found.resume == me.resume
    assert [(p.id, p.name) for p in found.participants] == [(other.id, "Ada")]
    assert [(t.id, t.label, t.muted) for t in found.tracks] == [(track.id, "mic", False)]


def test_no_message_but_the_welcome_tells_a_secret(rooms: Rooms) -> None:
    me, other = person(rooms), person(rooms)
    rooms.publish(me.id, [audio(11), video(12)])
    rooms.subscribe(other.id, list(me.tracks), True)
    rooms.set_tuples(me.id, [tuple5(5001)], 0)
    rooms.mute(me.id, next(iter(me.tracks)), True)
    rooms.leave(me.id, "bye", 1.0)
    told = [views.message_of(event) for event in rooms.drain_events()]
    text = " ".join(message.model_dump_json() for message in told if message is not None)
    text += views.room_detail(rooms.show_room("r")).model_dump_json()
    for secret in (me.password, me.ufrag, me.resume):
        assert secret not in text
    for key in (me.rx_key, me.tx_key):
        assert base64.b64encode(key).decode()[:20] not in text


def test_each_event_has_its_message(rooms: Rooms) -> None:
    me, other = person(rooms), person(rooms)
    (track,) = rooms.publish(me.id, [audio(11, "mic")])
    (subscription,) = rooms.subscribe(other.id, [track.id], False)
    who, what, room = view_participant(me), view_track(track), me.room_id
    assert views.message_of(events.ParticipantJoined(room, who)) == m.ParticipantJoined(
        participant=views.participant_info(who)
    )
    left = views.message_of(events.ParticipantLeft(room, who, "why"))
    assert left == m.ParticipantLeft(participant_id=me.id, reason="why")
    assert views.message_of(events.TrackPublished(room, what)) == m.TrackPublished(
        track=views.track_info(what)
    )
    assert views.message_of(events.TrackUnpublished(room, what)) == m.TrackUnpublished(
        track_id=track.id
    )
    muted = views.message_of(events.TrackMuted(room, what, True))
    assert muted == m.TrackMuted(track_id=track.id, muted=True)
    told = views.message_of(events.Subscribed(room, other.id, (subscription,)))
    assert isinstance(told, m.Subscribed) and told.re is None
    (info,) = told.subscriptions
    assert (info.track_id, info.ssrc, info.pt) == (track.id, subscription.out_ssrc, track.spec.pt)
    refused = events.SubscriptionRefused(room, other.id, track.id, ErrorCode.LIMIT, "too many")
    assert views.message_of(refused) == m.Error(code=ErrorCode.LIMIT, message="too many")
    gone = views.message_of(events.Unsubscribed(room, track.id, (other.id,)))
    assert gone == m.Unsubscribed(track_ids=[track.id])
    assert views.message_of(events.LegLost(room, me.id, me.leg)) == m.LegState(state="lost")


def test_live_and_closed_are_told_elsewhere(rooms: Rooms) -> None:
    """`live` waits for the table (P-3); a closed room closes the sessions."""
    me = person(rooms)
    assert views.message_of(events.LegLive(me.room_id, me.id, me.leg)) is None
    assert views.message_of(events.RoomClosed(me.room_id, "why", (me.id,))) is None


def test_an_offer_becomes_the_specification_of_a_track() -> None:
    spec = video(12, "camera")
    offer = m.TrackOffer(
        label="camera", kind=spec.kind, codec=spec.codec, pt=spec.pt, clock_hz=90000, ssrc=12
    )
    assert views.track_spec(offer) == spec


def test_a_room_is_shown_with_its_counts(rooms: Rooms) -> None:
    me = person(rooms)
    rooms.publish(me.id, [audio(11)])
    join(rooms, "r")
    info = views.room_info(rooms.list_rooms()[0])
    assert (info.id, info.active, info.passive, info.track_count) == ("r", 2, 0, 1)
    detail = views.room_detail(rooms.show_room("r"))
    assert len(detail.participants) == 2 and [t.label for t in detail.tracks] == ["a11"]
