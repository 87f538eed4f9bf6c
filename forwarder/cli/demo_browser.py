"""`vcfwd demo-browser`: browsers in a call across the node on one machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from forwarder.demo.browser.options import BrowserOptions
    from forwarder.demo.browser.show import BrowserShow
    from forwarder.demo.result import Outcome


def demo_browser(
    participants: Annotated[
        int, typer.Option(min=2, max=6, help="Each publishes, and views everybody else.")
    ] = 2,
    path: Annotated[str, typer.Option(help="Data path: xdp or udp.")] = "xdp",
    codec: Annotated[str, typer.Option(help="Of the pictures: vp8, vp9, h264 or av1.")] = "vp8",
    ipv6: Annotated[bool, typer.Option("--ipv6", help="IPv6 instead of IPv4.")] = False,
    seconds: Annotated[
        float, typer.Option(min=1.0, max=600.0, help="Of media, after the last join.")
    ] = 10.0,
    browsers: Annotated[
        str, typer.Option(help="Kinds, in the order of participants: chromium,firefox.")
    ] = "chromium",
    join: Annotated[str, typer.Option(help="How: session, or whip (WHIP, WHEP).")] = "session",
    simulcast: Annotated[
        bool, typer.Option("--simulcast", help="Participant 1 sends two layers of 640x360.")
    ] = False,
    loss: Annotated[
        str, typer.Option(help="Datagrams lost each way, seeded: 5% or 0.05 is one of twenty.")
    ] = "0",
    no_repair: Annotated[
        bool, typer.Option("--no-repair", help="The page offers neither NACK nor RTX.")
    ] = False,
    pcap: Annotated[
        Path | None, typer.Option(help="Writes the packets of both links into this file.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("demo-out"),
    json_: Annotated[
        bool, typer.Option("--json", help="The result as JSON, the last line of stdout.")
    ] = False,
) -> None:
    """Runs a call between browsers on this machine and reads back what they show.

    Browsers live in two network namespaces, the node in a third.  Each paints its id and a clock
    into its picture; the others read them from rendered frames.  The exit status is 0 only if
    every picture was its publisher's, nothing was lost and the books balance.

    Example: vcfwd demo-browser --participants 3 --json
    """
    from forwarder.demo.browser.options import BrowserOptions, share

    kinds = tuple(browsers.split(","))
    try:
        lost = share(loss)
    except ValueError as error:
        _fail(f"--loss {loss}: {error}")
    if reason := _refusal(path, codec, join, kinds, pcap) or _lacking(kinds[:participants]):
        _fail(reason)
    options = BrowserOptions(
        participants=participants,
        path=path,
        codec=codec,
        ipv6=ipv6,
        browsers=kinds[:participants],
        join=join,
        simulcast_by=1 if simulcast else 0,
        loss=lost,
        repair=not no_repair,
        seconds=seconds,
        pcap=pcap,
        out=out,
    )
    raise typer.Exit(_run(options, json_=json_))


def _refusal(
    path: str, codec: str, join: str, kinds: tuple[str, ...], pcap: Path | None
) -> str | None:
    """What is wrong with an option; None: nothing."""
    from forwarder.demo.browser.options import CODECS, JOINS, KINDS, PATHS

    for option, value, allowed in (
        ("path", path, PATHS),
        ("codec", codec, CODECS),
        ("join", join, JOINS),
    ):
        if value not in allowed:
            return f"--{option} {value}: it must be one of {', '.join(allowed)}"
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        return f"--browsers {unknown[0]}: it must be one of {', '.join(KINDS)}"
    if pcap is not None and not pcap.parent.is_dir():
        return f"--pcap {pcap}: there is no directory {pcap.parent}"
    return None


def _lacking(kinds: tuple[str, ...]) -> str | None:
    """What this machine lacks for these browsers; None: nothing."""
    from forwarder.demo.browser.driven import missing

    return missing(kinds)


def _run(options: BrowserOptions, *, json_: bool) -> int:
    import asyncio

    from forwarder.demo.browser.show import BrowserShow
    from forwarder.errors import VcfwdError

    show = BrowserShow()
    try:
        outcome = asyncio.run(_lab(options, show))
    except asyncio.CancelledError:
        show.say("interrupted; everything was cleaned up")
        return 130
    except (VcfwdError, OSError) as error:
        print(f"vcfwd demo-browser: {error}", file=sys.stderr)
        return 1
    show.table(outcome.report, outcome.faults)
    if json_:
        print(json.dumps(outcome.report), flush=True)
    return 1 if outcome.faults else 0


async def _lab(options: BrowserOptions, show: BrowserShow) -> Outcome:
    import asyncio
    import signal

    from forwarder.demo.browser.run import run_twice

    task = asyncio.ensure_future(run_twice(options, show.say))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def _fail(message: str) -> NoReturn:
    print(f"vcfwd demo-browser: {message}", file=sys.stderr)
    raise typer.Exit(2)
