"""Rooms: who may come in, who is told, what happens when time passes."""

from __future__ import annotations

import re

import pytest
from rooms_kit import SUITES, audio, join, make_rooms, tuple5, video

from forwarder import config
from forwarder.errors import ErrorCode, Refused
from forwarder.rooms import admission, events
from forwarder.rooms.admission import Limits
from forwarder.rooms.allocate import IdPool, SsrcSequence
from forwarder.rooms.roles import Role
from forwarder.rooms.room import (
    TRANSITIONS,
    LegState,
    ParticipantState,
    RoomState,
    changed,
)
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages


def refused(code: ErrorCode, call, *args, **kwargs) -> str:
    """The call is refused with this code and changes nothing."""
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    assert caught.value.code is code
    return str(caught.value)


@pytest.fixture
def rooms():
    rooms = make_rooms()
    rooms.create_room("r", now=0.0)
    return rooms


def happened(rooms) -> list[str]:
    return [type(event).__name__ for event in rooms.drain_events()]


# ---- rooms ---------------------------------------------------------------------------------------


def test_create_list_show_close(rooms):
    made = rooms.create_room(now=1.0, created_at=5.0)
    assert re.fullmatch(r"[A-Za-z0-9_-]{16}", made.id)
    assert (made.max_active, made.max_passive, made.created_at) == (50, 1000, 5.0)
    assert [room.id for room in rooms.list_rooms()] == ["r", made.id]
    someone = join(rooms)
    detail = rooms.show_room("r")
    assert detail.room.active == 1
    assert [p.id for p in detail.participants] == [someone.id]
    rooms.drain_events()
    rooms.close_room("r", "over", now=2.0)
    (closed,) = rooms.drain_events()
    assert closed == events.RoomClosed("r", "over", (someone.id,))
    assert list(rooms.recipients(closed)) == [someone.id]
    assert not rooms.has_room("r")
    refused(ErrorCode.NO_SUCH_ROOM, rooms.show_room, "r")
    refused(ErrorCode.NO_SUCH_ROOM, rooms.close_room, "r", "again", now=2.0)
    assert rooms.participant_by_ufrag(someone.ufrag) is None


@pytest.mark.parametrize("room_id", ["", "a b", "x" * 65, "ä", "a/b", "a\n"])
def test_room_ids_are_checked(rooms, room_id):
    refused(ErrorCode.BAD_MESSAGE, rooms.create_room, room_id, now=0.0)


@pytest.mark.parametrize("limits", [{"max_active": 0}, {"max_active": 10**6}, {"max_passive": -1}])
def test_room_limits_are_checked(rooms, limits):
    refused(ErrorCode.BAD_MESSAGE, rooms.create_room, now=0.0, **limits)


def test_room_exists_and_node_limit():
    rooms = make_rooms(max_rooms=2)
    rooms.create_room("a", now=0.0)
    refused(ErrorCode.ROOM_EXISTS, rooms.create_room, "a", now=0.0)
    rooms.create_room("b", now=0.0)
    assert "limit" in refused(ErrorCode.LIMIT, rooms.create_room, "c", now=0.0)


def test_empty_rooms_are_closed_in_time(rooms):
    assert rooms.next_deadline() == 300.0
    rooms.tick(299.9)
    assert rooms.has_room("r")
    someone = join(rooms, now=299.9)
    assert rooms.next_deadline() is None
    rooms.tick(1000.0)
    assert rooms.has_room("r")
    rooms.leave(someone.id, "bye", now=1000.0)
    assert rooms.next_deadline() == 1300.0
    rooms.tick(1300.0)
    assert not rooms.has_room("r")
    assert happened(rooms)[-1] == "RoomClosed"


def test_rooms_can_stay_for_ever():
    rooms = make_rooms(empty_ttl_s=0)
    rooms.create_room("r", now=0.0)
    assert rooms.next_deadline() is None
    rooms.tick(1e9)
    assert rooms.has_room("r")


# ---- joining -------------------------------------------------------------------------------------


def test_what_a_participant_is_given(rooms):
    p = join(rooms)
    assert len(p.ufrag) >= 8 and re.fullmatch(r"[A-Za-z0-9+/]+", p.ufrag)
    assert len(p.password) >= 24 and re.fullmatch(r"[A-Za-z0-9+/]+", p.password)
    assert len(p.cname.encode()) == 16
    assert p.suite is Suite.GCM
    assert (len(p.rx_key), len(p.rx_salt), len(p.tx_key), len(p.tx_salt)) == (16, 12, 16, 12)
    assert p.rx_key != p.tx_key and p.key_id != 0
    assert rooms.participant_by_ufrag(p.ufrag) is p
    assert rooms.participant_by_leg(p.leg) is p
    for secret in (p.password, p.resume, p.rx_key.hex(), repr(p.tx_key)):
        assert secret not in repr(p)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(SUITES, Suite.GCM), (SUITES[::-1], Suite.GCM), ([Suite.SHA1], Suite.SHA1)],
)
def test_suite(rooms, offered, chosen):
    p = rooms.join("r", name="", role=Role.HOST, suites=offered, now=0.0)
    assert p.suite is chosen
    assert len(p.tx_salt) == chosen.salt_size


def test_no_common_suite_takes_no_leg(rooms):
    refused(ErrorCode.BAD_MESSAGE, rooms.join, "r", name="", role=Role.HOST, suites=[], now=0.0)
    assert join(rooms).leg == 0


@pytest.mark.parametrize("name", ["x" * 65, "\ud800"])
def test_names_must_be_text(rooms, name):
    refused(ErrorCode.BAD_MESSAGE, join, rooms, name=name)
    host = join(rooms)
    refused(ErrorCode.BAD_MESSAGE, rooms.publish, host.id, [audio(1, name)])


def test_room_full_by_role():
    rooms = make_rooms()
    rooms.create_room("r", max_active=2, max_passive=1, now=0.0)
    host = join(rooms, role=Role.HOST)
    join(rooms, role=Role.ACTIVE)
    for role in (Role.HOST, Role.ACTIVE):
        assert "limit" in refused(ErrorCode.ROOM_FULL, join, rooms, role=role)
    join(rooms, role=Role.BACKSTAGE)
    refused(ErrorCode.ROOM_FULL, join, rooms, role=Role.PASSIVE)
    rooms.leave(host.id, "bye", now=0.0)
    join(rooms, role=Role.ACTIVE)


def test_node_full_of_legs():
    rooms = make_rooms(legs_max=1)
    rooms.create_room("r", now=0.0)
    first = join(rooms)
    assert "legs_max" in refused(ErrorCode.LIMIT, join, rooms)
    rooms.leave(first.id, "bye", now=0.0)
    first = join(rooms)  # nobody was told of the leg: it was free at once
    rooms.drain_dirty()
    rooms.leave(first.id, "bye", now=0.0)
    refused(ErrorCode.LIMIT, join, rooms)  # the data plane still holds the leg
    assert rooms.released("leg", first.leg)
    assert join(rooms).leg == first.leg
    assert not rooms.released("leg", first.leg)


def test_join_unknown_room(rooms):
    refused(ErrorCode.NO_SUCH_ROOM, join, rooms, "nowhere")


def test_legs_go_to_the_least_loaded_worker():
    rooms = make_rooms(workers=2)
    rooms.create_room("r", now=0.0)
    people = [join(rooms) for _ in range(4)]
    assert [p.worker for p in people] == [0, 1, 0, 1]
    (track,) = rooms.publish(people[0].id, [audio(1)])
    rooms.subscribe(people[1].id, [track.id])
    rooms.subscribe(people[3].id, [track.id])
    assert [join(rooms).worker for _ in range(3)] == [0, 0, 0]
    rooms.leave(people[1].id, "bye", now=0.0)
    assert join(rooms).worker == 1


# ---- sessions ------------------------------------------------------------------------------------


def test_resume_within_grace(rooms):
    p = join(rooms)
    rooms.session_lost(p.id, now=10.0)
    rooms.session_lost(p.id, now=12.0)
    assert p.state is ParticipantState.AWAY
    assert rooms.next_deadline() == 40.0
    assert rooms.resume(p.resume, now=20.0) is p
    assert p.state is ParticipantState.JOINED
    rooms.tick(100.0)
    assert rooms.participant(p.id) is p
    assert rooms.resume(p.resume, now=101.0) is p  # replaces its own open session


def test_grace_ends(rooms):
    p, other = join(rooms), join(rooms)
    rooms.session_lost(p.id, now=0.0)
    rooms.drain_events()
    rooms.tick(29.9)
    assert not rooms.drain_events()
    rooms.tick(30.0)
    (left,) = rooms.drain_events()
    assert left.participant.id == p.id and "not resumed in time" in left.reason
    assert list(rooms.recipients(left)) == [other.id]
    refused(ErrorCode.RESUME_INVALID, rooms.resume, p.resume, now=31.0)
    rooms.session_lost(p.id, now=31.0)


def test_grace_begins_anew_for_all_who_are_away(rooms):
    p, other, there = join(rooms), join(rooms), join(rooms)
    rooms.session_lost(p.id, now=0.0)
    rooms.session_lost(other.id, now=20.0)
    rooms.wait_anew(40.0)
    rooms.tick(69.9)
    assert rooms.resume(p.resume, now=69.9) is p
    rooms.drain_events()
    rooms.tick(70.0)
    (left,) = rooms.drain_events()
    assert left.participant.id == other.id and rooms.participant(there.id) is there


@pytest.mark.parametrize("secret", ["", "x" * 43, "\ud800", "é" * 5000])
def test_wrong_resume_secret(rooms, secret):
    join(rooms)
    message = refused(ErrorCode.RESUME_INVALID, rooms.resume, secret, now=0.0)
    assert not secret or secret not in message


# ---- who is told ---------------------------------------------------------------------------------


def test_backstage_is_not_shown(rooms):
    host, hidden = join(rooms, role=Role.HOST), join(rooms, role=Role.BACKSTAGE)
    joined = rooms.drain_events()
    assert [list(rooms.recipients(e)) for e in joined] == [[hidden.id], []]
    assert rooms.others(host.id) == []
    assert rooms.others(hidden.id) == [host]
    refused(ErrorCode.NO_SUCH_PARTICIPANT, rooms.data_targets, host.id, [hidden.id])
    assert rooms.data_targets(host.id, None) == [hidden.id]
    rooms.leave(hidden.id, "bye", now=0.0)
    (left,) = rooms.drain_events()
    assert list(rooms.recipients(left)) == []
    assert len(rooms.show_room("r").participants) == 1


def test_data_targets(rooms):
    a, b, c = (join(rooms) for _ in range(3))
    rooms.create_room("elsewhere", now=0.0)
    far = join(rooms, "elsewhere")
    assert rooms.data_targets(a.id, None) == [b.id, c.id]
    assert rooms.data_targets(a.id, [c.id, c.id]) == [c.id]
    refused(ErrorCode.NO_SUCH_PARTICIPANT, rooms.data_targets, a.id, [far.id])


def test_leg_live_and_lost(rooms):
    p = join(rooms)
    rooms.drain_events()
    rooms.set_tuples(p.id, [tuple5(1)], None)
    assert p.leg_state is LegState.WAITING
    rooms.set_tuples(p.id, [tuple5(1)], 0)
    rooms.set_tuples(p.id, [tuple5(1), tuple5(2)], 1)
    rooms.set_tuples(p.id, [], None)
    rooms.set_tuples(p.id, [tuple5(2)], 0)
    assert happened(rooms) == ["LegLive", "LegLost", "LegLive"]
    for tuples, nominated in (
        ([tuple5(i) for i in range(1, 6)], 0),
        ([tuple5(1), tuple5(1)], 0),
    ):
        with pytest.raises(ValueError, match="5-tuples"):
            rooms.set_tuples(p.id, tuples, nominated)
    assert p.tuples == (tuple5(2),)


def test_a_5_tuple_leads_to_whoever_validated_it_last(rooms):
    old, new = join(rooms), join(rooms)
    rooms.set_tuples(old.id, [tuple5(1), tuple5(2), tuple5(3)], 2)
    rooms.set_tuples(new.id, [tuple5(1)], 0)
    assert (old.tuples, old.nominated) == ((tuple5(2), tuple5(3)), 1)
    rooms.drain_events()
    rooms.set_tuples(new.id, [tuple5(1), tuple5(3)], 1)
    assert (old.tuples, old.nominated) == ((tuple5(2),), None)
    assert happened(rooms) == ["LegLost"]
    rooms.leave(new.id, "bye", now=0.0)
    rooms.set_tuples(old.id, [tuple5(3)], 0)
    assert old.leg_state is LegState.LIVE


def test_local_address(rooms):
    p = join(rooms)
    six = type(tuple5(1))("2001:db8::7", 1, "::1", 4433)
    rooms.set_tuples(p.id, [tuple5(1), six], 1)
    assert p.local == 1


# ---- the parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RoomState, ParticipantState, LegState])
def test_states_change_only_as_the_table_says(kind):
    for have in kind:
        for to in kind:
            if to in TRANSITIONS[have]:
                assert changed(have, to) is to
            else:
                with pytest.raises(AssertionError):
                    changed(have, to)


def test_id_pool_holds_ids_until_released():
    pool = IdPool(3)
    assert [pool.take() for _ in range(3)] == [0, 1, 2]
    pool.give_back(1)
    assert pool.available == 0
    assert not pool.released(0)
    assert pool.released(1)
    assert pool.take() == 1
    pool.give_back(0)
    pool.give_back(2)
    pool.observed({2, 1, 99})
    assert pool.draining == {2}
    assert pool.take() == 0


def test_ssrcs_are_never_repeated_and_avoid():
    walk = SsrcSequence(multiplier=3, offset=0)
    assert [walk.take(avoid={6}) for _ in range(3)] == [3, 9, 12]
    seen = {SsrcSequence(5, 7, n).take(()) for n in range(10_000)}
    assert len(seen) == 10_000


def test_limits_follow_the_configuration():
    c = config.load(None, {"rooms.max_active": 3, "network.addresses": ["2001:DB8::0:1"]})
    limits = Limits.of(c)
    assert (limits.max_active, limits.addresses) == (3, ("2001:db8::1",))
    defaults = Limits.of(config.load())
    assert defaults == Limits()
    assert admission.TRACKS_MAX == messages.TRACKS_MAX
    assert admission.NAME_MAX == messages.LABEL_MAX


def test_statistics(rooms):
    p, q = join(rooms), join(rooms, role=Role.PASSIVE)
    (track,) = rooms.publish(p.id, [video(1)])
    rooms.subscribe(q.id, [track.id])
    rooms.session_lost(q.id, now=0.0)
    s = rooms.statistics()
    assert (s.rooms, s.active, s.passive, s.away, s.tracks, s.subscriptions) == (1, 1, 1, 1, 1, 1)
