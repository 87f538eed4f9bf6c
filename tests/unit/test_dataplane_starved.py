"""A stale worker that got no processor is not hung; one that ran, slept or was stopped is."""

from __future__ import annotations

from pathlib import Path

from forwarder.dataplane.starved import RAN_NS, Starvation

PID = 77


def thread(proc: Path, worker: int, state: str, ran_ns: int) -> None:
    task = proc / str(PID) / "task" / str(100 + worker)
    task.mkdir(parents=True, exist_ok=True)
    (task / "comm").write_text(f"vcfwd-w{worker}\n")
    (task / "stat").write_text(f"{100 + worker} (vcfwd-w{worker}) {state} 1 2 3\n")
    (task / "schedstat").write_text(f"{ran_ns} 5 6\n")


def test_runnable_and_not_run_is_starved(tmp_path: Path) -> None:
    look = Starvation(PID, tmp_path)
    thread(tmp_path, 0, "R", 10**9)
    assert look.waits(0)  # the first look cannot tell
    assert look.waits(0)
    thread(tmp_path, 0, "R", 10**9 + RAN_NS - 1)
    assert look.waits(0)


def test_one_that_ran_without_a_beat_is_hung(tmp_path: Path) -> None:
    look = Starvation(PID, tmp_path)
    thread(tmp_path, 1, "R", 10**9)
    assert look.waits(1)
    thread(tmp_path, 1, "R", 10**9 + RAN_NS)
    assert not look.waits(1)
    look.forget()
    assert look.waits(1)


def test_stopped_and_sleeping_ones_are_hung_at_once(tmp_path: Path) -> None:
    for state in "TSDZ":
        thread(tmp_path, 0, state, 10**9)
        assert not Starvation(PID, tmp_path).waits(0)


def test_without_proc_nobody_is_starved(tmp_path: Path) -> None:
    assert not Starvation(PID, tmp_path).waits(0)
    thread(tmp_path, 0, "R", 1)
    assert not Starvation(PID, tmp_path).waits(3)
