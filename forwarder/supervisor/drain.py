"""Draining: nobody new is admitted, those who are here stay until they leave or a deadline is over.

Law: the clock's time is an argument.  It ends by setting `ended`, once; what then happens (both
processes stop) is not decided here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from forwarder.rooms.core import Rooms

REFUSAL = "this node is being emptied: join at another node"


@dataclass(frozen=True)
class Progress:
    """`rooms`: those with somebody in them; `left_s`: seconds until the last ones are sent away,
    None: never."""

    draining: bool
    rooms: int
    participants: int
    left_s: float | None


class Drain:
    """Not begun, until begin()."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._begun = False
        self._until: float | None = None
        self.ended = asyncio.Event()

    def begin(self, deadline_s: float | None, now: float) -> None:
        """Begins, or sets another deadline; None: whoever is here may stay for ever."""
        self._begun = True
        self._until = None if deadline_s is None else now + deadline_s
        self._rooms.shut(REFUSAL)

    def progress(self, now: float) -> Progress:
        people = list(self._rooms.participants())
        left = None if self._until is None else max(0.0, self._until - now)
        return Progress(self._begun, len({one.room_id for one in people}), len(people), left)

    def tick(self, now: float) -> None:
        """Ends when nobody is here any more, or the deadline is over."""
        late = self._until is not None and now >= self._until
        if self._begun and (late or not any(True for _ in self._rooms.participants())):
            self.ended.set()
