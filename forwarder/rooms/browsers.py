"""Participants that join by an SDP offer: publishers, and viewers with slots.

Law: until DTLS gave the keys such a participant is in its room, and its leg in no table.  What it
may publish or view is decided when it joins: all of it, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from forwarder.errors import ErrorCode, Refused
from forwarder.rooms.allocate import PASSWORD_BYTES, ice_chars
from forwarder.rooms.joining import new_ufrag
from forwarder.rooms.roles import Role
from forwarder.rooms.room import (
    Participant,
    ParticipantState,
    Peer,
    SlotSpec,
    Track,
    TrackSpec,
    changed,
)
from forwarder.rooms.slots import check_places, new_slot
from forwarder.rtp.suites import Suite

if TYPE_CHECKING:
    from forwarder.rooms.state import State


class Keys(Protocol):
    """Of one leg, named from the node's side."""

    @property
    def suite(self) -> Suite: ...
    @property
    def rx_key(self) -> bytes: ...
    @property
    def rx_salt(self) -> bytes: ...
    @property
    def tx_key(self) -> bytes: ...
    @property
    def tx_salt(self) -> bytes: ...


class BrowserRooms:
    """The part of Rooms that is about them."""

    state: State

    if TYPE_CHECKING:

        def join(
            self, room_id: str, *, name: str, role: Role, suites: Sequence[Suite], now: float
        ) -> Participant: ...

        def leave(self, participant_id: str, reason: str, now: float) -> None: ...

        def publish(self, participant_id: str, specs: Sequence[TrackSpec]) -> list[Track]: ...

    def join_peer(
        self,
        room_id: str,
        *,
        name: str,
        role: Role,
        peer: Peer,
        tracks: Sequence[TrackSpec] = (),
        places: Sequence[SlotSpec] = (),
        now: float,
    ) -> Participant:
        """A participant without keys, with its tracks published and its slots empty."""
        state = self.state
        if tracks and not role.may_publish:
            raise Refused(
                ErrorCode.FORBIDDEN,
                f"the role {role} may not publish: ask for a token with the role active",
            )
        state.room(room_id)
        check_places((), places)
        state.check_routes(len(places))
        told = len(state.events)
        me = self.join(room_id, name=name, role=role, suites=tuple(Suite), now=now)
        me.peer, me.keyed = peer, False
        try:
            if tracks:
                self.publish(me.id, tracks)
        except Refused:
            self.leave(me.id, "", now)
            while len(state.events) > told:  # nothing happened
                state.events.pop()
            raise
        for place in places:
            new_slot(state, me, place)
        return me

    def set_keys(self, participant_id: str, keys: Keys) -> Participant:
        """DTLS is done: the leg and all that is on it go into the table.  Once in its life."""
        state = self.state
        me = state.participant(participant_id)
        if me.keyed:
            raise AssertionError(f"{me.id} has its keys already")
        me.suite = keys.suite
        me.rx_key, me.rx_salt, me.tx_key, me.tx_salt = (
            keys.rx_key,
            keys.rx_salt,
            keys.tx_key,
            keys.tx_salt,
        )
        me.keyed = True
        state.touch_participant(me)
        for track in me.tracks.values():
            state.touch_track(track)
        for subscription in me.subscriptions.values():
            state.touch_subscription(subscription)
        state.refill.add(me.room_id)
        return me

    def restart_ice(self, participant_id: str, peer: Peer) -> Participant:
        """New credentials for the leg; its addresses stay until others are validated."""
        state = self.state
        me = state.participant(participant_id)
        del state.by_ufrag[me.ufrag]
        me.ufrag = new_ufrag(state)
        me.password = ice_chars(state.secrets, PASSWORD_BYTES)
        me.peer = peer
        state.by_ufrag[me.ufrag] = me
        state.touch_participant(me)
        return me

    def set_peer(self, participant_id: str, peer: Peer) -> Participant:
        """What a further offer of the participant says."""
        me = self.state.participant(participant_id)
        me.peer = peer
        self.state.touch_participant(me)
        return me

    def returned(self, participant_id: str) -> None:
        """A participant without a session of its own is heard again."""
        state = self.state
        me = state.participant(participant_id)
        if me.state is ParticipantState.AWAY:
            me.state = changed(me.state, ParticipantState.JOINED)
            del state.away[me.id]
            state.touch_participant(me)
