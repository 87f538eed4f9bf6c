"""Draining: who is refused, who stays, when it is over."""

from __future__ import annotations

import pytest
from rooms_kit import join, make_rooms

from forwarder.clock import ManualClock
from forwarder.errors import ErrorCode, Refused
from forwarder.rooms.core import Rooms
from forwarder.supervisor.drain import REFUSAL, Drain


@pytest.fixture
def rooms() -> Rooms:
    made = make_rooms()
    made.create_room("r", now=0.0)
    return made


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def drain(rooms: Rooms, clock: ManualClock) -> Drain:
    return Drain(rooms, clock)


def counts(drain: Drain) -> tuple[bool, int, int, float | None]:
    found = drain.progress()
    return found.draining, found.rooms, found.participants, found.left_s


def test_nothing_ends_before_it_began(drain: Drain, clock: ManualClock) -> None:
    clock.advance(1e9)
    drain.tick()
    assert not drain.ended.is_set()
    assert counts(drain) == (False, 0, 0, None)


def test_who_is_new_is_refused_and_who_resumes_is_not(drain: Drain, rooms: Rooms) -> None:
    me = join(rooms)
    rooms.session_lost(me.id, now=100.0)
    drain.begin(None)
    for attempt in (lambda: join(rooms), lambda: rooms.create_room("other", now=100.0)):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.code is ErrorCode.UNAVAILABLE and str(refused.value) == REFUSAL
    assert rooms.resume(me.resume, 101.0).id == me.id


def test_it_is_over_when_the_last_one_left(drain: Drain, rooms: Rooms, clock: ManualClock) -> None:
    me = join(rooms)
    drain.begin(None)
    clock.advance(1e6)
    drain.tick()
    assert counts(drain) == (True, 1, 1, None) and not drain.ended.is_set()
    rooms.leave(me.id, "bye", clock.now())
    drain.tick()
    assert drain.ended.is_set()


def test_it_is_over_at_the_deadline_and_a_later_one_counts(
    drain: Drain, rooms: Rooms, clock: ManualClock
) -> None:
    join(rooms)
    drain.begin(10.0)
    clock.advance(5.0)
    drain.begin(30.0)
    clock.advance(29.0)
    drain.tick()
    assert not drain.ended.is_set() and drain.progress().left_s == 1.0
    clock.advance(1.0)
    drain.tick()
    assert drain.ended.is_set() and drain.progress().left_s == 0.0
