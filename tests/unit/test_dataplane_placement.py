"""Which worker a command goes to, and what it waits for."""

from __future__ import annotations

import pytest

from forwarder.commands import (
    KeyframeRequest,
    LegRate,
    LegRemove,
    LegSet,
    RouteFilter,
    RouteRemove,
    RouteSet,
    SourceRemove,
    SourceSet,
)
from forwarder.dataplane.placement import NotThere, Placement
from forwarder.table import Leg, Route, Source, Suite


def leg(number: int, worker: int) -> Leg:
    return Leg(number, worker, number, Suite.NONE, bytes(16), bytes(12), bytes(16), bytes(12))


LEG1, LEG2 = LegSet(leg(1, 0)), LegSet(leg(2, 1))
SOURCE = SourceSet(Source(id=1, leg=1, ssrc=5))
NEAR = RouteSet(Route(id=1, leg=1, source=1, source_worker=0, out_ssrc=6))
FAR = RouteSet(Route(id=2, leg=2, source=1, source_worker=0, out_ssrc=7))


def filled() -> Placement:
    placement = Placement(2)
    for command in (LEG1, LEG2, SOURCE, NEAR, FAR):
        placement.placed(command)
    return placement


WORKERS = [
    (LEG1, {0, 1}),
    (LegRate(2, 1), {1}),
    (SOURCE, {0}),
    (NEAR, {0}),
    (FAR, {1}),
    (RouteFilter(2), {1}),
    (KeyframeRequest(1), {0}),
    (SourceRemove(1), {0}),
    (LegRemove(1), {0, 1}),
]


@pytest.mark.parametrize(("command", "workers"), WORKERS)
def test_where_commands_go(command, workers):
    assert filled().plan(command).workers == workers


WAITS = [
    (SOURCE, LEG1, False, "same ring, in order"),
    (NEAR, SOURCE, False, "same ring, in order"),
    (FAR, SOURCE, True, "the other worker must have the source first"),
    (FAR, NEAR, False, "two readers of one source"),
    (SourceRemove(1), RouteRemove(2), True, "the route is on the other worker"),
    (SourceRemove(1), RouteRemove(1), True, "a remove is done when it is answered"),
    (LegRemove(1), SourceRemove(1), True, "a remove is done when it is answered"),
    (LEG1, LegRemove(1), True, "the id is free when the remove was answered"),
    (LEG2, LegRemove(1), False, "another leg"),
    (KeyframeRequest(1), FAR, False, "asking changes nothing"),
]


@pytest.mark.parametrize(("later", "earlier", "waits", "why"), WAITS)
def test_what_waits_for_what(later, earlier, waits, why):
    placement = filled()
    assert placement.plan(later).must_wait_for(placement.plan(earlier)) is waits, why


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (LegRate(9, 1), "no_leg"),
        (LegRemove(9), "no_leg"),
        (SourceSet(Source(id=9, leg=9, ssrc=1)), "no_leg"),
        (SourceRemove(9), "no_source"),
        (KeyframeRequest(9), "no_source"),
        (RouteFilter(9), "no_route"),
        (RouteRemove(9), "no_route"),
    ],
)
def test_what_was_never_placed_is_refused(command, status):
    with pytest.raises(NotThere) as refused:
        filled().plan(command)
    assert refused.value.status == status


def test_a_refusal_restores_what_was_there():
    placement = filled()
    moved = LegSet(leg(1, 1))
    placement.answered(moved, False, placement.placed(moved))
    assert placement.plan(LegRate(1, 1)).workers == {0}
    new = LegSet(leg(3, 1))
    placement.answered(new, False, placement.placed(new))
    with pytest.raises(NotThere):
        placement.plan(LegRate(3, 1))


def test_a_dump_corrects_the_picture():
    placement = filled()
    placement.found("leg", 2, 0)
    placement.found("route", 8, 1)
    placement.keep("leg", [2])
    assert placement.plan(LegRate(2, 1)).workers == {0}
    assert placement.plan(RouteRemove(8)).workers == {1}
    with pytest.raises(NotThere):
        placement.plan(LegRate(1, 1))


def test_paused_becomes_a_command_of_its_own():
    placement = filled()
    paused = RouteSet(Route(id=1, leg=1, source=1, source_worker=0, out_ssrc=6, paused=True))
    assert placement.expand(paused) == (paused, RouteFilter(1, True))
    placement.placed(RouteFilter(1, True))
    assert placement.expand(paused) == (paused,)
    assert placement.expand(NEAR) == (NEAR, RouteFilter(1, False))


def test_a_route_that_comes_back_is_paused_anew():
    """Its remove may not be answered yet when that is decided."""
    placement = filled()
    paused = RouteSet(Route(id=1, leg=1, source=1, source_worker=0, out_ssrc=6, paused=True))
    placement.placed(paused)
    placement.placed(RouteFilter(1, True))
    undo = placement.placed(RouteRemove(1))
    assert placement.expand(paused) == (paused, RouteFilter(1, True))
    placement.answered(RouteRemove(1), False, undo)
    assert placement.expand(paused) == (paused,)
