"""STUN -> DTLS -> keys -> table, for every participant that joined by an offer.

Law: the last flight of a handshake leaves when the keys are in force in the worker, so the
client's first packet is never met without them.  A participant whose handshake does not finish in
time leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from forwarder.clock import Clock
from forwarder.errors import ErrorCode, Refused
from forwarder.ice import IceLite
from forwarder.ice.dtls import DEADLINE_S, DtlsServer, Output
from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms.core import Rooms
from forwarder.rooms.room import Participant
from forwarder.table import Tuple5

log = logging.getLogger(__name__)

BEAT_S = 0.1  # between looks at the timers of handshakes

Send = Callable[[bytes], None]


class Table(Protocol):
    """The reconciler, as this file needs it."""

    async def settle(self) -> None: ...


class Handshakes:
    """All that are under way."""

    def __init__(
        self,
        rooms: Rooms,
        ice: IceLite,
        dtls: DtlsServer,
        table: Table,
        clock: Clock,
        *,
        announce: Callable[[], None],
    ) -> None:
        self._rooms = rooms
        self._ice = ice
        self._dtls = dtls
        self._table = table
        self._clock = clock
        self._announce = announce
        self._expected: set[ParticipantId] = set()
        self._replies: dict[ParticipantId, Send] = {}
        """How a client in a handshake is answered."""
        self._held: dict[ParticipantId, list[bytes]] = {}
        """Last flights that wait for their keys."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._beat: asyncio.TimerHandle | None = None

    @property
    def fingerprint(self) -> str:
        """Of the node's certificate, for an answer."""
        return self._dtls.fingerprint

    def admit(self, room: RoomId) -> None:
        """Refused (503) while there are as many as there may be, of all rooms or of this one."""
        most, share = self._dtls.most, self._dtls.share
        if self._dtls.full:
            why, many = "full", f"{most} handshakes are under way, the most"
        elif self._dtls.room_full(room):
            why = "room_full"
            many = f"{share} handshakes of this room are under way, its share of {most}"
        else:
            return
        self._dtls.counters[why] += 1
        raise Refused(ErrorCode.UNAVAILABLE, f"{many}: try again in {DEADLINE_S:g} s")

    def expect(self, me: Participant, algorithm: str, fingerprint: str) -> None:
        """Its offer was taken; the caller has called `admit`."""
        who = me.id
        self._dtls.expect(who, me.room_id, algorithm, fingerprint, self._clock.now())
        self._expected.add(who)
        if self._beat is None:
            self._beat = asyncio.get_running_loop().call_later(BEAT_S, self.tick)

    def forget(self, who: ParticipantId) -> None:
        """It left."""
        self._dtls.forget(who)
        self._replies.pop(who, None)
        self._expected.discard(who)

    def close(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        for task in self._tasks:
            task.cancel()
        self._dtls.close()

    def datagram(self, data: bytes, at: Tuple5, send: Send) -> None:
        """One with a first byte of 20-63; `send` answers to where it came from."""
        who = self._ice.holder(at)
        if who is None:
            self._dtls.counters["no_check"] += 1
            return
        output = self._dtls.receive(who, data, self._clock.now())
        if output.ended:
            self._end(who)
        elif output.keys is not None:
            self._held[who] = list(output.datagrams)
            self._replies.pop(who, None)
            self._expected.discard(who)
            task = asyncio.create_task(self._complete(who, output, send))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif who in self._held:
            self._held[who] = list(output.datagrams) or self._held[who]
        else:
            if who in self._expected and output.datagrams:
                self._replies[who] = send
            for datagram in output.datagrams:
                send(datagram)

    def _end(self, who: ParticipantId) -> None:
        """Its client closed the connection.  WHIP and WHEP have no other word that a page which is
        left could still send; who joined by a session says by that whether it stays."""
        person = self._rooms.state.participants.get(who)
        if person is None or person.peer is None or person.peer.way == "BOTH":
            return
        self._rooms.leave(who, "it closed its connection", self._clock.now())
        self._announce()

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

    def tick(self) -> None:
        """Retransmissions and deadlines; called by its own timer while there is anything to do."""
        now = self._clock.now()
        sends, late = self._dtls.tick(now)
        # First of all, so that nothing below can keep the next one from coming.
        if self._beat is not None:
            self._beat.cancel()
        loop, busy = asyncio.get_running_loop(), self._dtls.busy
        self._beat = loop.call_later(BEAT_S, self.tick) if busy else None
        for who, data in sends:
            reply = self._replies.get(who)
            if reply is not None:
                reply(data)
        for who in late:
            log.info("a handshake did not finish in time")
            with contextlib.suppress(Refused):  # it left, and nobody was told so far
                self._rooms.leave(who, "its handshake did not finish in time", now)
        if late:
            self._announce()
