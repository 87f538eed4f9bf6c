"""What signaling asks of the node: `signaling.backend.Backend` on top of the rooms.

Law: each method changes the rooms, saves what must survive, waits until the data plane's table
agrees (`settle`), and answers.  Events for others are pushed at once: what they announce is on
its way.  The exception is `leg live`, which is told when the table is in force (P-3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from forwarder.clock import Clock
from forwarder.commands import KeyframeRequest
from forwarder.errors import ErrorCode, HostError, ProtocolError, Refused
from forwarder.ice import IceLite, TuplesChanged
from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms import events
from forwarder.rooms.core import Rooms
from forwarder.rooms.roles import Role
from forwarder.rooms.room import LegState, Participant, view_participant
from forwarder.rtp.codecs import Codec
from forwarder.signaling import messages as m
from forwarder.signaling.backend import RoomDetail, RoomInfo, Session
from forwarder.signaling.tokens import Claims
from forwarder.signaling.turn import Turn
from forwarder.supervisor import views
from forwarder.table import Tuple5

log = logging.getLogger(__name__)

PARTING_ROUNDS = 4  # of the table, after the one in which a role changed


class Table(Protocol):
    """The reconciler, as this file needs it (reconcile.py)."""

    async def settle(self) -> None:
        """Returns when everything that changed in the rooms until now is in force."""

    def changed(self) -> None:
        """The rooms changed: reconcile soon."""

    async def send(self, command: KeyframeRequest) -> None:
        """A command that is not part of the table."""


class Guard(Protocol):
    """Where the node's guard is told of 5-tuples that ICE has validated (dataplane.steering): what
    comes from them is charged to themselves, also while DTLS is under way, never to a prefix that
    they share with others (DESIGN.md section 3)."""

    def admit(self, flow_key: Tuple5) -> None: ...

    def dismiss(self, flow_key: Tuple5) -> bool: ...


class Offers(Protocol):
    """Participants that join by an SDP offer (browsers.py)."""

    async def join(self, claims: Claims, text: str) -> tuple[Participant, str]: ...

    async def again(self, participant_id: ParticipantId, text: str) -> str: ...


class StatusSource(Protocol):
    async def status(self) -> dict[str, Any]: ...


class RoomsBackend:
    """Implements signaling's Backend."""

    def __init__(
        self,
        rooms: Rooms,
        ice: IceLite,
        table: Table,
        clock: Clock,
        status: StatusSource,
        *,
        addresses: Sequence[tuple[str, int]],
        guard: Guard | None = None,
    ) -> None:
        self._rooms = rooms
        self._ice = ice
        self._guard = guard
        self._table = table
        self._clock = clock
        self._status = status
        self._addresses = list(addresses)
        self._sessions: dict[ParticipantId, Session] = {}
        self.on_event: Callable[[events.Event], None] | None = None
        """Hears each event before the sessions do."""
        self.offers: Offers | None = None
        self.turn: Turn | None = None
        """Tells browsers of TURN servers."""

    # ---- sessions ---------------------------------------------------------------------------

    async def join(self, claims: Claims, message: m.Join, session: Session) -> m.Welcome:
        if message.offer is not None:
            me, answer = await self._offers().join(claims, message.offer)
            return self._welcome(me, message.id, session, resumed=False, answer=answer)
        me = self._rooms.join(
            claims.room_id,
            name=claims.name,
            role=claims.role,
            suites=message.suites,
            now=self._clock.now(),
        )
        self._ice.add(me.id, me.ufrag, me.password)
        await self._settle()
        return self._welcome(me, message.id, session, resumed=False)

    async def resume(self, message: m.Join, session: Session) -> m.Welcome:
        if message.offer is not None:
            raise ProtocolError(
                ErrorCode.BAD_MESSAGE,
                "join with resume takes up what there is: send the offer afterwards, by `offer`",
            )
        me = self._rooms.resume(message.resume or "", self._clock.now())
        await self._settle()
        return self._welcome(me, message.id, session, resumed=True)

    def _offers(self) -> Offers:
        assert self.offers is not None  # the node sets it before anybody can join
        return self.offers

    def _welcome(
        self,
        me: Participant,
        re: int,
        session: Session,
        *,
        resumed: bool,
        answer: str | None = None,
    ) -> m.Welcome:
        # The address that the client reached first: it surely can reach it again.
        reached = (session.local[0], self._addresses[0][1] if self._addresses else 0)
        addresses = [reached] if reached in self._addresses else []
        addresses += [address for address in self._addresses if address != reached]
        return views.welcome(
            me,
            self._rooms.others(me.id),
            self._rooms.tracks_of_others(me.id),
            views.media_offer(me, addresses) if me.peer is None else None,
            re=re,
            resumed=resumed,
            answer=answer,
            ice_servers=self.turn.servers(me.id) if self.turn and me.peer is not None else (),
        )

    def session_opened(self, participant_id: ParticipantId, session: Session) -> None:
        self._sessions[participant_id] = session
        me = self._rooms.participant(participant_id)
        if me.subscriptions and me.peer is None:
            session.push(views.subscribed(me.subscriptions.values()))
        if me.leg_state is LegState.LIVE:
            session.push(m.LegState(state="live"))
        speaker = self._rooms.state.rooms[me.room_id].speaker
        if speaker is not None:
            session.push(m.SpeakerChanged(participant_id=speaker))
        if me.asked_pairs:  # while nobody listened
            self._rooms.ask_again(participant_id)
            self.announce()

    def session_lost(self, participant_id: ParticipantId) -> None:
        self._sessions.pop(participant_id, None)
        self._rooms.session_lost(participant_id, self._clock.now())
        self._table.changed()

    async def leave(self, participant_id: ParticipantId, reason: str) -> None:
        self._sessions.pop(participant_id, None)
        self._rooms.leave(participant_id, reason, self._clock.now())
        await self._settle()

    # ---- requests of a joined participant ---------------------------------------------------

    def _native(self, participant_id: ParticipantId) -> None:
        """Refused for a browser: what it sends and receives is said by SDP alone."""
        if self._rooms.participant(participant_id).peer is not None:
            raise Refused(
                ErrorCode.FORBIDDEN, "you joined by an offer: publish and view by another one"
            )

    async def publish(self, participant_id: ParticipantId, message: m.Publish) -> m.Published:
        self._native(participant_id)
        specs = [views.track_spec(offer) for offer in message.tracks]
        tracks = self._rooms.publish(participant_id, specs)
        await self._settle()
        return m.Published(
            re=message.id,
            tracks=[m.PublishedTrack(label=t.spec.label, track_id=t.id) for t in tracks],
        )

    async def unpublish(self, participant_id: ParticipantId, message: m.Unpublish) -> None:
        self._native(participant_id)
        self._rooms.unpublish(participant_id, message.track_ids)
        await self._settle()

    async def subscribe(self, participant_id: ParticipantId, message: m.Subscribe) -> m.Subscribed:
        self._native(participant_id)
        found = self._rooms.subscribe(participant_id, message.track_ids, message.auto)
        answer = views.subscribed(found, message.id)
        await self._settle()
        return answer

    async def unsubscribe(
        self, participant_id: ParticipantId, message: m.Unsubscribe
    ) -> m.Unsubscribed:
        self._native(participant_id)
        ended = self._rooms.unsubscribe(participant_id, message.track_ids)
        await self._settle()
        return m.Unsubscribed(re=message.id, track_ids=list(ended))

    async def keyframe(self, participant_id: ParticipantId, message: m.KeyframeRequest) -> None:
        subscription = self._rooms.subscription(participant_id, message.track_id)
        await self._table.send(KeyframeRequest(subscription.source))

    async def mute(self, participant_id: ParticipantId, message: m.Mute) -> None:
        self._rooms.mute(participant_id, message.track_id, message.muted)
        await self._settle()

    async def data(self, participant_id: ParticipantId, message: m.Data) -> None:
        told = m.DataReceived(participant_id=participant_id, payload=message.payload)
        for target in self._rooms.data_targets(participant_id, message.to):
            if target in self._sessions:
                self._sessions[target].push(told)

    async def offer(self, participant_id: ParticipantId, message: m.Offer) -> m.Answer:
        text = await self._offers().again(participant_id, message.sdp)
        return m.Answer(re=message.id, sdp=text)

    async def view(self, participant_id: ParticipantId, message: m.View) -> None:
        self._rooms.set_view(participant_id, message.participants)
        await self._settle()

    async def layer(self, participant_id: ParticipantId, message: m.LayerWish) -> None:
        layer = None if message.layer == "auto" else message.layer
        self._rooms.set_layer(participant_id, message.mid, layer)
        await self._settle()

    # ---- the HTTP API -----------------------------------------------------------------------

    async def create_room(
        self,
        room_id: RoomId | None,
        *,
        max_active: int | None,
        max_passive: int | None,
        codecs: tuple[Codec, ...] | None = None,
    ) -> RoomInfo:
        view = self._rooms.create_room(
            room_id,
            max_active=max_active,
            max_passive=max_passive,
            codecs=codecs,
            now=self._clock.now(),
            created_at=self._clock.wall(),
        )
        self._table.changed()
        return views.room_info(view)

    async def list_rooms(self) -> list[RoomInfo]:
        return [views.room_info(view) for view in self._rooms.list_rooms()]

    async def show_room(self, room_id: RoomId) -> RoomDetail:
        return views.room_detail(self._rooms.show_room(room_id))

    def has_room(self, room_id: RoomId) -> bool:
        return self._rooms.has_room(room_id)

    async def set_role(
        self, room_id: RoomId, participant_id: ParticipantId, role: Role
    ) -> m.ParticipantInfo:
        who = self._rooms.set_role(room_id, participant_id, role)
        await self._settle()
        for _ in range(PARTING_ROUNDS):  # what a viewer still waits to switch away from
            if not self._rooms.parting(who.id):
                break
            await self._settle()
        return views.participant_info(view_participant(who))

    async def close_room(self, room_id: RoomId, reason: str) -> None:
        self._rooms.close_room(room_id, reason, self._clock.now())
        await self._settle()

    async def status(self) -> dict[str, Any]:
        return await self._status.status()

    # ---- what happened ----------------------------------------------------------------------

    def tuples_changed(self, change: TuplesChanged) -> None:
        """ICE validated, nominated or withdrew addresses."""
        self._change(change)
        self.announce()

    def _change(self, change: TuplesChanged) -> None:
        self._rooms.set_tuples(change.participant_id, change.tuples, change.nominated)
        self._vouch(change.added, change.removed)

    def _vouch(self, added: Iterable[Tuple5], removed: Iterable[Tuple5]) -> None:
        if self._guard is None:
            return
        try:
            for gone in removed:
                self._guard.dismiss(gone)
            for new in added:
                self._guard.admit(new)
        except (HostError, OSError) as error:  # then its prefix is charged, as before the check
            log.error("the guard cannot be told of an address: %s", error)

    def opened(self) -> None:
        """Only now can somebody come back: what the start took is nobody's silence."""
        now = self._clock.now()
        self._rooms.wait_anew(now)
        self._ice.wait_anew(now)

    def tick(self) -> None:
        """Consent, grace periods and empty rooms; call it about once a second."""
        now = self._clock.now()
        for change in self._ice.expire(now):
            self._change(change)
        self._rooms.tick(now)
        self._rooms.tick_layers(now)
        self.announce()

    def leg_in_force(self, participant_id: ParticipantId) -> None:
        """The table with this leg's addresses is in force."""
        session = self._sessions.get(participant_id)
        if session is not None:
            session.push(m.LegState(state="live"))

    async def _settle(self) -> None:
        self.announce()
        await self._table.settle()

    def announce(self) -> None:
        """Tells the sessions what happened in the rooms, and the reconciler that it did."""
        self._rooms.fill_slots(self._clock.now())
        for event in self._rooms.drain_events():
            if self.on_event is not None:
                self.on_event(event)
            message = views.message_of(event)
            if message is not None:
                for target in self._rooms.recipients(event):
                    if target in self._sessions:
                        self._sessions[target].push(message)
            if isinstance(event, events.ParticipantLeft):
                self._end(event.participant.id, event.reason)
            elif isinstance(event, events.RoomClosed):
                for participant_id in event.participant_ids:
                    self._end(participant_id, event.reason)
        self._table.changed()

    def _end(self, participant_id: ParticipantId, reason: str) -> None:
        self._vouch((), self._ice.remove(participant_id))
        session = self._sessions.pop(participant_id, None)
        if session is not None:
            session.close(reason, ErrorCode.NO_SUCH_PARTICIPANT)
