"""Who sees whom, and who hears of what happened.

Law: backstage is seen by nobody; who is away still hears, for its session may be back soon.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms import events
from forwarder.rooms.events import Event
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant, Track
from forwarder.rooms.state import State


class Audience:
    """The part of Rooms that is about them."""

    state: State

    def others(self, participant_id: str) -> list[Participant]:
        """Whom the participant sees: everybody else in the room who is shown."""
        me = self.state.participant(participant_id)
        room = self.state.rooms[me.room_id]
        return [p for p in room.participants.values() if p is not me and p.shown]

    def tracks_of_others(self, participant_id: str) -> list[Track]:
        """What the participant could subscribe to."""
        me = self.state.participant(participant_id)
        room = self.state.rooms[me.room_id]
        return [t for t in room.tracks.values() if t.publisher is not me and t.shown]

    def data_targets(self, participant_id: str, to: Sequence[str] | None) -> list[ParticipantId]:
        """Who gets a data message: everybody else in the room, or the named ones."""
        me = self.state.participant(participant_id)
        room = self.state.rooms[me.room_id]
        if to is None:
            return [pid for pid in room.participants if pid != me.id]
        targets: dict[ParticipantId, None] = {}
        for name in to:
            other = room.participants.get(ParticipantId(name))
            if other is None or not other.shown:
                raise Refused(
                    ErrorCode.NO_SUCH_PARTICIPANT, f"there is nobody {name[:80]!r} in this room"
                )
            targets[other.id] = None
        return list(targets)

    def recipients(self, event: Event) -> Iterator[ParticipantId]:
        """Who should hear of an event; those who are away are included."""
        match event:
            case (
                events.Subscribed(participant_id=to)
                | events.SubscriptionRefused(participant_id=to)
                | events.LegLive(participant_id=to)
                | events.LegLost(participant_id=to)
                | events.SlotChanged(participant_id=to)
                | events.NeedsSlots(participant_id=to)
            ):
                yield to
            case events.RoomClosed(participant_ids=here):
                yield from here
            case events.Unsubscribed(participant_ids=receivers):
                yield from receivers
            case events.SpeakerChanged(room_id=room_id):
                room = self.state.rooms.get(room_id)
                yield from room.participants if room is not None else ()
            case events.RoleChanged(participant=who, to_all=to_all):
                yield who.id
                if to_all:
                    yield from self._all_but(event.room_id, who.id)
            case events.ParticipantShown() | events.ParticipantHidden():
                yield from self._all_but(event.room_id, event.participant.id)
            case events.ParticipantJoined() | events.ParticipantLeft():
                if event.participant.role is not Role.BACKSTAGE:
                    yield from self._all_but(event.room_id, event.participant.id)
            case events.TrackPublished() | events.TrackUnpublished() | events.TrackMuted():
                yield from self._all_but(event.room_id, event.track.participant_id)

    def _all_but(self, room_id: RoomId, origin: ParticipantId) -> Iterator[ParticipantId]:
        room = self.state.rooms.get(room_id)
        return (p for p in (room.participants if room else ()) if p != origin)
