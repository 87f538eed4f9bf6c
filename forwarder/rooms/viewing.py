"""The part of Rooms that is about viewing: pages and slots, who speaks, which layer is sent.

Law: what workers and receivers tell comes in here; unknown ids are of objects that just went, and
no fault.  Each call costs in proportion to what it is about, never to the number of rooms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import LegId, ParticipantId, RoomId, RouteId, SourceId
from forwarder.rooms import events, slots
from forwarder.rooms.admission import LAYERS_MAX, PAIRS_MAX
from forwarder.rooms.choosing import choose
from forwarder.rooms.layers import Ladder
from forwarder.rooms.ranking import rank
from forwarder.rooms.room import Layer, Participant, Room, Slot, SlotSpec, Track
from forwarder.rooms.speakers import FLOOR, Voices
from forwarder.rooms.state import State
from forwarder.rtp.codecs import Kind

SILENT_MAX = 2
"""Measurements without a packet after which a layer counts as not sent."""
RATE_WEIGHT = 0.5
"""Of the newest measurement of a layer's rate."""


class ViewingRooms:
    """See the module."""

    state: State

    # ---- what a viewer asks for -----------------------------------------------------------------

    def set_view(
        self, participant_id: str, participants: Sequence[str] | None, now: float | None = None
    ) -> Participant:
        """Whom the viewer sees, in the order of its pairs; None: whoever comes.  Somebody who is
        not there, or publishes nothing, leaves its pair empty."""
        self._at(now)
        viewer = self.state.participant(participant_id)
        if participants is not None:
            if len(participants) > PAIRS_MAX:
                raise Refused(
                    ErrorCode.LIMIT,
                    f"a view has at most {PAIRS_MAX} participants, not {len(participants)}",
                )
            if len(set(participants)) != len(participants):
                raise Refused(ErrorCode.BAD_MESSAGE, "a view names each participant once")
        viewer.page = None if participants is None else tuple(map(ParticipantId, participants))
        self.state.touch_participant(viewer)
        self.state.refill.add(viewer.room_id)
        return viewer

    def set_layer(self, participant_id: str, mid: str, layer: int | None) -> Slot:
        """The highest layer that the viewer wants in a slot, from 0; None: the best."""
        viewer = self.state.participant(participant_id)
        slot = next((s for s in viewer.slots if s.spec.mid == mid), None)
        if slot is None:
            raise Refused(ErrorCode.BAD_MESSAGE, f"you have no slot with the mid {mid[:16]!r}")
        if layer is not None and not 0 <= layer < LAYERS_MAX:
            raise Refused(ErrorCode.BAD_MESSAGE, f"layers are 0 to {LAYERS_MAX - 1}, not {layer}")
        if slot.limit != layer:
            slot.limit = layer
            self.state.touch_slot(slot)
            fresh = () if slot.subscription is None or layer is None else (slot.subscription,)
            choose(self.state, viewer, fresh)
        return slot

    def grow(self, participant_id: str, places: Sequence[SlotSpec]) -> list[Slot]:
        """More slots for a viewer that offered again: all of them, or none."""
        state = self.state
        viewer = state.participant(participant_id)
        slots.check_places(viewer.slots, places)
        state.check_routes(len(places))
        for place in places:
            slots.new_slot(state, viewer, place)
        return viewer.slots[len(viewer.slots) - len(places) :]

    def ask_again(self, participant_id: str) -> None:
        """Somebody listens to the viewer again: what it was asked for before may be lost."""
        viewer = self.state.participant(participant_id)
        if viewer.asked_pairs:
            viewer.asked_pairs = 0
            self.state.refill.add(viewer.room_id)

    def fill_slots(self, now: float | None = None) -> None:
        """Call it after changes, before their events are told."""
        self._at(now)
        if self.state.refill:
            slots.fill(self.state)

    def _at(self, now: float | None) -> None:
        if now is not None and now > self.state.now:
            self.state.now = now

    # ---- who speaks -----------------------------------------------------------------------------

    def on_levels(self, levels: Iterable[tuple[int, int, float]], now: float) -> None:
        """(source, level, end of its window) of sounds whose window is new: level 0 loudest .. 127
        silent, times in seconds.  Of who has been silent for VOICE_KEPT_S nothing need be told."""
        self._at(now)
        state = self.state
        heard: dict[str, Room] = {}
        for source, level, at in levels:
            track = state.by_source.get(SourceId(source))
            if track is None or track.kind is not Kind.AUDIO or track.muted or not track.shown:
                continue
            room = state.rooms[track.room_id]
            if room.voices is None:
                if level >= FLOOR:
                    continue
                room.voices = Voices()
                state.talking.add(room.id)
            room.voices.hear(track.id, level, at)
            heard[room.id] = room
        for room in heard.values():
            self._judge(room, now)

    def talking(self) -> list[RoomId]:
        """Where somebody is heard, or was a moment ago: judge them each second, for who stops may
        do so without a word."""
        return list(self.state.talking)

    def judge(self, room_ids: Iterable[RoomId], now: float) -> None:
        self._at(now)
        for room_id in room_ids:
            room = self.state.rooms.get(room_id)
            if room is None or room.voices is None:
                self.state.talking.discard(room_id)
            else:
                self._judge(room, now)

    def _judge(self, room: Room, now: float) -> None:
        voices = room.voices
        if voices is None:
            return
        before = room.speaker
        if voices.judge(now):
            self.state.refill.add(room.id)
        if room.speaker != before:
            self.state.events.append(events.SpeakerChanged(room.id, room.speaker))
        if not voices:
            room.voices = None
            self.state.talking.discard(room.id)

    # ---- what the way carries -------------------------------------------------------------------

    def on_estimate(self, leg: int, bps: int, now: float) -> None:
        """The receiver of a leg says how much it can receive, bits a second (REMB)."""
        self._at(now)
        viewer = self.state.by_leg.get(LegId(leg))
        if viewer is not None:
            self._ladder(viewer).on_estimate(bps, self.state.now)
            choose(self.state, viewer)

    def on_feedback(self, route: int, fraction_lost: float, now: float) -> None:
        """A receiver report about a route: the loss since the one before, 0..1."""
        self._at(now)
        subscription = self.state.by_route.get(RouteId(route))
        if subscription is None or subscription.track.kind is not Kind.VIDEO:
            return
        viewer = subscription.subscriber
        if viewer.ladder is None and fraction_lost <= 0:
            return
        self._ladder(viewer).on_loss(fraction_lost, self.state.now)
        if fraction_lost > 0:
            choose(self.state, viewer)

    def _ladder(self, viewer: Participant) -> Ladder:
        if viewer.ladder is None:
            viewer.ladder = Ladder(self.state.now)
        return viewer.ladder

    def on_bitrates(self, rates: Iterable[tuple[int, int]], now: float) -> None:
        """(source, bits a second) as measured over about a second; 0: no packet came."""
        self._at(now)
        state = self.state
        changed: dict[str, Track] = {}
        measured: dict[str, Track] = {}
        for source, bps in rates:
            track = state.by_source.get(SourceId(source))
            if track is None:
                continue
            measured[track.id] = track
            if _measured(track.layer_of(source), bps):
                changed[track.id] = track
        for track in measured.values():
            if rank(track):
                state.touch_track(track)
                changed[track.id] = track
        for viewer_id in {pid for track in changed.values() for pid in track.subscriptions}:
            choose(state, state.participants[viewer_id])

    def tick_layers(self, now: float) -> None:
        """Trials that are due, or over."""
        self._at(now)
        state = self.state
        for participant_id in [p for p, at in state.ladders.items() if at <= now]:
            choose(state, state.participants[participant_id])


def _measured(layer: Layer, bps: int) -> bool:
    """True: the layer began, or ended.  One whose frames are rare is not taken for ended."""
    before = layer.bitrate
    if bps > 0:
        layer.silent = 0
        old = before if before else bps
        layer.bitrate = max(1, round(old + (bps - old) * RATE_WEIGHT))
        return before == 0
    layer.silent += 1
    if before != 0 and layer.silent >= SILENT_MAX:
        layer.bitrate = 0
        return True
    return False
