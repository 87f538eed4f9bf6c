"""What `make lab` tells: nothing but what the tests of a run told, and no node left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.lab import __main__ as lab
from tests.lab import report

ROOT = Path(lab.__file__).parents[2]
COUNTS = {"tests_passed": 21, "tests_skipped": 0}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FOLDER", tmp_path / "report")
    return report.FOLDER


def test_each_field_in_its_order_and_null_when_nobody_told_it():
    found = report.summary({}, {})
    assert list(found) == [
        "kernel", "xdp_mode", "zerocopy", "queues_used", "workers", "packets_verified",
        "payload_mismatches", "accounting_balanced", "numa_checked", "numa_misplaced",
        "applied_steps", "revert_diff", "interrupted_apply_recovered", "lockout_recovered",
        "upgrade_packets", "upgrade_lost", "tests_passed", "tests_skipped",
    ]  # fmt: skip
    assert set(found.values()) == {None}


def test_values_are_those_of_the_tests():
    report.fact("kernel", "1.2")
    report.fact("revert_diff", [])
    report.fact("zerocopy", False)
    report.fact("internal", 3)  # no field of the line
    found = report.summary(report.facts(), COUNTS)
    assert found["kernel"] == "1.2" and found["revert_diff"] == [] and found["zerocopy"] is False
    assert found["tests_passed"] == 21 and found["tests_skipped"] == 0
    assert "internal" not in found and found["upgrade_lost"] is None


def test_placement_counts_when_each_kind_was_looked_at():
    report.placed("threads", 2, 0)
    report.placed("irqs", 8, 1)
    found = report.summary(report.facts(), COUNTS)
    assert found["numa_checked"] is None and found["numa_misplaced"] is None
    report.placed("pages", 4096, 2)
    found = report.summary(report.facts(), COUNTS)
    assert found["numa_checked"] == {"threads": 2, "irqs": 8, "pages": 4096}
    assert found["numa_misplaced"] == 3
    report.placed("pages", 4096, 0)  # a later look counts
    assert report.summary(report.facts(), COUNTS)["numa_misplaced"] == 1


TEST = """
from tests.lab import report
import pytest

pytestmark = pytest.mark.lab

def test_tells():
    report.FOLDER = __import__("pathlib").Path({folder!r})
    report.fact("kernel", "1.2")
    report.say("a gap of 3 ms")

def test_cannot():
    pytest.skip("no such thing here")
"""


def test_a_run_ends_with_the_line(folder, tmp_path, capfd, monkeypatch):
    """Of a folder with two tests of its own: most fields are null, and so the status is not 0."""
    beside = tmp_path / "root" / "tests" / "lab"
    beside.mkdir(parents=True)
    (beside / "test_some.py").write_text(TEST.format(folder=str(folder)))
    monkeypatch.setattr(lab, "ROOT", tmp_path / "root")
    monkeypatch.chdir(ROOT)
    assert lab.main(["-p", "no:cacheprovider", "--rootdir", "."]) != 0
    out = capfd.readouterr().out.splitlines()
    assert out[:-1] == ["a gap of 3 ms"]
    found = json.loads(out[-1])
    assert found["kernel"] == "1.2" and found["zerocopy"] is None
    assert found["tests_passed"] == 1 and found["tests_skipped"] == 1


LATE = """
import sys, threading
try:
    open(sys.argv[1], "w").close()
    threading.Event().wait(60)
except KeyboardInterrupt:
    open(sys.argv[1], "w").write("ended in order")
"""


@pytest.mark.parametrize("ours", [signal.default_int_handler, signal.SIG_IGN])
def test_a_run_that_is_ended_ends_its_node(tmp_path, ours):
    """A signal to `make lab` lets pytest end in order: its node is a process of its own.  In the
    background of a shell it is started with SIGINT ignored."""
    mark = tmp_path / "mark"

    def end() -> None:
        for _ in range(6000):
            if mark.exists():
                break
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    killer = threading.Thread(target=end)
    interrupt = signal.signal(signal.SIGINT, ours)
    try:
        killer.start()
        lab.run([sys.executable, "-c", LATE, str(mark)])
        killer.join()
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert mark.read_text() == "ended in order"
    assert signal.getsignal(signal.SIGTERM) is before
