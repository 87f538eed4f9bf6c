"""The demo from the first namespace to the last account.

    hosts -> node and bots start together -> joins -> media -> late join, fault -> quiet -> books

Everything that is started or made is registered for its removal before the next step.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from forwarder.demo.cast import Actor, cast, start
from forwarder.demo.children import Child
from forwarder.demo.namespaces import Bpffs, Host, Lab
from forwarder.demo.node import Node
from forwarder.demo.options import Chaos, DemoError, DemoOptions, find_clip
from forwarder.demo.result import Evidence, Outcome, conclude

PORT = 4433
READY_S, JOIN_S, RESUME_S, QUIT_S = 30.0, 15.0, 15.0, 15.0
QUIET_S = 6.0  # so long the counters may take to stand still
QUIET_POLL_S, QUIET_POLLS = 0.15, 3
BOOKS_TRIES = 10
LATE_AT, FAULT_AT = 0.4, 0.6  # of the media's duration
AFTER_FAULT_S = 1.5  # media goes on so long after the call has recovered
FLOWING = 50  # packets received after a fault that show that the call goes on
FUZZ_RATE = 250  # datagrams a second from each of two hosts
FAULTS_BUILD = Path(__file__).resolve().parents[2] / "build" / "faults" / "vcfwd-dataplane"

Say = Callable[[str], None]
Tick = Callable[[list[Actor], float], None]


def at_least(key: str, value: int) -> Callable[[dict[str, Any]], bool]:
    """A condition on an event."""
    return lambda event: event[key] >= value


def _no_tick(actors: list[Actor], at: float) -> None:
    """Nothing is shown."""


class Demo:
    """One run; `run()` may be called once."""

    def __init__(self, options: DemoOptions, say: Say, tick: Tick = _no_tick) -> None:
        self._options = options
        self._say = say
        self._tick = tick
        self._actors: list[Actor] = []
        self._helpers: list[Child] = []  # fuzzers
        self._taps: list[Child] = []
        self._fault_ns: int | None = None
        self._began = 0.0

    async def run(self) -> Outcome:
        """DemoError or HostError when it cannot come to an end; always cleans up."""
        options = self._options
        clip = find_clip(options.clip)
        if options.chaos is Chaos.WORKER and not FAULTS_BUILD.exists():
            raise DemoError(
                f"there is no test build of the data plane at {FAULTS_BUILD}: "
                "run 'make -C c_helpers FAULTS=1'"
            )
        options.out.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as made:
            node, pub, sub, gates = self._stage(made)
            made.push_async_callback(node.clean_up)
            self._actors = cast(options, node, pub, sub, gates, clip)
            for actor in self._actors:
                if actor.png is not None:
                    actor.png.unlink(missing_ok=True)  # of an earlier run
            made.push_async_callback(self._end_children)
            try:
                return await self._call(node, pub, sub, gates)
            except DemoError as error:
                raise DemoError(f"{error}\n{node.last_words(known=str(error))}") from error

    def _stage(self, made: AsyncExitStack) -> tuple[Node, Host, Host, tuple[str, str]]:
        """Hosts and directories."""
        options = self._options
        sync = made.enter_context(ExitStack())
        faults = FAULTS_BUILD if options.chaos is Chaos.WORKER else None
        if not options.root:
            base = Path(tempfile.mkdtemp(prefix="vcfwd-demo-", dir=_memory_dir()))
            sync.callback(shutil.rmtree, base, ignore_errors=True)
            here = "::1" if options.ipv6 else "127.0.0.1"
            host = Host("", here)
            node = Node(host, base, [here], [], "udp", options.workers, _free_port(here), faults)
            node.prepare()
            return node, host, host, (here, here)
        base = Path(f"/run/vcfwd-demo-{os.getpid()}")
        base.mkdir(mode=0o700)
        sync.callback(shutil.rmtree, base, ignore_errors=True)
        lab = sync.enter_context(Lab(ipv6=options.ipv6, queues=options.workers))
        interfaces = [] if options.path == "udp" else lab.interfaces
        node = Node(
            lab.fwd,
            base,
            lab.fwd_addresses,
            interfaces,
            options.path,
            options.workers,
            PORT,
            faults,
        )
        node.prepare()
        sync.enter_context(Bpffs(node.run_dir / "bpf"))
        return node, lab.pub, lab.sub, (lab.fwd_addresses[0], lab.fwd_addresses[1])

    async def _call(self, node: Node, pub: Host, sub: Host, gates: tuple[str, str]) -> Outcome:
        options = self._options
        self._say("starting the node and the participants")
        starting = [start(actor, node) for actor in self._actors]
        if options.root and options.chaos is not None:
            starting += [self._tap(node, host, name) for host, name in ((pub, "pub"), (sub, "sub"))]
        ready, *_ = await asyncio.gather(node.start(), *starting)
        self._say(f"the node accepts joins after {ready['ready_ms']} ms")
        await node.create_room(len(self._actors))
        await asyncio.gather(*(a.process().wait_for("ready", READY_S) for a in self._actors))
        await self._join([actor for actor in self._actors if actor.joined == "start"])
        if options.chaos is Chaos.GARBAGE:
            await self._fuzz(node, pub, sub, gates)

        udp_before = node.host.udp_datagrams()
        self._began = time.monotonic()
        for actor in self._actors:
            if actor.publishes:
                actor.process().tell("start")
        self._say("media flows")
        await self._media(node)
        duration_s = time.monotonic() - self._began
        await self._silence(node)
        status = await self._books(node)
        udp_after = node.host.udp_datagrams()

        self._say("counting")
        await self._quit()
        node_exit = await node.stop()
        return conclude(
            Evidence(
                self._actors,
                options.chaos,
                status,
                duration_s,
                udp_after - udp_before,
                node_exit,
                node.restarts,
                self._fault_ns,
                [await self._findings(tap) for tap in self._taps],
            )
        )

    # ---- scenes -----------------------------------------------------------------------------

    async def _join(self, actors: list[Actor]) -> None:
        """All of them at once; returns when each is live and receives all there is."""
        for actor in actors:
            actor.process().tell("join")
        publishers = [actor for actor in self._actors if actor.publishes]
        for actor in actors:
            await actor.process().wait_for("live", JOIN_S)
        for actor in actors:
            if actor.subscribes:
                wanted = 2 * len([p for p in publishers if p is not actor])
                await actor.process().wait_for("subscribed", JOIN_S, at_least("tracks", wanted))

    async def _media(self, node: Node) -> None:
        """Until the duration is over, and the call has recovered from the fault."""
        script = asyncio.create_task(self._script(node))
        seconds = self._options.seconds
        try:
            while (left := self._began + seconds - time.monotonic()) > 0 or not script.done():
                self._check(script)
                self._tick(self._actors, seconds - left)
                await asyncio.sleep(0.1)
            self._check(script)
        finally:
            script.cancel()
            await asyncio.gather(script, return_exceptions=True)

    async def _script(self, node: Node) -> None:
        """What happens while media flows, one after the other."""
        late = [actor for actor in self._actors if actor.joined == "late"]
        if late:
            await self._at(LATE_AT)
            await self._join(late)
        if self._options.chaos not in (None, Chaos.GARBAGE):
            await self._at(FAULT_AT)
            await self._fault(node)

    async def _at(self, share: float) -> None:
        """Sleeps until this share of the duration is over."""
        due = self._began + share * self._options.seconds
        await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _check(self, script: asyncio.Task[None]) -> None:
        if script.done():
            script.result()
        for actor in self._actors:
            if actor.process().ended:
                raise DemoError(f"{actor.name} ended early\n{actor.process().tail()}")

    async def _fault(self, node: Node) -> None:
        chaos = self._options.chaos
        self._fault_ns = time.monotonic_ns()
        self._say(f"fault: {chaos}")
        if chaos is Chaos.SUPERVISOR:
            await node.kill_supervisor()
            for actor in self._actors:
                await actor.process().wait_for("back", RESUME_S)
        else:
            await node.hit_dataplane(signal.SIGKILL if chaos is Chaos.DATAPLANE else signal.SIGUSR1)
        await self._flowing(self._actors)
        self._say("the call goes on")
        await asyncio.sleep(AFTER_FAULT_S)

    async def _flowing(self, actors: list[Actor]) -> None:
        """Each of them receives again."""
        for actor in actors:
            if actor.subscribes:
                before = actor.process().last.get("progress", {}).get("received", 0)
                await actor.process().wait_for(
                    "progress", RESUME_S, at_least("received", before + FLOWING)
                )

    async def _silence(self, node: Node) -> None:
        """Publishers stop; then all counters of media must stand still, with nothing queued."""
        for actor in self._actors:
            if actor.publishes:
                actor.process().tell("stop")
        for actor in self._actors:
            if actor.publishes:
                await actor.process().wait_for("stopped", QUIT_S)
        for fuzzer in self._helpers:
            fuzzer.hang_up()
            await fuzzer.wait_for("summary", QUIT_S)
        until = time.monotonic() + QUIET_S
        before, same = None, 0
        while same < QUIET_POLLS:
            if time.monotonic() > until:
                raise DemoError(f"the node is not quiet {QUIET_S:g} s after the last packet")
            counters = (await node.status())["counters"]
            now = tuple(counters[name] for name in ("routed", "copies", "transmitted", "queued"))
            same = same + 1 if now == before and counters["queued"] == 0 else 0
            before = now
            await asyncio.sleep(QUIET_POLL_S)

    async def _books(self, node: Node) -> dict[str, Any]:
        """The node's status.  Reports still flow, and one may lie between the steering program's
        count and the worker's when they are read: then they are read again.  (After a fault of
        the data plane the counters do not speak of the same time; once is enough.)"""
        chaos = self._options.chaos
        for _ in range(1 if chaos is not None and chaos.may_lose else BOOKS_TRIES):
            status = await node.status()
            counters = status["counters"]
            taken = counters["rx_xsk"] + counters["xsk_rx_dropped"]
            if status["path"] == "udp" or status["steering"]["verdicts"]["redirect_media"] == taken:
                break
            await asyncio.sleep(QUIET_POLL_S)
        return status

    async def _quit(self) -> None:
        for actor in self._actors:
            actor.process().tell("quit")
        for actor in self._actors:
            actor.summary = await actor.process().wait_for("summary", QUIT_S)
            if (code := await actor.process().wait(QUIT_S)) != 0:
                raise DemoError(f"{actor.name} ended with {code}\n{actor.process().tail()}")

    # ---- helpers ----------------------------------------------------------------------------

    async def _tap(self, node: Node, host: Host, name: str) -> None:
        command = [sys.executable, "-m", "forwarder.demo.tap", f"{name}0", str(node.port)]
        log = node.base / f"tap-{name}.log"
        tap = await Child.start("tap", host, [*command, self._options.suite], log)
        self._taps.append(tap)
        await tap.wait_for("ready", READY_S)

    async def _findings(self, tap: Child) -> dict[str, Any]:
        tap.hang_up()
        return await tap.wait_for("summary", QUIT_S)

    async def _fuzz(self, node: Node, pub: Host, sub: Host, gates: tuple[str, str]) -> None:
        for index, host in enumerate((pub, sub)):
            command = [sys.executable, "-m", "forwarder.demo.fuzzer", gates[index]]
            command += [str(node.port), str(FUZZ_RATE), str(self._options.seed + index)]
            log = node.base / f"fuzzer-{index}.log"
            fuzzer = await Child.start("fuzzer", host, command, log)
            self._helpers.append(fuzzer)
            await fuzzer.wait_for("ready", READY_S)

    async def _end_children(self) -> None:
        children = [actor.child for actor in self._actors if actor.child is not None]
        await asyncio.gather(*(child.end() for child in (*children, *self._helpers, *self._taps)))


def _memory_dir() -> str | None:
    """A directory in memory for what must not reach a disk."""
    for place in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):
        if place and os.access(place, os.W_OK):
            return place
    return None


def _free_port(address: str) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port
