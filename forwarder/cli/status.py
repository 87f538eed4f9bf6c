"""`vcfwd status`: what the node on this host is doing."""

from __future__ import annotations

from typing import Annotated

import typer

from forwarder.cli.admin import Admin, RunDir, errors_told
from forwarder.cli.output import emit_json, emit_status


def status(
    run_dir: RunDir = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Shows rooms, legs, rates, drops by reason, memory by pool and the data path.

    Example: vcfwd status --json
    """
    with errors_told("status"):
        found = Admin(run_dir).request("GET", "/v1/status")
    if json_:
        emit_json(found)
    else:
        emit_status(found)
