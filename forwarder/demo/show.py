"""What the demo shows: a line of progress while it runs, a short table at the end.

All on stderr, so that stdout carries the JSON alone.
"""

from __future__ import annotations

import time
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from forwarder.demo.cast import Actor

PLAIN_EVERY_S = 2.0  # without a terminal: a line so often


class Show:
    """Progress on a terminal, plain lines elsewhere.  Use as a context manager."""

    def __init__(self, seconds: float) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counts]}", markup=False),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("vcfwd demo", total=seconds, counts="")
        self._told_at = 0.0

    def __enter__(self) -> Show:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def say(self, sentence: str) -> None:
        self.console.print(f"- {sentence}")

    def tick(self, actors: list[Actor], at: float) -> None:
        def total(key: str) -> int:
            return sum(a.process().last.get("progress", {}).get(key, 0) for a in actors)

        counts = f"{total('sent')} sent, {total('received')} received, {total('frames')} decoded"
        self._bar.update(self._task, completed=at, counts=counts)
        if not self.console.is_terminal and time.monotonic() - self._told_at > PLAIN_EVERY_S:
            self._told_at = time.monotonic()
            self.console.print(f"  {at:4.1f} s: {counts}")

    def memory(self, memory: dict[str, Any]) -> None:
        """Resident sizes, and pool bytes in use, with the room still full."""
        pools = ", ".join(
            f"{pool['count']} {name} {pool['bytes'] / 1024:.0f} KiB"
            for name, pool in memory["pools"].items()
        )
        self.console.print(
            f"memory: supervisor {memory['supervisor_rss_mb']} MiB, data plane "
            f"{memory['dataplane_rss_mb']} MiB; in use: {pools}"
        )

    def table(self, report: dict[str, Any], faults: list[str], out: str) -> None:
        """Subscribers, then the stages in one line each."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("joined")
        columns = {
            "join ms": "join_ms",
            "frame ms": "first_frame_ms",
            "expected": "expected_packets",
            "received": "received_packets",
            "lost": "lost",
            "wrong": "payload_mismatches",
            "video": "video_frames_decoded",
            "audio": "audio_frames_decoded",
        }
        for title in columns:
            table.add_column(title, justify="right", no_wrap=True)
        for entry in report["subscribers"]:
            table.add_row(entry["joined"], *(str(entry[key]) for key in columns.values()))
        self.console.print(table)
        stages = report["stages"]
        way = (
            "published",
            "steered",
            "xsk_received",
            "routed",
            "copies",
            "transmitted",
            "received",
        )
        self.console.print("  ->  ".join(f"{name} {stages[name]}" for name in way))
        self.console.print(
            f"path {report['path']}; datagrams read from kernel sockets "
            f"{report['kernel_udp_datagrams']}; drops {report['drops'] or 'none'}; "
            f"copies dropped {stages['copies_dropped'] or 'none'}"
        )
        chaos = ("lost", "lost_outside_gap", "gap_ms", "restarts", "resumed", "rejoined")
        if "restarts" in report:
            names = (*chaos, "index_reuse")
            self.console.print("; ".join(f"{name} {report[name]}" for name in names))
        self.console.print(f"pictures in {out}")
        for fault in faults:
            self.console.print(f"FAULT: {fault}")
        self.console.print("everything is accounted for" if not faults else "not accounted for")
