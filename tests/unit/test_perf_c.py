"""The C parts of the performance rig on numbers whose answers are known."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CFLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]


def test_measure(tmp_path: Path) -> None:
    """Histograms, PDV, IPDV, spacing, jitter, frames and loss, under ASan and UBSan."""
    program = tmp_path / "test_measure"
    sources = ["perf/c/test_measure.c", "perf/c/measure.c"]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = ["gcc", *CFLAGS, *sanitize, "-Iperf/c", *sources, "-o", str(program), "-lm"]
    subprocess.run(command, cwd=ROOT, check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"
