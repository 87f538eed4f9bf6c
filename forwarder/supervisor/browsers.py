"""Participants that join by an SDP offer: WHIP, WHEP, and sessions whose `join` carries one.

Law: an offer is taken as a whole or changes nothing.  A participant of WHIP or WHEP has no session
to be lost: while its addresses are valid it is here, when they are lost it has the grace period.
One with a session is here while its session is, like a native client.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from forwarder.clock import Clock
from forwarder.errors import ErrorCode, ProtocolError, Refused
from forwarder.ice import IceLite
from forwarder.ice.dtls import DtlsServer
from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms import events
from forwarder.rooms.core import Rooms
from forwarder.rooms.events import Event
from forwarder.rooms.room import Participant, Peer, SlotState
from forwarder.signaling import sdp
from forwarder.signaling.backend import Answered, Patched
from forwarder.signaling.sdp import Way
from forwarder.signaling.sdp.model import Fingerprint
from forwarder.signaling.tokens import Claims
from forwarder.supervisor.handshakes import Handshakes, Table
from forwarder.supervisor.offers import (
    BOTH,
    begun_anew,
    check_kept,
    check_session,
    local,
    peer_of,
    remembered,
    resource_id,
    slot_spec,
    track_specs,
)

log = logging.getLogger(__name__)

TERMS = {Way.RECEIVE: sdp.WHIP, Way.SEND: sdp.WHEP}


class Browsers:
    """Implements signaling's WebRtc, and the backend's part of a join by an offer."""

    def __init__(
        self,
        rooms: Rooms,
        ice: IceLite,
        dtls: DtlsServer,
        table: Table,
        clock: Clock,
        *,
        announce: Callable[[], None],
        addresses: Sequence[tuple[str, int]],
    ) -> None:
        self._rooms = rooms
        self._ice = ice
        self._table = table
        self._clock = clock
        self._announce = announce
        self._candidates = tuple(sdp.Candidate(ip, port) for ip, port in addresses)
        self._counters = dtls.counters
        self._handshakes = Handshakes(rooms, ice, dtls, table, clock, announce=announce)
        self.datagram = self._handshakes.datagram
        self.tick = self._handshakes.tick
        self.close = self._handshakes.close
        self._by_resource: dict[str, ParticipantId] = {}
        self._resources: dict[ParticipantId, str] = {}
        """Of WHIP and WHEP."""
        self._fingerprints: dict[ParticipantId, Fingerprint] = {}
        self._versions: dict[ParticipantId, int] = {}
        """Of sessions that joined while this process was here."""

    def take_up(self) -> None:
        """After a restart of the supervisor: calls go on, their URLs lead to them again."""
        for me in list(self._rooms.participants()):
            if me.peer is not None and me.peer.way != BOTH:
                self._remember(me)
                if me.nominated is not None:  # consent decides whether it is still there
                    self._rooms.returned(me.id)

    # ---- offers -----------------------------------------------------------------------------

    async def offer(
        self, way: Way, claims: Claims, data: bytes, follow: str = "", layer: str = ""
    ) -> Answered:
        """WHIP or WHEP: a new participant with what its offer can have; Refused, ProtocolError."""
        terms = self._terms(TERMS[way], claims.room_id)
        self._handshakes.admit(claims.room_id)
        if follow and self._rooms.participant(follow).room_id != claims.room_id:
            raise Refused(ErrorCode.NO_SUCH_PARTICIPANT, "there is nobody of this id in this room")
        made = sdp.negotiate(sdp.parse_offer(data), terms)
        if way is Way.RECEIVE:
            _check_whole(made)
        me = self._enter(claims, made, way.name, follow, layer)
        self._remember(me)
        await self._table.settle()
        return Answered(self._resources[me.id], _etag(me), self._answer(made, me))

    async def join(self, claims: Claims, text: str) -> tuple[Participant, str]:
        """A session's: a new participant, and the answer.  Refused, ProtocolError."""
        terms = self._terms(sdp.SESSION, claims.room_id)
        self._handshakes.admit(claims.room_id)
        made = sdp.negotiate(sdp.parse_offer(_data(text)), terms)
        check_session(made)
        me = self._enter(claims, made, BOTH)
        self._fingerprints[me.id] = made.fingerprint
        self._versions[me.id] = made.version
        await self._table.settle()
        return me, self._answer(made, me)

    def _terms(self, terms: sdp.Terms, room_id: RoomId) -> sdp.Terms:
        """With the codecs of the room.  NO_SUCH_ROOM."""
        return replace(terms, order=self._rooms.state.room(room_id).codecs)

    def _enter(
        self, claims: Claims, made: sdp.Negotiation, way: str, follow: str = "", layer: str = ""
    ) -> Participant:
        me = self._rooms.join_peer(
            claims.room_id,
            name=claims.name,
            role=claims.role,
            peer=peer_of(made, way, follow, layer, self._handshakes.fingerprint),
            tracks=track_specs(made),
            places=[slot_spec(item) for item in made.send],
            now=self._clock.now(),
        )
        self._ice.add(me.id, me.ufrag, me.password)
        self._handshakes.expect(me, made.fingerprint.algorithm, made.fingerprint.value)
        self._announce()
        return me

    async def again(self, participant_id: ParticipantId, text: str) -> str:
        """A session's further offer: new slots and tracks, tracks that end, an ICE restart."""
        me = self._rooms.participant(participant_id)
        if me.peer is None or me.peer.way != BOTH:
            raise Refused(
                ErrorCode.FORBIDDEN, "you joined without an offer: use publish and subscribe"
            )
        offer = sdp.parse_offer(_data(text))
        terms = self._terms(sdp.SESSION, me.room_id)
        fresh = sdp.negotiate(offer, terms)
        old = remembered(me, fresh, self._fingerprints.get(me.id), self._version(me))
        made = sdp.negotiate(offer, terms, old)
        check_kept(me, made)
        self._renew(me, made)
        self._versions[me.id] = made.version
        self._announce()
        await self._table.settle()
        return self._answer(made, me)

    def _renew(self, me: Participant, made: sdp.Negotiation) -> None:
        """Brings the rooms to what was agreed on; Refused: nothing has changed."""
        assert me.peer is not None
        held = {slot.spec.mid for slot in me.slots}
        anew = begun_anew(me, made)
        every = {track.spec.mid: track for track in me.tracks.values()}
        sent = {mid: track for mid, track in every.items() if mid not in anew}
        places = [slot_spec(item) for item in made.send if item.media.mid not in held]
        taken = [track.spec.label for track in every.values()]
        fresh = [item for item in made.receive if item.media.mid not in sent]
        kept = {item.media.mid for item in made.receive}
        specs = track_specs(replace(made, accepted=tuple(fresh)), taken)
        self._rooms.state.check_routes(len(places))
        if specs:
            self._rooms.publish(me.id, specs)
        if places:
            self._rooms.grow(me.id, places)
        if ended := [t.id for mid, t in every.items() if mid in anew or mid not in kept]:
            self._rooms.unpublish(me.id, ended)
        peer = peer_of(made, BOTH, certificate=me.peer.certificate)
        if made.ufrag == me.peer.ufrag:
            self._rooms.set_peer(me.id, peer)
        else:
            self._restart(me, peer)

    def _version(self, me: Participant) -> int:
        """Of the last answer; after a restart of the supervisor one that is surely above it."""
        return self._versions.get(me.id, int(self._clock.wall()))

    def _restart(self, me: Participant, peer: Peer) -> None:
        self._rooms.restart_ice(me.id, peer)
        self._ice.restart(me.id, me.ufrag, me.password, self._clock.now())

    def _answer(self, made: sdp.Negotiation, me: Participant) -> str:
        return sdp.render(made, local(me, self._handshakes.fingerprint, self._candidates))

    # ---- WHIP and WHEP ----------------------------------------------------------------------

    async def patch(self, way: Way, room_id: RoomId, resource: str, data: bytes) -> Patched:
        """Candidates, which a lite agent needs not, or new credentials: an ICE restart."""
        me = self._find(way, room_id, resource)
        peer = me.peer
        assert peer is not None
        fragment = sdp.parse_fragment(data)
        if fragment.ufrag in ("", peer.ufrag):
            return Patched(_etag(me), None)
        self._restart(me, replace(peer, ufrag=fragment.ufrag))
        self._announce()
        await self._table.settle()
        answer = sdp.render_fragment(me.ufrag, me.password, peer.mids, self._candidates)
        return Patched(_etag(me), answer)

    def etag(self, way: Way, room_id: RoomId, resource: str) -> str:
        """Names the ICE session (RFC 9725 section 4.3.1).  NO_SUCH_PARTICIPANT."""
        return _etag(self._find(way, room_id, resource))

    async def leave(self, way: Way, room_id: RoomId, resource: str) -> None:
        me = self._find(way, room_id, resource)
        self._rooms.leave(me.id, "it said so", self._clock.now())
        self._announce()
        await self._table.settle()

    def _find(self, way: Way, room_id: RoomId, resource: str) -> Participant:
        found = self._by_resource.get(resource)
        me = self._rooms.participant(found) if found is not None else None
        if me is None or me.room_id != room_id or me.peer is None or me.peer.way != way.name:
            raise Refused(ErrorCode.NO_SUCH_PARTICIPANT, "there is no such session")
        return me

    def _remember(self, me: Participant) -> None:
        resource = resource_id(me)
        self._by_resource[resource] = me.id
        self._resources[me.id] = resource

    # ---- what happened ----------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """From the backend, in order."""
        match event:
            case events.ParticipantLeft(participant=gone):
                self._forget(gone.id)
            case events.RoomClosed(participant_ids=here):
                for participant_id in here:
                    self._forget(participant_id)
            case events.LegLost(participant_id=who) if who in self._resources:
                self._rooms.session_lost(who, self._clock.now())
            case events.LegLive(participant_id=who) if who in self._resources:
                self._rooms.returned(who)
            case events.SlotChanged(state=SlotState.CODEC_UNSUPPORTED):
                self._counters["codec_unsupported"] += 1

    def _forget(self, who: ParticipantId) -> None:
        self._handshakes.forget(who)
        self._fingerprints.pop(who, None)
        self._versions.pop(who, None)
        resource = self._resources.pop(who, None)
        if resource is not None:
            del self._by_resource[resource]


def _check_whole(made: sdp.Negotiation) -> None:
    """A publisher shall not believe that all of it is sent (RFC 9725 section 4.4.3)."""
    for media in made.offer.media:
        wanted = media.kind in ("audio", "video") and media.live and media.direction != "inactive"
        if wanted and made.section(media.index) is None:
            raise ProtocolError(
                ErrorCode.CODEC_UNSUPPORTED,
                f"the offer cannot be accepted as a whole: not its m-line {media.index + 1} "
                f"({media.kind}, {media.direction}); WHIP takes one track of each kind, "
                "in a codec of the room",
            )


def _data(text: str) -> bytes:
    return text.encode(errors="replace")


def _etag(me: Participant) -> str:
    return f'"{me.ufrag}"'
