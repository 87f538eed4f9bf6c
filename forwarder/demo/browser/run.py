"""The browser lab from the first namespace to the last account.

    hosts -> node and browsers -> joins -> media -> hush -> statistics -> leave -> books

Everything that is started or made is registered for its removal before the next step.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from forwarder.demo.browser import capture, session, whip
from forwarder.demo.browser.cast import Actor, gather, open_browsers
from forwarder.demo.browser.driven import ORIGIN, missing
from forwarder.demo.browser.losses import Losses, Lost
from forwarder.demo.browser.machine import cpu_times, idle_share, unread
from forwarder.demo.browser.options import BrowserOptions
from forwarder.demo.browser.pace import Seen, slow
from forwarder.demo.browser.result import Evidence, Verdict, conclude
from forwarder.demo.children import Child
from forwarder.demo.namespaces import Bpffs, Lab, run
from forwarder.demo.node import Node
from forwarder.demo.options import DemoError
from forwarder.demo.result import Outcome

PORT = 4433
PREFIX = "vcbrow"  # of the namespaces' names
QUIET_S = 10.0  # so long the counters may take to stand still
QUIET_POLL_S, QUIET_POLLS = 0.2, 3
REMOVE_S = 5.0  # so long a browser may write after its end
HUSH_S = 5.0  # so long what is on its way may take to be rendered
CLEAN_UP_S = 10.0  # of a run's bound, kept for what must be removed
NODE_TAIL = 1500  # characters of the node's log that an error quotes
CAPTURE_S = 20.0

Say = Callable[[str], None]
Attempt = Callable[[BrowserOptions, Say, float], Awaitable[tuple[Verdict, list[str]]]]


async def run_twice(
    options: BrowserOptions,
    say: Say,
    bound_s: float | None = None,
    attempt: Attempt | None = None,
) -> Outcome:
    """The lab; once more at half the frame rate when it had faults of the kind that a machine that
    is too slow causes, none of any other kind, and this machine was too slow.

    `bound_s` is for both attempts and their cleaning up (BrowserOptions.bound_s); DemoError beyond
    it, as for all that keeps the lab from its end: that is never tried again."""
    attempt = attempt or _attempt
    bound_s = options.bound_s if bound_s is None else bound_s
    until = asyncio.get_running_loop().time() + bound_s - CLEAN_UP_S
    try:
        verdict, why = await attempt(options, say, until)
        if not verdict.faults or not why:
            return verdict
        for reason in why:
            say(f"machine too slow: {reason}")
        if verdict.broken:
            say("not once more: no machine is too slow for the other faults")
            return verdict
        for fault in verdict.faults:
            say(f"excused once: {fault}")
        say(f"once more at {options.fps // 2} frames a second")
        verdict, why = await attempt(replace(options, fps=options.fps // 2), say, until)
    except Late as late:
        raise DemoError(
            f"{options.participants} browsers did not finish within {bound_s:g} s, a second "
            f"attempt and cleaning up included; the last step was: {late}"
        ) from late
    for reason in why if verdict.faults else ():
        say(f"machine too slow again: {reason}")
    return verdict


async def _attempt(options: BrowserOptions, say: Say, until: float) -> tuple[Verdict, list[str]]:
    return await BrowserLab(options, say).run(until)


class Late(DemoError):
    """The bound was reached; the text is the step that went on, and the node's last words."""


class BrowserLab:
    """One attempt; `run()` may be called once."""

    def __init__(self, options: BrowserOptions, say: Say) -> None:
        self._options = options
        self._tell = say
        self._step = "nothing yet"
        self._actors: list[Actor] = []
        self._captures: list[tuple[Child, Path]] = []

    def _say(self, sentence: str) -> None:
        self._step = sentence
        self._tell(sentence)

    async def run(self, until: float) -> tuple[Verdict, list[str]]:
        """The verdict, and why the machine was too slow, if it was.  It goes on until that time of
        the loop's clock at most; cleaning up comes after it.

        DemoError or HostError when it cannot come to an end; always cleans up."""
        options = self._options
        if reason := missing(options.browsers):
            raise DemoError(reason)
        async with AsyncExitStack() as made:
            lab, node = stage(made, options)
            made.push_async_callback(node.clean_up)
            try:
                async with asyncio.timeout_at(until) as limit:
                    return await self._call(made, lab, node)
            except (TimeoutError, DemoError) as error:
                words = f"the node's last words:\n{last_words(node)}"
                if limit.expired():
                    raise Late(f"{self._step}\n{words}") from error
                raise DemoError(f"{str(error) or type(error).__name__}\n{words}") from error

    async def _call(self, made: AsyncExitStack, lab: Lab, node: Node) -> tuple[Verdict, list[str]]:
        options = self._options
        self._say(f"starting the node and {options.participants} browsers")
        opened = AsyncExitStack()
        await made.enter_async_context(opened)
        ready, self._actors = await gather(
            node.start(), open_browsers(opened, options, lab, node.base)
        )
        self._say(f"the node accepts joins after {ready['ready_ms']} ms")
        await node.create_room(options.participants)
        if options.pcap is not None:
            await self._start_capture(made, lab, node)
        losses = self._lose(made, lab, node)
        before, udp_before = await node.status(), node.host.udp_datagrams()

        join_all = session.join_all if options.join == "session" else whip.join_all
        await join_all(self._actors, node, options)
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
            losses.read() if losses is not None else Lost(),
        )
        return conclude(evidence), slow(seen, options.fps, idle)

    def _lose(self, made: AsyncExitStack, lab: Lab, node: Node) -> Losses | None:
        """From now on datagrams are lost on both links, if they are to be."""
        if not self._options.loss:
            return None
        made.enter_context(Bpffs(node.base / "loss"))
        losses = made.enter_context(Losses(node.base / "loss", node.port, self._options.loss))
        losses.add(lab.pub, "pub0")
        losses.add(lab.sub, "sub0")
        return losses

    # ---- scenes -----------------------------------------------------------------------------

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
        await gather(*(actor.browser.call("hush") for actor in self._actors))
        until = time.monotonic() + HUSH_S
        before, same = None, 0
        while same < QUIET_POLLS and time.monotonic() < until:
            now = [(await actor.browser.call("counts"))["rendered"] for actor in self._actors]
            same = same + 1 if now == before else 0
            before = now
            await asyncio.sleep(QUIET_POLL_S)

    async def _seen(self, actor: Actor) -> Seen:
        snapshot = await actor.browser.call("snapshot")
        for view in snapshot["views"]:
            if picture := view.pop("wrong_picture"):
                path = self._options.out / f"wrong-{view['from']}-to-{actor.id}.png"
                path.write_bytes(base64.b64decode(picture.partition(",")[2]))
                self._say(f"a picture without the right code: {path}")
        return Seen(
            actor.id,
            actor.browser.kind,
            actor.browser.version,
            snapshot,
            actor.join_ms,
            actor.sends,
        )

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


def stage(made: AsyncExitStack, options: BrowserOptions) -> tuple[Lab, Node]:
    """Hosts and directories, for as long as `made` stands; the node is not started yet."""
    sync = made.enter_context(ExitStack())
    base = Path(f"/run/vcfwd-browser-{os.getpid()}")
    base.mkdir(mode=0o700)
    sync.callback(remove, base)
    lab = sync.enter_context(Lab(ipv6=options.ipv6, dual=options.dual, prefix=PREFIX))
    interfaces = [] if options.path == "udp" else lab.interfaces
    # A browser asks its default route for the address to offer.
    for host, gate in ((lab.pub, lab.fwd_addresses[0]), (lab.sub, lab.fwd_addresses[1])):
        run("ip", "-n", host.name, "route", "add", "default", "via", gate)
    addresses = [*lab.fwd_addresses, *lab.other_addresses]
    node = Node(lab.fwd, base, addresses, interfaces, options.path, 1, PORT)
    node.cors_origins = [ORIGIN]
    node.prepare()
    sync.enter_context(Bpffs(node.run_dir / "bpf"))
    options.out.mkdir(parents=True, exist_ok=True)
    return lab, node


def remove(base: Path) -> None:
    """A browser's last processes may write into its profile after the first has ended."""
    until = time.monotonic() + REMOVE_S
    while base.exists() and time.monotonic() < until:
        shutil.rmtree(base, ignore_errors=True)
        time.sleep(QUIET_POLL_S if base.exists() else 0)


def last_words(node: Node) -> str:
    return node.log.read_text(errors="replace")[-NODE_TAIL:] if node.log.exists() else ""
