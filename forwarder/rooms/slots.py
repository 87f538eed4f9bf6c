"""Which track is in which slot.

Law: a slot's route is in the table while it has a track, always with the same identity.  When a
track ends, its slot rests for one round of the reconciler: the data plane lets go of the old
source before the route comes back with another.

A viewer follows one publisher: the one it asked for, or the first in the room that has tracks, and
that one until it has none any more.
"""

from __future__ import annotations

from forwarder.errors import ErrorCode
from forwarder.rooms import events
from forwarder.rooms.room import Participant, Room, Slot, SlotState, Subscription, Track
from forwarder.rooms.state import State


def fill(state: State) -> None:
    """Puts tracks into the free slots of the rooms where something changed."""
    waiting, state.refill = state.refill, set()
    for room_id in waiting:
        room = state.rooms.get(room_id)
        if room is None:
            continue
        for viewer in room.participants.values():
            if viewer.slots:
                _fill_viewer(state, room, viewer)


def _fill_viewer(state: State, room: Room, viewer: Participant) -> None:
    publisher = _followed(room, viewer)
    for slot in viewer.slots:
        if slot.subscription is not None:
            continue
        track = _track_for(slot, publisher)
        if track is None:
            _become(state, slot, SlotState.WAITING, None)
        elif slot.pt(track.spec.codec) is None:
            _become(state, slot, SlotState.CODEC_UNSUPPORTED, track)
        else:
            put(state, slot, track, len(track.layers) - 1)


def _followed(room: Room, viewer: Participant) -> Participant | None:
    asked = viewer.peer.follow if viewer.peer is not None else ""
    for subscription in viewer.subscriptions.values():
        return subscription.track.publisher
    for participant in room.participants.values():
        if participant is viewer or not participant.keyed or not participant.tracks:
            continue
        if not asked or participant.id == asked:
            return participant
    return None


def _track_for(slot: Slot, publisher: Participant | None) -> Track | None:
    if publisher is None:
        return None
    taken = {s.subscription.track.id for s in slot.owner.slots if s.subscription is not None}
    for track in publisher.tracks.values():
        if track.kind is slot.spec.kind and track.id not in taken:
            return track
    return None


def put(state: State, slot: Slot, track: Track, layer: int) -> Subscription:
    """The slot is free, and its viewer can decode the track."""
    slot.state = SlotState.PLAYING
    slot.subscription = Subscription(
        track=track,
        subscriber=slot.owner,
        route=slot.route,
        out_ssrc=slot.out_ssrc,
        seq_start=slot.seq_start,
        ts_offset=slot.ts_offset,
        layer=layer,
        slot=slot,
    )
    state.add_subscription(slot.subscription)
    return slot.subscription


def _become(state: State, slot: Slot, to: SlotState, track: Track | None) -> None:
    if slot.state is to:
        return
    slot.state = to
    state.touch_slot(slot)
    if to is SlotState.CODEC_UNSUPPORTED and track is not None:
        state.events.append(
            events.SubscriptionRefused(
                track.room_id,
                slot.owner.id,
                track.id,
                ErrorCode.CODEC_UNSUPPORTED,
                f"you cannot decode {track.spec.codec}, which track {track.id} is sent in",
            )
        )
