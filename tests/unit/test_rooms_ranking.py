"""The order of layers that an offer does not tell: found by what they send."""

from __future__ import annotations

from rooms_kit import SeededSecrets, join, make_rooms, simulcast

from forwarder.rooms.plan import plan
from forwarder.rooms.ranking import CONTRARY_MAX
from forwarder.rooms.records import track_record
from forwarder.rooms.snapshot import restore, snapshot


def offered_best_first(*rids: str):
    rooms = make_rooms()
    rooms.create_room("r", now=0.0)
    publisher, viewer = join(rooms), join(rooms)
    (track,) = rooms.publish(publisher.id, [simulcast(*rids)])
    rooms.subscribe(viewer.id, [track.id])
    return rooms, track, viewer


def measure(rooms, sources, rates, times: int) -> None:
    for _ in range(times):
        rooms.on_bitrates(zip(sources, rates, strict=True), rooms.state.now + 1.0)


def test_layers_under_plain_numbers_are_put_in_order_by_what_they_send() -> None:
    """OBS offers 0, 1, 2 with the best first; a browser's user may name them so the other way."""
    rooms, track, viewer = offered_best_first("0", "1", "2")
    best, middle, low = sources = [layer.source for layer in track.layers]
    assert viewer.subscriptions[track.id].source == low
    rooms.drain_dirty()
    measure(rooms, sources, (2_500_000, 1_000_000, 300_000), CONTRARY_MAX - 1)
    assert [layer.source for layer in track.layers] == sources
    measure(rooms, sources, (2_500_000, 1_000_000, 300_000), 1)
    assert [(x.index, x.source) for x in track.layers] == [(0, low), (1, middle), (2, best)]
    subscription = viewer.subscriptions[track.id]
    assert (subscription.source, subscription.layer) == (best, 2)
    assert rooms.drain_dirty().routes == {subscription.route}
    assert plan(rooms).routes[subscription.route].source == best
    rooms.on_feedback(subscription.route, 0.5, rooms.state.now + 3.0)
    assert subscription.source in (middle, low)


def test_an_order_that_is_right_stands() -> None:
    rates = (300_000, 1_000_000, 2_500_000)
    rooms, track, _ = offered_best_first("0", "1", "2")
    sources = [layer.source for layer in track.layers]
    measure(rooms, sources, rates, 3 * CONTRARY_MAX)
    for contrary in ((900_000, 300_000, 2_500_000), (900_000, 0, 2_500_000), rates):
        measure(rooms, sources, contrary, CONTRARY_MAX - 1)  # for a moment; or one that pauses
        measure(rooms, sources, rates, 3)
    assert [layer.source for layer in track.layers] == sources


def test_names_that_say_which_is_the_best_are_believed() -> None:
    rooms, track, _ = offered_best_first("q", "h", "f")
    sources = [layer.source for layer in track.layers]
    measure(rooms, sources, (2_500_000, 1_000_000, 300_000), 3 * CONTRARY_MAX)
    assert [layer.source for layer in track.layers] == sources


def test_an_order_that_was_found_outlives_a_restart() -> None:
    rooms, track, viewer = offered_best_first("a", "b")
    sources = [layer.source for layer in track.layers]
    before = track_record(track).source
    measure(rooms, sources, (2_000_000, 300_000), CONTRARY_MAX)
    assert track.layers[-1].source == sources[0]
    assert track_record(track).source == before  # one row in the store, not two
    again, faults = restore(snapshot(rooms), rooms.state.limits, SeededSecrets(3), 60.0)
    assert not faults
    kept = again.state.tracks[track.id]
    assert [x.source for x in kept.layers] == sources[::-1]
    assert kept.subscriptions[viewer.id].source == sources[0]
