"""Publishing: a participant's tracks, all or none.

Law: what is published is a source of the publisher's leg from this moment; whoever asked for
everything (`auto`) is subscribed in the same step.  A track is for others while its publisher's
role may publish; nothing that came while it might not is ever forwarded.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.errors import Refused
from forwarder.ids import TrackId
from forwarder.rooms import events
from forwarder.rooms.admission import check_publish
from forwarder.rooms.allocate import urlsafe
from forwarder.rooms.choosing import choose
from forwarder.rooms.room import Layer, Participant, Subscription, Track, TrackSpec, view_track
from forwarder.rooms.state import State
from forwarder.rooms.subscriptions import admit_subscriptions, link, unlink_track

TRACK_ID_BYTES = 9
"""Random bytes of a track id: 12 characters."""


def publish(state: State, publisher: Participant, specs: Sequence[TrackSpec]) -> list[Track]:
    room = state.rooms[publisher.room_id]
    check_publish(room, publisher, specs)
    state.check_sources([spec.kind for spec in specs for _ in spec.encodings])
    tracks = []
    for spec in specs:
        track = Track(
            id=_new_id(state),
            room_id=room.id,
            publisher=publisher,
            spec=spec,
            layers=[
                Layer(index, state.new_source(), layer)
                for index, layer in enumerate(spec.encodings)
            ],
        )
        state.add_track(track)
        tracks.append(track)
    _announce(state, publisher, tracks)
    return tracks


def _announce(state: State, publisher: Participant, tracks: list[Track]) -> None:
    room = state.rooms[publisher.room_id]
    state.events += [events.TrackPublished(room.id, view_track(track)) for track in tracks]
    for subscriber in room.autos.values():
        if subscriber is not publisher and tracks:
            _auto_subscribe(state, subscriber, tracks)


def show(state: State, publisher: Participant) -> None:
    """It may publish again: what it published before is there at once."""
    tracks = list(publisher.tracks.values())
    for track in tracks:
        state.part(track)
    _announce(state, publisher, tracks)


def hide(state: State, publisher: Participant) -> None:
    """It may publish no more: for others its tracks have ended.  Their sources stay, without a
    route: their roll-over counters go on whatever it sends (RFC 3711 section 3.3.1), so that it
    needs neither another SSRC nor an offer to be seen again."""
    for track in publisher.tracks.values():
        _withdraw(state, track)
        state.part(track)


def _new_id(state: State) -> TrackId:
    while True:
        track_id = TrackId("t" + urlsafe(state.secrets, TRACK_ID_BYTES))
        if track_id not in state.tracks:
            return track_id


def _auto_subscribe(state: State, subscriber: Participant, tracks: list[Track]) -> None:
    given: list[Subscription] = []
    for track in tracks:
        try:
            admit_subscriptions(state, subscriber, 1)
        except Refused as refused:
            state.events.append(
                events.SubscriptionRefused(
                    track.room_id, subscriber.id, track.id, refused.code, str(refused)
                )
            )
        else:
            given.append(link(state, subscriber, track))
    if given and subscriber.ladder is not None:
        choose(state, subscriber, given)
    if given:
        state.events.append(events.Subscribed(subscriber.room_id, subscriber.id, tuple(given)))


def unpublish(state: State, tracks: Sequence[Track]) -> None:
    for track in tracks:
        if track.shown:
            _withdraw(state, track)
        state.drop_track(track)


def _withdraw(state: State, track: Track) -> None:
    receivers = unlink_track(state, track)
    _forget_voice(state, track)
    if receivers:
        state.events.append(events.Unsubscribed(track.room_id, track.id, receivers))
    state.events.append(events.TrackUnpublished(track.room_id, view_track(track)))


def _forget_voice(state: State, track: Track) -> None:
    room = state.rooms[track.room_id]
    if room.voices is None:
        return
    spoke = room.voices.dominant == track.id
    room.voices.forget(track.id)
    if spoke:
        state.events.append(events.SpeakerChanged(room.id, None))


def mute(state: State, track: Track, muted: bool) -> None:
    """A muted track's routes are paused; its source stays, so that unmuting is quick."""
    if track.muted == muted:
        return
    track.muted = muted
    state.touch_track(track)
    if track.shown:
        state.events.append(events.TrackMuted(track.room_id, view_track(track), muted))
