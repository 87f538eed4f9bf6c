"""The books of all rooms: every index, what changed since somebody looked, what happened.

Law: core.py, tracks.py and subscriptions.py decide; this file only keeps the indices in step.
An object that is added or removed here is marked as changed, so no change can be forgotten.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import LegId, ParticipantId, RoomId, RouteId, SourceId, TrackId
from forwarder.rooms.admission import Limits
from forwarder.rooms.allocate import IdPool, Secrets, SsrcSequence
from forwarder.rooms.events import Event
from forwarder.rooms.room import Participant, Room, Slot, Subscription, Track
from forwarder.rtp.codecs import Kind
from forwarder.table import Tuple5


class IdKind(StrEnum):
    """Whose ids: the three tables of the data plane."""

    LEG = "leg"
    SOURCE = "source"
    ROUTE = "route"


@dataclass(frozen=True)
class Dirty:
    """What may have changed, by id; an id with no object any more was removed.

    A leg stands for its participant, a source for its track, a route for its subscription.
    """

    rooms: frozenset[RoomId] = frozenset()
    legs: frozenset[int] = frozenset()
    sources: frozenset[int] = frozenset()
    routes: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.rooms or self.legs or self.sources or self.routes)

    def __or__(self, other: Dirty) -> Dirty:
        return Dirty(
            self.rooms | other.rooms,
            self.legs | other.legs,
            self.sources | other.sources,
            self.routes | other.routes,
        )


@dataclass
class _Marks:
    rooms: set[RoomId] = field(default_factory=set)
    legs: set[int] = field(default_factory=set)
    sources: set[int] = field(default_factory=set)
    routes: set[int] = field(default_factory=set)
    taken: set[tuple[IdKind, int]] = field(default_factory=set)
    """Ids taken since the last drain: nobody was told of them yet."""


def resume_key(secret: str) -> bytes:
    """What a resume secret is looked up by: time does not depend on how much of it is right."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


class State:
    """Rooms, participants, tracks and subscriptions, by every name they are looked up by."""

    def __init__(self, limits: Limits, secrets: Secrets) -> None:
        self.limits = limits
        self.secrets = secrets
        self.rooms: dict[RoomId, Room] = {}
        self.participants: dict[ParticipantId, Participant] = {}
        self.tracks: dict[TrackId, Track] = {}
        self.by_ufrag: dict[str, Participant] = {}
        self.by_resume: dict[bytes, Participant] = {}
        self.by_leg: dict[int, Participant] = {}
        self.by_source: dict[int, Track] = {}
        self.by_route: dict[int, Subscription] = {}
        self.by_tuple: dict[Tuple5, Participant] = {}
        self.slots: dict[int, Slot] = {}
        """By route, which a slot keeps also while it has no track."""
        self.refill: set[RoomId] = set()
        """Rooms where a slot may get a track now; see slots.py."""
        self.resting: set[int] = set()
        """Routes of slots whose track just went: the data plane lets go of the old source first."""
        self.key_ids: set[int] = set()
        self.legs = IdPool(limits.legs_max)
        self.sources = IdPool(limits.sources_max)
        self.routes = IdPool(limits.routes_max)
        self._pools = {
            IdKind.LEG: self.legs,
            IdKind.SOURCE: self.sources,
            IdKind.ROUTE: self.routes,
        }
        self.ssrcs = SsrcSequence.start(secrets)
        self.load = [0] * limits.workers
        """Legs and routes of each worker."""
        self.histories = {Kind.AUDIO: limits.history_audio, Kind.VIDEO: limits.history_video}
        """Histories that are free; one comes back when the data plane let go of its source."""
        self.history_of: dict[int, Kind] = {}
        self.away: dict[ParticipantId, float] = {}
        """Deadlines; grace is the same for all and time goes forward, so the first is the next."""
        self.empty: dict[RoomId, float] = {}
        self.events: deque[Event] = deque()
        self._marks = _Marks()

    # ---- look-ups that a remote may get wrong -------------------------------------------------

    def room(self, room_id: str) -> Room:
        room = self.rooms.get(RoomId(room_id))
        if room is None:
            raise Refused(ErrorCode.NO_SUCH_ROOM, f"there is no room {room_id[:80]!r}")
        return room

    def participant(self, participant_id: str) -> Participant:
        participant = self.participants.get(ParticipantId(participant_id))
        if participant is None:
            raise Refused(
                ErrorCode.NO_SUCH_PARTICIPANT, f"there is no participant {participant_id[:80]!r}"
            )
        return participant

    def track_in(self, room: Room, track_id: str) -> Track:
        track = room.tracks.get(TrackId(track_id))
        if track is None:
            raise Refused(
                ErrorCode.NO_SUCH_TRACK, f"there is no track {track_id[:80]!r} in this room"
            )
        return track

    def own_track(self, participant: Participant, track_id: str) -> Track:
        track = participant.tracks.get(TrackId(track_id))
        if track is None:
            raise Refused(ErrorCode.NO_SUCH_TRACK, f"{track_id[:80]!r} is not a track of yours")
        return track

    def by_secret(self, secret: str) -> Participant | None:
        """The participant with this resume secret."""
        key = resume_key(secret)
        found = self.by_resume.get(key)
        if found is None or not compare_digest(resume_key(found.resume), key):
            return None
        return found

    # ---- marks --------------------------------------------------------------------------------

    def touch_room(self, room: Room) -> None:
        self._marks.rooms.add(room.id)

    def touch_participant(self, participant: Participant) -> None:
        self._marks.rooms.add(participant.room_id)
        self._marks.legs.add(participant.leg)

    def touch_track(self, track: Track) -> None:
        """The track itself; its routes carry `muted`, so they change with it."""
        self._marks.rooms.add(track.room_id)
        self._marks.sources.add(track.source)
        self._marks.routes.update(s.route for s in track.subscriptions.values())

    def touch_subscription(self, subscription: Subscription) -> None:
        self._marks.rooms.add(subscription.subscriber.room_id)
        self._marks.routes.add(subscription.route)

    def touch_slot(self, slot: Slot) -> None:
        self._marks.rooms.add(slot.owner.room_id)
        self._marks.routes.add(slot.route)

    def drain_dirty(self) -> Dirty:
        marks, self._marks = self._marks, _Marks()
        self.resting.clear()
        return Dirty(
            frozenset(marks.rooms),
            frozenset(marks.legs),
            frozenset(marks.sources),
            frozenset(marks.routes),
        )

    # ---- adding and removing --------------------------------------------------------------------

    def add_room(self, room: Room) -> None:
        self.rooms[room.id] = room
        self.touch_room(room)

    def drop_room(self, room: Room) -> None:
        del self.rooms[room.id]
        self.empty.pop(room.id, None)
        self.touch_room(room)

    def add_participant(self, participant: Participant) -> None:
        room = self.rooms[participant.room_id]
        room.participants[participant.id] = participant
        if participant.role.may_publish:
            room.active += 1
        else:
            room.passive += 1
        if participant.auto:
            room.autos[participant.id] = participant
        self.participants[participant.id] = participant
        self.by_ufrag[participant.ufrag] = participant
        self.by_resume[resume_key(participant.resume)] = participant
        self.by_leg[participant.leg] = participant
        self.by_tuple.update(dict.fromkeys(participant.tuples, participant))
        self.key_ids.add(participant.key_id)
        self.load[participant.worker] += 1
        self.touch_participant(participant)

    def drop_participant(self, participant: Participant) -> None:
        """Its tracks and subscriptions were dropped before."""
        self.set_tuples(participant, ())
        room = self.rooms[participant.room_id]
        for slot in participant.slots:
            del self.slots[slot.route]
            self._give_back(IdKind.ROUTE, slot.route)
            self.touch_slot(slot)
        del room.participants[participant.id]
        if participant.role.may_publish:
            room.active -= 1
        else:
            room.passive -= 1
        room.autos.pop(participant.id, None)
        del self.participants[participant.id]
        del self.by_ufrag[participant.ufrag]
        del self.by_resume[resume_key(participant.resume)]
        del self.by_leg[participant.leg]
        self.key_ids.remove(participant.key_id)
        self.away.pop(participant.id, None)
        self.load[participant.worker] -= 1
        self._give_back(IdKind.LEG, participant.leg)
        self.touch_participant(participant)

    def set_tuples(self, participant: Participant, tuples: tuple[Tuple5, ...]) -> None:
        """Nobody else has them any more."""
        for old in participant.tuples:
            del self.by_tuple[old]
        participant.tuples = tuples
        participant.nominated = None
        self.by_tuple.update(dict.fromkeys(tuples, participant))
        self.touch_participant(participant)

    def add_track(self, track: Track) -> None:
        room = self.rooms[track.room_id]
        room.tracks[track.id] = track
        if track.spec.ssrc is not None:
            room.ssrcs[track.spec.ssrc] = track.id
        self.refill.add(room.id)
        track.publisher.tracks[track.id] = track
        self.tracks[track.id] = track
        self.by_source[track.source] = track
        self.histories[track.kind] -= 1
        self.history_of[track.source] = track.kind
        self.touch_track(track)

    def drop_track(self, track: Track) -> None:
        """Its subscriptions were dropped before."""
        room = self.rooms[track.room_id]
        del room.tracks[track.id]
        if track.spec.ssrc is not None:
            del room.ssrcs[track.spec.ssrc]
        self.refill.add(room.id)
        del track.publisher.tracks[track.id]
        del self.tracks[track.id]
        del self.by_source[track.source]
        self._give_back(IdKind.SOURCE, track.source)
        self.touch_track(track)

    def add_subscription(self, subscription: Subscription) -> None:
        track, subscriber = subscription.track, subscription.subscriber
        track.subscriptions[subscriber.id] = subscription
        subscriber.subscriptions[track.id] = subscription
        self.by_route[subscription.route] = subscription
        self.load[subscriber.worker] += 1
        self.touch_subscription(subscription)

    def drop_subscription(self, subscription: Subscription) -> None:
        track, subscriber = subscription.track, subscription.subscriber
        del track.subscriptions[subscriber.id]
        del subscriber.subscriptions[track.id]
        del self.by_route[subscription.route]
        self.load[subscriber.worker] -= 1
        if subscription.slot is None:
            self._give_back(IdKind.ROUTE, subscription.route)
        else:
            subscription.slot.subscription = None
            self.resting.add(subscription.route)
            self.refill.add(subscriber.room_id)
        self.touch_subscription(subscription)

    def add_slot(self, slot: Slot) -> None:
        slot.owner.slots.append(slot)
        self.slots[slot.route] = slot
        self.refill.add(slot.owner.room_id)
        self.touch_slot(slot)

    # ---- ids ------------------------------------------------------------------------------------

    def _take(self, kind: IdKind) -> int:
        index = self._pools[kind].take()
        self._marks.taken.add((kind, index))
        return index

    def _give_back(self, kind: IdKind, index: int) -> None:
        """What nobody was told of needs no word of the data plane."""
        self._pools[kind].give_back(index)
        if (kind, index) in self._marks.taken:
            self._marks.taken.remove((kind, index))
            self.released(kind, index)

    def released(self, kind: IdKind, index: int) -> bool:
        pool = self._pools[kind]
        if not pool.released(index):
            return False
        if kind is IdKind.SOURCE:
            self._free_history(SourceId(index))
        return True

    def observed(self, legs: set[int], sources: set[int], routes: set[int]) -> None:
        self.legs.observed(legs)
        self.routes.observed(routes)
        self.sources.observed(sources)
        gone = [
            i for i in self.history_of if i not in self.by_source and i not in self.sources.draining
        ]
        for index in gone:
            self._free_history(SourceId(index))

    def _free_history(self, source: SourceId) -> None:
        kind = self.history_of.pop(source, None)
        if kind is not None:
            self.histories[kind] += 1

    def new_leg(self) -> LegId:
        if self.legs.available == 0:
            raise Refused(
                ErrorCode.LIMIT,
                f"this node has no free leg of {self.limits.legs_max}: try another node, "
                "or raise dataplane.legs_max",
            )
        return LegId(self._take(IdKind.LEG))

    def check_sources(self, kinds: list[Kind]) -> None:
        if self.sources.available < len(kinds):
            raise Refused(
                ErrorCode.LIMIT,
                f"this node has no free source of {self.limits.sources_max}: try another node, "
                "or raise dataplane.sources_max",
            )
        for kind in Kind:
            if kinds.count(kind) > self.histories[kind]:
                raise Refused(
                    ErrorCode.LIMIT,
                    f"this node has no free {kind} history: try another node, "
                    f"or raise dataplane.history_{kind}",
                )

    def check_routes(self, count: int) -> None:
        if self.routes.available < count:
            raise Refused(
                ErrorCode.LIMIT,
                f"this node has no free route of {self.limits.routes_max}: try another node, "
                "or raise dataplane.routes_max",
            )

    def new_route(self) -> RouteId:
        return RouteId(self._take(IdKind.ROUTE))

    def new_source(self) -> SourceId:
        return SourceId(self._take(IdKind.SOURCE))

    def least_loaded(self) -> int:
        return min(range(len(self.load)), key=self.load.__getitem__)
