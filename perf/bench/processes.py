"""What the kernel says of a process."""

from __future__ import annotations

from pathlib import Path

from perf.bench.lab import PerfError


def resident(pid: int) -> int:
    """Bytes of a process in memory (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise PerfError(f"process {pid} has no memory: it ended")


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, all its threads, from the scheduler's own books."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
