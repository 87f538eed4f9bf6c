"""Which scheduling class the workers get, and the sentence that says why."""

from __future__ import annotations

import pytest

from forwarder.config import defaults
from forwarder.dataplane import scheduling
from forwarder.dataplane.setup import Scheduler

NO = "the real-time class is refused"
FIFO, OTHER = (Scheduler.FIFO, 2), (Scheduler.OTHER, 0)


def choose(wanted: str, workers: int, cpus: tuple[int, ...], allowed: range, no: str | None = None):
    found = scheduling.choose(wanted, 2, workers, cpus, allowed=allowed, refused=lambda _: no)
    return (found.scheduler, found.priority), found.why


@pytest.mark.parametrize(
    ("workers", "cpus", "allowed", "refused", "expected", "words"),
    [
        (1, (), range(2), None, FIFO, "1 CPU is left that is no worker's"),
        (1, (), range(16), None, FIFO, "15 CPUs are left that are no worker's"),
        (2, (), range(2), None, OTHER, "2 workers on 2 CPUs would leave none"),
        (1, (), range(1), None, OTHER, "the only worker on 1 CPU would leave none"),
        (4, (), range(2), None, OTHER, "4 workers on 2 CPUs would leave none"),
        (2, (0, 1), range(2), None, OTHER, "2 workers on 2 CPUs would leave none"),
        (2, (0, 1), range(3), None, FIFO, "1 CPU is left"),
        # Two workers on one CPU, and two on isolated ones that this process may not use itself.
        (2, (1, 1), range(2), None, FIFO, "1 CPU is left"),
        (2, (6, 7), range(2), None, FIFO, "2 CPUs are left"),
        (1, (), range(2), NO, OTHER, NO),
        (2, (), range(2), NO, OTHER, "2 workers on 2 CPUs"),
    ],
)
def test_auto(workers, cpus, allowed, refused, expected, words) -> None:
    found, why = choose("auto", workers, cpus, allowed, refused)
    assert found == expected
    assert words in why


@pytest.mark.parametrize(("wanted", "expected"), [("fifo", FIFO), ("other", OTHER)])
def test_what_is_asked_for_by_name_is_taken(wanted: str, expected) -> None:
    """The data plane refuses what it cannot have; nothing else is quietly done instead."""
    found, why = choose(wanted, 2, (), range(1), NO)
    assert found == expected and "dataplane.scheduler" in why


def test_names() -> None:
    assert scheduling.name_of(*FIFO) == "fifo 2"
    assert scheduling.name_of(*OTHER) == "other"


def test_auto_is_shipped() -> None:
    assert defaults()["dataplane"]["scheduler"] == scheduling.AUTO
