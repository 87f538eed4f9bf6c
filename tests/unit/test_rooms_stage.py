"""Roles that change while somebody is here: who counts where, who is told what, and what the data
plane holds: nothing of what a demoted participant sends reaches anybody, and its streams go on."""

from __future__ import annotations

import random

import pytest
from rooms_kit import SeededSecrets, audio, join, make_rooms, video
from test_rooms_browsers import World
from test_rooms_slots import pictures, session, shown, speak, talker

from forwarder.commands import RouteRemove, RouteSet, SourceRemove, SourceSet
from forwarder.errors import ErrorCode, Refused
from forwarder.rooms import events
from forwarder.rooms.core import Rooms
from forwarder.rooms.plan import plan
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant, SlotState
from forwarder.rooms.snapshot import restore, snapshot


@pytest.fixture
def rooms() -> Rooms:
    made = make_rooms()
    made.create_room("r", max_active=3, max_passive=2, now=0.0)
    return made


def settle(world: World) -> None:
    """Until the data plane let go of what changed hands, and took it up again."""
    for _ in range(4):
        world.round()
        if not world.rooms.state.parting and not world.refused:
            break
    world.round()
    assert not world.refused and not world.rooms.state.parting


def told(rooms: Rooms, who: Participant) -> list[str]:
    """The names of the events that the participant hears of, since the last call."""
    return [type(e).__name__ for e in rooms.drain_events() if who.id in rooms.recipients(e)]


def counts(rooms: Rooms) -> tuple[int, int]:
    view = rooms.show_room("r").room
    return view.active, view.passive


# ---- who may be what -----------------------------------------------------------------------------


def test_who_is_promoted_counts_as_active_and_may_publish(rooms: Rooms) -> None:
    who = join(rooms, role=Role.PASSIVE)
    with pytest.raises(Refused):
        rooms.publish(who.id, [audio(1)])
    rooms.drain_dirty()
    assert rooms.set_role("r", who.id, Role.ACTIVE) is who
    assert counts(rooms) == (1, 0)
    assert who.leg in rooms.drain_dirty().legs  # saved
    rooms.publish(who.id, [audio(1)])
    for role, expected in (
        (Role.HOST, (1, 0)),
        (Role.BACKSTAGE, (0, 1)),
        (Role.PASSIVE, (0, 1)),
        (Role.ACTIVE, (1, 0)),
    ):
        rooms.set_role("r", who.id, role)
        assert (who.role, counts(rooms)) == (role, expected)
    rooms.leave(who.id, "bye", 0.0)
    assert counts(rooms) == (0, 0)


@pytest.mark.parametrize("role", list(Role))
def test_the_same_role_again_is_no_news(rooms: Rooms, role: Role) -> None:
    who = join(rooms, role=role)
    rooms.drain_events()
    rooms.drain_dirty()
    rooms.set_role("r", who.id, role)
    assert not rooms.drain_events() and not rooms.drain_dirty()


def test_a_full_side_takes_nobody(rooms: Rooms) -> None:
    """And changes nothing; whoever stays on his side needs no place."""
    stage = [talker(rooms, n) for n in range(1, 4)]
    hall = [join(rooms, role=Role.PASSIVE), join(rooms, role=Role.BACKSTAGE)]
    before, tables = snapshot(rooms), plan(rooms)
    rooms.drain_events()
    for who, role, sentence in (
        (hall[0], Role.ACTIVE, "3 active"),
        (hall[1], Role.HOST, "3 active"),
        (stage[0], Role.PASSIVE, "2 passive"),
        (stage[0], Role.BACKSTAGE, "2 passive"),
    ):
        with pytest.raises(Refused, match=sentence) as refused:
            rooms.set_role("r", who.id, role)
        assert refused.value.code is ErrorCode.ROOM_FULL
    assert (snapshot(rooms), plan(rooms)) == (before, tables)
    assert not rooms.drain_events()
    rooms.set_role("r", stage[0].id, Role.HOST)
    rooms.set_role("r", hall[0].id, Role.BACKSTAGE)
    rooms.leave(hall[1].id, "bye", 0.0)
    rooms.set_role("r", stage[0].id, Role.PASSIVE)
    rooms.set_role("r", hall[0].id, Role.ACTIVE)
    assert counts(rooms) == (3, 1)


def test_only_somebody_of_this_room(rooms: Rooms) -> None:
    rooms.create_room("other", now=0.0)
    who = join(rooms, "other", Role.PASSIVE)
    for room, name, code in (
        ("none", who.id, ErrorCode.NO_SUCH_ROOM),
        ("r", who.id, ErrorCode.NO_SUCH_PARTICIPANT),
        ("r", "nobody", ErrorCode.NO_SUCH_PARTICIPANT),
    ):
        with pytest.raises(Refused) as refused:
            rooms.set_role(room, name, Role.ACTIVE)
        assert refused.value.code is code
    assert who.role is Role.PASSIVE


# ---- who is told what ----------------------------------------------------------------------------


def test_all_hear_of_a_role_and_of_tracks(rooms: Rooms) -> None:
    who, other = talker(rooms, 1), join(rooms, role=Role.PASSIVE)
    rooms.subscribe(other.id, [], auto=True)
    rooms.drain_events()
    rooms.set_role("r", who.id, Role.PASSIVE)
    assert told(rooms, other) == ["TrackUnpublished", "TrackUnpublished", "RoleChanged"]
    rooms.set_role("r", who.id, Role.ACTIVE)
    heard = rooms.drain_events()
    assert [type(e).__name__ for e in heard if other.id in rooms.recipients(e)] == [
        "RoleChanged",
        "TrackPublished",
        "TrackPublished",
        "Subscribed",
    ]
    assert [type(e).__name__ for e in heard if who.id in rooms.recipients(e)] == ["RoleChanged"]
    assert len(other.subscriptions) == 2
    rooms.set_role("r", who.id, Role.PASSIVE)
    assert told(rooms, other) == [
        *["Unsubscribed", "TrackUnpublished"] * 2,
        "RoleChanged",
    ]
    assert not other.subscriptions


def test_backstage_comes_and_goes_as_somebody_new(rooms: Rooms) -> None:
    who, other = talker(rooms, 1), join(rooms, role=Role.PASSIVE)
    rooms.drain_events()
    rooms.set_role("r", who.id, Role.BACKSTAGE)
    heard = rooms.drain_events()
    assert [type(e).__name__ for e in heard if other.id in rooms.recipients(e)] == [
        "TrackUnpublished",
        "TrackUnpublished",
        "ParticipantHidden",
    ]
    assert [type(e).__name__ for e in heard if who.id in rooms.recipients(e)] == ["RoleChanged"]
    assert rooms.others(other.id) == []
    with pytest.raises(Refused):
        rooms.data_targets(other.id, [who.id])
    rooms.set_role("r", who.id, Role.ACTIVE)
    assert told(rooms, other) == ["ParticipantShown", "TrackPublished", "TrackPublished"]
    assert rooms.others(other.id) == [who]


def test_tracks_of_a_demoted_one_are_nobodys_business(rooms: Rooms) -> None:
    who, other = talker(rooms, 1), join(rooms)
    sound, picture = who.tracks
    rooms.subscribe(other.id, [sound, picture])
    rooms.set_role("r", who.id, Role.PASSIVE)
    rooms.drain_events()
    assert rooms.tracks_of_others(other.id) == []
    assert rooms.show_room("r").tracks == () and rooms.show_room("r").room.track_count == 0
    assert rooms.statistics().tracks == 0
    with pytest.raises(Refused) as refused:
        rooms.subscribe(other.id, [sound])
    assert refused.value.code is ErrorCode.NO_SUCH_TRACK
    with pytest.raises(Refused) as refused:
        rooms.publish(who.id, [audio(50)])
    assert refused.value.code is ErrorCode.FORBIDDEN
    rooms.mute(who.id, sound, True)
    rooms.unpublish(who.id, [picture])
    assert not rooms.drain_events()
    rooms.set_role("r", who.id, Role.ACTIVE)
    (published,) = [e for e in rooms.drain_events() if isinstance(e, events.TrackPublished)]
    assert (published.track.id, published.track.muted) == (sound, True)
    rooms.set_role("r", who.id, Role.PASSIVE)
    rooms.drain_events()
    rooms.leave(who.id, "bye", 0.0)
    assert told(rooms, other) == ["ParticipantLeft"]


def test_who_speaks_speaks_no_more(rooms: Rooms) -> None:
    a, b = talker(rooms, 1), talker(rooms, 2)
    speak(rooms, {a.id: 20}, 0.0, 1.0)
    assert rooms.state.rooms["r"].speaker == a.id
    rooms.drain_events()
    rooms.set_role("r", a.id, Role.PASSIVE)
    assert "SpeakerChanged" in told(rooms, b)
    speak(rooms, {a.id: 20}, 1.0, 1.0)  # it goes on talking
    assert rooms.state.rooms["r"].speaker is None
    rooms.set_role("r", a.id, Role.ACTIVE)
    speak(rooms, {a.id: 20}, 2.0, 1.0)
    assert rooms.state.rooms["r"].speaker == a.id


# ---- what the data plane holds -------------------------------------------------------------------


def test_slots_empty_and_fill_and_stay_the_same_streams(rooms: Rooms) -> None:
    world = World(rooms)
    me = session(rooms, pairs=2)
    who = talker(rooms, 1)
    settle(world)
    routes, sources = dict(world.plane.routes), dict(world.plane.sources)
    tracks = list(who.tracks)
    rooms.drain_events()
    rooms.set_role("r", who.id, Role.PASSIVE)
    world.round()
    assert not world.plane.routes and not world.plane.sources  # nothing of it is taken any more
    assert pictures(me) == [None, None]
    assert {s.state for s in me.slots} == {SlotState.WAITING}
    emptied = [e for e in rooms.drain_events() if isinstance(e, events.SlotChanged)]
    assert [(e.mid, e.track_id) for e in emptied] == [("a0", None), ("v0", None)]
    settle(world)
    assert world.plane.sources == sources and not world.plane.routes
    rooms.set_role("r", who.id, Role.ACTIVE)
    settle(world)
    assert pictures(me) == [who.id, None] and list(who.tracks) == tracks
    assert (world.plane.routes, world.plane.sources) == (routes, sources)
    filled = [e for e in rooms.drain_events() if isinstance(e, events.SlotChanged)]
    assert [(e.mid, e.publisher_id) for e in filled] == [("a0", who.id), ("v0", who.id)]


@pytest.mark.parametrize("role", [Role.PASSIVE, Role.ACTIVE])
def test_numbers_go_on_and_what_came_before_is_forgotten(rooms: Rooms, role: Role) -> None:
    """Each change of side empties the histories: let go of, and taken up as the same streams."""
    world = World(rooms)
    session(rooms, pairs=1)
    who = talker(rooms, 1)
    settle(world)
    if role is Role.ACTIVE:
        rooms.set_role("r", who.id, Role.PASSIVE)
        settle(world)
    mine = {layer.source for track in who.tracks.values() for layer in track.layers}
    rooms.set_role("r", who.id, role)
    world.round()
    assert {c.source for c in world.commands if isinstance(c, SourceRemove)} == mine
    assert not [c for c in world.commands if isinstance(c, RouteSet)]
    world.round()
    taken_up = [c for c in world.commands if isinstance(c, SourceSet)]
    assert {c.source.id for c in taken_up} == mine
    assert all(c.resume for c in taken_up)
    assert len([c for c in world.commands if isinstance(c, RouteSet)]) == 2 * role.may_publish


def test_another_one_in_the_slot_does_not_let_it_through(rooms: Rooms) -> None:
    """A gated route reads its old source until the new one has a key frame: not that of a demoted
    one, neither where the slot changes now nor where it changed a moment ago."""
    world = World(rooms)
    me = session(rooms, pairs=1)
    a, b = talker(rooms, 1), talker(rooms, 2)
    settle(world)
    assert pictures(me) == [a.id]
    rooms.set_role("r", a.id, Role.PASSIVE)
    world.round()
    assert pictures(me) == [b.id] and not world.refused
    (route,) = [s.route for s in me.slots if s.spec.mid == "v0"]
    mine = [c for c in world.commands if isinstance(c, RouteRemove | RouteSet)]
    assert [type(c) for c in mine if route in (getattr(c, "route", 0), _id(c))] == [
        RouteRemove,
        RouteSet,
    ]
    rooms.set_role("r", a.id, Role.ACTIVE)
    settle(world)
    rooms.set_view(me.id, [a.id])
    world.round()
    assert world.plane.held[route]  # it waits for a's key frame and reads b
    rooms.set_role("r", b.id, Role.PASSIVE)
    world.round()
    assert rooms.parting(b.id) and world.refused
    world.round()
    assert not rooms.parting(b.id) and route not in world.plane.held
    assert pictures(me) == [a.id]


def _id(command: RouteRemove | RouteSet) -> int:
    return command.route.id if isinstance(command, RouteSet) else command.route


def test_a_change_of_mind_is_one_step(rooms: Rooms) -> None:
    """Demoted and promoted before anybody was told: at its end all is as it was."""
    world = World(rooms)
    me = session(rooms, pairs=1)
    who = talker(rooms, 1)
    settle(world)
    before = world.plane.table
    rooms.set_role("r", who.id, Role.BACKSTAGE)
    rooms.set_role("r", who.id, Role.HOST)
    settle(world)
    assert world.plane.table == before and pictures(me) == [who.id]


def test_before_its_keys_too(rooms: Rooms) -> None:
    world = World(rooms)
    who = session(rooms, pairs=0, tracks=(video(5),))
    who.keyed = False
    rooms.set_role("r", who.id, Role.PASSIVE)
    settle(world)
    who.keyed = True
    rooms.set_role("r", who.id, Role.ACTIVE)
    settle(world)
    assert len(world.plane.sources) == 1


def test_a_dump_or_a_replay_ends_the_parting(rooms: Rooms) -> None:
    """The data plane was restarted, or lost its words, in the middle of it."""
    who = talker(rooms, 1)
    rooms.set_role("r", who.id, Role.PASSIVE)
    sources = {layer.source for track in who.tracks.values() for layer in track.layers}
    rooms.drain_dirty()
    rooms.observed([who.leg], sources, [])
    assert rooms.parting(who.id)
    rooms.observed([who.leg], [], [])
    assert not rooms.parting(who.id)
    assert rooms.drain_dirty().sources == sources
    assert plan(rooms).sources.keys() == sources


def test_a_role_survives_a_restart(rooms: Rooms) -> None:
    world = World(rooms)
    me = session(rooms, pairs=2)
    down, up = talker(rooms, 1), join(rooms, role=Role.PASSIVE)
    settle(world)
    rooms.set_role("r", down.id, Role.PASSIVE)
    rooms.set_role("r", up.id, Role.ACTIVE)
    rooms.publish(up.id, [audio(40)])
    settle(world)
    again, faults = restore(snapshot(rooms), rooms.state.limits, SeededSecrets(3), 10.0)
    assert faults == [] and snapshot(again) == snapshot(rooms)
    assert plan(again) == plan(rooms)
    assert again.participant(down.id).role is Role.PASSIVE
    assert again.participant(up.id).role is Role.ACTIVE
    assert counts(again) == counts(rooms) == (2, 1)
    again.fill_slots(10.0)
    assert shown(again.participant(me.id)) == shown(me)
    assert [t.participant_id for t in again.show_room("r").tracks] == [up.id]
    assert again.resume(down.resume, 11.0).role is Role.PASSIVE
    # The old supervisor may have ended when the data plane had just let go of them.
    mine = [s for s in plan(again).sources.values() if s.leg == down.leg]
    assert [s.resume for s in mine] == [True, True]
    again.set_role("r", down.id, Role.ACTIVE)
    assert len(again.show_room("r").tracks) == 3


@pytest.mark.parametrize("seed", range(20))
def test_random_roles_never_break_the_data_plane(seed: int) -> None:
    """And no route ever leads from one that may not publish."""
    rng = random.Random(seed)
    rooms = make_rooms(seed, workers=2)
    rooms.create_room("r", max_active=5, max_passive=5, now=0.0)
    world = World(rooms)
    for step in range(120):
        people = list(rooms.participants())
        try:
            match rng.randrange(8):
                case 0:
                    session(rooms, rng.randrange(3), 1)
                case 1:
                    talker(rooms, 10 + step)
                case 2 | 3 | 4 if people:
                    rooms.set_role("r", rng.choice(people).id, rng.choice(list(Role)))
                case 5 if people:
                    rooms.set_view(rng.choice(people).id, [rng.choice(people).id])
                case 6 if people:
                    rooms.subscribe(rng.choice(people).id, [], auto=True)
                case 7 if people and rng.random() < 0.4:
                    rooms.leave(rng.choice(people).id, "bye", 0.0)
        except Refused:
            pass
        if rng.random() < 0.5:
            world.round()
            if not world.refused:
                for route in world.plane.routes.values():
                    leg = world.plane.sources[route.source].leg
                    assert rooms.participant_by_leg(leg).role.may_publish
        view = rooms.show_room("r").room
        assert view.active <= 5 and view.passive <= 5
        mine = [p.role.may_publish for p in rooms.participants()]
        assert (view.active, view.passive) == (sum(mine), len(mine) - sum(mine))
    settle(world)
    assert plan(rooms) == world.plane.table
