"""kill -9 while applying: after each stage, before and after each setting is written.

The killed process is real (a fork that kills itself by SIGKILL); the next call finishes or takes
back what it began.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from host_kit import CLOUD, ENA, EPYC, FIXTURES, XEON, Tuned, copied, tree

from forwarder.host import apply as applying
from forwarder.host import settings, stages
from forwarder.host.root import Host
from forwarder.host.stage import State


def killed(act: Callable[[], object]) -> bool:
    """Whether `act`, in a process of its own, ended by SIGKILL (False: it came to its end)."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def die_at(number: int, when: str, monkey: pytest.MonkeyPatch) -> None:
    """The process dies before or after the setting of that number is written."""
    left = [number]
    write = settings.write

    def deadly(host: Host, key: str, value: str) -> None:
        left[0] -= 1
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        write(host, key, value)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    monkey.setattr(settings, "write", deadly)


def test_the_points_of_the_next_test_are_all_there_are(tmp_path):
    assert Tuned(copied(CLOUD, tmp_path)).apply().changed == POINTS


POINTS = 21


@pytest.mark.parametrize(
    ("number", "when"),
    [(n, "before") for n in range(1, POINTS + 1)] + [(n, "after") for n in (1, 2, 3, 6, 7, 10, 15)],
)
def test_killed_beside_a_setting(number, when, tmp_path):
    root = copied(CLOUD, tmp_path)
    before = tree(root)

    def act() -> None:
        with pytest.MonkeyPatch.context() as monkey:
            die_at(number, when, monkey)
            Tuned(root).apply()

    assert killed(act)
    made = number - (when == "before")
    if number % 2:
        assert Tuned(root).revert().failed == 0
        assert tree(root) == before
        return
    # The next apply goes on where it stopped: what was made stays made, and is not journaled twice.
    assert Tuned(root).apply().changed == POINTS - made
    assert Tuned(root).apply().changed == 0
    assert Tuned(root).revert().failed == 0
    assert tree(root) == before


@pytest.mark.parametrize("number", [1, 4, 8, 12, POINTS])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_reverting(number, when, tmp_path):
    root = copied(CLOUD, tmp_path)
    before = tree(root)
    Tuned(root).apply()

    def act() -> None:
        with pytest.MonkeyPatch.context() as monkey:
            die_at(number, when, monkey)
            Tuned(root).revert()

    # Files of a cgroup go with its directory: fewer writes than settings.
    died = killed(act)
    assert died or number == POINTS
    done = Tuned(root).revert()
    assert done.failed == 0 and done.left == 0
    assert tree(root) == before


def stage_names() -> list[str]:
    return [stage.name for stage in stages.STAGES]


@pytest.mark.parametrize("name", stage_names())
def test_killed_after_a_stage(name, tmp_path):
    stage = stages.BY_NAME[name]
    host = next(  # the first one that it applies to
        one for one in (EPYC, XEON, ENA)
        if stage.check(Tuned(FIXTURES / one).survey().site).state is not State.NOT_APPLICABLE
    )  # fmt: skip
    root = copied(host, tmp_path)
    before = tree(root)

    def act() -> None:
        tuned = Tuned(root)

        def tell(sentence: str) -> None:
            if sentence.startswith(f"{name}: "):
                os.kill(os.getpid(), signal.SIGKILL)

        with tuned.journal.locked():
            applying.apply(
                tuned.survey().site, stages.STAGES, tuned.journal, tuned.audit, tell, "run"
            )

    assert killed(act)
    Tuned(root).apply()
    assert Tuned(root).apply().changed == 0
    assert Tuned(root).revert().failed == 0
    assert tree(root) == before


def test_the_lock_goes_with_the_process(tmp_path):
    root = copied(CLOUD, tmp_path)

    def act() -> None:
        with Tuned(root).journal.locked():
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed(act)
    assert Tuned(root).apply("thp").changed == 1


@pytest.mark.parametrize("cut", [1, 7, 40, 100])
def test_killed_while_the_journal_was_written(cut: int, tmp_path: Path):
    root = copied(CLOUD, tmp_path)
    before = tree(root)

    def act() -> None:
        with pytest.MonkeyPatch.context() as monkey:
            die_at(5, "before", monkey)
            Tuned(root).apply()

    assert killed(act)
    file = root / "var/lib/vcfwd/tune/journal.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert Tuned(root).revert().failed == 0
    assert tree(root) == before
