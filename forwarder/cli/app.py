"""`vcfwd`: one command line for the node.

Commands are named here and imported when they are called for, and each imports what it needs when
it runs: `vcfwd up` must not wait for codecs, nor `vcfwd --help` for anything.  Logs go to standard
error in every command; standard output is for what was asked.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, Final

import typer
from typer.core import TyperGroup

# In the order of --help.  A command is `forwarder.cli.NAME` (a hyphen is an underscore there):
# `app`, a Typer with sub-commands, or a function with the name of the command.
COMMANDS: Final = (
    "up",
    "status",
    "drain",
    "doctor",
    "room",
    "token",
    "bot",
    "demo",
    "demo-browser",
    "top",
    "flame",
    "tune",
)


class LazyGroup(TyperGroup):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        # A package for appliances may leave the bot and the demo out.
        return [name for name in COMMANDS if find_spec(_module(name)) is not None]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands and cmd_name in self.list_commands(ctx):
            self.add_command(_load(cmd_name), cmd_name)
        return self.commands.get(cmd_name)


def _module(name: str) -> str:
    return f"forwarder.cli.{name.replace('-', '_')}"


def _load(name: str) -> Any:
    module = importlib.import_module(_module(name))
    group = getattr(module, "app", None)
    if group is not None:
        command: Any = typer.main.get_group(group)
        command.name = name
        return command
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(getattr(module, name.replace("-", "_")))
    return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich is slow to import
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from forwarder import __version__

        typer.echo(f"vcfwd {__version__}")
        raise typer.Exit


@app.callback()
def vcfwd(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """vcfwd forwards audio and video past the kernel: an SFU on AF_XDP.

    vcfwd up --dev starts a node for a trial; vcfwd COMMAND --help tells more.
    """


def main() -> None:
    """Entry point of the `vcfwd` command."""
    app(prog_name="vcfwd")


if __name__ == "__main__":
    main()
