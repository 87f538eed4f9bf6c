"""The books of all rooms: every index, what changed since somebody looked, what happened.

Law: core.py, tracks.py and subscriptions.py decide; this file only keeps the indices in step.
An object that is added or removed here is marked as changed, so no change can be forgotten.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import ParticipantId, RoomId, TrackId
from forwarder.rooms.admission import Limits
from forwarder.rooms.allocate import Secrets, SsrcSequence
from forwarder.rooms.events import Event
from forwarder.rooms.pools import IdKind, Pools
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant, Room, Slot, Subscription, Track
from forwarder.table import Tuple5


@dataclass(frozen=True)
class Dirty:
    """What may have changed, by id; an id with no object any more was removed.

    A leg stands for its participant, a source for its track, a route for its subscription or
    its slot.
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


def resume_key(secret: str) -> bytes:
    """What a resume secret is looked up by: time does not depend on how much of it is right."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


__all__ = ["IdKind"]  # found here too


class State(Pools):
    """Rooms, participants, tracks and subscriptions, by every name they are looked up by."""

    def __init__(self, limits: Limits, secrets: Secrets) -> None:
        super().__init__(limits)
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
        self.parting: set[int] = set()
        """Sources that the data plane must let go of before it takes them up anew."""
        self.talking: set[RoomId] = set()
        """Rooms where somebody is heard, or was a moment ago."""
        self.key_ids: set[int] = set()
        self.ssrcs = SsrcSequence.start(secrets)
        self.away: dict[ParticipantId, float] = {}
        """Deadlines; grace is the same for all and time goes forward, so the first is the next."""
        self.empty: dict[RoomId, float] = {}
        self.shut = ""
        """Why nobody new is admitted; empty: the node is open."""
        self.ladders: dict[ParticipantId, float] = {}
        """When to choose the layers of a participant again."""
        self.now = 0.0
        """The latest moment that was told."""
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
        if track is None or not track.shown:
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
        self._marks.sources.update(layer.source for layer in track.layers)
        self._marks.routes.update(s.route for s in track.subscriptions.values())

    def remind(self, kind: IdKind, index: int) -> None:
        """Something under this id is still to be told to the data plane."""
        marks = {IdKind.LEG: self._marks.legs, IdKind.SOURCE: self._marks.sources}
        marks.get(kind, self._marks.routes).add(index)

    def touch_subscription(self, subscription: Subscription) -> None:
        self._marks.rooms.add(subscription.subscriber.room_id)
        self._marks.routes.add(subscription.route)

    def touch_slot(self, slot: Slot) -> None:
        self._marks.rooms.add(slot.owner.room_id)
        self._marks.routes.add(slot.route)

    def drain_dirty(self) -> Dirty:
        marks, self._marks = self._marks, _Marks()
        self.taken.clear()
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
        self._count(room, participant.role, 1)
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
        self._count(room, participant.role, -1)
        room.autos.pop(participant.id, None)
        del self.participants[participant.id]
        del self.by_ufrag[participant.ufrag]
        del self.by_resume[resume_key(participant.resume)]
        del self.by_leg[participant.leg]
        self.key_ids.remove(participant.key_id)
        self.away.pop(participant.id, None)
        self.ladders.pop(participant.id, None)
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

    def move(self, participant: Participant, worker: int) -> None:
        """Its leg and all that hangs on it goes to another worker."""
        share = 1 + len(participant.subscriptions)
        self.load[participant.worker] -= share
        participant.worker = worker
        self.load[worker] += share
        self.touch_participant(participant)
        for track in participant.tracks.values():
            self.touch_track(track)
        for subscription in participant.subscriptions.values():
            self.touch_subscription(subscription)

    def set_role(self, participant: Participant, role: Role) -> None:
        room = self.rooms[participant.room_id]
        self._count(room, participant.role, -1)
        participant.role = role
        self._count(room, role, 1)
        self.refill.add(room.id)
        self.touch_participant(participant)

    @staticmethod
    def _count(room: Room, role: Role, by: int) -> None:
        if role.may_publish:
            room.active += by
        else:
            room.passive += by

    def part(self, track: Track) -> None:
        """What its sources sent until now is forgotten, and no route reads it any more; their
        numbers go on."""
        self.parting.update(layer.source for layer in track.layers)
        track.again = True
        self.touch_track(track)

    def released(self, kind: IdKind, index: int) -> bool:
        if kind is not IdKind.SOURCE or index not in self.parting:
            return super().released(kind, index)
        self.parting.remove(index)
        self.touch_track(self.by_source[index])
        return True

    def observed(self, legs: set[int], sources: set[int], routes: set[int]) -> None:
        super().observed(legs, sources, routes)
        for index in self.parting - sources:
            self.released(IdKind.SOURCE, index)

    def add_track(self, track: Track) -> None:
        room = self.rooms[track.room_id]
        room.tracks[track.id] = track
        room.ssrcs.update(dict.fromkeys(track.spec.ssrcs, track.id))
        self.refill.add(room.id)
        track.publisher.tracks[track.id] = track
        self.tracks[track.id] = track
        for layer in track.layers:
            self.by_source[layer.source] = track
            self.take_history(layer.source, track.kind)
        self.touch_track(track)

    def drop_track(self, track: Track) -> None:
        """Its subscriptions were dropped before."""
        room = self.rooms[track.room_id]
        del room.tracks[track.id]
        for ssrc in track.spec.ssrcs:
            del room.ssrcs[ssrc]
        self.refill.add(room.id)
        del track.publisher.tracks[track.id]
        del self.tracks[track.id]
        for layer in track.layers:
            del self.by_source[layer.source]
            self.parting.discard(layer.source)
            self._give_back(IdKind.SOURCE, layer.source)
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
            self.refill.add(subscriber.room_id)
        self.touch_subscription(subscription)

    def add_slot(self, slot: Slot) -> None:
        slot.owner.slots.append(slot)
        self.slots[slot.route] = slot
        self.refill.add(slot.owner.room_id)
        self.touch_slot(slot)
