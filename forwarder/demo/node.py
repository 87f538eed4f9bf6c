"""The node under demonstration: its files, its two processes, its admin socket."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder.cli.admin import Admin, AdminError
from forwarder.clock import SystemClock
from forwarder.demo.children import Child
from forwarder.demo.namespaces import Host, kill, processes
from forwarder.demo.options import DemoError
from forwarder.ids import RoomId
from forwarder.rooms.roles import Role
from forwarder.signaling import certs
from forwarder.signaling.tokens import SigningKey, Tokens

READY_S = 20.0
END_S = 5.0  # both processes end within this time of a SIGINT
RESTART_S = 10.0
POLL_S = 0.05
LOG_TAIL = 1500  # characters
DATAPLANE = "vcfwd-dataplane"
ROOM = RoomId("demo")


def vcfwd(*arguments: str) -> list[str]:
    """The command line of this very installation."""
    return [sys.executable, "-m", "forwarder.cli.app", *arguments]


@dataclass
class Node:
    """`vcfwd up` on `host`; everything it writes lies below `base`."""

    host: Host
    base: Path
    addresses: list[str]
    interfaces: list[str]
    path: str
    workers: int
    port: int
    faults: Path | None = None  # the test build of the data plane
    cors_origins: list[str] = field(default_factory=list)  # pages that may use the API
    cert_hash: str = ""
    restarts: int = 0  # processes that came back with a new pid
    _secret: str = field(default_factory=lambda: secrets.token_hex(32))
    _child: Child | None = None

    @property
    def run_dir(self) -> Path:
        return self.base / "run"

    @property
    def log(self) -> Path:
        return self.base / "node.log"

    def last_words(self, known: str) -> str:
        """The end of its log, for an error that does not know it yet."""
        words = (
            self.log.read_text(errors="replace")[-LOG_TAIL:].strip() if self.log.exists() else ""
        )
        return f"the node's last words:\n{words}" if words and words not in known else ""

    def url(self, address: str) -> str:
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}:{self.port}"

    def prepare(self) -> None:
        """Directories, certificate and configuration."""
        state = self.base / "state"
        for directory in (self.run_dir, state):
            directory.mkdir(mode=0o700, parents=True)
        certificate = certs.development(state, self.addresses, clock=SystemClock())
        self.cert_hash = certificate.sha256.hex()
        text = f"""
            [node]
            name = "demo"
            run_dir = {json.dumps(str(self.run_dir))}
            state_dir = {json.dumps(str(state))}
            [network]
            addresses = {json.dumps(self.addresses)}
            port = {self.port}
            interfaces = {json.dumps(self.interfaces)}
            path = {json.dumps(self.path)}
            [api]
            port = {self.port}
            cert_file = {json.dumps(str(certificate.cert_file))}
            key_file = {json.dumps(str(certificate.key_file))}
            cors_origins = {json.dumps(self.cors_origins)}
            token_keys = [{{ kid = "demo", secret = {json.dumps(self._secret)} }}]
            [dataplane]
            workers = {self.workers}
            """
        tomllib.loads(text)
        config = self.base / "demo.toml"
        config.touch(mode=0o600)
        config.write_text("\n".join(line.strip() for line in text.splitlines()))

    def token(self, name: str, role: Role) -> str:
        """A join token for the demo's room."""
        keys = [SigningKey("demo", self._secret.encode())]
        token, _ = Tokens(keys, clock=SystemClock()).create_join(ROOM, role=role, name=name)
        return token

    # ---- processes --------------------------------------------------------------------------

    async def start(self) -> dict[str, Any]:
        """Waits until it accepts joins; returns what it says of itself."""
        env = {"VCFWD_DATAPLANE": str(self.faults)} if self.faults is not None else {}
        command = vcfwd("up", "--config", str(self.base / "demo.toml"), "--dev", "--json")
        self._child = await Child.start("vcfwd up", self.host, command, self.log, env)
        return await self._child.wait_for("line", READY_S, lambda line: "ready_ms" in line)

    async def kill_supervisor(self) -> None:
        """kill -9, and up again with the same configuration."""
        assert self._child is not None
        old = self._child.pid
        self._child.signal(signal.SIGKILL)
        await self._child.wait(END_S)
        await self.start()
        self.restarts += self._child.pid != old

    def dataplane_pids(self) -> list[int]:
        return processes(DATAPLANE, str(self.run_dir))

    async def hit_dataplane(self, number: int) -> None:
        """Sends the signal, and waits until the supervisor has another one at work."""
        old = self.dataplane_pids()
        if not old:
            raise DemoError("there is no data plane process to hit")
        kill(old, number)
        until = time.monotonic() + RESTART_S
        while not (new := set(self.dataplane_pids()) - set(old)):
            if time.monotonic() > until:
                raise DemoError(f"no new data plane process within {RESTART_S:g} s")
            await asyncio.sleep(POLL_S)
        self.restarts += len(new)

    async def stop(self) -> int:
        """SIGINT; the exit status.  DemoError when either process stays."""
        assert self._child is not None
        self._child.signal(signal.SIGINT)
        status = await self._child.wait(END_S)
        if left := self.dataplane_pids():
            raise DemoError(f"the data plane (pid {left}) outlived `vcfwd up`")
        return status

    async def clean_up(self) -> None:
        """Whatever happened, nothing of it stays."""
        if self._child is not None:
            await self._child.end()
        kill(self.dataplane_pids())

    # ---- admin socket -----------------------------------------------------------------------

    async def request(self, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
        admin = Admin(self.run_dir)
        try:
            return await asyncio.to_thread(admin.request, method, target, body)
        except AdminError as error:
            raise DemoError(f"{method} {target}: {error}") from error

    async def create_room(self, active: int) -> None:
        await self.request("POST", "/v1/rooms", {"id": ROOM, "max_active": max(active, 2)})

    async def status(self) -> dict[str, Any]:
        return dict(await self.request("GET", "/v1/status"))
