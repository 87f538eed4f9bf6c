"""Participants with their keys and secrets, tracks and subscriptions: for the run directory.

Law: this file holds the keys of every call, so it is mode 0600, belongs on tmpfs, and is good for
one boot only: what another boot left behind is thrown away unread.  Nothing waits to be written:
when `save` returns, a supervisor that is killed at once loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forwarder.ids import RouteId
from forwarder.rooms.core import Rooms
from forwarder.rooms.records import (
    ParticipantRecord,
    SlotRecord,
    Snapshot,
    SsrcRecord,
    SubscriptionRecord,
    TrackRecord,
    participant_record,
    slot_record,
    ssrc_record,
    subscription_record,
    track_record,
)
from forwarder.rooms.state import Dirty
from forwarder.store.database import Database

SCHEMA = 4
EARLIER = (1, 2, 3)
"""Schemas whose sessions are thrown away: their participants join anew."""
FILE = "sessions.db"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class MetaRecord:
    name: str
    value: str


TABLES = {
    "meta": MetaRecord,
    "ssrcs": SsrcRecord,
    "participants": ParticipantRecord,
    "tracks": TrackRecord,
    "subscriptions": SubscriptionRecord,
    "slots": SlotRecord,
}
OURS = ("ssrcs", "participants", "tracks", "subscriptions", "slots")


class SessionStore:
    """SQLite on tmpfs; `synchronous = OFF`: the page cache outlives the process, and tmpfs has
    nothing else."""

    def __init__(self, run_dir: Path, *, boot_id: str | None = None) -> None:
        self._database = Database(
            run_dir / FILE,
            SCHEMA,
            TABLES,
            dict.fromkeys(EARLIER),
            synchronous="OFF",
        )
        self._ssrcs: SsrcRecord | None = None
        boot = MetaRecord("boot_id", boot_id or BOOT_ID.read_text().strip())
        if boot not in self._database.all("meta", MetaRecord):
            self.forget()
            with self._database.transaction():
                self._database.clear("meta")
                self._database.put("meta", [boot])

    def load(self) -> Snapshot:
        """Everything but the rooms."""
        database = self._database
        ssrcs = database.all("ssrcs", SsrcRecord)
        self._ssrcs = ssrcs[0] if ssrcs else None
        return Snapshot(
            ssrcs=self._ssrcs,
            participants=database.all("participants", ParticipantRecord),
            tracks=database.all("tracks", TrackRecord),
            subscriptions=database.all("subscriptions", SubscriptionRecord),
            slots=database.all("slots", SlotRecord),
        )

    def save(self, rooms: Rooms, dirty: Dirty) -> None:
        """What changed, in one transaction."""
        state, database = rooms.state, self._database
        ssrcs = ssrc_record(rooms)
        if not dirty.legs and not dirty.sources and not dirty.routes and ssrcs == self._ssrcs:
            return
        legs, sources, slots = state.by_leg, state.by_source, state.slots
        routes = {
            i: found
            for i in dirty.routes
            if (found := state.by_route.get(RouteId(i))) and found.slot is None
        }
        with database.transaction():
            if ssrcs != self._ssrcs:
                database.clear("ssrcs")
                database.put("ssrcs", [ssrcs])
            database.delete("participants", [i for i in dirty.legs if i not in legs])
            database.delete("tracks", [i for i in dirty.sources if i not in sources])
            database.delete("subscriptions", [i for i in dirty.routes if i not in routes])
            database.put(
                "participants", [participant_record(legs[i]) for i in dirty.legs if i in legs]
            )
            lowest = [
                track for i in dirty.sources if (track := sources.get(i)) and track.record == i
            ]
            database.put("tracks", [track_record(track) for track in lowest])
            database.put(
                "subscriptions",
                [subscription_record(found) for found in routes.values()],
            )
            database.delete("slots", [i for i in dirty.routes if i not in slots])
            database.put("slots", [slot_record(slots[i]) for i in dirty.routes if i in slots])
        self._ssrcs = ssrcs

    def forget(self) -> None:
        """Throws everything away; the participants have to join anew."""
        with self._database.transaction():
            for table in OURS:
                self._database.clear(table)
        self._ssrcs = None

    def replace(self, taken: Snapshot) -> None:
        """Throws everything away but what is in the snapshot."""
        with self._database.transaction():
            for table in OURS:
                self._database.clear(table)
            self._database.put("ssrcs", [taken.ssrcs] if taken.ssrcs else [])
            self._database.put("participants", taken.participants)
            self._database.put("tracks", taken.tracks)
            self._database.put("subscriptions", taken.subscriptions)
            self._database.put("slots", taken.slots)
        self._ssrcs = taken.ssrcs

    def close(self) -> None:
        self._database.close()
