"""Both stores as one: what the supervisor opens at start and writes in each round.

Law: `save` before the data plane is told, so that no object lives there that nobody remembers.
"""

from __future__ import annotations

import secrets as system_secrets
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from forwarder.rooms.admission import Limits
from forwarder.rooms.allocate import Secrets
from forwarder.rooms.core import Rooms
from forwarder.rooms.records import Snapshot
from forwarder.rooms.snapshot import restore, snapshot
from forwarder.rooms.state import Dirty
from forwarder.store.rooms import RoomStore
from forwarder.store.sessions import SessionStore


class Store:
    """Rooms in `state_dir`, sessions in `run_dir`.  StoreError: a file cannot be used."""

    def __init__(self, state_dir: str | Path, run_dir: str | Path) -> None:
        with ExitStack() as undo:
            self._rooms = RoomStore(Path(state_dir))
            undo.callback(self._rooms.close)
            self._sessions = SessionStore(Path(run_dir))
            undo.pop_all()
        self._unsaved = Dirty()

    def load(
        self,
        limits: Limits,
        now: float,
        *,
        sessions: bool,
        secrets: Secrets = system_secrets,
    ) -> tuple[Rooms, list[str]]:
        """The rooms as they were saved, and a sentence for each thing that was left out.

        `sessions`: whether the send indices of their keys are still there (the data plane lives,
        or the index store was handed over).  Without them the old keys must never be used again
        (a repeated GCM index gives the key away), so participants are forgotten and join anew.
        """
        if not sessions:
            self._sessions.forget()
        taken: Snapshot = replace(self._sessions.load(), rooms=self._rooms.load())
        rooms, faults = restore(taken, limits, secrets, now)
        if faults:
            self._sessions.replace(snapshot(rooms))
        return rooms, faults

    def save(self, rooms: Rooms, dirty: Dirty) -> None:
        """What changed.  When it returns, the end of this process loses nothing.

        StoreError (no space, say): calls can go on; what was not saved is saved with the next.
        """
        self._unsaved |= dirty
        self._rooms.save(rooms, self._unsaved)
        self._sessions.save(rooms, self._unsaved)
        self._unsaved = Dirty()

    def close(self) -> None:
        self._rooms.close()
        self._sessions.close()
