"""A whole node for tests: its configuration, `vcfwd up` as a process or a Node in this one, and a
call through it whose packets carry their number."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("forwarder.dataplane._ring", reason="_ring is not built")
from forwarder import config as configuration
from forwarder.cli.admin import Admin
from forwarder.client.join import Client
from forwarder.client.publish import LocalTrack
from forwarder.client.subscribe import DecodeMode
from forwarder.clock import Clock, SystemClock
from forwarder.demo.namespaces import Host, processes
from forwarder.ids import RoomId
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec
from forwarder.signaling import certs
from forwarder.signaling.tokens import SigningKey, Tokens
from forwarder.supervisor.node import Node

HERE = Host("", "127.0.0.1")
DATAPLANE = "vcfwd-dataplane"
PATIENCE_S = 40.0  # so long a condition may take on a busy machine
END_S = 5.0  # both processes end within this time of a signal
SECRET = "a secret of the tests, long enough to be a key"
PERIOD_S = 0.005  # between two packets of a call


def free_port(address: str = "127.0.0.1") -> int:
    """A port that is free for TCP and for UDP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(100):
        with socket.socket(family, socket.SOCK_STREAM) as tcp:
            tcp.bind((address, 0))
            port: int = tcp.getsockname()[1]
            with socket.socket(family, socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
                udp.bind((address, port))
                return port
    raise AssertionError("there is no free port")


async def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Waits for a true answer; the test fails with `what` when it never comes."""
    deadline = time.monotonic() + patience_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what}"
        await asyncio.sleep(0.02)
    return answer


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The same for tests without a loop."""
    deadline = time.monotonic() + patience_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what}"
        time.sleep(0.02)
    return answer


@dataclass
class Site:
    """Where a node lives: everything below `base`."""

    base: Path
    host: Host = HERE
    addresses: list[str] = field(default_factory=lambda: ["127.0.0.1"])
    interfaces: list[str] = field(default_factory=list)
    port: int = 0
    change: dict[str, dict[str, Any]] = field(default_factory=dict)
    cert_hash: str = ""

    def __post_init__(self) -> None:
        self.port = self.port or free_port(self.addresses[0])
        self.base.mkdir(parents=True, exist_ok=True)
        (self.base / "state").mkdir(mode=0o700, exist_ok=True)
        made = certs.development(self.base / "state", self.addresses, clock=SystemClock())
        self.cert_hash = made.sha256.hex()
        sections: dict[str, dict[str, Any]] = {
            "node": {"run_dir": str(self.run_dir), "state_dir": str(self.base / "state")},
            "network": {
                "addresses": self.addresses,
                "port": self.port,
                "interfaces": self.interfaces,
            },
            "api": {
                "port": self.port,
                "cert_file": str(made.cert_file),
                "key_file": str(made.key_file),
            },
        }
        for name, keys in self.change.items():
            sections.setdefault(name, {}).update(keys)
        lines = []
        for name, keys in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in keys.items())]
            if name == "api" and "token_keys" not in keys:
                lines.append(f"token_keys = [{{ kid = 'k1', secret = '{SECRET}' }}]")
        self.config_file.touch(mode=0o600)
        self.config_file.write_text("\n".join(lines) + "\n")

    @property
    def config_file(self) -> Path:
        return self.base / "vcfwd.toml"

    @property
    def run_dir(self) -> Path:
        return self.base / "run"

    @property
    def pins(self) -> Path:
        return self.run_dir / "bpf"

    def url(self, address: str = "") -> str:
        address = address or self.addresses[0]
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}:{self.port}"

    def tokens(self, secret: str = SECRET, kid: str = "k1", clock: Clock | None = None) -> Tokens:
        return Tokens([SigningKey(kid, secret.encode())], clock=clock or SystemClock())

    def token(self, name: str = "n", role: Role = Role.ACTIVE, room: str = "r") -> str:
        return self.tokens().create_join(RoomId(room), role=role, name=name)[0]

    def client(
        self,
        name: str = "n",
        role: Role = Role.ACTIVE,
        *,
        address: str = "",
        room: str = "r",
        **keywords: Any,
    ) -> Client:
        return Client(
            self.url(address),
            self.token(name, role, room),
            cert_hash=self.cert_hash,
            name=name,
            decode=DecodeMode.NONE,
            **keywords,
        )

    def request(self, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
        """Over the Unix socket; not from the loop of a Node in this process."""
        return Admin(self.run_dir).request(method, target, body)

    async def room(self, name: str = "r", **wishes: Any) -> None:
        """Creates a room, whichever process the node is in."""
        await asyncio.to_thread(self.request, "POST", "/v1/rooms", {"id": name, **wishes})

    def status(self) -> dict[str, Any]:
        return dict(self.request("GET", "/v1/status"))

    def dataplanes(self) -> list[int]:
        return processes(DATAPLANE, str(self.run_dir))

    def clean_up(self) -> None:
        """Whatever happened, no process and no mount of this site stays."""
        for pid in self.dataplanes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if os.path.ismount(self.pins):
            subprocess.run(["umount", str(self.pins)], check=False)


class Up:
    """`vcfwd up` of a site, as a process (and leader of a group) of its own."""

    def __init__(self, site: Site, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.site = site
        self.out, self.err = site.base / "stdout", site.base / "stderr"
        command = [sys.executable, "-m", "forwarder.cli.app", "up", "--json"]
        command += ["--config", str(site.config_file), *arguments]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                site.host.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> dict[str, Any]:
        """Its line on stdout; the test fails when it ends before."""
        wait_for(
            lambda: self.out.read_text().endswith("\n") or self.process.poll() is not None,
            "`vcfwd up` is ready",
        )
        assert self.process.poll() is None, f"`vcfwd up` ended: {self.words()}"
        return dict(json.loads(self.out.read_text()))

    def words(self) -> str:
        return self.err.read_text()

    def end(self, number: int = signal.SIGINT, patience_s: float = END_S) -> int:
        """Sends the signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(patience_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(END_S)

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.kill()


@contextlib.contextmanager
def up(site: Site, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Up]:
    """Started and ready; gone afterwards."""
    made = Up(site, *arguments, env=env)
    try:
        made.ready()
        yield made
    finally:
        made.clean_up()
        site.clean_up()


@contextlib.asynccontextmanager
async def node_of(site: Site, clock: Clock | None = None) -> AsyncIterator[Node]:
    """A Node in this process."""
    node = Node(configuration.load(site.config_file), clock=clock)
    try:
        await node.start()
        yield node
    finally:
        await node.stop()
        site.clean_up()


class Call:
    """A publisher's numbered packets and what one subscriber has of them.

    Both clients are to be entered before begin()."""

    def __init__(
        self,
        site: Site,
        *,
        room: str = "r",
        addresses: tuple[str, str] = ("", ""),
        bind: str | None = None,
    ) -> None:
        """`addresses`: of the node as the two see it.  `bind`: the subscriber's own."""
        self.publisher = site.client("publisher", room=room, address=addresses[0])
        self.subscriber = site.client(
            "subscriber",
            Role.PASSIVE,
            room=room,
            address=addresses[1],
            bind_address=bind,
            on_packet=self._take,
        )
        self.sent = 0
        self.failed = 0
        self.numbers: list[int] = []
        self.track = LocalTrack("mic", Codec.OPUS, 111, 48_000, random.Random(7))
        self._sender: asyncio.Task[None] | None = None

    def _take(self, track: Any, packet: Any, arrival_ns: int) -> None:
        self.numbers.append(int.from_bytes(packet.payload[:4], "big"))

    async def begin(self) -> None:
        """Publishes, subscribes, and sends until end()."""
        await self.publisher.publish([self.track])
        await self.subscriber.subscribe(auto=True)
        await until(self.publisher.live.is_set, "the publisher's leg is live")
        await until(self.subscriber.live.is_set, "the subscriber's leg is live")
        self._sender = asyncio.create_task(self._send())
        await self.flows()

    async def _send(self) -> None:
        while True:
            await self.send_one()
            await asyncio.sleep(PERIOD_S)

    async def send_one(self) -> None:
        payload = self.sent.to_bytes(4, "big") + bytes(60)
        packets = self.track.packets
        try:
            await self.track.send(self.publisher.media, [payload], self.sent * 0.02, None)
        except ConnectionError:  # the link is down, say
            self.failed += 1
        self.sent += self.track.packets - packets

    async def flows(self, packets: int = 20) -> None:
        """Until `packets` that are sent from now on have arrived."""
        start = self.sent
        await until(
            lambda: sum(1 for n in self.numbers[-1000:] if n >= start) >= packets,
            f"packets from number {start} on arrive (the last one was {self.numbers[-1:]})",
        )

    async def stop_sending(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
            self._sender = None

    async def end(self) -> None:
        """Stops sending and waits for the last packet."""
        await self.stop_sending()
        await until(lambda: self.numbers[-1:] == [self.sent - 1], "the last packet arrives")

    def lost(self) -> list[int]:
        return sorted(set(range(self.sent)) - set(self.numbers))


@contextlib.asynccontextmanager
async def call_on(site: Site, room: str = "r") -> AsyncIterator[Call]:
    """A publisher and a subscriber on this host, in a new room."""
    await site.room(room)
    call = Call(site, room=room)
    async with call.publisher, call.subscriber:
        try:
            await call.begin()
            yield call
        finally:
            await call.stop_sending()
