"""The browser lab from the first namespace to the last account.

    hosts -> node and browsers -> WHIP -> WHEP -> media -> hush -> statistics -> leave -> books

Everything that is started or made is registered for its removal before the next step.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forwarder.demo.browser import capture, chromium
from forwarder.demo.browser.chromium import Chromium
from forwarder.demo.browser.options import HEIGHT, WIDTH, BrowserOptions
from forwarder.demo.browser.result import Evidence, Seen, conclude, slow
from forwarder.demo.children import Child
from forwarder.demo.namespaces import Bpffs, Host, Lab, run
from forwarder.demo.node import ROOM, Node
from forwarder.demo.options import DemoError
from forwarder.demo.result import Outcome
from forwarder.rooms.roles import Role

PORT = 4433
PREFIX = "vcbrow"  # of the namespaces' names
JOIN_S = 20.0  # POST to connected, and POST to the first picture
FOUND_S = 10.0  # a publisher's tracks show up in the room
QUIET_S = 10.0  # so long the counters may take to stand still
QUIET_POLL_S, QUIET_POLLS = 0.2, 3
HUSH_S = 5.0  # so long what is on its way may take to be rendered
BOUND_S = 90.0  # one attempt, on top of its media and 10 s for each browser
NODE_TAIL = 1500  # characters of the node's log that an error quotes
CAPTURE_S = 20.0

Say = Callable[[str], None]


@dataclass
class _Actor:
    """One participant: a browser that publishes and views everybody else."""

    id: int
    host: Host
    gate: str  # the node's address as seen from there
    browser: Chromium
    participant: str = ""  # its id in the room
    join_ms: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"participant-{self.id}"


async def run_twice(options: BrowserOptions, say: Say) -> Outcome:
    """The lab; once more at half the frame rate when the machine was too slow for it."""
    outcome, why = await BrowserLab(options, say).run()
    if not outcome.faults or not why:
        return outcome
    for reason in why:
        say(f"machine too slow: {reason}")
    say(f"once more at {options.fps // 2} frames a second")
    outcome, why = await BrowserLab(replace(options, fps=options.fps // 2), say).run()
    if outcome.faults:
        outcome.faults += [f"machine too slow: {reason}" for reason in why]
    return outcome


class BrowserLab:
    """One attempt; `run()` may be called once."""

    def __init__(self, options: BrowserOptions, say: Say) -> None:
        self._options = options
        self._say = say
        self._actors: list[_Actor] = []
        self._captures: list[tuple[Child, Path]] = []

    async def run(self) -> tuple[Outcome, list[str]]:
        """The outcome, and why the machine was too slow, if it was.

        DemoError or HostError when it cannot come to an end; always cleans up."""
        options = self._options
        if reason := chromium.missing():
            raise DemoError(reason)
        bound_s = BOUND_S + options.seconds + 10 * options.participants
        async with AsyncExitStack() as made:
            lab, node = self._stage(made)
            made.push_async_callback(node.clean_up)
            try:
                async with asyncio.timeout(bound_s):
                    return await self._call(made, lab, node)
            except TimeoutError as error:
                raise DemoError(f"the lab did not end within {bound_s:g} s") from error
            except DemoError as error:
                words = last_words(node)
                raise DemoError(f"{error}\nthe node's last words:\n{words}") from error

    def _stage(self, made: AsyncExitStack) -> tuple[Lab, Node]:
        """Hosts and directories."""
        options = self._options
        sync = made.enter_context(ExitStack())
        base = Path(f"/run/vcfwd-browser-{os.getpid()}")
        base.mkdir(mode=0o700)
        sync.callback(shutil.rmtree, base, ignore_errors=True)
        lab = sync.enter_context(Lab(ipv6=options.ipv6, prefix=PREFIX))
        interfaces = [] if options.path == "udp" else lab.interfaces
        # A browser asks its default route for the address to offer.
        for host, gate in ((lab.pub, lab.fwd_addresses[0]), (lab.sub, lab.fwd_addresses[1])):
            run("ip", "-n", host.name, "route", "add", "default", "via", gate)
        node = Node(lab.fwd, base, lab.fwd_addresses, interfaces, options.path, 1, PORT)
        node.cors_origins = [chromium.ORIGIN]
        node.prepare()
        sync.enter_context(Bpffs(node.run_dir / "bpf"))
        options.out.mkdir(parents=True, exist_ok=True)
        return lab, node

    async def _call(self, made: AsyncExitStack, lab: Lab, node: Node) -> tuple[Outcome, list[str]]:
        options = self._options
        self._say(f"starting the node and {options.participants} browsers")
        opened = AsyncExitStack()
        await made.enter_async_context(opened)
        ready, _ = await asyncio.gather(node.start(), self._open(opened, lab, node))
        self._say(f"the node accepts joins after {ready['ready_ms']} ms")
        await node.create_room(options.participants)
        if options.pcap is not None:
            await self._start_capture(made, lab, node)
        before, udp_before = await node.status(), node.host.udp_datagrams()

        await self._publish(node)
        await self._view(node)
        self._say("media flows")
        began = cpu_times()
        await self._media()
        idle = idle_share(began, cpu_times())
        screenshots = await self._screenshots()
        await self._hush()
        seen = [await self._seen(actor) for actor in self._actors]
        media = await node.status()

        self._say("leaving")
        left = [await actor.browser.call("leave") for actor in self._actors]
        await opened.aclose()
        after, udp_after = await self._quiet(node)
        if options.pcap is not None:
            await self._end_capture(options.pcap)
        node_exit = await node.stop()
        evidence = Evidence(
            options,
            seen,
            before,
            media,
            after,
            udp_after - udp_before,
            node_exit,
            last_words(node),
            [status for statuses in left for status in statuses],
            screenshots,
        )
        return conclude(evidence), slow(seen, options.fps, idle)

    # ---- scenes -----------------------------------------------------------------------------

    async def _open(self, opened: AsyncExitStack, lab: Lab, node: Node) -> None:
        """All browsers, one on this host, the next on the other."""
        driver = await opened.enter_async_context(chromium.playwright())
        places = [(lab.pub, lab.fwd_addresses[0]), (lab.sub, lab.fwd_addresses[1])]

        async def one(number: int) -> _Actor:
            host, gate = places[(number - 1) % 2]
            name, profile = f"browser {number}", node.base / f"profile-{number}"
            browser = await Chromium.open(opened, driver, name, host, profile)
            actor = _Actor(number, host, gate, browser)
            picture = {"width": WIDTH, "height": HEIGHT, "fps": self._options.fps}
            await browser.call("start", {"id": number, "name": actor.name, **picture})
            return actor

        numbers = range(1, self._options.participants + 1)
        self._actors = list(await _all(*(one(number) for number in numbers)))

    async def _publish(self, node: Node) -> None:
        """WHIP, everybody at once; then who is who in the room."""

        async def one(actor: _Actor) -> None:
            await self._join(
                actor,
                "publish",
                {
                    "url": f"{node.url(actor.gate)}/whip/{ROOM}",
                    "token": node.token(actor.name, Role.ACTIVE),
                    "codec": self._options.codec,
                },
            )

        await _all(*(one(actor) for actor in self._actors))
        until = time.monotonic() + FOUND_S
        while True:
            room = await node.request("GET", f"/v1/rooms/{ROOM}")
            ids = {p["name"]: p["id"] for p in room["participants"]}
            kinds = {(t["participant_id"], t["kind"]) for t in room["tracks"]}
            for actor in self._actors:
                actor.participant = ids.get(actor.name, "")
            wanted = {(a.participant, kind) for a in self._actors for kind in ("audio", "video")}
            if wanted <= kinds:
                return
            if time.monotonic() > until:
                raise DemoError(f"not everybody's tracks are in the room: {room}")
            await asyncio.sleep(QUIET_POLL_S)

    async def _view(self, node: Node) -> None:
        """WHEP: everybody views everybody else, each on an association of its own."""

        async def one(actor: _Actor, other: _Actor) -> None:
            await self._join(
                actor,
                "view",
                {
                    "from": other.id,
                    "url": f"{node.url(actor.gate)}/whep/{ROOM}?participant={other.participant}",
                    "token": node.token(f"{actor.name}-views-{other.id}", Role.PASSIVE),
                },
            )

        actors = self._actors
        await _all(*(one(a, other) for a in actors for other in actors if other is not a))

    async def _join(self, actor: _Actor, method: str, what: dict[str, Any]) -> None:
        found = await actor.browser.call(
            method, {**what, "timeoutMs": JOIN_S * 1000}, timeout_s=2 * JOIN_S + 5
        )
        actor.join_ms.append(found["join_ms"])

    async def _media(self) -> None:
        """Until the duration is over."""
        until = time.monotonic() + self._options.seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(2.0, left))
            counts = [await actor.browser.call("counts") for actor in self._actors]
            painted = sum(count["painted"] for count in counts)
            rendered = sum(n for count in counts for _, n in count["rendered"])
            self._say(f"{painted} frames painted, {rendered} read")

    async def _screenshots(self) -> list[str]:
        paths = []
        for actor in self._actors:
            path = self._options.out / f"browser-{actor.id}.png"
            path.unlink(missing_ok=True)  # of an earlier run
            await actor.browser.screenshot(path)
            paths.append(str(path))
        return paths

    async def _hush(self) -> None:
        """Publishers stop; then viewers' counts must stand still."""
        await _all(*(actor.browser.call("hush") for actor in self._actors))
        until = time.monotonic() + HUSH_S
        before, same = None, 0
        while same < QUIET_POLLS and time.monotonic() < until:
            now = [(await actor.browser.call("counts"))["rendered"] for actor in self._actors]
            same = same + 1 if now == before else 0
            before = now
            await asyncio.sleep(QUIET_POLL_S)

    async def _seen(self, actor: _Actor) -> Seen:
        snapshot = await actor.browser.call("snapshot")
        for view in snapshot["views"]:
            if picture := view.pop("wrong_picture"):
                path = self._options.out / f"wrong-{view['from']}-to-{actor.id}.png"
                path.write_bytes(base64.b64decode(picture.partition(",")[2]))
                self._say(f"a picture without the right code: {path}")
        return Seen(actor.id, "chromium", actor.browser.version, snapshot, actor.join_ms)

    async def _quiet(self, node: Node) -> tuple[dict[str, Any], int]:
        """The node's status and its kernel's datagrams once nothing arrives any more and the
        node's sockets are empty."""
        until = time.monotonic() + QUIET_S
        before, same = None, 0
        while True:
            waiting = unread(node.host, node.port)
            status, udp = await node.status(), node.host.udp_datagrams()
            now = (udp, *(status["counters"][name] for name in ("rx", "copies", "queued")))
            same = same + 1 if now == before and not waiting else 0
            if same >= QUIET_POLLS:
                return status, udp
            if time.monotonic() > until:
                raise DemoError(f"the node is not quiet {QUIET_S:g} s after the last browser left")
            before = now
            await asyncio.sleep(QUIET_POLL_S)

    # ---- capture ----------------------------------------------------------------------------

    async def _start_capture(self, made: AsyncExitStack, lab: Lab, node: Node) -> None:
        for host, interface in ((lab.pub, "pub0"), (lab.sub, "sub0")):
            file = node.base / f"{interface}.pcap"
            command = [sys.executable, "-m", capture.__name__, interface, str(file)]
            child = await Child.start("capture", host, command, node.base / f"{interface}.log")
            made.push_async_callback(child.end)
            self._captures.append((child, file))
            await child.wait_for("ready", CAPTURE_S)

    async def _end_capture(self, into: Path) -> None:
        for child, _ in self._captures:
            child.hang_up()
            found = await child.wait_for("summary", CAPTURE_S)
            if found["missed"]:
                self._say(f"the capture missed {found['missed']} packets")
        count = capture.merge([file for _, file in self._captures], into)
        self._say(f"{count} packets of both links in {into}")


def unread(host: Host, port: int) -> int:
    """Bytes waiting in the UDP sockets of that port, out of /proc/net/udp and udp6."""
    total = 0
    for line in run(*host.command("cat", "/proc/net/udp", "/proc/net/udp6")).splitlines():
        words = line.split()
        if words[0] != "sl" and int(words[1].rpartition(":")[2], 16) == port:
            total += int(words[4].partition(":")[2], 16)
    return total


def last_words(node: Node) -> str:
    return node.log.read_text(errors="replace")[-NODE_TAIL:] if node.log.exists() else ""


def cpu_times() -> str:
    return Path("/proc/stat").read_text()


def idle_share(before: str, after: str) -> float:
    """Of the processors' time between two readings of /proc/stat, 0 to 1 (proc(5))."""
    now, then = (
        [int(word) for word in text.split("\n", 1)[0].split()[1:9]] for text in (after, before)
    )
    spent = [one - other for one, other in zip(now, then, strict=True)]
    return (spent[3] + spent[4]) / sum(spent) if sum(spent) > 0 else 1.0


async def _all(*things: Any) -> list[Any]:
    """Like gather, but the first failure ends the others before it is raised."""
    tasks = [asyncio.ensure_future(thing) for thing in things]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
