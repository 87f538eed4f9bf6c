"""The watchdog's judgement: pure, times are given."""

from __future__ import annotations

from forwarder.dataplane.watch import LATE_NS, STALE_NS, Watch

POLL = 50_000_000


def verdicts(watch: Watch, start: int, polls: int, alive) -> list[int | None]:
    return [watch.stale(start + i * POLL, alive(start + i * POLL)) for i in range(polls)]


def test_workers_that_beat_or_sleep_are_left_alone():
    watch = Watch(2)
    assert set(verdicts(watch, 10**9, 100, lambda now: [now, now + 100_000_000])) == {None}


def test_a_worker_that_stops_beating_is_found_soon():
    watch, stopped = Watch(2), 10**9
    found = verdicts(watch, stopped, 20, lambda now: [now, stopped])
    first = next(i for i, worker in enumerate(found) if worker is not None)
    assert found[first] == 1
    assert STALE_NS < first * POLL <= STALE_NS + 3 * POLL


def test_an_announced_sleep_counts_from_its_end():
    watch, until = Watch(1), 10**9 + 100_000_000
    found = verdicts(watch, 10**9, 8, lambda now: [until])
    assert found == [None] * 8
    assert watch.stale(until + STALE_NS + POLL, [until]) is None
    assert watch.stale(until + STALE_NS + 2 * POLL, [until]) == 0


def test_a_late_poll_proves_nothing():
    """The supervisor or the machine was stopped: the workers get the chance to beat again."""
    watch, beat = Watch(1), 10**9
    watch.stale(beat, [beat])
    later = beat + 10 * STALE_NS
    assert watch.stale(later, [beat]) is None
    assert watch.stale(later + POLL, [later + POLL]) is None
    assert watch.stale(later + POLL + LATE_NS + 1, [beat]) is None


def test_one_stale_poll_is_not_enough():
    watch, beat = Watch(1), 10**9
    watch.stale(beat + STALE_NS, [beat])
    assert watch.stale(beat + STALE_NS + POLL, [beat]) is None
    assert watch.stale(beat + STALE_NS + 2 * POLL, [beat + STALE_NS + 2 * POLL]) is None
    assert watch.stale(beat + STALE_NS + 3 * POLL, [beat]) is None
