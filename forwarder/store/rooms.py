"""Rooms and their limits, on disk: they survive a reboot, their participants do not.

Law: no name of a participant, no key and no address is written here.
"""

from __future__ import annotations

from pathlib import Path

from forwarder.ids import RoomId
from forwarder.rooms.core import Rooms
from forwarder.rooms.records import RoomRecord, room_record
from forwarder.rooms.state import Dirty
from forwarder.store.database import Database

ORDER_1 = "vp8 h264 vp9 av1"
"""What rooms of schema 1 meant."""
SCHEMA = 2
UPGRADES = {1: (f"ALTER TABLE rooms ADD COLUMN codecs TEXT NOT NULL DEFAULT '{ORDER_1}'",)}
"""From a schema to the next."""
FILE = "rooms.db"


class RoomStore:
    """SQLite in WAL mode; `synchronous = NORMAL`: a power cut may lose the last rooms made, never
    the file."""

    def __init__(self, state_dir: Path) -> None:
        self._database = Database(
            state_dir / FILE, SCHEMA, {"rooms": RoomRecord}, UPGRADES, synchronous="NORMAL"
        )
        self._stored: dict[RoomId, RoomRecord] = {}

    def load(self) -> tuple[RoomRecord, ...]:
        records = self._database.all("rooms", RoomRecord)
        self._stored = {RoomId(record.id): record for record in records}
        return records

    def save(self, rooms: Rooms, dirty: Dirty) -> None:
        """Touches the file only for rooms that were made, closed or given other limits."""
        made, gone = [], []
        for room_id in dirty.rooms:
            room = rooms.state.rooms.get(room_id)
            record = None if room is None else room_record(room)
            if record is None and room_id in self._stored:
                gone.append(room_id)
            elif record is not None and record != self._stored.get(room_id):
                made.append(record)
        if not made and not gone:
            return
        with self._database.transaction():
            self._database.delete("rooms", gone)
            self._database.put("rooms", made)
        for room_id in gone:
            del self._stored[room_id]
        self._stored.update({RoomId(record.id): record for record in made})

    def close(self) -> None:
        self._database.close()
