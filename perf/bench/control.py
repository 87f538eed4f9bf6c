"""Suite `control`: plan, diff and commands at 5,000 rooms and 50,000 legs.

Each room has one publisher of sound and video and nine who watch.  Policy alone (`plan`, `diff`,
the diff after one more join) is timed in this process; then the whole table goes through the
command rings into a real data plane, which answers each command.
"""

from __future__ import annotations

import time
from typing import Any

from forwarder.commands import Command
from forwarder.rooms.admission import Limits
from forwarder.rooms.core import Rooms
from forwarder.rooms.diff import Told, diff, diff_dirty
from forwarder.rooms.plan import plan
from forwarder.rooms.roles import Role
from forwarder.rooms.room import TrackSpec
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.table import EMPTY, Tuple5
from perf.bench import stats, vcfwd
from perf.bench.lab import PORT, Lab, say
from perf.bench.relay import Case

WATCHERS = 9
BATCH = 1000
"""Commands given at once, as a supervisor's replay gives them."""
JOINS = 200


def address(number: int) -> Tuple5:
    """A 5-tuple of its own for each participant."""
    return Tuple5(
        f"198.18.{number >> 12 & 255}.{number >> 4 & 255}",
        20000 + (number & 15),
        "10.231.1.1",
        PORT,
    )


class Town:
    """Rooms full of people who need no network."""

    def __init__(self, rooms: int) -> None:
        people = rooms * (WATCHERS + 1) + JOINS
        limits = Limits(
            max_rooms=rooms + 1, legs_max=people + 1, sources_max=2 * rooms + 2,
            routes_max=2 * rooms * WATCHERS + 2 * JOINS + 2, history_audio=rooms + 1,
            history_video=rooms + 1, max_passive=JOINS + WATCHERS, addresses=("10.231.1.1",),
        )  # fmt: skip
        self.limits, self.rooms, self._people = limits, Rooms(limits), 0
        for number in range(rooms):
            self._fill(f"r{number}", number)

    def _fill(self, room: str, number: int) -> None:
        self.rooms.create_room(room, now=0.0)
        host = self.join(room, Role.ACTIVE)
        self.tracks = self.rooms.publish(host, [
            TrackSpec("a", Kind.AUDIO, Codec.OPUS, 111, 48000, 2 * number + 1),
            TrackSpec("v", Kind.VIDEO, Codec.H264, 96, 90000, 2 * number + 2),
        ])  # fmt: skip
        for _ in range(WATCHERS):
            self.watch(room)

    def join(self, room: str, role: Role) -> str:
        person = self.rooms.join(room, name="p", role=role, suites=[Suite.GCM], now=0.0)
        self.rooms.set_tuples(person.id, [address(self._people)], 0)
        self._people += 1
        return person.id

    def watch(self, room: str) -> None:
        person = self.join(room, Role.PASSIVE)
        self.rooms.subscribe(person, [track.id for track in self.tracks])


def timed(work: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def policy(town: Town) -> tuple[list[Command], dict[str, Any]]:
    """The commands of the whole table, and what they took to find."""
    table, plan_s = timed(lambda: plan(town.rooms))
    commands, diff_s = timed(lambda: diff(EMPTY, table))
    again, same_s = timed(lambda: diff(table, table))
    told = Told()
    town.rooms.drain_dirty()
    for command in commands:
        told.apply(command)
    last = f"r{town.limits.max_rooms - 2}"
    took = []
    for _ in range(JOINS):
        town.watch(last)
        dirty = town.rooms.drain_dirty()
        steps, seconds = timed(lambda dirty=dirty: diff_dirty(told, town.rooms, dirty))
        for command in steps:
            told.apply(command)
        took.append(seconds)
    return commands, {
        "legs": len(table.legs), "sources": len(table.sources), "routes": len(table.routes),
        "commands": len(commands), "nothing_to_do": len(again) == 0,
        "plan_ms": stats.digits(plan_s * 1e3), "diff_ms": stats.digits(diff_s * 1e3),
        "diff_same_ms": stats.digits(same_s * 1e3),
        "join_diff_p50_us": stats.digits((stats.percentile(took, 0.5) or 0) * 1e6),
        "join_diff_p99_us": stats.digits((stats.percentile(took, 0.99) or 0) * 1e6),
    }  # fmt: skip


def through_rings(town: Town, commands: list[Command]) -> dict[str, Any]:
    """Commands a second, every one applied by the worker and answered."""
    limits = town.limits
    sizes = {
        "legs_max": vcfwd.power_of_two(limits.legs_max + 1),
        "sources_max": vcfwd.power_of_two(limits.sources_max + 1),
        "routes_max": vcfwd.power_of_two(limits.routes_max + 1),
        "history_audio": limits.history_audio, "history_video": limits.history_video,
    }  # fmt: skip
    with Lab() as lab:
        relay = Empty(lab, Case(1), **sizes)
        relay.start()
        try:
            began = time.perf_counter()
            for at in range(0, len(commands), BATCH):
                relay.apply(commands[at : at + BATCH])
            seconds = time.perf_counter() - began
        finally:
            counters = relay.stop()
    return {
        "commands_per_s": round(len(commands) / seconds),
        "seconds": round(seconds, 3),
        "applied": counters["commands"],
        "refused": counters["commands_refused"],
    }


class Empty(vcfwd.Sockets):
    """A data plane whose table the suite fills by itself."""

    def fill(self, plan: Any) -> None:
        self.table = plan


def run(quick: bool) -> dict[str, Any]:
    """The suite's record."""
    began = time.monotonic()
    rooms = 500 if quick else 5000
    town, fill_s = timed(lambda: Town(rooms))
    commands, found = policy(town)
    say(
        f"  {found['legs']} legs, {found['routes']} routes: plan {found['plan_ms']} ms, "
        f"diff {found['diff_ms']} ms"
    )
    rings = through_rings(town, commands)
    say(f"  {rings['commands_per_s']:,} commands a second")
    return {
        "rooms": rooms, **found, "fill_s": round(fill_s, 3),
        "commands_per_s": rings["commands_per_s"], "rings": rings,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
