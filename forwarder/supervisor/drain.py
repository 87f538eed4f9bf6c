"""Draining: nobody new is admitted, those who are here stay until they leave or a deadline is over.

Law: it ends by setting `ended`, once; what then happens (both processes stop) is not decided here.
"""

from __future__ import annotations

import asyncio
import logging

from forwarder.clock import Clock
from forwarder.rooms.core import Rooms
from forwarder.signaling.drain import Draining
from forwarder.telemetry.logs import fields

log = logging.getLogger(__name__)

REFUSAL = "this node is being emptied: join at another node"


class Drain:
    """Implements signaling's Drainer.  Not begun, until begin()."""

    def __init__(self, rooms: Rooms, clock: Clock) -> None:
        self._rooms = rooms
        self._clock = clock
        self._begun = False
        self._until: float | None = None
        self.ended = asyncio.Event()

    def begin(self, deadline_s: float | None) -> Draining:
        """Begins, or sets another deadline; None: whoever is here may stay for ever."""
        self._begun = True
        self._until = None if deadline_s is None else self._clock.now() + deadline_s
        self._rooms.shut(REFUSAL)
        log.warning("draining: nobody new is admitted", extra=fields(deadline_s=deadline_s))
        return self.progress()

    def progress(self) -> Draining:
        people = list(self._rooms.participants())
        left = None if self._until is None else max(0.0, self._until - self._clock.now())
        return Draining(
            draining=self._begun,
            rooms=len({one.room_id for one in people}),
            participants=len(people),
            left_s=left,
        )

    def tick(self) -> None:
        """Ends when nobody is here any more, or the deadline is over."""
        late = self._until is not None and self._clock.now() >= self._until
        if self._begun and (late or not any(True for _ in self._rooms.participants())):
            self.ended.set()
