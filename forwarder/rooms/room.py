"""Rooms, participants, tracks, subscriptions: what they hold and the states they pass through.

Law: every state and every allowed change of state is in this file, as tables.  Nothing here
decides anything; core.py, tracks.py and subscriptions.py do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from forwarder.ids import LegId, ParticipantId, RoomId, RouteId, SourceId, Ssrc, TrackId
from forwarder.rooms.layers import Ladder
from forwarder.rooms.roles import Role
from forwarder.rooms.speakers import Voices
from forwarder.rooms.specs import SOUND_ONLY, LayerSpec, Peer, SlotSpec, TrackSpec
from forwarder.rtp.codecs import VIDEO_ORDER, Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.table import Tuple5

__all__ = ["SOUND_ONLY", "LayerSpec", "Peer", "SlotSpec", "TrackSpec"]  # found here too


class RoomState(Enum):
    EMPTY = "empty"
    OCCUPIED = "occupied"
    CLOSED = "closed"


class ParticipantState(Enum):
    JOINED = "joined"  # its session is open
    AWAY = "away"  # its session is lost; leg, tracks and subscriptions stay for the grace period
    LEFT = "left"


class LegState(Enum):
    WAITING = "waiting"  # no address was validated yet: nothing is sent
    LIVE = "live"
    LOST = "lost"  # it was live; no address is valid now


AnyState = TypeVar("AnyState", RoomState, ParticipantState, LegState)

TRANSITIONS: dict[Enum, frozenset[Enum]] = {
    RoomState.EMPTY: frozenset({RoomState.OCCUPIED, RoomState.CLOSED}),
    RoomState.OCCUPIED: frozenset({RoomState.EMPTY, RoomState.CLOSED}),
    RoomState.CLOSED: frozenset(),
    ParticipantState.JOINED: frozenset({ParticipantState.AWAY, ParticipantState.LEFT}),
    ParticipantState.AWAY: frozenset({ParticipantState.JOINED, ParticipantState.LEFT}),
    ParticipantState.LEFT: frozenset(),
    LegState.WAITING: frozenset({LegState.LIVE}),
    LegState.LIVE: frozenset({LegState.LOST}),
    LegState.LOST: frozenset({LegState.LIVE}),
}


def changed(have: AnyState, to: AnyState) -> AnyState:
    """`to`, if TRANSITIONS allows it; anything else is a broken invariant."""
    if to not in TRANSITIONS[have]:
        raise AssertionError(f"{have} cannot become {to}")
    return to


class SlotState(Enum):
    WAITING = "waiting"  # there is no such track now
    PLAYING = "playing"
    CODEC_UNSUPPORTED = "codec_unsupported"  # there is one, and the viewer cannot decode it


@dataclass(slots=True, eq=False)
class Layer:
    """One encoding of a track: one source of its publisher's leg."""

    index: int
    source: SourceId
    spec: LayerSpec
    bitrate: int | None = None
    """Bits a second as measured last; 0: it is not sent now; None: not measured yet."""
    silent: int = 0
    """Measurements in a row that found nothing."""


@dataclass(slots=True, eq=False)
class Track:
    """A published track; `layers` low to high, at least one."""

    id: TrackId
    room_id: RoomId
    publisher: Participant = field(repr=False)
    spec: TrackSpec
    layers: list[Layer]
    muted: bool = False
    subscriptions: dict[ParticipantId, Subscription] = field(default_factory=dict, repr=False)
    contrary: int = 0
    """Measurements in a row that speak against the order of the layers (ranking.py)."""
    again: bool = False
    """Its sources were let go of and taken up anew, as the streams that they were."""

    @property
    def shown(self) -> bool:
        """Whether it is for others: its publisher's role may have changed meanwhile."""
        return self.publisher.role.may_publish

    @property
    def record(self) -> SourceId:
        """Under which source the store keeps it: the order of the layers may change."""
        return min(layer.source for layer in self.layers)

    @property
    def source(self) -> SourceId:
        """Of the highest layer."""
        return self.layers[-1].source

    def layer_of(self, source: int) -> Layer:
        return next(layer for layer in self.layers if layer.source == source)

    @property
    def participant_id(self) -> ParticipantId:
        return self.publisher.id

    @property
    def kind(self) -> Kind:
        return self.spec.kind


@dataclass(slots=True, eq=False)
class Subscription:
    """What a participant receives of a track: one route of its leg, which reads one layer."""

    track: Track
    subscriber: Participant = field(repr=False)
    route: RouteId
    out_ssrc: Ssrc
    seq_start: int
    ts_offset: int
    layer: int
    slot: Slot | None = None
    paused: bool = False
    """Its receiver has no room even for the lowest layer."""

    @property
    def source(self) -> SourceId:
        return self.track.layers[self.layer].source


@dataclass(slots=True, eq=False)
class Slot:
    """A place of a viewer for one track.  Its route, SSRCs and numbers are its own until the viewer
    leaves, so that no change of the track needs an offer.  `rtx_ssrc` None: no RTX stream."""

    spec: SlotSpec
    owner: Participant = field(repr=False)
    route: RouteId
    out_ssrc: Ssrc
    seq_start: int
    ts_offset: int
    rtx_ssrc: Ssrc | None = None
    rtx_seq_start: int = 0
    state: SlotState = SlotState.WAITING
    subscription: Subscription | None = field(default=None, repr=False)
    limit: int | None = None
    """The highest layer that the viewer wants here; None: the best."""
    changed_at: float = float("-inf")
    """When its track changed last, seconds."""
    missed: Track | None = field(default=None, repr=False)
    """The track that would be here if its viewer could decode it."""

    def pt(self, codec: Codec) -> int | None:
        """The viewer's payload type for a codec; None: it cannot decode it."""
        return dict(self.spec.pts).get(codec)

    def rtx_pt(self, codec: Codec) -> int | None:
        """Where its resends go; None: it has no RTX stream."""
        return dict(self.spec.rtx_pts).get(codec) if self.rtx_ssrc is not None else None


Seat = tuple[ParticipantId, int]
"""A publisher, and which of its pairs of tracks: 0 is its first sound with its first picture."""


@dataclass(slots=True, eq=False)
class Participant:
    """Somebody in a room, and the one leg that carries all its media.

    Keys are named from the node's side: `rx` is what the participant sends with.
    """

    id: ParticipantId
    room_id: RoomId
    name: str
    role: Role
    leg: LegId
    worker: int
    key_id: int
    suite: Suite
    rx_key: bytes = field(repr=False)
    rx_salt: bytes = field(repr=False)
    tx_key: bytes = field(repr=False)
    tx_salt: bytes = field(repr=False)
    ufrag: str
    password: str = field(repr=False)
    resume: str = field(repr=False)
    rtcp_ssrc: Ssrc
    cname: str
    state: ParticipantState = ParticipantState.JOINED
    auto: bool = False
    leg_state: LegState = LegState.WAITING
    tuples: tuple[Tuple5, ...] = ()
    nominated: int | None = None
    local: int = 0
    tracks: dict[TrackId, Track] = field(default_factory=dict, repr=False)
    subscriptions: dict[TrackId, Subscription] = field(default_factory=dict, repr=False)
    peer: Peer | None = None
    keyed: bool = True
    """False until DTLS gave the keys: the data plane does not know this leg yet."""
    slots: list[Slot] = field(default_factory=list, repr=False)
    ladder: Ladder | None = field(default=None, repr=False)
    """Chooses its layers, once it said something of its way."""
    rate_bps: int = 0
    """What its leg is paced at, bits a second; 0: there is no estimate yet."""
    seats: dict[int, Seat] = field(default_factory=dict, repr=False)
    """Who is in which pair of its slots."""
    page: tuple[ParticipantId, ...] | None = None
    """Whom it wants to see, in the order of its pairs; None: whoever comes."""
    asked_pairs: int = 0
    """The number of pairs that it was asked to offer."""

    @property
    def shown(self) -> bool:
        """Whether others learn that this participant exists."""
        return self.role is not Role.BACKSTAGE


@dataclass(slots=True, eq=False)
class Room:
    """A room: who is in it, what they publish, and how many may be."""

    id: RoomId
    created_at: float
    max_active: int
    max_passive: int
    codecs: tuple[Codec, ...] = VIDEO_ORDER
    """Video codecs, best first: what a publisher is answered by."""
    state: RoomState = RoomState.EMPTY
    active: int = 0
    passive: int = 0
    participants: dict[ParticipantId, Participant] = field(default_factory=dict, repr=False)
    tracks: dict[TrackId, Track] = field(default_factory=dict, repr=False)
    ssrcs: dict[int, TrackId] = field(default_factory=dict, repr=False)
    """Incoming SSRCs, those of repair included: no two tracks of a room have the same."""
    autos: dict[ParticipantId, Participant] = field(default_factory=dict, repr=False)
    """Those who subscribe to whatever is published."""
    voices: Voices | None = None
    """Who speaks; None: nobody did yet."""

    @property
    def speaker(self) -> ParticipantId | None:
        """The dominant one."""
        track_id = self.voices.dominant if self.voices is not None else None
        track = self.tracks.get(track_id) if track_id is not None else None
        return track.publisher.id if track is not None else None


# ---- what list and show return -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParticipantView:
    id: ParticipantId
    name: str
    role: Role
    state: ParticipantState
    leg: LegId
    leg_state: LegState


@dataclass(frozen=True, slots=True)
class TrackView:
    id: TrackId
    participant_id: ParticipantId
    label: str
    kind: Kind
    codec: Codec
    muted: bool


@dataclass(frozen=True, slots=True)
class SlotView:
    """`track_id` None: it is empty."""

    participant_id: ParticipantId
    mid: str
    kind: Kind
    state: SlotState
    track_id: TrackId | None
    pair: int = 0
    publisher_id: ParticipantId | None = None


@dataclass(frozen=True, slots=True)
class RoomView:
    """A room at one moment; `created_at` in seconds since 1970-01-01 UTC."""

    id: RoomId
    created_at: float
    active: int
    passive: int
    max_active: int
    max_passive: int
    track_count: int
    codecs: tuple[Codec, ...] = VIDEO_ORDER


@dataclass(frozen=True, slots=True)
class RoomDetail:
    room: RoomView
    participants: tuple[ParticipantView, ...]
    tracks: tuple[TrackView, ...]
    slots: tuple[SlotView, ...] = ()


def view_participant(p: Participant) -> ParticipantView:
    return ParticipantView(p.id, p.name, p.role, p.state, p.leg, p.leg_state)


def view_track(t: Track) -> TrackView:
    return TrackView(t.id, t.publisher.id, t.spec.label, t.spec.kind, t.spec.codec, t.muted)


def view_slot(s: Slot) -> SlotView:
    track = s.subscription.track if s.subscription is not None else None
    return SlotView(
        s.owner.id,
        s.spec.mid,
        s.spec.kind,
        s.state,
        track.id if track is not None else None,
        s.spec.pair,
        track.publisher.id if track is not None else None,
    )


def view_room(r: Room) -> RoomView:
    return RoomView(
        r.id,
        r.created_at,
        r.active,
        r.passive,
        r.max_active,
        r.max_passive,
        sum(t.shown for t in r.tracks.values()),
        r.codecs,
    )


def view_detail(r: Room) -> RoomDetail:
    return RoomDetail(
        view_room(r),
        tuple(view_participant(p) for p in r.participants.values()),
        tuple(view_track(t) for t in r.tracks.values() if t.shown),
        tuple(view_slot(s) for p in r.participants.values() for s in p.slots),
    )
