"""vcfwd on the lab node, as the package runs it, and calls across it from hosts outside."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder.client.packetlog import read
from forwarder.clock import SystemClock
from forwarder.demo.accounting import TrackAccount, account, longest_pause_ms
from forwarder.demo.cast import SMALL
from forwarder.demo.children import Child
from forwarder.demo.namespaces import Host
from forwarder.demo.node import vcfwd
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Kind
from forwarder.signaling.tokens import SigningKey, Tokens
from tests.lab.image import NIC_MACS
from tests.lab.machine import LabError, Machine
from tests.lab.outside import Outside, node_address
from tests.lab.report import fact, facts

CONFIG = "/etc/vcfwd/vcfwd.toml"
START_S = 240.0  # an emulated processor imports slowly
CLIENT_S = 90.0
SILENCE_S = 15.0  # after which no packet is on its way any more
PORT = 4433
ROOM = "lab"
KID, SECRET = "lab", "5a" * 32


def nic_names(node: Machine) -> list[str]:
    """The node's names of NIC 0 and NIC 1, found by their addresses: names follow the bus."""
    lines = node.ssh("cd /sys/class/net; for i in *; do echo $i $(cat $i/address); done").split(
        "\n"
    )
    by_address = {words[1]: words[0] for line in lines if len(words := line.split()) == 2}
    return [by_address[mac] for mac in NIC_MACS]


@dataclass
class Service:
    """vcfwd on `node`, on these of its NICs."""

    node: Machine
    nics: list[int]
    workers: int
    names: list[str] = field(default_factory=list)
    cert_hash: str = ""

    def configure(self, more: str = "") -> None:
        """Addresses on the NICs, and the configuration file of the package."""
        self.names = nic_names(self.node)
        lines = []
        for nic in self.nics:
            name = self.names[nic]
            lines.append(
                f"ip addr replace {node_address(nic)}/24 dev {name}; ip link set {name} up"
            )
        self.node.ssh("\n".join(lines))
        interfaces = [self.names[nic] for nic in self.nics]
        text = f"""
            [node]
            name = "lab"
            [network]
            addresses = {json.dumps([node_address(nic) for nic in self.nics])}
            port = {PORT}
            interfaces = {json.dumps(interfaces)}
            [api]
            token_keys = [{{ kid = "{KID}", secret = "{SECRET}" }}]
            [dataplane]
            workers = {self.workers}
            {more}
        """
        config = "\n".join(line.strip() for line in text.splitlines())
        self.node.ssh(
            f"cat > {CONFIG} && chmod 640 {CONFIG} && chown root:vcfwd {CONFIG}",
            data=config.encode(),
        )

    def start(self) -> None:
        """Starts the units, and waits until the node accepts joins."""
        self.node.ssh("systemctl start vcfwd-supervisor", timeout_s=START_S)
        self.wait_ready(START_S)
        self.cert_hash = self.node.ssh(
            "openssl x509 -outform der -in /var/lib/vcfwd/dev-cert.pem | sha256sum"
        ).split()[0]

    def wait_ready(self, timeout_s: float) -> None:
        """Until the supervisor answers."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                self.status()
                return
            except LabError:
                if time.monotonic() > end:
                    raise LabError(f"vcfwd does not answer:\n{self.journal()}") from None
                time.sleep(1.0)

    def nic_names(self) -> list[str]:
        return self.names

    def journal(self, lines: int = 60) -> str:
        return self.node.ssh(
            f"journalctl -u 'vcfwd*' -n {lines} --no-pager -o cat; "
            "systemctl --no-pager status 'vcfwd*' | head -60",
            check=False,
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.node.ssh("vcfwd status --json", timeout_s=60))
        return found

    def create_room(self) -> None:
        self.node.ssh(f"vcfwd room create {ROOM} --json", timeout_s=90)

    def token(self, name: str, role: str) -> str:
        """Made here: a command of the node takes seconds there."""
        keys = [SigningKey(KID, SECRET.encode())]
        return Tokens(keys, clock=Behind()).create_join(ROOM, role=Role(role), name=name)[0]


class Behind(SystemClock):
    """The node's clock was set over ssh, which may have taken long."""

    def wall(self) -> float:
        return super().wall() - 600.0


@dataclass
class Result:
    """What one call came to, from the packet logs of its ends."""

    accounts: list[TrackAccount]
    pause_ms: float

    @property
    def received(self) -> int:
        return sum(each.received for each in self.accounts)

    @property
    def expected(self) -> int:
        return sum(each.expected for each in self.accounts)

    @property
    def lost_runs(self) -> int:
        """How often media stopped for at least one packet."""
        return sum(len(each.lost_runs) for each in self.accounts)

    @property
    def mismatches(self) -> int:
        return sum(each.mismatches for each in self.accounts)


def check(
    service: Service, outcome: Result, *, complete: bool = True, sockets: bool = False
) -> dict[str, Any]:
    """What holds for each call: nothing arrives that was not sent, or twice, and the books balance.

    `complete`: every packet arrives.  `sockets`: by the socket path, else by AF_XDP alone.
    """
    status = service.status()
    counters = status["counters"]
    books = {
        "rx": counters["routed"] + counters["consumed"] + sum(status["drops"].values()),
        "copies": counters["transmitted"] + counters["queued"] + sum(status["copy_drops"].values()),
        "frames_total": counters["frames_free"] + counters["frames_rx"] + counters["frames_tx"],
    }
    told = facts()
    fact("packets_verified", told.get("packets_verified", 0) + outcome.received)
    fact("payload_mismatches", told.get("payload_mismatches", 0) + outcome.mismatches)
    balanced = {name: counters[name] for name in books} == books
    fact("accounting_balanced", told.get("accounting_balanced", True) and balanced)
    lost = {each.track: each.lost_runs for each in outcome.accounts if each.lost_runs}
    dropped = {**status["drops"], **status["copy_drops"]}
    words = f"lost {lost}, dropped { {name: n for name, n in dropped.items() if n} }"
    assert outcome.expected > 100
    assert outcome.mismatches == 0, words
    if complete:
        assert outcome.received == outcome.expected, words
    assert {name: counters[name] for name in books} == books
    if complete and not sockets:
        assert counters["rx_socket"] == 0 and counters["tx_socket"] == 0
    return status


@dataclass
class Call:
    """A publisher and subscribers, living until `end`."""

    publisher: Child
    subscribers: list[Child]
    folder: Path

    async def wait_flowing(self, more: int = 50, timeout_s: float = CLIENT_S) -> None:
        """Each subscriber receives `more` packets from now on."""
        for child in self.subscribers:
            before = child.last.get("progress", {}).get("received", 0)
            await child.wait_for(
                "progress",
                timeout_s,
                lambda line, least=before + more: line.get("received", 0) >= least,
            )

    async def _arrived(self, child: Child, published: int) -> None:
        """Until all of it is there, or nothing more comes: a busy node lags by seconds."""
        count, since = -1, time.monotonic()
        while count < published and time.monotonic() - since < SILENCE_S:
            now = child.last.get("progress", {}).get("received", 0)
            if now != count:
                count, since = now, time.monotonic()
            await asyncio.sleep(0.2)

    async def end(self) -> Result:
        """Publisher first, so that nothing is on its way when the subscribers count."""
        self.publisher.tell("stop")
        stopped = await self.publisher.wait_for("stopped", CLIENT_S)
        published = sum(track["packets"] for track in stopped["tracks"])
        for child in self.subscribers:
            await self._arrived(child, published)
        for child in (*self.subscribers, self.publisher):
            child.tell("quit")
            await child.wait(CLIENT_S)
        sent = read(self.folder / "publisher.packets")
        accounts, pauses = [], [0.0]
        for index in range(len(self.subscribers)):
            received = read(self.folder / f"subscriber-{index}.packets")
            pauses.append(longest_pause_ms({k: log.entries for k, log in received.items()}))
            for track, log in sent.items():
                got = received[track].entries if track in received else []
                accounts.append(account(track, log.entries, got, late=False))
        return Result(accounts, max(pauses))


@asynccontextmanager
async def call(
    service: Service,
    outside: Outside,
    clip: Path,
    folder: Path,
    subscribers: int = 1,
    beside: int = 0,
) -> AsyncIterator[Call]:
    """Media flows when this is entered.  `beside`: so many subscribers more, at the publisher's."""
    children: list[Child] = []

    async def start(name: str, host: Host, gate: str, role: str, command: list[str]) -> Child:
        line = [*command, "--url", f"https://{gate}:{PORT}", "--cert-hash", service.cert_hash]
        line += ["--name", name, "--decode", "none", "--json", "--stdin"]
        line += ["--log-packets", str(folder / f"{name}.packets")]
        token = service.token(name, role)
        child = await Child.start(name, host, line, folder / f"{name}.log", {"VCFWD_TOKEN": token})
        children.append(child)
        return child

    gates = outside.gates
    try:
        publisher = await start(
            "publisher",
            outside.pub,
            gates[0],
            "active",
            [*vcfwd("bot", "publish", str(clip)), *SMALL],
        )
        receivers = [
            await start(f"subscriber-{n}", host, gate, "passive", vcfwd("bot", "subscribe"))
            for n, (host, gate) in enumerate(
                [(outside.sub, gates[1])] * subscribers + [(outside.pub, gates[0])] * beside
            )
        ]
        for child in children:
            await child.wait_for("ready", CLIENT_S)
        for child in children:
            child.tell("join")
        for child in children:
            await child.wait_for("live", CLIENT_S)
        for child in receivers:
            await child.wait_for(
                "subscribed", CLIENT_S, lambda line: line.get("tracks", 0) >= len(Kind)
            )
        publisher.tell("start")
        running = Call(publisher, receivers, folder)
        await running.wait_flowing()
        yield running
    finally:
        for child in children:
            await child.end()
