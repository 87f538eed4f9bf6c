"""What the browser lab shows, all on stderr, so that stdout carries the JSON alone."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COLUMNS = {
    "codec": "codec",
    "decoded": "frames_decoded",
    "read": "codes_read",
    "wrong": "codes_wrong",
    "packets": "packets_received",
    "lost": "packets_lost",
    "frames lost": "frames_lost",
    "freezes": "freezes",
}


class BrowserShow:
    """Sentences while it runs, a short table at the end."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False)

    def say(self, sentence: str) -> None:
        self.console.print(f"- {sentence}")

    def table(self, report: dict[str, Any], faults: list[str]) -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("from, to", no_wrap=True)
        for title in COLUMNS:
            table.add_column(title, justify="right", no_wrap=True)
        for pair in report["pairs"]:
            who = f"{pair['from']} to {pair['to']}"
            table.add_row(who, *(str(pair[key]) for key in COLUMNS.values()))
        self.console.print(table)
        for browser in report["browsers"]:
            self.console.print(
                f"browser {browser['id']}: {browser['name']} {browser['version']}, "
                f"{browser['srtp_cipher']}"
            )
        explained = report["kernel_udp_explained"]
        self.console.print(
            f"path {report['path']}; media in {report['media_packets_in']}, out "
            f"{report['media_packets_out']}, by the kernel {report['slow_path_media_packets']}; "
            f"datagrams read from kernel sockets {report['kernel_udp_datagrams']}, explained "
            + ", ".join(f"{name} {count}" for name, count in explained.items())
        )
        self.console.print(f"drops {report['drops'] or 'none'}; join ms {report['join_ms']}")
        for fault in faults:
            self.console.print(f"FAULT: {fault}")
        self.console.print("everything is accounted for" if not faults else "not accounted for")
