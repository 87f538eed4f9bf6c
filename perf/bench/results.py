"""What a run was made on, and where its numbers are kept."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from forwarder.dataplane.spawn import find_binary
from perf.bench.classes import shipped
from perf.bench.lab import ROOT
from perf.bench.meter import busy_share, spin_gaps

RESULTS = ROOT / "perf" / "results"


def commit() -> str:
    """Short name of the commit, with "+" when tracked files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "c_helpers", "ebpf")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def facts() -> dict[str, Any]:
    """Machine, kernel, commit, and how quiet the machine was just before."""
    model = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "commit": commit(),
        "kernel": platform.release(),
        "cpu": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "scheduling": shipped().name,
        "scheduling_why": shipped().why,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "busy_before": round(busy_share(0.5), 4),
        "spin_gaps": spin_gaps(0.5),
    }


def freeze(folder: Path) -> None:
    """Copies the data plane program aside, so that a build meanwhile does not change what is
    measured; VCFWD_DATAPLANE names another one to measure."""
    if "VCFWD_DATAPLANE" not in os.environ:
        copy = folder / "vcfwd-dataplane"
        shutil.copy2(find_binary(), copy)
        os.environ["VCFWD_DATAPLANE"] = str(copy)


def keep(suite: str, record: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Appends one line to results/SUITE.jsonl."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{suite}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")
    return path
