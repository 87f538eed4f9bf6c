"""Rooms with seeded randomness, and a strict model of the data plane's tables."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from forwarder.commands import (
    LegRate,
    LegRemove,
    LegSet,
    RouteRemove,
    RouteSet,
    SourceRemove,
    SourceSet,
)
from forwarder.errors import Refused
from forwarder.rooms.admission import Limits
from forwarder.rooms.core import Rooms
from forwarder.rooms.roles import Role
from forwarder.rooms.room import LayerSpec, TrackSpec
from forwarder.rooms.state import IdKind
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.table import Table, Tuple5

SUITES = [Suite.GCM, Suite.SHA1]


class SeededSecrets:
    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, nbytes: int, /) -> bytes:
        return self._random.randbytes(nbytes)

    def randbits(self, k: int, /) -> int:
        return self._random.getrandbits(k)


def make_rooms(seed: int = 1, **limits) -> Rooms:
    return Rooms(replace(Limits(), **limits), SeededSecrets(seed))


def join(rooms: Rooms, room_id: str = "r", role: Role = Role.ACTIVE, now: float = 0.0, name="n"):
    return rooms.join(room_id, name=name, role=role, suites=SUITES, now=now)


def audio(ssrc: int, label: str = "") -> TrackSpec:
    return TrackSpec(label or f"a{ssrc}", Kind.AUDIO, Codec.OPUS, 111, 48000, ssrc)


def video(ssrc: int, label: str = "") -> TrackSpec:
    return TrackSpec(label or f"v{ssrc}", Kind.VIDEO, Codec.H264, 96, 90000, ssrc)


def simulcast(*rids: str, mid: str = "1", label: str = "camera", ssrc: int = 0) -> TrackSpec:
    """Layers low to high, told by their rids; with `ssrc` they are signalled from that one on,
    each with its repair."""
    layers = tuple(
        LayerSpec(rid, ssrc + 2 * i if ssrc else None, ssrc + 2 * i + 1 if ssrc else None)
        for i, rid in enumerate(rids)
    )
    return TrackSpec(label, Kind.VIDEO, Codec.VP8, 96, 90000, None, mid, 97, layers)


def tuple5(port: int, ip: str = "192.0.2.7") -> Tuple5:
    return Tuple5(ip, port, "127.0.0.1", 4433)


class Broken(AssertionError):
    """The data plane would have refused the command."""


@dataclass
class Plane:
    """Holds what the data plane holds, and refuses what it refuses (enum vc_status)."""

    legs: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)
    routes: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)
    """By route: sources that it reads until the next key frame; the worst case, for ever."""

    def apply(self, command) -> None:
        match command:
            case LegSet(leg):
                self._same(self.legs.get(leg.id), leg, "key_id", "worker", "suite")
                for other in self.legs.values():
                    if other.id != leg.id and set(other.tuples) & set(leg.tuples):
                        raise Broken("duplicate_tuple")
                self.legs[leg.id] = leg
            case SourceSet(source):
                self._need(self.legs, source.leg, "no_leg")
                self._same(self.sources.get(source.id), source, "leg", "ssrc", "mid", "rid")
                self.sources[source.id] = source
            case RouteSet(route):
                self._need(self.legs, route.leg, "no_leg")
                self._need(self.sources, route.source, "no_source")
                worker = self.legs[self.sources[route.source].leg].worker
                if worker != route.source_worker:
                    raise Broken("not_owner")
                self._same(
                    self.routes.get(route.id),
                    route,
                    "leg",
                    "out_ssrc",
                    "seq_start",
                    "ts_offset",
                    "rtx_ssrc",
                    "rtx_seq_start",
                )
                mine = [o for o in self.routes.values() if o.leg == route.leg]
                if any(o.out_ssrc == route.out_ssrc and o.id != route.id for o in mine):
                    raise Broken("duplicate_ssrc")
                old = self.routes.get(route.id)
                if old is not None and old.gated and old.source != route.source:
                    self.held.setdefault(route.id, set()).add(old.source)
                self.routes[route.id] = route
            case RouteRemove(index):
                self._need(self.routes, index, "no_route")
                del self.routes[index]
                self.held.pop(index, None)
            case SourceRemove(index):
                self._need(self.sources, index, "no_source")
                read = {r.source for r in self.routes.values()}.union(*self.held.values())
                if index in read:
                    raise Broken("in_use")
                del self.sources[index]
            case LegRate(index, rate_bps):
                self._need(self.legs, index, "no_leg")
                self.legs[index] = replace(self.legs[index], rate_bps=rate_bps)
            case LegRemove(index):
                self._need(self.legs, index, "no_leg")
                users = [*self.sources.values(), *self.routes.values()]
                if any(user.leg == index for user in users):
                    raise Broken("in_use")
                del self.legs[index]
            case _:
                raise Broken(f"unexpected {command}")

    def run(self, commands, rooms: Rooms | None = None) -> None:
        """Applies all; tells the rooms which ids are free again."""
        for command in commands:
            self.apply(command)
        for command in commands if rooms else ():
            match command:
                case LegRemove(index):
                    assert rooms.released(IdKind.LEG, index) or index in rooms.state.by_leg
                case SourceRemove(index):
                    assert rooms.released(IdKind.SOURCE, index) or index in rooms.state.by_source
                case RouteRemove(index):
                    assert rooms.released(IdKind.ROUTE, index) or index in rooms.state.by_route

    @property
    def table(self) -> Table:
        return Table(dict(self.legs), dict(self.sources), dict(self.routes))

    @staticmethod
    def _need(table, index, status) -> None:
        if index not in table:
            raise Broken(status)

    @staticmethod
    def _same(old, new, *names) -> None:
        if old is not None and any(getattr(old, n) != getattr(new, n) for n in names):
            raise Broken("identity")


def layered(number: int) -> TrackSpec:
    rids = ("l", "m", "h")[: 1 + number % 3]
    return simulcast(*rids, label=f"s{number}", ssrc=(number % 2) * 100 * number)


def random_calls(rooms: Rooms, seed: int, steps: int, drained) -> None:
    """Random requests, most of them fit to succeed; calls `drained` now and then."""
    rng = random.Random(seed)
    state = rooms.state
    now = 0.0
    for step in range(steps):
        now += rng.random() * 5
        people, tracks = list(state.participants.values()), list(state.tracks.values())
        try:
            match rng.randrange(13):
                case 0:
                    rooms.create_room(f"room{rng.randrange(4)}", max_active=5, now=now)
                case 1 | 2 | 3:
                    join(rooms, f"room{rng.randrange(4)}", rng.choice(list(Role)), now)
                case 4 | 5 if people:
                    kind = rng.choice([audio, video, layered])
                    rooms.publish(rng.choice(people).id, [kind(rng.randrange(1, 50))])
                case 6 | 7 if people and tracks:
                    auto = rng.random() < 0.3
                    rooms.subscribe(rng.choice(people).id, [rng.choice(tracks).id], auto)
                case 8 if people:
                    ports = rng.sample(range(1, 6), rng.randrange(4))
                    nominated = rng.randrange(len(ports)) if ports else None
                    rooms.set_tuples(rng.choice(people).id, list(map(tuple5, ports)), nominated)
                case 9 if tracks:
                    track = rng.choice(tracks)
                    rooms.mute(track.publisher.id, track.id, rng.random() < 0.5)
                case 10 if people and rng.random() < 0.5:
                    rooms.leave(rng.choice(people).id, "bye", now)
                case 12 if people:
                    rooms.move_leg(rng.choice(people).id, {rng.randrange(state.limits.workers)})
                case 11 if people:
                    rooms.session_lost(rng.choice(people).id, now)
                    rooms.tick(now)
        except Refused:
            pass
        if rng.random() < 0.3 or step == steps - 1:
            drained(rooms.drain_dirty())
