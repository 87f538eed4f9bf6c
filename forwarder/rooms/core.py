"""Rooms: the policy core of a node, without I/O.

Law: no sockets, no clock, no cffi, no logging.  Calls come in with `now` (monotonic seconds, never
going back); what happened comes out of `drain_events`, what changed out of `drain_dirty`, and when
to call `tick` out of `next_deadline`.  A call that raises Refused has changed nothing.

The life of an id: join, publish and subscribe take ids of legs, sources and routes; when their
object goes they stay reserved until `released` (the data plane answered the remove), or until
`observed` (a dump, or a replay into an empty data plane, shows what is there).  An id that came
and went between two `drain_dirty` was never told to anybody and is free at once.
"""

from __future__ import annotations

import secrets as system_secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import LegId, ParticipantId, RoomId, RouteId, SourceId, TrackId
from forwarder.rooms import admission, events, subscriptions, tracks
from forwarder.rooms.admission import Limits
from forwarder.rooms.allocate import ROOM_ID_BYTES, Secrets, urlsafe
from forwarder.rooms.audience import Audience
from forwarder.rooms.browsers import BrowserRooms
from forwarder.rooms.events import Event
from forwarder.rooms.joining import new_participant
from forwarder.rooms.roles import Role
from forwarder.rooms.room import (
    LegState,
    Participant,
    ParticipantState,
    Room,
    RoomDetail,
    RoomState,
    RoomView,
    Subscription,
    Track,
    TrackSpec,
    changed,
    view_detail,
    view_participant,
    view_room,
)
from forwarder.rooms.stage import Stage
from forwarder.rooms.state import Dirty, IdKind, State
from forwarder.rooms.viewing import ViewingRooms
from forwarder.rtp.codecs import VIDEO_ORDER, Codec
from forwarder.rtp.suites import Suite
from forwarder.table import LEG_TUPLES_MAX, Tuple5

Key = TypeVar("Key", ParticipantId, RoomId)


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much there is of everything, at one moment."""

    rooms: int
    active: int
    passive: int
    away: int
    tracks: int
    subscriptions: int


class Rooms(BrowserRooms, ViewingRooms, Stage, Audience):
    """All rooms of a node.  The objects it returns are its own: look, do not change."""

    def __init__(self, limits: Limits | None = None, secrets: Secrets = system_secrets) -> None:
        self.state = State(limits or Limits(), secrets)

    # ---- rooms ------------------------------------------------------------------------------

    def create_room(
        self,
        room_id: str | None = None,
        *,
        max_active: int | None = None,
        max_passive: int | None = None,
        codecs: Sequence[Codec] | None = None,
        now: float,
        created_at: float = 0.0,
    ) -> RoomView:
        """A new empty room; without an id one is made up.  `codecs`: of video, best first.
        `created_at`: wall clock, for show."""
        state, limits = self.state, self.state.limits
        if room_id is not None:
            admission.check_room_id(room_id)
            if RoomId(room_id) in state.rooms:
                raise Refused(ErrorCode.ROOM_EXISTS, f"there is a room {room_id!r} already")
        admission.check_open(state.shut)
        admission.check_new_room(len(state.rooms), limits)
        room = Room(
            id=RoomId(room_id) if room_id is not None else self._new_room_id(),
            created_at=created_at,
            max_active=limits.max_active if max_active is None else max_active,
            max_passive=limits.max_passive if max_passive is None else max_passive,
            codecs=VIDEO_ORDER if codecs is None else tuple(codecs),
        )
        admission.check_room_limits(room.max_active, room.max_passive)
        admission.check_codecs(room.codecs)
        state.add_room(room)
        self._expect_somebody(room, now)
        return view_room(room)

    def _new_room_id(self) -> RoomId:
        while True:
            room_id = RoomId(urlsafe(self.state.secrets, ROOM_ID_BYTES))
            if room_id not in self.state.rooms:
                return room_id

    def _expect_somebody(self, room: Room, now: float) -> None:
        if self.state.limits.empty_ttl_s > 0:
            self.state.empty[room.id] = now + self.state.limits.empty_ttl_s

    def close_room(self, room_id: str, reason: str, now: float) -> None:
        """Everybody leaves, and the room is gone."""
        state = self.state
        room = state.room(room_id)
        here = tuple(room.participants)
        for participant in list(room.participants.values()):
            self._clear(participant)
            state.drop_participant(participant)
        room.state = changed(room.state, RoomState.CLOSED)
        state.drop_room(room)
        state.events.append(events.RoomClosed(room.id, reason, here))

    def has_room(self, room_id: str) -> bool:
        return room_id in self.state.rooms

    def list_rooms(self) -> list[RoomView]:
        return [view_room(room) for room in self.state.rooms.values()]

    def show_room(self, room_id: str) -> RoomDetail:
        """Everything in the room, backstage included."""
        return view_detail(self.state.room(room_id))

    # ---- joining, resuming, leaving ---------------------------------------------------------

    def join(
        self, room_id: str, *, name: str, role: Role, suites: Sequence[Suite], now: float
    ) -> Participant:
        """A new participant with a leg and keys of its own."""
        state = self.state
        room = state.room(room_id)
        participant = new_participant(state, room, name, role, suites)
        state.add_participant(participant)
        if room.state is RoomState.EMPTY:
            room.state = changed(room.state, RoomState.OCCUPIED)
            state.empty.pop(room.id, None)
        state.events.append(events.ParticipantJoined(room.id, view_participant(participant)))
        return participant

    def shut(self, reason: str) -> None:
        """From now on rooms and participants that are new are refused; who resumes is not new."""
        self.state.shut = reason

    def resume(self, secret: str, now: float) -> Participant:
        """The participant of this secret, on its old leg; also while its old session is open."""
        state = self.state
        participant = state.by_secret(secret)
        if participant is None:
            raise Refused(
                ErrorCode.RESUME_INVALID,
                "nobody here has this resume secret: it was too long ago, or another node: "
                "join anew with a token",
            )
        if participant.state is ParticipantState.AWAY:
            participant.state = changed(participant.state, ParticipantState.JOINED)
            del state.away[participant.id]
            state.touch_participant(participant)
        return participant

    def session_lost(self, participant_id: str, now: float) -> None:
        """Holds everything of the participant for the grace period.  Unknown: nothing to do."""
        state = self.state
        participant = state.participants.get(ParticipantId(participant_id))
        if participant is not None and participant.state is ParticipantState.JOINED:
            participant.state = changed(participant.state, ParticipantState.AWAY)
            state.away[participant.id] = now + state.limits.resume_grace_s
            state.touch_participant(participant)

    def wait_anew(self, now: float) -> None:
        """All whose session is lost have the whole grace period from now on."""
        self.state.away = dict.fromkeys(self.state.away, now + self.state.limits.resume_grace_s)

    def leave(self, participant_id: str, reason: str, now: float) -> None:
        """The participant, its tracks and subscriptions go."""
        state = self.state
        participant = state.participant(participant_id)
        room = state.rooms[participant.room_id]
        self._clear(participant)
        state.drop_participant(participant)
        state.events.append(events.ParticipantLeft(room.id, view_participant(participant), reason))
        if not room.participants:
            room.state = changed(room.state, RoomState.EMPTY)
            self._expect_somebody(room, now)

    def _clear(self, participant: Participant) -> None:
        for subscription in list(participant.subscriptions.values()):
            self.state.drop_subscription(subscription)
        tracks.unpublish(self.state, list(participant.tracks.values()))
        participant.state = changed(participant.state, ParticipantState.LEFT)

    # ---- media ------------------------------------------------------------------------------

    def publish(self, participant_id: str, specs: Sequence[TrackSpec]) -> list[Track]:
        """All tracks or none; those who subscribe to everything get them at once."""
        return tracks.publish(self.state, self.state.participant(participant_id), specs)

    def unpublish(self, participant_id: str, track_ids: Sequence[str]) -> list[TrackId]:
        """All named tracks, which must be the participant's own, or none."""
        participant = self.state.participant(participant_id)
        own = {t: self.state.own_track(participant, t) for t in track_ids}
        tracks.unpublish(self.state, list(own.values()))
        return [track.id for track in own.values()]

    def mute(self, participant_id: str, track_id: str, muted: bool) -> Track:
        """Pauses the routes of an own track, or lets them go on."""
        track = self.state.own_track(self.state.participant(participant_id), track_id)
        tracks.mute(self.state, track, muted)
        return track

    def subscribe(
        self, participant_id: str, track_ids: Sequence[str], auto: bool = False
    ) -> list[Subscription]:
        """The subscriptions to the named tracks (own ones left out), new or old; with `auto` also
        to every track published from now on."""
        participant = self.state.participant(participant_id)
        return subscriptions.subscribe(self.state, participant, track_ids, auto)

    def unsubscribe(self, participant_id: str, track_ids: Sequence[str]) -> list[TrackId]:
        """Those that ended."""
        participant = self.state.participant(participant_id)
        return subscriptions.unsubscribe(self.state, participant, track_ids)

    def subscription(self, participant_id: str, track_id: str) -> Subscription:
        """The participant's subscription to a track: what a key-frame request is about."""
        participant = self.state.participant(participant_id)
        found = participant.subscriptions.get(TrackId(track_id))
        if found is None:
            raise Refused(ErrorCode.NO_SUCH_TRACK, f"you are not subscribed to {track_id[:80]!r}")
        return found

    def set_tuples(
        self, participant_id: str, tuples: Sequence[Tuple5], nominated: int | None
    ) -> Participant:
        """The validated 5-tuples of a leg, and which of them it is sent to (None: nothing is).

        A 5-tuple leads to one leg: whoever validated it last has it, and its old leg loses it (a
        client that joined anew from the same socket).  ValueError: more than a leg holds, or a
        local address that the node does not have.
        """
        state = self.state
        participant = state.participant(participant_id)
        if len(tuples) > LEG_TUPLES_MAX or len(set(tuples)) != len(tuples):
            raise ValueError(
                f"{participant.id}: up to {LEG_TUPLES_MAX} different 5-tuples, not {len(tuples)}"
            )
        local = participant.local
        if nominated is not None:
            local = state.limits.addresses.index(tuples[nominated].local_ip)
        for holder in {state.by_tuple.get(t, participant).id for t in tuples} - {participant.id}:
            self._take_from(state.participants[holder], set(tuples))
        self._hold(participant, tuple(tuples), nominated, local)
        return participant

    def _take_from(self, holder: Participant, taken: set[Tuple5]) -> None:
        kept = tuple(t for t in holder.tuples if t not in taken)
        old = None if holder.nominated is None else holder.tuples[holder.nominated]
        nominated = kept.index(old) if old in kept else None
        self._hold(holder, kept, nominated, holder.local)

    def _hold(
        self, who: Participant, tuples: tuple[Tuple5, ...], nominated: int | None, local: int
    ) -> None:
        self.state.set_tuples(who, tuples)
        who.nominated, who.local = nominated, local
        live = nominated is not None
        if live and who.leg_state is not LegState.LIVE:
            who.leg_state = changed(who.leg_state, LegState.LIVE)
            self.state.events.append(events.LegLive(who.room_id, who.id, who.leg))
        elif not live and who.leg_state is LegState.LIVE:
            who.leg_state = changed(who.leg_state, LegState.LOST)
            self.state.events.append(events.LegLost(who.room_id, who.id, who.leg))

    def move_leg(self, participant_id: str, workers: Collection[int]) -> bool:
        """Gives the leg to the least loaded of these workers, unless one of them has it (False).

        It keeps its ids, keys and numbers: diff removes it with all that hangs on it, and sets it
        again."""
        participant = self.state.participant(participant_id)
        if participant.worker in workers:
            return False
        self.state.move(participant, min(workers, key=lambda worker: self.state.load[worker]))
        return True

    # ---- look-ups --------------------------------------------------------------------------------

    def participant(self, participant_id: str) -> Participant:
        """Raises NO_SUCH_PARTICIPANT."""
        return self.state.participant(participant_id)

    def participants(self) -> Iterator[Participant]:
        """Everybody on the node."""
        return iter(self.state.participants.values())

    def participant_by_ufrag(self, ufrag: str) -> Participant | None:
        return self.state.by_ufrag.get(ufrag)

    def participant_by_leg(self, leg: int) -> Participant | None:
        return self.state.by_leg.get(LegId(leg))

    def track_by_source(self, source: int) -> Track | None:
        return self.state.by_source.get(SourceId(source))

    def subscription_by_route(self, route: int) -> Subscription | None:
        return self.state.by_route.get(RouteId(route))

    def statistics(self) -> Statistics:
        state = self.state
        return Statistics(
            rooms=len(state.rooms),
            active=sum(room.active for room in state.rooms.values()),
            passive=sum(room.passive for room in state.rooms.values()),
            away=len(state.away),
            tracks=sum(track.shown for track in state.tracks.values()),
            subscriptions=len(state.by_route),
        )

    # ---- time, events, changes --------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` has something to do (monotonic seconds); None: nothing is waiting."""
        queues = (self.state.away, self.state.empty)
        times = [next(iter(q.values())) for q in queues if q]
        return min([*times, *self.state.ladders.values()], default=None)

    def tick(self, now: float) -> None:
        """Ends those whose grace is over, and rooms that stayed empty; tries other layers."""
        for pid in _due(self.state.away, now):
            self.leave(pid, "its connection was lost and not resumed in time", now)
        for room_id in _due(self.state.empty, now):
            self.close_room(room_id, "nobody was in it", now)
        self.tick_layers(now)

    def drain_events(self) -> list[Event]:
        """What happened since the last call, in order."""
        drained = list(self.state.events)
        self.state.events.clear()
        return drained

    def drain_dirty(self) -> Dirty:
        """What changed since the last call: for the planner and the store."""
        return self.state.drain_dirty()

    def released(self, kind: IdKind | str, index: int) -> bool:
        """The data plane answered the remove of this leg, source or route: the id is free."""
        return self.state.released(IdKind(kind), index)

    def observed(self, legs: Iterable[int], sources: Iterable[int], routes: Iterable[int]) -> None:
        """All ids that the data plane holds, by a dump with no command on its way: ids of objects
        that are gone here and there are free, unknown ones stay reserved until `released`."""
        self.state.observed(set(legs), set(sources), set(routes))


def _due(queue: dict[Key, float], now: float) -> list[Key]:
    """The keys whose deadline has come; a queue is in the order of its deadlines."""
    return list(takewhile(lambda key: queue[key] <= now, queue))
