"""diff: the right commands in the right order, checked by a strict model of the data plane."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from rooms_kit import Plane, audio, join, layered, make_rooms, tuple5, video

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
from forwarder.rooms.diff import IdentityChanged, Observed, Told, diff, diff_dirty, release_gone
from forwarder.rooms.plan import plan
from forwarder.rooms.roles import Role
from forwarder.table import EMPTY, Leg, Route, Source, Suite, Table

IDS = range(4)


def leg(index: int, **fields) -> Leg:
    key, salt = b"k" * 16, b"s" * 12
    return Leg(index, index % 2, index + 1, Suite.AEAD_AES_128_GCM, key, salt, key, salt, **fields)


def source(index: int, **fields) -> Source:
    return Source(index, index % 2, ssrc=index + 1, **fields)


def route(index: int, source_id: int, **fields) -> Route:
    worker = source_id % 2 % 2
    return Route(index, index % 3, source_id, worker, out_ssrc=100 + index, **fields)


@st.composite
def tables(draw) -> Table:
    """Closed tables over a few ids; what shares an id shares its identity."""
    ports = iter(draw(st.permutations(range(1, 9))))
    legs = {}
    for i in draw(st.sets(st.sampled_from(IDS))):
        tuples = tuple(tuple5(next(ports)) for _ in range(draw(st.integers(0, 2))))
        legs[i] = leg(i, tuples=tuples, nominated=0 if tuples else None)
    sources = {
        i: source(i, pt=draw(st.sampled_from([96, 97])))
        for i in draw(st.sets(st.sampled_from(IDS)))
        if i % 2 in legs
    }
    routes = {}
    for i in draw(st.sets(st.sampled_from(IDS))) if sources else ():
        if i % 3 in legs:
            chosen = draw(st.sampled_from(sorted(sources)))
            routes[i] = route(i, chosen, paused=draw(st.booleans()))
    return Table(legs, sources, routes)


def plane_with(table: Table) -> Plane:
    return Plane(dict(table.legs), dict(table.sources), dict(table.routes))


def digests(table: Table) -> Observed:
    return Observed(
        *({i: o.digest for i, o in t.items()} for t in (table.legs, table.sources, table.routes)),
        key_ids={i: o.key_id for i, o in table.legs.items()},
    )


@given(tables(), tables())
@settings(max_examples=400)
def test_diff_turns_have_into_want_and_no_prefix_is_refused(have, want):
    plane = plane_with(have)
    plane.run(diff(have, want))  # raises at the first command that the data plane would refuse
    assert plane.table == want
    told = Told.of(have)
    for command in diff(told, want):
        told.apply(command)
    assert told == Told.of(want)
    assert diff(told, want) == []


@given(tables())
def test_nothing_to_do(table):
    assert diff(table, table) == []
    assert diff(digests(table), table) == []


@given(tables(), tables())
def test_digests_alone_give_the_same_end(have, want):
    if any(  # what a dump cannot show: which leg has a 5-tuple that another wants
        set(a.tuples) & set(b.tuples)
        for i, a in have.legs.items()
        for j, b in want.legs.items()
        if i != j
    ):
        return
    plane = plane_with(have)
    plane.run(diff(digests(have), want))
    assert plane.table == want


@given(tables(), tables())
def test_diff_is_the_shortest(have, want):
    commands = diff(have, want)
    changed = sum(
        a.get(i) != b.get(i)
        for a, b in (
            (have.legs, want.legs),
            (have.sources, want.sources),
            (have.routes, want.routes),
        )
        for i in {*a, *b}
    )
    holders = {t: i for i, o in have.legs.items() for t in o.tuples}
    takers = {t: i for i, o in want.legs.items() for t in o.tuples}
    shed = {holders[t] for t in takers if t in holders and holders[t] != takers[t]}
    back = [i for i, r in have.routes.items() if i in want.routes and r.source not in want.sources]
    assert len(commands) == changed + len(shed) + len(back)


def test_order():
    have = Table({0: leg(0)}, {0: source(0)}, {0: route(0, 0)})
    want = Table({1: leg(1)}, {1: source(1)}, {1: route(1, 1)})
    assert diff(have, want) == [
        LegSet(leg(1)),
        SourceSet(source(1)),
        RouteSet(route(1, 1)),
        RouteRemove(0),
        SourceRemove(0),
        LegRemove(0),
    ]


def test_a_5_tuple_changes_hands():
    one, two = (tuple5(1),), (tuple5(2),)
    have = Table({0: leg(0, tuples=one, nominated=0), 1: leg(1, tuples=two, nominated=0)})
    want = Table({0: leg(0, tuples=two, nominated=0), 1: leg(1, tuples=one, nominated=0)})
    plane = plane_with(have)
    plane.run(diff(have, want))
    assert plane.table == want


def test_another_rate_alone_is_a_small_command():
    have, want = Table({0: leg(0, rate_bps=5)}), Table({0: leg(0, rate_bps=7)})
    assert diff(have, want) == [LegRate(0, 7)]
    told = Told.of(have)
    told.apply(LegRate(0, 7))
    assert told.legs == dict(want.legs)
    assert diff(have, Table({0: leg(0, rate_bps=7, cname="x")})) == [
        LegSet(leg(0, rate_bps=7, cname="x"))
    ]


def test_a_route_whose_source_goes_comes_back():
    sources = {0: source(0), 2: source(2)}
    have = Table({0: leg(0)}, {0: sources[0]}, {0: route(0, 0), 3: route(3, 0, gated=False)})
    want = Table({0: leg(0)}, {2: sources[2]}, {0: route(0, 2), 3: route(3, 2, gated=False)})
    assert diff(have, want) == [
        SourceSet(sources[2]),
        RouteRemove(0),
        RouteSet(route(0, 2)),
        RouteSet(route(3, 2, gated=False)),
        SourceRemove(0),
    ]
    kept = Table({0: leg(0)}, sources, want.routes)
    assert diff(have, kept)[1:] == [RouteSet(route(0, 2)), RouteSet(route(3, 2, gated=False))]


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (Table({0: leg(0)}), Table({0: replace(leg(0), key_id=9)})),
        (Table({0: leg(0)}), Table({0: replace(leg(0), worker=1, key_id=9)})),
        (
            Table({0: leg(0)}, {0: source(0)}),
            Table({0: leg(0)}, {0: replace(source(0), ssrc=9)}),
        ),
        (digests(Table({0: leg(0)})), Table({0: replace(leg(0), key_id=9)})),
    ],
)
def test_an_id_that_lives_as_another_is_a_broken_invariant(have, want):
    with pytest.raises(IdentityChanged):
        diff(have, want)


def test_ids_of_what_was_refused_are_free_again():
    rooms = make_rooms()
    rooms.create_room("r", now=0.0)
    who, told = join(rooms), Told()
    dirty = rooms.drain_dirty()
    assert len(diff_dirty(told, rooms, dirty)) == 1  # refused: told stays as it is
    release_gone(told, rooms, dirty)
    assert rooms.participant_by_leg(who.leg) is who  # alive: not released
    rooms.leave(who.id, "bye", now=0.0)
    assert rooms.state.legs.draining == {who.leg}
    dirty = rooms.drain_dirty()
    assert diff_dirty(told, rooms, dirty) == []
    release_gone(told, rooms, dirty)
    assert not rooms.state.legs.draining


def moving():
    """A publisher's and a receiver's leg on worker 0, told; and the rooms."""
    rooms = make_rooms(workers=2)
    rooms.create_room("r", now=0.0)
    first, second = join(rooms), join(rooms)
    for who in (first, second):
        rooms.move_leg(who.id, {0})
    rooms.publish(first.id, [audio(1), layered(1)])
    rooms.subscribe(second.id, list(first.tracks))
    rooms.drain_dirty()
    return rooms, first, second, Told.of(plan(rooms))


@pytest.mark.parametrize("known", [True, False])
def test_a_publishers_leg_moves_with_all_that_hangs_on_it(known):
    rooms, first, _second, told = moving()
    before = plan(rooms)
    assert rooms.move_leg(first.id, {1}) and not rooms.move_leg(first.id, {0, 1})
    plane = Plane(dict(before.legs), dict(before.sources), dict(before.routes))
    if known:
        commands = diff_dirty(told, rooms, rooms.drain_dirty())
    else:
        observed = digests(before)
        observed = replace(observed, workers={i: leg.worker for i, leg in before.legs.items()})
        commands = diff(observed, plan(rooms))
    kinds = [type(c) for c in commands]
    assert kinds == sorted(
        kinds, key=[RouteRemove, SourceRemove, LegRemove, LegSet, SourceSet, RouteSet].index
    )
    assert [c.leg for c in commands if isinstance(c, LegRemove)] == [first.leg]
    assert all(c.resume for c in commands if isinstance(c, SourceSet))
    assert {c.route.source_worker for c in commands if isinstance(c, RouteSet)} == {1}
    plane.run(commands, rooms)  # the removes are answered: their ids are taken by what moved
    assert plane.table == plan(rooms)
    assert rooms.state.load == [3, 1]  # the receiver with its two routes; the publisher


def test_a_receivers_leg_moves_alone():
    rooms, _first, second, told = moving()
    rooms.move_leg(second.id, {1})
    commands = diff_dirty(told, rooms, rooms.drain_dirty())
    assert not any(isinstance(c, SourceRemove | SourceSet) for c in commands)
    assert [c.leg for c in commands if isinstance(c, LegRemove)] == [second.leg]
    assert rooms.state.load == [1, 3]


def test_a_route_that_still_reads_a_moved_source_goes_as_well():
    """It waits for a key frame of another layer."""
    rooms, _first, _second, told = moving()
    third = join(rooms)
    rooms.publish(third.id, [video(9)])
    told = Told.of(plan(rooms))
    rooms.drain_dirty()
    route = next(r for r in told.routes.values() if r.gated)
    told.past[route.id] = tuple(third.tracks[t].layers[0].source for t in third.tracks)
    rooms.move_leg(third.id, {1 - third.worker})
    commands = diff_dirty(told, rooms, rooms.drain_dirty())
    assert RouteRemove(route.id) in commands and RouteSet(route) in commands


class Calls(RuleBasedStateMachine):
    """Random calls, joined, left, published, muted ...; the data plane follows in small steps."""

    people = Bundle("people")
    tracks = Bundle("tracks")

    def __init__(self) -> None:
        super().__init__()
        self.rooms = make_rooms(workers=2, legs_max=6, routes_max=12, empty_ttl_s=5)
        self.plane = Plane()
        self.told = Told()
        self.now = 0.0
        self.spoken: set[tuple[int, int]] = set()

    @initialize(target=people)
    def start(self):
        for room_id in "ab":
            self.rooms.create_room(room_id, now=self.now)
        return multiple(*(join(self.rooms, "a").id for _ in range(3)))

    def attempt(self, call, *args, **kwargs):
        try:
            return call(*args, **kwargs)
        except Refused:
            return None

    @rule(target=people, room_id=st.sampled_from("ab"), role=st.sampled_from(list(Role)))
    def join(self, room_id, role):
        who = self.attempt(join, self.rooms, room_id, role, self.now)
        return who.id if who else multiple()

    @rule(who=consumes(people))
    def leave(self, who):
        self.attempt(self.rooms.leave, who, "bye", self.now)

    @rule(who=people)
    def lose(self, who):
        self.rooms.session_lost(who, self.now)

    @rule(who=people)
    def resume(self, who):
        participant = self.rooms.state.participants.get(who)
        if participant:
            self.rooms.resume(participant.resume, self.now)

    @rule(
        target=tracks,
        who=people,
        ssrc=st.integers(1, 6),
        kind=st.sampled_from([audio, video, layered]),
    )
    def publish(self, who, ssrc, kind):
        made = self.attempt(self.rooms.publish, who, [kind(ssrc)])
        return made[0].id if made else multiple()

    @rule(track=tracks)
    def unpublish(self, track):
        found = self.rooms.state.tracks.get(track)
        if found:
            self.rooms.unpublish(found.publisher.id, [track])

    @rule(track=tracks, muted=st.booleans())
    def mute(self, track, muted):
        found = self.rooms.state.tracks.get(track)
        if found:
            self.rooms.mute(found.publisher.id, track, muted)

    @rule(who=people, track=tracks, auto=st.booleans())
    def subscribe(self, who, track, auto):
        self.attempt(self.rooms.subscribe, who, [track], auto)

    @rule(track=tracks, layer=st.integers(0, 2))
    def switch(self, track, layer):
        """Another layer for everybody who has the track, as a choice of layers does it."""
        found = self.rooms.state.tracks.get(track)
        for subscription in found.subscriptions.values() if found else ():
            subscription.layer = min(layer, len(found.layers) - 1)
            self.rooms.state.touch_subscription(subscription)

    @rule(who=people, track=tracks)
    def unsubscribe(self, who, track):
        self.attempt(self.rooms.unsubscribe, who, [track])

    @rule(who=people, ports=st.lists(st.integers(1, 4), max_size=3, unique=True))
    def validate(self, who, ports):
        nominated = len(ports) - 1 if ports else None
        self.attempt(self.rooms.set_tuples, who, [tuple5(p) for p in ports], nominated)

    @rule(who=people, worker=st.integers(0, 1))
    def move(self, who, worker):
        self.attempt(self.rooms.move_leg, who, {worker})

    @rule(seconds=st.sampled_from([1.0, 20.0, 40.0]))
    def wait(self, seconds):
        self.now += seconds
        self.rooms.tick(self.now)
        deadline = self.rooms.next_deadline()
        assert deadline is None or deadline > self.now

    @rule(room_id=st.sampled_from("ab"))
    def close_and_open(self, room_id):
        self.attempt(self.rooms.close_room, room_id, "over", self.now)
        self.attempt(self.rooms.create_room, room_id, now=self.now)

    @rule()
    def follow(self):
        """What the supervisor does: the changes become commands, and all are answered."""
        commands = diff_dirty(self.told, self.rooms, self.rooms.drain_dirty())
        for command in commands:
            self.told.apply(command)
            if isinstance(command, RouteSet) and command.route.id not in self.plane.routes:
                leg_of = self.plane.legs.get(command.route.leg) or self.told.legs[command.route.leg]
                identity = (leg_of.key_id, command.route.out_ssrc)
                assert identity not in self.spoken
                self.spoken.add(identity)
        self.plane.run(commands, self.rooms)
        assert self.plane.table == plan(self.rooms)
        state = self.rooms.state
        assert not state.legs.draining | state.sources.draining | state.routes.draining

    @rule()
    def restart_of_the_data_plane(self):
        self.follow()
        self.plane = Plane()
        self.plane.run(diff(EMPTY, plan(self.rooms)))
        self.rooms.observed(self.plane.legs, self.plane.sources, self.plane.routes)
        assert self.plane.table == plan(self.rooms)

    @invariant()
    def counts_agree(self):
        state = self.rooms.state
        assert state.legs.used == len(state.participants) == len(state.by_ufrag)
        layers = sum(len(track.layers) for track in state.tracks.values())
        assert state.sources.used == layers == len(state.by_source)
        assert state.routes.used == len(state.by_route)
        assert sum(state.load) == len(state.participants) + len(state.by_route)
        for room in state.rooms.values():
            assert room.active + room.passive == len(room.participants)
            assert bool(room.participants) != (room.id in state.empty)
            ssrcs = {s for t in room.tracks.values() for s in t.spec.ssrcs}
            assert set(room.ssrcs) == ssrcs
        for route_ in plan(self.rooms).routes.values():
            subscription = state.by_route[route_.id]
            assert subscription.subscriber is not subscription.track.publisher
            assert subscription.subscriber.room_id == subscription.track.room_id


Calls.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCalls = Calls.TestCase
