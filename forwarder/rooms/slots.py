"""Slots: their identities, their limits, and what happens when another track comes into one.

Law: a slot's route is in the table while it has a track, always with the same identity; another
track or layer is another source of that route.  Which track belongs into which slot is seats.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import RoomId
from forwarder.rooms import events
from forwarder.rooms.admission import PAIRS_MAX, SOUNDS_MAX
from forwarder.rooms.choosing import choose, wanted_layer
from forwarder.rooms.room import (
    SOUND_ONLY,
    Participant,
    Room,
    Slot,
    SlotSpec,
    SlotState,
    Subscription,
    Track,
)
from forwarder.rooms.seats import Cast, arrange
from forwarder.rooms.state import State
from forwarder.rooms.subscriptions import SEQ_START_BITS
from forwarder.rtp.codecs import Kind

PAIR_MIDS_MAX = 1
"""Slots of a kind in one pair."""


def check_places(have: Iterable[Slot], new: Sequence[SlotSpec]) -> None:
    """All of the new ones, or none."""
    specs = [slot.spec for slot in have] + list(new)
    sounds = sum(spec.pair == SOUND_ONLY for spec in specs)
    pairs = {spec.pair for spec in specs if spec.pair != SOUND_ONLY}
    if len(pairs) > PAIRS_MAX or sounds > SOUNDS_MAX:
        raise Refused(
            ErrorCode.LIMIT,
            f"a viewer may have {PAIRS_MAX} pairs of slots and {SOUNDS_MAX} for sound alone, "
            f"not {len(pairs)} and {sounds}",
        )
    places = [(spec.pair, spec.kind) for spec in specs if spec.pair != SOUND_ONLY]
    if any(places.count(place) > PAIR_MIDS_MAX for place in set(places)):
        raise Refused(ErrorCode.BAD_MESSAGE, "a pair has at most one slot of each kind")
    mids = [spec.mid for spec in specs if spec.mid]
    if len(set(mids)) != len(mids):
        raise Refused(ErrorCode.BAD_MESSAGE, "each slot needs a mid of its own")
    if any(spec.pair == SOUND_ONLY and spec.kind is not Kind.AUDIO for spec in specs):
        raise Refused(ErrorCode.BAD_MESSAGE, "a slot for sound alone takes no picture")


def new_slot(state: State, viewer: Participant, spec: SlotSpec) -> None:
    """It was checked before, and there is a route."""
    taken = state.rooms[viewer.room_id].ssrcs
    state.add_slot(
        Slot(
            spec=spec,
            owner=viewer,
            route=state.new_route(),
            out_ssrc=state.ssrcs.take(taken),
            seq_start=state.secrets.randbits(SEQ_START_BITS),
            ts_offset=state.secrets.randbits(32),
            rtx_ssrc=state.ssrcs.take(taken) if spec.repairs else None,
            rtx_seq_start=state.secrets.randbits(SEQ_START_BITS) if spec.repairs else 0,
        )
    )


def fill(state: State) -> None:
    """Puts tracks into the slots of the rooms where something changed."""
    again: set[RoomId] = set()
    for room_id in tuple(state.refill):
        room = state.rooms.get(room_id)
        viewers = [p for p in room.participants.values() if p.slots] if room is not None else []
        if room is None or not viewers:
            continue
        cast = Cast(room)
        if any([_fill_viewer(state, room, cast, viewer) for viewer in viewers]):
            again.add(room_id)
    state.refill = again


def _fill_viewer(state: State, room: Room, cast: Cast, viewer: Participant) -> bool:
    """True: ask again soon."""
    seats = dict(viewer.seats)
    wanted = arrange(cast, viewer, state.now)
    if wanted.needs > viewer.asked_pairs:
        viewer.asked_pairs = wanted.needs
        state.events.append(events.NeedsSlots(room.id, viewer.id, wanted.needs))
    if viewer.seats != seats:
        state.touch_participant(viewer)
    moves = [
        (slot, track)
        for slot, track in zip(viewer.slots, wanted.tracks, strict=True)
        if track is not (slot.subscription.track if slot.subscription else slot.missed)
        or (track is None and slot.state is not SlotState.WAITING)
    ]
    for slot, _ in moves:
        if slot.subscription is not None:
            state.drop_subscription(slot.subscription)
    fresh = [shown for slot, track in moves if (shown := _move(state, slot, track))]
    if moves:
        choose(state, viewer, fresh)
    return wanted.again


def _move(state: State, slot: Slot, track: Track | None) -> Subscription | None:
    """Another track, or none, comes into a slot that is free."""
    slot.changed_at, slot.missed = state.now, None
    shown: Subscription | None = None
    if track is None:
        slot.state = SlotState.WAITING
    elif slot.pt(track.spec.codec) is None:
        slot.state, slot.missed = SlotState.CODEC_UNSUPPORTED, track
    else:
        shown = put(state, slot, track, wanted_layer(slot.owner, slot, track))
    state.touch_slot(slot)
    _tell(state, slot, track)
    return shown


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


def _tell(state: State, slot: Slot, track: Track | None) -> None:
    owner, spec = slot.owner, slot.spec
    state.events.append(
        events.SlotChanged(
            owner.room_id,
            owner.id,
            spec.mid,
            spec.pair,
            spec.kind,
            slot.state,
            track.id if track is not None else None,
            track.publisher.id if track is not None else None,
        )
    )
    if slot.missed is not None and owner.peer is not None and owner.peer.way == "SEND":
        state.events.append(
            events.SubscriptionRefused(
                owner.room_id,
                owner.id,
                slot.missed.id,
                ErrorCode.CODEC_UNSUPPORTED,
                f"you cannot decode {slot.missed.spec.codec}, which track {slot.missed.id} "
                "is sent in",
            )
        )
