"""How commands come out, and what a dump tells: the same for the real data plane and the fake."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from forwarder.commands import Command
from forwarder.dataplane.events import Event
from forwarder.errors import CommandRefused

Dump = dict[str, dict[int, int]]
"""kind ("leg", "source", "route") -> {id: digest}."""


@dataclass(frozen=True)
class Outcome:
    """How a command came out; `status` is a label of VC_STATUSES, `why` its sentence."""

    command: Command
    status: str
    why: str

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def error(self) -> CommandRefused:
        return CommandRefused(f"{self.command!r} was refused: {self.why} ({self.status})")


class TableClient(Protocol):
    """Changes and reads the table of a data plane: CommandClient, or the fake's."""

    on_event: Callable[[Event], None] | None
    on_overflow: Callable[[], None] | None

    async def apply(self, commands: Iterable[Command]) -> None: ...

    async def apply_all(self, commands: Iterable[Command]) -> list[Outcome]: ...

    async def dump(self) -> Dump: ...

    def close(self) -> None: ...
