"""What happened in the rooms: frozen, past tense, in order.

Law: an event is news for somebody else than the caller whose request caused it; the answer to a
request is the return value of the method.  `Rooms.recipients(event)` says who should hear of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from forwarder.errors import ErrorCode
from forwarder.ids import LegId, ParticipantId, RoomId, TrackId
from forwarder.rooms.room import ParticipantView, Subscription, TrackView


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
class RoomClosed:
    """For all who were in the room.  Their sessions should end."""

    room_id: RoomId
    reason: str
    participant_ids: tuple[ParticipantId, ...]


Event: TypeAlias = (
    ParticipantJoined
    | ParticipantLeft
    | TrackPublished
    | TrackUnpublished
    | TrackMuted
    | Subscribed
    | SubscriptionRefused
    | Unsubscribed
    | LegLive
    | LegLost
    | RoomClosed
)
