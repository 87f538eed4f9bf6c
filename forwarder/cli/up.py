"""`vcfwd up`: the appliance on this host."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from forwarder.config import Config
    from forwarder.supervisor.node import Node


log = logging.getLogger(__name__)

STOPPING = (signal.SIGINT, signal.SIGTERM)
START_PATIENCE_S = 3.0  # a start that was told to stop may still come to its end


def up(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML).", envvar="VCFWD_CONFIG")
    ] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="Accept the shipped example token key.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON line on stdout when ready.")
    ] = False,
    service: Annotated[
        bool,
        typer.Option(
            "--service", help="The data plane is systemd's: take it over, leave it alone."
        ),
    ] = False,
) -> None:
    """Runs the appliance until SIGINT or SIGTERM; both processes end with it.

    With --service the data plane is another unit's, and its calls go on without this process.
    Without --config: loopback addresses, no interface attached, socket path.

    Example: vcfwd up --dev
    """
    # Until somebody listens to them, signals wait: what is half started would be left behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    from forwarder import config as configuration
    from forwarder.errors import ConfigError, VcfwdError
    from forwarder.telemetry import logs

    try:
        settings = configuration.load(config)
    except ConfigError as error:
        for fault in error.faults:
            print(f"vcfwd up: {fault}", file=sys.stderr)
        raise typer.Exit(2) from error
    logs.configure(settings.log.level, "json" if settings.log.format == "json" else "text")
    try:
        import uvloop

        uvloop.run(_run(settings, dev=dev, json_=json_, service=service))
    except VcfwdError as error:
        print(f"vcfwd up: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


async def _run(settings: Config, *, dev: bool, json_: bool, service: bool) -> None:
    from forwarder.supervisor.node import Node

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, stopping.set)  # repeated ones change nothing
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    node = Node(settings, dev=dev, service=service)
    starting = asyncio.ensure_future(node.start())
    waiting = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _announce(node, json_=json_)
            if settings.network.interfaces:
                _quote_checks(settings)
            await _until_told(node, waiting)
            if service and not node.drain.ended.is_set():
                _vanish(node)
        else:
            # What comes up whole can be taken down whole: a data plane that was adopted, say.
            await asyncio.wait({starting}, timeout=START_PATIENCE_S)
    finally:
        waiting.cancel()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await node.stop()
        _deafen(loop)


async def _until_told(node: Node, waiting: asyncio.Task[Literal[True]]) -> None:
    """Until a signal, or until the node was drained."""
    drained = asyncio.ensure_future(node.drain.ended.wait())
    try:
        await asyncio.wait({waiting, drained}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        drained.cancel()


def _vanish(node: Node) -> NoReturn:
    """As after kill -9, which clients, data plane and the next supervisor are made for: an orderly
    end would tell the clients to go."""
    node.let_go()
    log.info("the data plane goes on; whoever comes next takes it over")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _quote_checks(settings: Config) -> None:
    """Says what `vcfwd tune` would do here; the node runs all the same, and did not wait."""

    def quote() -> None:
        from forwarder.host.verdicts import failing

        for sentence in failing(settings):
            log.warning(f"host not tuned: {sentence}")  # each is a message of its own

    threading.Thread(target=quote, name="tune-check", daemon=True).start()


def _deafen(loop: asyncio.AbstractEventLoop) -> None:
    """Everything is down: a signal that is repeated now must not spoil the exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    for number in STOPPING:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _announce(node: Node, *, json_: bool) -> None:
    if json_:
        print(json.dumps({"ready_ms": _age_ms(), "supervisor_rss_mb": _rss_mb()}), flush=True)
    else:
        for line in node.greeting():
            print(line, flush=True)


def _age_ms() -> int:
    """Milliseconds since this process's start (/proc/self/stat, field 22; 10 ms ticks)."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started) * 1000)


def _rss_mb() -> float:
    """Resident size of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
