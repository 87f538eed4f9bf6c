"""`make lab`: every test of the lab, then one JSON line of what the node showed.

    .venv/bin/python -m tests.lab [PYTEST ARGUMENTS]

Exit status that of pytest.  Facts and raw readings lie under build/lab/report/.
"""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

from tests.lab import report

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 40 * 60


def main(arguments: list[str]) -> int:
    report.clear()
    report.FOLDER.mkdir(parents=True, exist_ok=True)
    results = report.FOLDER / "results.xml"
    command = [
        sys.executable, "-m", "pytest", str(ROOT / "tests" / "lab"), "-m", "lab",
        f"--junitxml={results}", *arguments,
    ]  # fmt: skip
    try:
        status = subprocess.run(
            command, stdout=sys.stderr.fileno(), timeout=TIMEOUT_S, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"the lab did not end within {TIMEOUT_S // 60} minutes", file=sys.stderr)
        return 1
    suite = xml.etree.ElementTree.parse(results).getroot().find("testsuite")
    assert suite is not None
    count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    print(json.dumps({**report.facts(), "tests_passed": passed, "tests_skipped": count["skipped"]}))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
