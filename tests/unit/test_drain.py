"""Draining: who is refused, who stays, when it is over."""

from __future__ import annotations

import pytest
from rooms_kit import join, make_rooms

from forwarder.errors import ErrorCode, Refused
from forwarder.rooms.core import Rooms
from forwarder.supervisor.drain import REFUSAL, Drain, Progress


@pytest.fixture
def rooms() -> Rooms:
    made = make_rooms()
    made.create_room("r", now=0.0)
    return made


def test_nothing_ends_before_it_began(rooms: Rooms) -> None:
    drain = Drain(rooms)
    drain.tick(1e9)
    assert not drain.ended.is_set()
    assert drain.progress(0.0) == Progress(False, 0, 0, None)


def test_who_is_new_is_refused_and_who_resumes_is_not(rooms: Rooms) -> None:
    drain = Drain(rooms)
    me = join(rooms)
    rooms.session_lost(me.id, now=1.0)
    drain.begin(None, 1.0)
    for attempt in (lambda: join(rooms), lambda: rooms.create_room("other", now=1.0)):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.code is ErrorCode.UNAVAILABLE and str(refused.value) == REFUSAL
    assert rooms.resume(me.resume, 2.0).id == me.id


def test_it_is_over_when_the_last_one_left(rooms: Rooms) -> None:
    drain = Drain(rooms)
    me = join(rooms)
    drain.begin(None, 0.0)
    drain.tick(1e6)
    assert drain.progress(1e6) == Progress(True, 1, 1, None) and not drain.ended.is_set()
    rooms.leave(me.id, "bye", 1e6)
    drain.tick(1e6)
    assert drain.ended.is_set()


def test_it_is_over_at_the_deadline_and_a_later_one_counts(rooms: Rooms) -> None:
    drain = Drain(rooms)
    join(rooms)
    drain.begin(10.0, 100.0)
    drain.begin(30.0, 105.0)
    drain.tick(134.9)
    assert not drain.ended.is_set() and drain.progress(120.0).left_s == 15.0
    drain.tick(135.0)
    assert drain.ended.is_set() and drain.progress(140.0).left_s == 0.0
