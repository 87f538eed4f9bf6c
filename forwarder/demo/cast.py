"""Who takes part in the demo: one process for each participant, on the publishing or on the
subscribing host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forwarder.client.packetlog import TrackLog, read
from forwarder.demo.children import Child
from forwarder.demo.namespaces import Host
from forwarder.demo.node import Node, vcfwd
from forwarder.demo.options import Chaos, DemoOptions
from forwarder.rooms.roles import Role

FULL_DECODERS = 2  # so many subscribers decode everything, the rest the first second
SMALL = ("--size", "160x90", "--fps", "15", "--bitrate", "80000")
OWN_GARBAGE = 50  # malformed datagrams a second from a validated flow, under chaos `garbage`


@dataclass
class Actor:
    """One participant.  `joined` is "start" or "late"; a publisher that receives nothing has
    no entry in the result."""

    name: str
    host: Host
    publishes: bool
    subscribes: bool
    joined: str
    command: list[str]
    log: Path
    png: Path | None
    child: Child | None = None
    summary: dict[str, Any] | None = None

    def process(self) -> Child:
        assert self.child is not None
        return self.child

    def packets(self) -> dict[str, TrackLog]:
        """Sent and received, by track id."""
        return read(self.log) if self.log.exists() else {}

    def sent_tracks(self) -> list[str]:
        return [track["track_id"] for track in (self.summary or {}).get("sent", [])]

    def received_tracks(self) -> list[str]:
        return [track["track_id"] for track in (self.summary or {}).get("received", [])]


def cast(
    options: DemoOptions, node: Node, pub: Host, sub: Host, gates: tuple[str, str], clip: Path
) -> list[Actor]:
    """`gates`: the node's address as seen from `pub` and from `sub`."""
    actors: list[Actor] = []

    def add(name: str, *, publishes: bool, subscribes: bool, there: bool, decode: str) -> None:
        index = len(actors)
        late = subscribes and not publishes and index == options.subscribers > 1
        log = node.base / f"{name}.packets"
        png = options.out / f"{name}.png" if subscribes else None
        command = vcfwd("bot", "publish", str(clip)) if publishes else vcfwd("bot", "subscribe")
        command += ["--url", node.url(gates[there]), "--cert-hash", node.cert_hash]
        command += ["--name", name, "--suite", options.suite, "--decode", decode]
        command += ["--seed", str(options.seed * 1000 + index)]
        command += ["--log-packets", str(log), "--json", "--stdin"]
        if publishes and subscribes:
            command += ["--subscribe", *SMALL]
        if png is not None:
            command += ["--png", str(png)]
        if options.chaos is Chaos.GARBAGE:
            command += ["--garbage", str(OWN_GARBAGE)]
        host = sub if there else pub
        joined = "late" if late else "start"
        actors.append(Actor(name, host, publishes, subscribes, joined, command, log, png))

    def decode(index: int) -> str:
        return "all" if index < FULL_DECODERS else "first-second"

    if options.active > 1:
        for index in range(options.active):
            add(
                f"participant-{index + 1}",
                publishes=True,
                subscribes=True,
                there=index % 2 == 1,
                decode=decode(index),
            )
    else:
        add("publisher", publishes=True, subscribes=False, there=False, decode="none")
        for index in range(options.subscribers):
            add(
                f"subscriber-{index + 1}",
                publishes=False,
                subscribes=True,
                there=True,
                decode=decode(index),
            )
    return actors


async def start(actor: Actor, node: Node) -> None:
    """Starts the process; the token goes by the environment, not by the command line."""
    role = Role.ACTIVE if actor.publishes else Role.PASSIVE
    actor.child = await Child.start(
        actor.name,
        actor.host,
        actor.command,
        node.base / f"{actor.name}.log",
        {"VCFWD_TOKEN": node.token(actor.name, role)},
    )
