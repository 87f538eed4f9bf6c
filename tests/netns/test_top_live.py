"""`vcfwd top` on a node under load."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from forwarder.telemetry.flame.load import Load
from forwarder.telemetry.top import WIDTH

pytestmark = pytest.mark.root


def test_rates_and_workers_are_shown_live() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with Load() as load:
        command = [sys.executable, "-m", "forwarder.cli.app", "top", "0.5", "2", "--seed", "7"]
        command += ["--run-dir", str(load.run_dir)]
        text, lines = (
            subprocess.run(
                [*command, *more], capture_output=True, text=True, timeout=60, check=True
            ).stdout
            for more in ([], ["--json"])
        )
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("seed 7\n") and text.count("\nworker ") == 2
    views = [json.loads(line) for line in lines.splitlines()]
    assert len(views) == 2 and all(view["seed"] == 7 for view in views)
    assert len({view["interval_s"] for view in views}) == 2  # not in step
    assert sum(view["tx_per_s"] for view in views) > 5 * sum(view["rx_per_s"] for view in views) > 0
    for view in views:
        assert view["legs"]["live"] >= 11
        (worker,) = view["workers"]
        assert worker["cpu"] > 0 and 0 <= worker["ready"] <= 1
        assert worker["loops_per_s"] > 0
    gone = subprocess.run([*command], capture_output=True, text=True, timeout=60, check=False)
    assert gone.returncode == 1 and "no vcfwd answers" in gone.stderr
