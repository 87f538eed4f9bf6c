"""`vcfwd room`: the rooms of the node on this host."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from forwarder.cli.admin import Admin, RunDir, errors_told
from forwarder.cli.output import emit_json, emit_pairs, emit_table, when
from forwarder.rooms.roles import Role

app = typer.Typer(
    help="Create, list, show and close rooms on the node of this host; change roles in them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
RoomId = Annotated[str, typer.Argument(help="Room id.", metavar="ROOM")]
COLUMNS = ("room", "active", "passive", "tracks", "created")


@app.command()
def create(
    room: Annotated[
        str | None, typer.Argument(help="Room id; made up where it is left out.", metavar="[ROOM]")
    ] = None,
    max_active: Annotated[int | None, typer.Option(help="Participants that may publish.")] = None,
    max_passive: Annotated[int | None, typer.Option(help="Participants that only receive.")] = None,
    codecs: Annotated[
        str | None,
        typer.Option(help="Video codecs that may be sent, best first: vp8,h264,vp9,av1."),
    ] = None,
    run_dir: RunDir = None,
    json_: Json = False,
) -> None:
    """Creates a room and prints its id.

    Example: vcfwd room create standup --max-active 20 --codecs h264,vp8
    """
    wanted: dict[str, object] = {"id": room, "max_active": max_active, "max_passive": max_passive}
    if codecs is not None:
        wanted["codecs"] = [word.strip() for word in codecs.split(",") if word.strip()]
    body = {key: value for key, value in wanted.items() if value is not None}
    with errors_told("room create"):
        created = Admin(run_dir).request("POST", "/v1/rooms", body)
    if json_:
        emit_json(created)
    else:
        print(created["id"])


@app.command("list")
def list_(run_dir: RunDir = None, json_: Json = False) -> None:
    """Lists the rooms.

    Example: vcfwd room list --json
    """
    with errors_told("room list"):
        rooms = Admin(run_dir).request("GET", "/v1/rooms")
    if json_:
        emit_json(rooms)
    elif rooms:
        emit_table(COLUMNS, [_row(room) for room in rooms])
    else:
        print("no rooms; make one with `vcfwd room create`")


@app.command()
def show(room: RoomId, run_dir: RunDir = None, json_: Json = False) -> None:
    """Shows who is in a room and what is published there.

    Example: vcfwd room show standup
    """
    with errors_told("room show"):
        found = Admin(run_dir).request("GET", f"/v1/rooms/{quote(room, safe='')}")
    if json_:
        emit_json(found)
        return
    emit_pairs(
        {
            "room": found["id"],
            "created": when(found["created_at"]),
            "active": f"{found['active']} of {found['max_active']}",
            "passive": f"{found['passive']} of {found['max_passive']}",
            "codecs": ", ".join(found["codecs"]),
        }
    )
    if found["participants"]:
        people = [(one["id"], one["name"], one["role"]) for one in found["participants"]]
        emit_table(("participant", "name", "role"), people)
    if found["tracks"]:
        names = ("id", "participant_id", "label", "kind", "codec", "muted")
        columns = ("track", "of", "label", "kind", "codec", "muted")
        emit_table(columns, [[track[name] for name in names] for track in found["tracks"]])


@app.command()
def role(
    room: RoomId,
    participant: Annotated[
        str, typer.Argument(help="Its id, of `room show`.", metavar="PARTICIPANT")
    ],
    role: Annotated[Role, typer.Argument(help="What it is from now on.", show_default=False)],
    run_dir: RunDir = None,
    json_: Json = False,
) -> None:
    """Promotes a participant to the stage, or takes it off, until it leaves.

    Example: vcfwd room role standup pJ2xvQmW4aT0d active
    """
    where = f"/v1/rooms/{quote(room, safe='')}/participants/{quote(participant, safe='')}"
    with errors_told("room role"):
        found = Admin(run_dir).request("PATCH", where, {"role": role.value})
    if json_:
        emit_json(found)
    else:
        print(f"{found['name']} ({found['id']}) is {found['role']}")


@app.command()
def close(room: RoomId, run_dir: RunDir = None, json_: Json = False) -> None:
    """Closes a room and ends the sessions in it.

    Example: vcfwd room close standup
    """
    with errors_told("room close"):
        Admin(run_dir).request("DELETE", f"/v1/rooms/{quote(room, safe='')}")
    if json_:
        emit_json({"closed": room})
    else:
        print(f"room {room} is closed")


def _row(room: dict[str, Any]) -> list[object]:
    active = f"{room['active']}/{room['max_active']}"
    passive = f"{room['passive']}/{room['max_passive']}"
    return [room["id"], active, passive, room["track_count"], when(room["created_at"])]
