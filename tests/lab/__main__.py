"""`make lab`: every test of the lab, then one JSON line of what the node showed.

    .venv/bin/python -m tests.lab [PYTEST ARGUMENTS]

The last line on standard output is that object; the gaps and counters that the tests tell stand
before it, pytest's own words go to standard error.  Exit status 0 when every test passed and every
field of the line was told.  Facts and raw readings lie under build/lab/report/.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path
from types import FrameType

from tests.lab import report

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 39 * 60
END_S = 60
"""After its interruption pytest still ends the node and writes its results."""


def run(command: list[str]) -> int:
    """pytest's exit status.  It is interrupted, never killed: an emulated node is a process of
    its own, which pytest ends."""
    # A group of its own: a signal to ours must not reach it before it is asked to end.  A shell
    # starts what runs in the background with SIGINT ignored, and that is inherited.
    child = subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        stdout=sys.stderr.fileno(),
        start_new_session=True,
    )

    def end(_number: int, _frame: FrameType | None) -> None:
        child.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            return child.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"the lab did not end within {TIMEOUT_S // 60} minutes", file=sys.stderr)
            child.send_signal(signal.SIGINT)
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def counts(results: Path) -> dict[str, int]:
    """Of the tests, from pytest's own record; none when it wrote none."""
    if not results.exists():
        return {}
    suite = xml.etree.ElementTree.parse(results).getroot().find("testsuite")
    if suite is None:
        return {}
    count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    return {"tests_passed": passed, "tests_skipped": count["skipped"]}


def main(arguments: list[str]) -> int:
    report.clear()
    report.FOLDER.mkdir(parents=True, exist_ok=True)
    results = report.FOLDER / "results.xml"
    began = time.monotonic()
    status = run([
        sys.executable, "-m", "pytest", str(ROOT / "tests" / "lab"), "-m", "lab",
        f"--junitxml={results}", *arguments,
    ])  # fmt: skip
    print(f"the lab took {(time.monotonic() - began) / 60:.0f} minutes", file=sys.stderr)
    found = report.summary(report.facts(), counts(results))
    missing = [name for name, value in found.items() if value is None]
    if missing:
        print(f"no test told: {', '.join(missing)}", file=sys.stderr)
    print(report.said(), end="")
    print(json.dumps(found, separators=(",", ":")))
    return status or (1 if missing else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
