"""Roles that change while somebody is here: promotion to the stage, and back.

Law: the role decides at each moment what a participant may publish and whether others see it; the
token's is only the first one.  Nobody's SDP, keys, leg or slots change: what it published is
withdrawn and comes back as the same streams, and viewers get it into a slot like anybody else.
"""

from __future__ import annotations

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import ParticipantId
from forwarder.rooms import events, tracks
from forwarder.rooms.admission import check_role
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant, view_participant
from forwarder.rooms.state import State


class Stage:
    """The part of Rooms that is about them."""

    state: State

    def set_role(self, room_id: str, participant_id: str, role: Role) -> Participant:
        """Until the participant leaves, or gets another one.  ROOM_FULL: no place on that side."""
        state = self.state
        room = state.room(room_id)
        who = room.participants.get(ParticipantId(participant_id))
        if who is None:
            raise Refused(
                ErrorCode.NO_SUCH_PARTICIPANT,
                f"there is nobody {participant_id[:80]!r} in room {room.id}",
            )
        before, was_shown = who.role, who.shown
        if role is before:
            return who
        check_role(room, before, role)
        if before.may_publish and not role.may_publish:
            tracks.hide(state, who)
        state.set_role(who, role)
        view = view_participant(who)
        if who.shown and not was_shown:
            state.events.append(events.ParticipantShown(room.id, view))
        state.events.append(events.RoleChanged(room.id, view, who.shown and was_shown))
        if was_shown and not who.shown:
            state.events.append(events.ParticipantHidden(room.id, view))
        if role.may_publish and not before.may_publish:
            tracks.show(state, who)
        return who

    def parting(self, participant_id: str) -> bool:
        """Whether the data plane has not let go yet of what the participant sent in its last role.
        False for one that left."""
        who = self.state.participants.get(ParticipantId(participant_id))
        mine = () if who is None else who.tracks.values()
        return any(layer.source in self.state.parting for t in mine for layer in t.layers)
