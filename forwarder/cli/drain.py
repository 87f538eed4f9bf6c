"""`vcfwd drain`: empties the node on this host, so that it can be upgraded or taken away."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any, Final

import typer

from forwarder.cli.admin import Admin, AdminError, RunDir, errors_told
from forwarder.cli.output import emit_json

POLL_S: Final = 0.5
GONE_S: Final = 15.0
"""How long the node may take to stop once it is empty."""


def drain(
    deadline: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Send the last ones away then; else wait for them."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the node has stopped.")
    ] = True,
    run_dir: RunDir = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Admits nobody new, waits until the rooms are empty or the deadline is over, stops the node.

    It cannot be taken back: start the node again instead.  Another call sets another deadline.

    Example: vcfwd drain --deadline 3600
    """
    admin = Admin(run_dir)
    with errors_told("drain"):
        body = {} if deadline is None else {"deadline_s": deadline}
        found = admin.request("POST", "/v1/drain", body)
        if wait:
            found = _follow(admin, found, quiet=json_)
    if json_:
        emit_json(found)
    else:
        print("the node has stopped" if wait else _sentence(found))


def _follow(admin: Admin, found: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Tells how it goes on, until the node answers no more."""
    told = ""
    empty_at = time.monotonic()
    while admin.path.exists():
        if not quiet and (sentence := _sentence(found)) != told:
            print(sentence, file=sys.stderr, flush=True)
            told = sentence
        if found["participants"] and found["left_s"] != 0:
            empty_at = time.monotonic()
        elif time.monotonic() - empty_at > GONE_S:
            raise AdminError(
                f"the node is empty and has not stopped within {GONE_S:g} s: see its log"
            )
        time.sleep(POLL_S)
        try:
            found = admin.request("GET", "/v1/drain")
        except AdminError:
            break  # it was the last one that left
    return {**found, "participants": 0, "rooms": 0, "stopped": True}


def _sentence(found: dict[str, Any]) -> str:
    people, rooms = found["participants"], found["rooms"]
    if not people:
        return "nobody is here any more: the node stops"
    left = found["left_s"]
    until = "until they leave" if left is None else "until they leave or the deadline is over"
    return f"{people} in {rooms} room{'' if rooms == 1 else 's'}: waiting {until}"
