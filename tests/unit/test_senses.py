"""Meters and reports of the workers on their way to the rooms."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from rooms_kit import SeededSecrets

from forwarder.clock import ManualClock
from forwarder.dataplane.events import EstimateReceived, FeedbackReceived, SourceActive
from forwarder.dataplane.fake import SILENCE
from forwarder.dataplane.tally import SourceMeter
from forwarder.rooms.admission import Limits
from forwarder.rooms.core import Rooms
from forwarder.rooms.roles import Role
from forwarder.rooms.room import TrackSpec
from forwarder.rooms.speakers import VOICE_KEPT_S
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.supervisor.senses import LOOK_S, RATE_S, SLICE, Senses


class Plane:
    """Meters that a test sets; `gone`: between two data planes."""

    def __init__(self) -> None:
        self.meters: dict[int, SourceMeter] = {}
        self.gone = False

    def source_meters(self, worker: int, sources: Any) -> dict[int, SourceMeter]:
        if self.gone:
            raise IndexError(worker)
        return {source: self.meters.get(source, SILENCE) for source in sources}


class World:
    """One publisher; what the rooms are told is noted."""

    def __init__(self) -> None:
        self.clock, self.plane = ManualClock(1000.0), Plane()
        self.rooms = Rooms(replace(Limits(), history_audio=4 * SLICE), SeededSecrets())
        self.rooms.create_room("r", now=0.0)
        self.announced = 0
        self.told: list[tuple[str, Any]] = []
        for name in ("on_levels", "on_bitrates", "on_estimate", "on_feedback"):
            setattr(self.rooms, name, self._note(name))
        self.senses = Senses(self.rooms, self.plane, self.clock, self._announce)
        me = self.rooms.join("r", name="n", role=Role.ACTIVE, suites=[Suite.GCM], now=0.0)
        sound, picture = self.rooms.publish(
            me.id,
            [
                TrackSpec("mic", Kind.AUDIO, Codec.OPUS, 111, 48_000, 7),
                TrackSpec("cam", Kind.VIDEO, Codec.VP8, 96, 90_000, 8),
            ],
        )
        self.me, self.sound, self.picture = me, sound.source, picture.source

    def _note(self, name: str) -> Any:
        def note(*arguments: Any) -> None:
            self.told.append((name, arguments[0] if len(arguments) == 2 else arguments[:-1]))

        return note

    def _announce(self) -> None:
        self.announced += 1

    def look(self, after_s: float = 0.1) -> list[tuple[str, Any]]:
        """What the rooms are told by one look."""
        self.clock.advance(after_s)
        self.told.clear()
        self.senses.look()
        return list(self.told)


def sound(level: int, end_ns: int) -> SourceMeter:
    return SILENCE._replace(level=level, level_ns=end_ns)


def test_a_window_is_told_once() -> None:
    world = World()
    world.plane.meters[world.sound] = sound(30, 1_000_100_000_000)
    assert world.look() == [("on_levels", [(world.sound, 30, 1000.1)])]
    assert world.look() == []
    world.plane.meters[world.sound] = sound(30, 1_000_200_000_000)
    assert world.look() == [("on_levels", [(world.sound, 30, 1000.2)])]
    assert world.announced == 2


def test_who_tells_no_level_is_not_heard() -> None:
    world = World()
    assert world.look() == []


def test_the_rate_of_a_picture_is_that_of_the_last_second() -> None:
    world = World()
    world.plane.meters[world.picture] = SILENCE._replace(bytes=1000)
    assert world.look(RATE_S) == []  # nothing to compare with
    world.plane.meters[world.picture] = SILENCE._replace(bytes=126_000)
    assert world.look(RATE_S / 2) == []
    assert world.look(RATE_S / 2) == [("on_bitrates", [(world.picture, 1_000_000)])]
    assert world.look(RATE_S) == [("on_bitrates", [(world.picture, 0)])]


def test_another_data_plane_begins_at_nothing() -> None:
    world = World()
    world.plane.meters[world.picture] = SILENCE._replace(bytes=5000)
    world.look(RATE_S)
    world.plane.gone = True
    assert world.look(RATE_S) == []
    world.plane.gone = False
    world.plane.meters[world.picture] = SILENCE._replace(bytes=10)
    assert world.look(RATE_S) == []


def test_a_leg_without_keys_has_no_meters_yet() -> None:
    """Its sources are not in the table: what is read there is somebody's who left."""
    world = World()
    world.me.keyed = False
    world.plane.meters[world.sound] = sound(30, 5)
    assert world.look() == []


async def test_many_reports_are_announced_once() -> None:
    world = World()
    for n in range(50):
        world.senses.on_event(EstimateReceived(3, 700_000 + n))
        world.senses.on_event(FeedbackReceived(4, 0.1, 1, 2, 3, None))
    world.senses.on_event(SourceActive(1))
    assert world.announced == 0
    await asyncio.sleep(0)
    assert world.announced == 1
    assert world.told[:2] == [("on_estimate", (3, 700_000)), ("on_feedback", (4, 0.1))]
    assert len(world.told) == 100


def test_of_who_is_silent_nothing_is_told() -> None:
    """9,998 silent voices cost a look at each, not a change of a room."""
    world = World()
    step, at = 100_000_000, 1_000_000_000_000

    def window(level: int) -> bool:
        nonlocal at
        at += step
        world.plane.meters[world.sound] = sound(level, at)
        return any(name == "on_levels" for name, _ in world.look())

    assert not any(window(127) for _ in range(20))
    assert window(30)
    fading = [window(127) for _ in range(80)]
    kept = round(VOICE_KEPT_S / LOOK_S)
    assert all(fading[: kept + 1]) and not any(fading[kept + 1 :])
    assert window(59)


async def test_the_loop_gets_its_turn_while_many_are_looked_at() -> None:
    world = World()
    people = [world.rooms.join("r", name="n", role=Role.ACTIVE, suites=[Suite.GCM], now=0.0)]
    many = 3 * SLICE
    for n in range(many):
        if n % 5 == 0:
            room = f"r{n}"
            world.rooms.create_room(room, now=0.0)
            people = [
                world.rooms.join(room, name="n", role=Role.ACTIVE, suites=[Suite.GCM], now=0.0)
            ]
        world.rooms.publish(
            people[0].id, [TrackSpec(f"m{n}", Kind.AUDIO, Codec.OPUS, 111, 48_000, 100 + n)]
        )
    for source in world.rooms.state.by_source:
        world.plane.meters[source] = sound(30, 5_000_000_000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(others()), asyncio.create_task(world.senses.run())]
    async with asyncio.timeout(20):
        while sum(len(told) for name, told in world.told if name == "on_levels") <= many:
            before = len(world.told)
            await asyncio.sleep(0)
            assert len(world.told) - before <= 1, "two slices without a turn of others between"
    for task in tasks:
        task.cancel()
    sizes = [len(told) for name, told in world.told if name == "on_levels"]
    assert len(sizes) >= 4 and max(sizes) <= SLICE
