"""Publishing and subscribing: roles, limits, all or nothing, identities."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rooms_kit import audio, join, make_rooms, simulcast, video
from test_rooms import happened, refused

from forwarder.errors import ErrorCode
from forwarder.rooms import events
from forwarder.rooms.admission import SUBSCRIPTIONS_MAX, TRACKS_MAX
from forwarder.rooms.plan import plan
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec, Kind


@pytest.fixture
def rooms():
    rooms = make_rooms()
    rooms.create_room("r", now=0.0)
    return rooms


def unchanged(rooms):
    """What a refused request must leave as it was."""
    return plan(rooms), rooms.statistics(), rooms.state.sources.available


def test_publish_and_subscribe(rooms):
    a, b = join(rooms, role=Role.HOST), join(rooms, role=Role.PASSIVE)
    rooms.drain_events()
    sound, picture = rooms.publish(a.id, [audio(1), video(2)])
    assert happened(rooms) == ["TrackPublished"] * 2
    assert rooms.tracks_of_others(b.id) == [sound, picture]
    assert rooms.tracks_of_others(a.id) == []
    subs = rooms.subscribe(b.id, [picture.id, sound.id, picture.id])
    assert [s.track for s in subs] == [picture, sound]
    assert len({s.out_ssrc for s in subs}) == 2
    assert all(s.seq_start < 1 << 15 for s in subs)
    assert rooms.subscribe(b.id, [picture.id]) == [subs[0]]
    assert rooms.subscription(b.id, picture.id) is subs[0]
    assert rooms.track_by_source(sound.source) is sound
    assert rooms.subscription_by_route(subs[0].route) is subs[0]
    assert happened(rooms) == []
    assert rooms.unsubscribe(b.id, [sound.id, sound.id, "t-unknown"]) == [sound.id]
    refused(ErrorCode.NO_SUCH_TRACK, rooms.subscription, b.id, sound.id)


def test_own_tracks_are_left_out(rooms):
    a = join(rooms)
    (track,) = rooms.publish(a.id, [audio(1)])
    assert rooms.subscribe(a.id, [track.id], auto=True) == []
    rooms.publish(a.id, [audio(2)])
    assert rooms.statistics().subscriptions == 0


def test_subscribe_is_all_or_nothing(rooms):
    a, b = join(rooms), join(rooms)
    (track,) = rooms.publish(a.id, [audio(1)])
    refused(ErrorCode.NO_SUCH_TRACK, rooms.subscribe, b.id, [track.id, "nope"], auto=True)
    assert b.subscriptions == {} and not b.auto


def test_tracks_of_another_room_do_not_exist(rooms):
    rooms.create_room("other", now=0.0)
    far, near = join(rooms, "other"), join(rooms)
    (track,) = rooms.publish(far.id, [audio(1)])
    refused(ErrorCode.NO_SUCH_TRACK, rooms.subscribe, near.id, [track.id])
    rooms.publish(near.id, [audio(1)])  # the same SSRC in another room is no fault


BAD_TRACKS = [
    (ErrorCode.SSRC_IN_USE, [audio(7)]),
    (ErrorCode.SSRC_IN_USE, [audio(1), video(1)]),
    (ErrorCode.BAD_MESSAGE, [audio(1, "x"), video(2, "x")]),
    (ErrorCode.BAD_MESSAGE, [audio(1), replace(video(2), pt=72)]),
    (ErrorCode.BAD_MESSAGE, [replace(video(2), pt=128)]),
    (ErrorCode.BAD_MESSAGE, [replace(video(2), ssrc=0)]),
    (ErrorCode.BAD_MESSAGE, [replace(video(2), ssrc=1 << 32)]),
    (ErrorCode.CODEC_UNSUPPORTED, [audio(1), replace(video(2), codec=Codec.OPUS)]),
    (ErrorCode.CODEC_UNSUPPORTED, [replace(audio(2), clock_hz=90000)]),
    (ErrorCode.LIMIT, [audio(100 + i) for i in range(TRACKS_MAX + 1)]),
    (ErrorCode.LIMIT, [simulcast("a", "b", "c", "d")]),
    (ErrorCode.BAD_MESSAGE, [simulcast("a", "a")]),
    (ErrorCode.BAD_MESSAGE, [simulcast("a", "")]),
    (ErrorCode.SSRC_IN_USE, [simulcast("a", "b", ssrc=4)]),
    (ErrorCode.BAD_MESSAGE, [replace(simulcast("a", "b"), rtx_pt=96)]),
    (ErrorCode.BAD_MESSAGE, [replace(simulcast("a", "b", ssrc=4), rtx_pt=None)]),
    (ErrorCode.BAD_MESSAGE, [replace(audio(1), layers=simulcast("a", "b").layers)]),
]


@pytest.mark.parametrize(("code", "specs"), BAD_TRACKS)
def test_publish_is_all_or_nothing(rooms, code, specs):
    a, b = join(rooms), join(rooms)
    rooms.publish(a.id, [video(7)])
    before = unchanged(rooms)
    rooms.drain_events()
    refused(code, rooms.publish, b.id, specs)
    assert unchanged(rooms) == before
    assert happened(rooms) == []


@pytest.mark.parametrize("role", [Role.PASSIVE, Role.BACKSTAGE])
def test_roles_that_may_not_publish(rooms, role):
    p = join(rooms, role=role)
    assert str(role) in refused(ErrorCode.FORBIDDEN, rooms.publish, p.id, [audio(1)])


def test_ssrcs_of_the_own_leg_cannot_be_published(rooms):
    a, b = join(rooms), join(rooms)
    (track,) = rooms.publish(a.id, [audio(1)])
    (subscription,) = rooms.subscribe(b.id, [track.id])
    refused(ErrorCode.SSRC_IN_USE, rooms.publish, b.id, [audio(subscription.out_ssrc)])
    refused(ErrorCode.SSRC_IN_USE, rooms.publish, b.id, [audio(b.rtcp_ssrc)])


def test_outgoing_ssrcs_avoid_the_incoming_ones(rooms):
    a, b = join(rooms), join(rooms)
    walk = rooms.state.ssrcs
    following = [
        (walk.multiplier * (walk.counter + i) + walk.offset) & 0xFFFFFFFF for i in range(5)
    ]
    tracks = rooms.publish(a.id, [audio(ssrc) for ssrc in following[:4]])
    (subscription,) = rooms.subscribe(b.id, [tracks[0].id])
    assert subscription.out_ssrc == following[4]


def test_outgoing_ssrcs_are_never_used_again(rooms):
    a, b = join(rooms), join(rooms)
    (track,) = rooms.publish(a.id, [audio(1)])
    seen = set()
    for _ in range(100):
        (subscription,) = rooms.subscribe(b.id, [track.id])
        seen.add(subscription.out_ssrc)
        rooms.unsubscribe(b.id, [track.id])
    assert len(seen) == 100 and rooms.subscribe(b.id, [track.id])[0].route == 0


def test_auto_subscribers_get_what_is_published_later(rooms):
    a, b, c = (join(rooms) for _ in range(3))
    (first,) = rooms.publish(a.id, [audio(1)])
    assert rooms.subscribe(b.id, [], auto=True) == []
    assert rooms.subscribe(b.id, []) == []  # stays on
    rooms.drain_events()
    tracks = rooms.publish(a.id, [audio(2), video(3)])
    *published, given = rooms.drain_events()
    assert [type(e) for e in published] == [events.TrackPublished] * 2
    assert list(rooms.recipients(published[0])) == [b.id, c.id]
    assert isinstance(given, events.Subscribed)
    assert list(rooms.recipients(given)) == [b.id]
    assert [s.track for s in given.subscriptions] == tracks
    assert first.id not in b.subscriptions and c.subscriptions == {}


def test_unpublish(rooms):
    a, b = join(rooms), join(rooms)
    kept, gone = rooms.publish(a.id, [audio(1), video(2)])
    rooms.subscribe(b.id, [kept.id, gone.id])
    rooms.drain_events()
    refused(ErrorCode.NO_SUCH_TRACK, rooms.unpublish, b.id, [gone.id])
    refused(ErrorCode.NO_SUCH_TRACK, rooms.unpublish, a.id, [gone.id, "nope"])
    assert rooms.unpublish(a.id, [gone.id, gone.id]) == [gone.id]
    unsubscribed, unpublished = rooms.drain_events()
    assert unsubscribed == events.Unsubscribed("r", gone.id, (b.id,))
    assert list(rooms.recipients(unpublished)) == [b.id]
    assert list(b.subscriptions) == [kept.id]
    rooms.publish(a.id, [video(2)])


def test_leaving_takes_tracks_and_subscriptions_along(rooms):
    a, b = join(rooms), join(rooms)
    (of_a,) = rooms.publish(a.id, [audio(1)])
    (of_b,) = rooms.publish(b.id, [audio(2)])
    rooms.subscribe(a.id, [of_b.id], auto=True)
    rooms.subscribe(b.id, [of_a.id])
    rooms.drain_events()
    rooms.leave(a.id, "bye", now=0.0)
    assert happened(rooms) == ["Unsubscribed", "TrackUnpublished", "ParticipantLeft"]
    assert rooms.statistics().subscriptions == 0
    rooms.publish(b.id, [audio(1)])
    refused(ErrorCode.NO_SUCH_PARTICIPANT, rooms.publish, a.id, [audio(3)])
    refused(ErrorCode.NO_SUCH_PARTICIPANT, rooms.leave, a.id, "again", now=0.0)


def test_mute(rooms):
    a, b = join(rooms), join(rooms)
    (track,) = rooms.publish(a.id, [audio(1)])
    (subscription,) = rooms.subscribe(b.id, [track.id])
    rooms.drain_events()
    rooms.drain_dirty()
    refused(ErrorCode.NO_SUCH_TRACK, rooms.mute, b.id, track.id, True)
    rooms.mute(a.id, track.id, True)
    rooms.mute(a.id, track.id, True)
    (muted,) = rooms.drain_events()
    assert muted.muted and muted.track.muted and list(rooms.recipients(muted)) == [b.id]
    assert rooms.drain_dirty().routes == {subscription.route}
    assert plan(rooms).routes[subscription.route].paused


@pytest.mark.parametrize(
    ("limits", "specs", "key"),
    [
        ({"sources_max": 2}, [audio(i) for i in (1, 2, 3)], "sources_max"),
        ({"history_audio": 2}, [audio(i) for i in (1, 2, 3)], "history_audio"),
        ({"history_video": 1}, [audio(1), video(2), video(3)], "history_video"),
    ],
)
def test_node_limits_of_sources(limits, specs, key):
    rooms = make_rooms(**limits)
    rooms.create_room("r", now=0.0)
    a = join(rooms)
    assert key in refused(ErrorCode.LIMIT, rooms.publish, a.id, specs)
    tracks = rooms.publish(a.id, specs[:-1])
    rooms.drain_dirty()
    rooms.unpublish(a.id, [t.id for t in tracks])
    refused(ErrorCode.LIMIT, rooms.publish, a.id, specs)
    last = specs[-1:]
    refused(ErrorCode.LIMIT, rooms.publish, a.id, last)  # held until the data plane let go
    assert rooms.released("source", tracks[-1].source)
    rooms.publish(a.id, last)


def test_histories_come_back_after_a_dump_without_their_source():
    rooms = make_rooms(history_video=1)
    rooms.create_room("r", now=0.0)
    a = join(rooms)
    (track,) = rooms.publish(a.id, [video(1)])
    rooms.drain_dirty()
    rooms.unpublish(a.id, [track.id])
    rooms.observed([0], [track.source], [])
    refused(ErrorCode.LIMIT, rooms.publish, a.id, [video(2)])
    rooms.observed([0], [], [])
    rooms.publish(a.id, [video(2)])
    rooms.observed([0], [], [])
    assert rooms.state.histories[Kind.VIDEO] == 0


def test_node_limit_of_routes():
    rooms = make_rooms(routes_max=1)
    rooms.create_room("r", now=0.0)
    a, b, c = (join(rooms) for _ in range(3))
    rooms.subscribe(b.id, [], auto=True)
    rooms.subscribe(c.id, [], auto=True)
    rooms.drain_events()
    (track,) = rooms.publish(a.id, [audio(1)])  # must not fail for the sake of a subscriber
    got, missed = rooms.drain_events()[1:]
    assert list(rooms.recipients(got)) == [b.id]
    assert list(rooms.recipients(missed)) == [c.id]
    assert missed.code is ErrorCode.LIMIT and missed.track_id == track.id
    assert "routes_max" in refused(ErrorCode.LIMIT, rooms.subscribe, c.id, [track.id])


def test_limit_of_subscriptions():
    publishers = SUBSCRIPTIONS_MAX // TRACKS_MAX + 1
    rooms = make_rooms(history_audio=10_000)
    rooms.create_room("r", max_active=publishers + 1, now=0.0)
    b = join(rooms)
    track_ids = []
    for n in range(publishers):
        specs = [audio(1 + n * TRACKS_MAX + i) for i in range(TRACKS_MAX)]
        track_ids += [t.id for t in rooms.publish(join(rooms).id, specs)]
    rooms.subscribe(b.id, track_ids[:SUBSCRIPTIONS_MAX])
    refused(ErrorCode.LIMIT, rooms.subscribe, b.id, track_ids[SUBSCRIPTIONS_MAX:])
    assert len(b.subscriptions) == SUBSCRIPTIONS_MAX
