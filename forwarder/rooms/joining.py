"""A new participant: who may come in, and what it is given.

Law: a participant has a leg and keys of its own from the first moment, and they are its own until
it leaves; a name that is a secret, or leads to one, is never given out twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.ids import ParticipantId
from forwarder.rooms.admission import check_join, check_open, check_text, choose_suite
from forwarder.rooms.allocate import (
    CNAME_BYTES,
    PASSWORD_BYTES,
    RESUME_BYTES,
    UFRAG_BYTES,
    ice_chars,
    master_key,
    urlsafe,
)
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant, Room
from forwarder.rooms.state import State
from forwarder.rtp.suites import Suite

PARTICIPANT_ID_BYTES = 9
"""Random bytes of a participant id: 12 characters and a letter."""


def new_participant(
    state: State, room: Room, name: str, role: Role, suites: Sequence[Suite]
) -> Participant:
    """Checks and allocates; the caller adds it to the books."""
    check_text("your name", name)
    check_open(state.shut)
    check_join(room, role)
    suite = choose_suite(suites)
    leg = state.new_leg()
    rx_key, rx_salt = master_key(state.secrets, suite)
    tx_key, tx_salt = master_key(state.secrets, suite)
    return Participant(
        id=_new_id(state),
        room_id=room.id,
        name=name,
        role=role,
        leg=leg,
        worker=state.least_loaded(),
        key_id=_new_key_id(state),
        suite=suite,
        rx_key=rx_key,
        rx_salt=rx_salt,
        tx_key=tx_key,
        tx_salt=tx_salt,
        ufrag=new_ufrag(state),
        password=ice_chars(state.secrets, PASSWORD_BYTES),
        resume=urlsafe(state.secrets, RESUME_BYTES),
        rtcp_ssrc=state.ssrcs.take(room.ssrcs),
        cname=urlsafe(state.secrets, CNAME_BYTES),
    )


def _new_id(state: State) -> ParticipantId:
    while True:
        participant_id = ParticipantId("p" + urlsafe(state.secrets, PARTICIPANT_ID_BYTES))
        if participant_id not in state.participants:
            return participant_id


def _new_key_id(state: State) -> int:
    """Names a pair of keys on this node for ever: 64 random bits, never 0."""
    while True:
        key_id = state.secrets.randbits(64)
        if key_id != 0 and key_id not in state.key_ids:
            return key_id


def new_ufrag(state: State) -> str:
    while True:
        ufrag = ice_chars(state.secrets, UFRAG_BYTES)
        if ufrag not in state.by_ufrag:
            return ufrag
