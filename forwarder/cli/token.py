"""`vcfwd token`: tokens from the node on this host."""

from __future__ import annotations

import sys
from typing import Annotated
from urllib.parse import quote

import typer

from forwarder.cli.admin import Admin, RunDir, errors_told
from forwarder.cli.output import emit_json
from forwarder.rooms.roles import Role

app = typer.Typer(
    help="Tokens from the node of this host.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def token() -> None:
    """Tokens from the node of this host."""


@app.command()
def create(
    room: Annotated[str | None, typer.Option(help="Room that the token opens.")] = None,
    role: Annotated[Role, typer.Option(help="What its holder may do there.")] = Role.ACTIVE,
    name: Annotated[str | None, typer.Option(help="Name shown to the others.")] = None,
    subject: Annotated[str | None, typer.Option(help="Who it is; default: the name.")] = None,
    ttl: Annotated[int, typer.Option(help="Seconds until it expires, at most a day.")] = 3600,
    admin: Annotated[
        bool, typer.Option("--admin", help="A token for the HTTP API instead of for a room.")
    ] = False,
    run_dir: RunDir = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Prints a token that lets one person into a room, or (--admin) use the HTTP API.

    Example: vcfwd token create --room standup --role host --name Ada
    """
    if admin == (room is not None):
        print("vcfwd token create: give either --room ROOM or --admin", file=sys.stderr)
        raise typer.Exit(2)
    body: dict[str, object] = {"ttl_s": ttl}
    if admin:
        target = "/v1/tokens"
        body["subject"] = subject or name or "admin"
    else:
        target = f"/v1/rooms/{quote(room or '', safe='')}/tokens"
        body |= {"role": role.value, "name": name or role.value}
        if subject is not None:
            body["subject"] = subject
    with errors_told("token create"):
        created = Admin(run_dir).request("POST", target, body)
    if json_:
        emit_json(created)
    else:
        print(created["token"])
