"""The stores: what was saved is there after any end of the process, and nobody else can read it."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rooms_kit import SeededSecrets, audio, join, make_rooms, random_calls, tuple5, video

from forwarder.rooms.core import Rooms
from forwarder.rooms.plan import plan
from forwarder.rooms.records import Snapshot
from forwarder.rooms.room import ParticipantState, RoomState
from forwarder.rooms.snapshot import restore, snapshot
from forwarder.rooms.state import Dirty
from forwarder.rtp.codecs import VIDEO_ORDER, Codec
from forwarder.store.database import StoreError
from forwarder.store.sessions import EARLIER, SessionStore
from forwarder.store.store import Store


@pytest.fixture
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    path.chmod(0o700)
    return path


def open_store(folder: Path) -> Store:
    return Store(folder / "state", folder / "run")


def reopened(folder: Path, rooms: Rooms, now=100.0, **limits) -> tuple[Rooms, list[str]]:
    store = open_store(folder)
    try:
        wanted = replace(rooms.state.limits, **limits)
        return store.load(wanted, now, sessions=True, secrets=SeededSecrets(9))
    finally:
        store.close()


def a_call(rooms: Rooms):
    rooms.create_room("r", max_active=3, now=0.0, created_at=12.5)
    a, b = join(rooms, name="ä\0"), join(rooms)
    tracks = rooms.publish(a.id, [audio(1), video(2)])
    rooms.subscribe(b.id, [t.id for t in tracks], auto=True)
    rooms.set_tuples(b.id, [tuple5(5), tuple5(6, "2001:db8::1")], 1)
    rooms.mute(a.id, tracks[0].id, True)
    return a, b, tracks


@given(st.integers(0, 2**32), st.integers(1, 80))
@settings(max_examples=60)
def test_restored_rooms_plan_to_the_identical_table(seed, steps):
    rooms = make_rooms(seed, workers=2)
    random_calls(rooms, seed, steps, drained=lambda dirty: None)
    back, faults = restore(snapshot(rooms), rooms.state.limits, SeededSecrets(7), now=5.0)
    assert faults == []
    assert plan(back) == plan(rooms)
    assert snapshot(back) == snapshot(rooms)
    assert back.state.load == rooms.state.load
    assert back.state.histories == {
        kind: free
        + sum(
            1 for source in rooms.state.sources.draining if rooms.state.history_of[source] is kind
        )
        for kind, free in rooms.state.histories.items()
    }


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 80))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_saved_step_by_step_comes_back(tmp_path_factory, seed, steps):
    folder = tmp_path_factory.mktemp("steps")
    store = open_store(folder)
    rooms = make_rooms(seed, workers=2)
    random_calls(rooms, seed, steps, drained=lambda dirty: store.save(rooms, dirty))
    store.close()
    back, faults = reopened(folder, rooms)
    assert faults == []
    assert plan(back) == plan(rooms)
    one, two = snapshot(back), snapshot(rooms)
    assert set(one.rooms) == set(two.rooms)
    assert set(one.participants) == set(two.participants)
    assert one.ssrcs == two.ssrcs


def test_a_call_goes_on_after_a_restart(folder):
    rooms, store = make_rooms(), open_store(folder)
    a, b, _ = a_call(rooms)
    store.save(rooms, rooms.drain_dirty())
    store.close()
    back, _ = reopened(folder, rooms, now=100.0)
    assert back.list_rooms() == rooms.list_rooms()
    assert not back.drain_dirty() and not back.drain_events()
    again = back.resume(b.resume, now=101.0)
    assert (again.id, again.leg, again.tx_key) == (b.id, b.leg, b.tx_key)
    assert [s.out_ssrc for s in again.subscriptions.values()] == [
        s.out_ssrc for s in b.subscriptions.values()
    ]
    assert back.participant(a.id).state is ParticipantState.AWAY
    assert back.participant_by_ufrag(a.ufrag).name == "ä\0"
    (new,) = back.publish(back.resume(a.resume, now=101.0).id, [audio(3)])
    assert new.source == 2 and new.id in again.subscriptions  # auto is remembered
    back.session_lost(a.id, now=101.0)
    back.tick(131.0)
    assert back.state.rooms["r"].state is RoomState.OCCUPIED
    assert set(back.state.participants) == {b.id}


def test_ssrcs_go_on_where_they_were(folder):
    rooms, store = make_rooms(), open_store(folder)
    _, b, tracks = a_call(rooms)
    old = {s.out_ssrc for s in b.subscriptions.values()}
    rooms.unsubscribe(b.id, [t.id for t in tracks])
    store.save(rooms, rooms.drain_dirty())
    store.close()
    back, _ = reopened(folder, rooms)
    new = {s.out_ssrc for s in back.subscribe(b.id, [t.id for t in tracks])}
    assert len(new) == 2 and not new & old


def test_without_their_indices_sessions_are_forgotten(folder):
    rooms, store = make_rooms(), open_store(folder)
    a_call(rooms)
    store.save(rooms, rooms.drain_dirty())
    back, faults = store.load(rooms.state.limits, 0.0, sessions=False)
    assert faults == [] and back.has_room("r")
    assert back.statistics().active == 0
    assert back.next_deadline() == 300.0
    store.close()
    again, _ = reopened(folder, rooms)
    assert again.statistics().active == 0


def test_another_boot_forgets_sessions(folder):
    rooms = make_rooms()
    first = SessionStore(folder, boot_id="one")
    a_call(rooms)
    first.save(rooms, rooms.drain_dirty())
    first.close()
    same = SessionStore(folder, boot_id="one")
    assert len(same.load().participants) == 2
    same.close()
    other = SessionStore(folder, boot_id="two")
    assert other.load() == Snapshot()
    other.close()


def test_what_came_after_forgetting_is_kept(folder):
    rooms = make_rooms()
    store = SessionStore(folder, boot_id="one")
    store.forget()
    a_call(rooms)
    store.save(rooms, rooms.drain_dirty())
    store.close()
    again = SessionStore(folder, boot_id="one")
    assert len(again.load().participants) == 2
    again.close()


def test_kill_loses_nothing(folder):
    code = (
        "import os, signal, sys\n"
        "from rooms_kit import make_rooms\n"
        "from test_store import a_call, open_store\n"
        "from pathlib import Path\n"
        "rooms, store = make_rooms(), open_store(Path(sys.argv[1]))\n"
        "a_call(rooms)\n"
        "store.save(rooms, rooms.drain_dirty())\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = Path(__file__).resolve().parent
    environ = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=environ, check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    rooms = make_rooms()
    a_call(rooms)  # the same seed gives the same call
    back, faults = reopened(folder, rooms)
    assert faults == []
    assert plan(back) == plan(rooms)


def test_what_was_not_saved_is_saved_with_the_next(folder):
    rooms, store = make_rooms(), open_store(folder)
    a_call(rooms)
    store._sessions._database._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match=r"sessions\.db cannot be written"):
        store.save(rooms, rooms.drain_dirty())
    store._sessions._database._db.execute("PRAGMA query_only = OFF")
    store.save(rooms, Dirty())
    store.close()
    assert plan(reopened(folder, rooms)[0]) == plan(rooms)


@pytest.mark.parametrize(
    ("limits", "left", "sentence"),
    [
        ({"legs_max": 1}, (1, 2, 0), "leg 1 is not below dataplane.legs_max"),
        ({"addresses": ("127.0.0.1", "192.0.2.9")}, (2, 2, 2), None),
        ({"addresses": ("192.0.2.9",)}, (1, 2, 0), "127.0.0.1 is not an address of this node"),
        ({"sources_max": 1}, (2, 1, 1), "source 1 is not below"),
        ({"history_video": 0}, (2, 1, 1), "no video history"),
        ({"routes_max": 1}, (2, 2, 1), "route 1 is not below"),
    ],
)
def test_what_does_not_fit_any_more_is_left_out(folder, limits, left, sentence):
    rooms, store = make_rooms(), open_store(folder)
    a_call(rooms)
    store.save(rooms, rooms.drain_dirty())
    store.close()
    back, faults = reopened(folder, rooms, **limits)
    s = back.statistics()
    assert (s.active, s.tracks, s.subscriptions) == left
    assert (sentence is None) == (faults == [])
    assert sentence is None or sentence in faults[0]
    again, faults = reopened(folder, rooms, **limits)
    assert faults == [] and plan(again) == plan(back)


def test_fewer_workers(folder):
    rooms, store = make_rooms(workers=2), open_store(folder)
    a_call(rooms)
    store.save(rooms, rooms.drain_dirty())
    store.close()
    back, faults = reopened(folder, rooms, workers=1)
    assert back.statistics().active == 1 and "no worker 1" in faults[0]


def test_the_durable_file_knows_no_participant_and_is_left_alone_by_joins(folder):
    rooms, store = make_rooms(), open_store(folder)
    rooms.create_room("r", now=0.0)
    store.save(rooms, rooms.drain_dirty())
    written = store._rooms._database._db.total_changes
    a = join(rooms, name="somebody")
    store.save(rooms, rooms.drain_dirty())
    assert store._rooms._database._db.total_changes == written
    rooms.close_room("r", "over", now=0.0)
    store.save(rooms, rooms.drain_dirty())
    assert store._rooms._database._db.total_changes == written + 1
    store.close()
    durable = b"".join(p.read_bytes() for p in (folder / "state").iterdir())
    assert b"somebody" not in durable and a.tx_key not in durable
    assert reopened(folder, rooms)[0].list_rooms() == []


# ---- files ---------------------------------------------------------------------------------------


def faulty(folder: Path, pattern: str) -> None:
    with pytest.raises(StoreError, match=pattern):
        open_store(folder)


def made(folder: Path, name: str) -> Path:
    store = open_store(folder)
    store.close()
    return folder / name


def test_files_are_private(folder):
    rooms, store = make_rooms(), open_store(folder)
    a_call(rooms)
    store.save(rooms, rooms.drain_dirty())
    files = [p for d in ("state", "run") for p in (folder / d).iterdir()]
    assert files and all(p.stat().st_mode & 0o077 == 0 for p in files)
    assert all((folder / d).stat().st_mode & 0o077 == 0 for d in ("state", "run"))
    store.close()


@pytest.mark.parametrize("name", ["run/sessions.db", "state/rooms.db"])
class TestRefusedFiles:
    def test_open_to_others(self, folder, name):
        path = made(folder, name)
        path.chmod(0o640)
        faulty(folder, re.escape(f"{path} is open to others (mode 0640)"))

    def test_symlink(self, folder, name):
        path = made(folder, name)
        path.rename(folder / "elsewhere")
        path.symlink_to(folder / "elsewhere")
        faulty(folder, "is not a regular file: remove it")

    def test_directory_open_to_others(self, folder, name):
        path = made(folder, name)
        path.parent.chmod(0o777)
        faulty(folder, r"can be written to by others \(mode 0777\): chmod go-w")

    def test_newer_schema(self, folder, name):
        path = made(folder, name)
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        faulty(folder, r"written by a newer vcfwd \(schema 99, this one knows [24]\)")

    def test_older_schema(self, folder, name):
        path = made(folder, name)
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 0")
        db.close()
        faulty(folder, "written by an older vcfwd")

    def test_database_of_another_program(self, folder, name):
        path = made(folder, name)
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE x (y)")
        db.close()
        path.chmod(0o600)
        faulty(folder, "another program")

    @pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_damaged(self, folder, name, content):
        path = made(folder, name)
        path.write_bytes(content)
        faulty(folder, "is damaged")

    def test_in_use(self, folder, name, monkeypatch):
        monkeypatch.setattr("forwarder.store.database.BUSY_S", 0.0)
        path = made(folder, name)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        faulty(folder, "is in use: does another vcfwd run here")
        holder.close()
        open_store(folder).close()

    def test_directory_cannot_be_made(self, folder, name):
        (folder / name.split("/")[0]).write_text("a file")
        faulty(folder, "cannot be made")


# ---- files of earlier versions -------------------------------------------------------------------


def old_file(path: Path, schema: int, statements: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.executescript(statements)
        db.execute(f"PRAGMA user_version = {schema}")
        db.execute(f"PRAGMA application_id = {0x76636677}")
    db.close()
    path.chmod(0o600)


def test_rooms_of_schema_1_are_kept(folder):
    old_file(
        folder / "state/rooms.db",
        1,
        "CREATE TABLE rooms (id TEXT PRIMARY KEY, created_at REAL NOT NULL, "
        "max_active INTEGER NOT NULL, max_passive INTEGER NOT NULL);"
        "INSERT INTO rooms VALUES ('old', 12.5, 3, 4)",
    )
    rooms, _ = reopened(folder, make_rooms())
    view = rooms.list_rooms()[0]
    assert (view.id, view.max_active, view.codecs) == ("old", 3, VIDEO_ORDER)
    store = open_store(folder)
    store.load(rooms.state.limits, 0.0, sessions=True)
    rooms.create_room("new", codecs=[Codec.AV1, Codec.VP8], now=0.0)
    store.save(rooms, rooms.drain_dirty())
    store.close()
    back, _ = reopened(folder, rooms)
    assert {v.id: v.codecs for v in back.list_rooms()} == {
        "old": VIDEO_ORDER,
        "new": (Codec.AV1, Codec.VP8),
    }


@pytest.mark.parametrize("schema", EARLIER)
def test_sessions_of_an_earlier_schema_are_thrown_away(folder, schema):
    old_file(
        folder / "run/sessions.db",
        schema,
        "CREATE TABLE participants (leg INTEGER PRIMARY KEY, id TEXT);"
        "INSERT INTO participants VALUES (3, 'p3');"
        "CREATE TABLE outdated (x)",
    )
    rooms, store = make_rooms(), open_store(folder)
    a_call(rooms)
    store.save(rooms, rooms.drain_dirty())
    store.close()
    back, faults = reopened(folder, rooms)
    assert faults == []
    assert plan(back) == plan(rooms)
    assert b"outdated" not in (folder / "run/sessions.db").read_bytes()
