"""Who receives which track.

Law: nobody receives a track of his own, and nobody receives a track twice; each subscription has
an identity (SSRC, first sequence number, timestamp offset) of its own that no other ever had.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import ParticipantId, TrackId
from forwarder.rooms.admission import SUBSCRIPTIONS_MAX
from forwarder.rooms.choosing import choose
from forwarder.rooms.room import Participant, Subscription, Track
from forwarder.rooms.state import State

SEQ_START_BITS = 15
"""A first sequence number is below 2^15 (RFC 3711 section 3.3.1)."""


def admit_subscriptions(state: State, subscriber: Participant, count: int) -> None:
    if len(subscriber.subscriptions) + count > SUBSCRIPTIONS_MAX:
        raise Refused(
            ErrorCode.LIMIT,
            f"a participant may receive {SUBSCRIPTIONS_MAX} tracks: unsubscribe from some first",
        )
    state.check_routes(count)


def link(state: State, subscriber: Participant, track: Track) -> Subscription:
    """A new subscription; it was admitted before."""
    room = state.rooms[subscriber.room_id]
    subscription = Subscription(
        track=track,
        subscriber=subscriber,
        route=state.new_route(),
        out_ssrc=state.ssrcs.take(room.ssrcs),
        seq_start=state.secrets.randbits(SEQ_START_BITS),
        ts_offset=state.secrets.randbits(32),
        layer=len(track.layers) - 1,
    )
    state.add_subscription(subscription)
    return subscription


def unlink_track(state: State, track: Track) -> tuple[ParticipantId, ...]:
    """Ends all subscriptions of a track; returns who had it."""
    receivers = tuple(track.subscriptions)
    for subscription in list(track.subscriptions.values()):
        state.drop_subscription(subscription)
    return receivers


def subscribe(
    state: State, subscriber: Participant, track_ids: Sequence[str], auto: bool
) -> list[Subscription]:
    """All named tracks or none; own ones are left out; those that he has already stay as they are.

    `auto` stays on once it was set.
    """
    room = state.rooms[subscriber.room_id]
    wanted: dict[TrackId, Track] = {}
    for track_id in track_ids:
        track = state.track_in(room, track_id)
        if track.publisher is not subscriber:
            wanted[track.id] = track
    new = [t for t in wanted.values() if t.id not in subscriber.subscriptions]
    admit_subscriptions(state, subscriber, len(new))
    fresh = [link(state, subscriber, track) for track in new]
    if subscriber.ladder is not None and fresh:
        choose(state, subscriber, fresh)
    if auto and not subscriber.auto:
        subscriber.auto = True
        room.autos[subscriber.id] = subscriber
        state.touch_participant(subscriber)
    return [subscriber.subscriptions[track_id] for track_id in wanted]


def unsubscribe(state: State, subscriber: Participant, track_ids: Sequence[str]) -> list[TrackId]:
    """Those of the named tracks that he received until now; others are no fault."""
    ended = []
    for track_id in track_ids:
        subscription = subscriber.subscriptions.get(TrackId(track_id))
        if subscription is not None:
            state.drop_subscription(subscription)
            ended.append(subscription.track.id)
    return ended
