"""`vcfwd doctor`: which data path each interface can use, and what stands in the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def doctor(
    config: Annotated[Path | None, typer.Option(help="Configuration file (TOML).")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Tells for each interface which data path it can use, and what stands in the way of each
    better one.  Attaches to nothing and changes nothing.

    Example: vcfwd doctor --json
    """
    from forwarder import config as configuration
    from forwarder.dataplane import paths
    from forwarder.errors import VcfwdError

    try:
        settings = configuration.load(config)
        examined = [paths.examine(name) for name in paths.interfaces()]
        choice = paths.choose(settings.network.path, settings.network.interfaces)
    except VcfwdError as error:
        print(f"vcfwd doctor: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    if json_:
        body: dict[str, Any] = {
            "interfaces": [
                {
                    "name": item.name,
                    "paths": [
                        {"name": p.name, "usable": p.usable, "why": p.why} for p in item.paths
                    ],
                }
                for item in examined
            ],
            "chosen": choice.path,
            "why": choice.why,
        }
        print(json.dumps(body))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("interface", "path", "usable", "why")
    for item in examined:
        for i, entry in enumerate(item.paths):
            table.add_row(
                item.name if i == 0 else "", entry.name, "yes" if entry.usable else "no", entry.why
            )
    console = Console()
    console.print(table)
    console.print(f"chosen: {choice.path}: {choice.why}")
