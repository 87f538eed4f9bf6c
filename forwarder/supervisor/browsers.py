"""Participants that join by an SDP offer: offer -> room, STUN -> DTLS -> keys -> table.

Law: the last flight of a handshake leaves when the keys are in force in the worker, so the
client's first packet is never met without them.  A participant whose handshake does not finish in
time leaves.  There is no session to be lost: while its addresses are valid it is here, when they
are lost it has the grace period.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from forwarder.clock import Clock
from forwarder.errors import ErrorCode, ProtocolError, Refused
from forwarder.ice import IceLite
from forwarder.ice.dtls import DEADLINE_S, HALF_OPEN_MAX, DtlsServer, Output
from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms import events
from forwarder.rooms.core import Rooms
from forwarder.rooms.events import Event
from forwarder.rooms.room import Participant, Peer, SlotSpec, TrackSpec
from forwarder.signaling import sdp
from forwarder.signaling.backend import Answered, Patched
from forwarder.signaling.sdp import Way
from forwarder.signaling.tokens import Claims
from forwarder.table import Ext, Tuple5, extensions

log = logging.getLogger(__name__)

BEAT_S = 0.1  # between looks at the timers of handshakes
RESOURCE_BYTES = 24

# The table carries no resends of its own, layers and rate feedback of a browser yet.
TERMS = {
    Way.RECEIVE: replace(sdp.WHIP, rtx=False, simulcast=False, feedback=False),
    Way.SEND: replace(sdp.WHEP, rtx=False, feedback=False),
}

Send = Callable[[bytes], None]


class Table(Protocol):
    """The reconciler, as this file needs it."""

    async def settle(self) -> None: ...


def resource_id(participant: Participant) -> str:
    """The unguessable part of a session's URL; the same after a restart of the supervisor."""
    digest = hashlib.sha256(b"webrtc session " + participant.resume.encode()).digest()
    return base64.urlsafe_b64encode(digest[:RESOURCE_BYTES]).decode()


class Browsers:
    """Implements signaling's WebRtc."""

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
        self._dtls = dtls
        self._table = table
        self._clock = clock
        self._announce = announce
        self._candidates = tuple(sdp.Candidate(ip, port) for ip, port in addresses)
        self._by_resource: dict[str, ParticipantId] = {}
        self._resources: dict[ParticipantId, str] = {}
        self._replies: dict[ParticipantId, Send] = {}
        """How a client in a handshake is answered."""
        self._held: dict[ParticipantId, list[bytes]] = {}
        """Last flights that wait for their keys."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._beat: asyncio.TimerHandle | None = None

    def take_up(self) -> None:
        """After a restart of the supervisor: calls go on, their URLs lead to them again."""
        for me in list(self._rooms.participants()):
            if me.peer is not None:
                self._remember(me)
                if me.nominated is not None:  # consent decides whether it is still there
                    self._rooms.returned(me.id)

    def close(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        for task in self._tasks:
            task.cancel()

    # ---- HTTP -------------------------------------------------------------------------------

    async def offer(
        self, way: Way, claims: Claims, data: bytes, follow: str = "", layer: str = ""
    ) -> Answered:
        """A new participant with what its offer can have; Refused or ProtocolError."""
        if not self._rooms.has_room(claims.room_id):
            raise Refused(ErrorCode.NO_SUCH_ROOM, f"there is no room {claims.room_id}")
        if self._dtls.full:
            raise Refused(
                ErrorCode.UNAVAILABLE,
                f"{HALF_OPEN_MAX} handshakes are under way, the most: "
                f"try again in {DEADLINE_S:g} s",
            )
        if follow and self._rooms.participant(follow).room_id != claims.room_id:
            raise Refused(ErrorCode.NO_SUCH_PARTICIPANT, "there is nobody of this id in this room")
        made = sdp.negotiate(sdp.parse_offer(data), TERMS[way])
        if way is Way.RECEIVE:
            _check_whole(made)
        now = self._clock.now()
        me = self._rooms.join_peer(
            claims.room_id,
            name=claims.name,
            role=claims.role,
            peer=_peer(made, way, follow),
            tracks=[_track(item, made) for item in made.accepted] if way is Way.RECEIVE else (),
            places=[_place(item) for item in made.accepted] if way is Way.SEND else (),
            now=now,
        )
        self._ice.add(me.id, me.ufrag, me.password)
        self._dtls.expect(me.id, made.fingerprint.algorithm, made.fingerprint.value, now)
        self._remember(me)
        self._start_beat()
        self._announce()
        await self._table.settle()
        answer = sdp.render(made, self._local(me))
        return Answered(self._resources[me.id], _etag(me), answer)

    async def patch(self, way: Way, room_id: RoomId, resource: str, data: bytes) -> Patched:
        """Candidates, which a lite agent needs not, or new credentials: an ICE restart."""
        me = self._find(way, room_id, resource)
        peer = me.peer
        assert peer is not None
        fragment = sdp.parse_fragment(data)
        if fragment.ufrag in ("", peer.ufrag):
            return Patched(_etag(me), None)
        me = self._rooms.restart_ice(me.id, replace(peer, ufrag=fragment.ufrag))
        self._ice.restart(me.id, me.ufrag, me.password, self._clock.now())
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

    def _local(self, me: Participant) -> sdp.Local:
        streams = {
            slot.spec.mid: sdp.Stream(
                slot.out_ssrc, me.cname, "vcfwd", f"{slot.spec.kind.value}{slot.spec.mid}"
            )
            for slot in me.slots
        }
        return sdp.Local(
            ufrag=me.ufrag,
            password=me.password,
            fingerprint=self._dtls.fingerprint,
            candidates=self._candidates,
            session_id=self._rooms.state.secrets.randbits(62),
            streams=streams,
        )

    # ---- DTLS -------------------------------------------------------------------------------

    def datagram(self, data: bytes, at: Tuple5, send: Send) -> None:
        """One with a first byte of 20-63; `send` answers to where it came from."""
        who = self._ice.holder(at)
        if who is None:
            self._dtls.counters["no_check"] += 1
            return
        output = self._dtls.receive(who, data, self._clock.now())
        if output.keys is not None:
            self._held[who] = list(output.datagrams)
            self._replies.pop(who, None)
            task = asyncio.create_task(self._complete(who, output, send))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif who in self._held:
            self._held[who] = list(output.datagrams) or self._held[who]
        else:
            if who in self._resources and output.datagrams:
                self._replies[who] = send
            for datagram in output.datagrams:
                send(datagram)

    async def _complete(self, who: ParticipantId, output: Output, send: Send) -> None:
        try:
            assert output.keys is not None
            self._rooms.set_keys(who, output.keys)
            self._announce()
            await self._table.settle()
        except Refused:
            return  # it left in the meantime
        finally:
            flight = self._held.pop(who, [])
        for datagram in flight:
            send(datagram)

    def _start_beat(self) -> None:
        if self._beat is None:
            self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._tick)

    def _tick(self) -> None:
        self._beat = None
        now = self._clock.now()
        sends, late = self._dtls.tick(now)
        for who, data in sends:
            reply = self._replies.get(who)
            if reply is not None:
                reply(data)
        for who in late:
            log.info("a handshake did not finish in time")
            self._rooms.leave(who, "its handshake did not finish in time", now)
        if late:
            self._announce()
        if self._dtls.busy:
            self._start_beat()

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
            case events.SubscriptionRefused(participant_id=who, message=message):
                if who in self._resources:
                    self._dtls.counters["codec_unsupported"] += 1
                    log.info("a viewer's slot stays empty: %s", message)

    def _forget(self, who: ParticipantId) -> None:
        self._dtls.forget(who)
        self._replies.pop(who, None)
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


def _etag(me: Participant) -> str:
    return f'"{me.ufrag}"'


def _peer(made: sdp.Negotiation, way: Way, follow: str) -> Peer:
    return Peer(
        way=way.name,
        ufrag=made.ufrag,
        rx_ext=extensions(made.rx_extensions),
        tx_ext=extensions(made.tx_extensions),
        mids=tuple((item.kind.value, item.media.mid) for item in made.accepted),
        follow=follow,
        nack=made.nack,
    )


def _track(item: sdp.Accepted, made: sdp.Negotiation) -> TrackSpec:
    chosen = item.formats[0]
    return TrackSpec(
        label=item.kind.value,
        kind=item.kind,
        codec=chosen.codec,
        pt=chosen.format.pt,
        clock_hz=chosen.format.clock_hz,
        ssrc=item.layers[0].ssrc,
        mid=item.media.mid if Ext.MID in made.rx_extensions else "",
    )


def _place(item: sdp.Accepted) -> SlotSpec:
    pts = tuple((chosen.codec, chosen.format.pt) for chosen in item.formats)
    return SlotSpec(item.kind, item.media.mid, pts)
