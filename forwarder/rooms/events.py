"""What happened in the rooms: frozen, past tense, in order.

Law: an event is news for somebody else than the caller whose request caused it; the answer to a
request is the return value of the method.  `Rooms.recipients(event)` says who should hear of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from forwarder.errors import ErrorCode
from forwarder.ids import LegId, ParticipantId, RoomId, TrackId
from forwarder.rooms.room import ParticipantView, SlotState, Subscription, TrackView
from forwarder.rtp.codecs import Kind


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    """For all others in the room, if the participant is shown."""

    room_id: RoomId
    participant: ParticipantView


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    """For those who stay, if the participant was shown.  Its session should end."""

    room_id: RoomId
    participant: ParticipantView
    reason: str


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """For the participant itself, and for all others where it was shown and is (`to_all`)."""

    room_id: RoomId
    participant: ParticipantView
    to_all: bool


@dataclass(frozen=True, slots=True)
class ParticipantShown:
    """For all others: it is backstage no more."""

    room_id: RoomId
    participant: ParticipantView


@dataclass(frozen=True, slots=True)
class ParticipantHidden:
    """For all others: it is backstage now.  Its session goes on."""

    room_id: RoomId
    participant: ParticipantView


@dataclass(frozen=True, slots=True)
class TrackPublished:
    """For all others in the room."""

    room_id: RoomId
    track: TrackView


@dataclass(frozen=True, slots=True)
class TrackUnpublished:
    """For all others in the room; nobody is subscribed to it any more."""

    room_id: RoomId
    track: TrackView


@dataclass(frozen=True, slots=True)
class TrackMuted:
    """For all others in the room: muted, or unmuted."""

    room_id: RoomId
    track: TrackView
    muted: bool


@dataclass(frozen=True, slots=True)
class Subscribed:
    """For one `auto` subscriber: what was published and is now on its way."""

    room_id: RoomId
    participant_id: ParticipantId
    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True, slots=True)
class SubscriptionRefused:
    """For one `auto` subscriber: a track was published, but a limit keeps it away."""

    room_id: RoomId
    participant_id: ParticipantId
    track_id: TrackId
    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """For those who received a track that was unpublished."""

    room_id: RoomId
    track_id: TrackId
    participant_ids: tuple[ParticipantId, ...]


@dataclass(frozen=True, slots=True)
class LegLive:
    """For the participant itself: its address is validated, media flows."""

    room_id: RoomId
    participant_id: ParticipantId
    leg: LegId


@dataclass(frozen=True, slots=True)
class LegLost:
    """For the participant itself: no address of it is valid any more."""

    room_id: RoomId
    participant_id: ParticipantId
    leg: LegId


@dataclass(frozen=True, slots=True)
class SlotChanged:
    """For the viewer: what is in one of its slots now.  `track_id`, `publisher_id`: also of a track
    that it cannot decode; None: nothing is there."""

    room_id: RoomId
    participant_id: ParticipantId
    mid: str
    pair: int
    kind: Kind
    state: SlotState
    track_id: TrackId | None
    publisher_id: ParticipantId | None


@dataclass(frozen=True, slots=True)
class NeedsSlots:
    """For a viewer: please offer this many pairs of slots; they will be needed soon."""

    room_id: RoomId
    participant_id: ParticipantId
    pairs: int


@dataclass(frozen=True, slots=True)
class SpeakerChanged:
    """For everybody in the room: who speaks; None: the one who spoke has left."""

    room_id: RoomId
    participant_id: ParticipantId | None


@dataclass(frozen=True, slots=True)
class RoomClosed:
    """For all who were in the room.  Their sessions should end."""

    room_id: RoomId
    reason: str
    participant_ids: tuple[ParticipantId, ...]


Event: TypeAlias = (
    ParticipantJoined
    | ParticipantLeft
    | RoleChanged
    | ParticipantShown
    | ParticipantHidden
    | TrackPublished
    | TrackUnpublished
    | TrackMuted
    | Subscribed
    | SubscriptionRefused
    | Unsubscribed
    | LegLive
    | LegLost
    | SlotChanged
    | NeedsSlots
    | SpeakerChanged
    | RoomClosed
)
