"""`vcfwd top`: the node's rates as they are now."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Annotated

import typer

from forwarder.cli.admin import Admin, RunDir, errors_told

JITTER = 0.1  # of the interval, either way
CLEAR = "\x1b[H\x1b[2J"


def top(
    interval: Annotated[
        float, typer.Argument(min=0.1, max=3600.0, help="Seconds between two looks.")
    ] = 1.0,
    count: Annotated[int, typer.Argument(min=0, help="How many times; 0: until Ctrl-C.")] = 0,
    seed: Annotated[
        int | None, typer.Option(help="Of the intervals, to repeat a run; printed at the start.")
    ] = None,
    run_dir: RunDir = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON line for each look.")] = False,
) -> None:
    """Shows packets, drops, lateness and the workers' load since the last look.

    cpu% is what the worker's thread ran, of which work% found work and spin% did not; ready% is
    what it waited for a processor; /kick is departures a system call; the last column is the
    lateness that 99 % of its departures kept.  Looks come at random within 10 % of the interval,
    so that they do not keep step with what they look at.

    Example: vcfwd top 2 10
    """
    from forwarder.telemetry.top import between, lines, read

    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    chance = random.Random(seed)
    admin = Admin(run_dir)
    terminal = sys.stdout.isatty() and not json_
    shown = 0
    with errors_told("top"):
        before = read(admin.request("GET", "/v1/status"))
        if not json_ and not terminal:
            print(f"seed {seed}")
        try:
            while not count or shown < count:
                time.sleep(interval * chance.uniform(1 - JITTER, 1 + JITTER))
                now = read(admin.request("GET", "/v1/status"))
                view = between(before, now)
                before, shown = now, shown + 1
                if json_:
                    print(json.dumps({"seed": seed, **view}), flush=True)
                    continue
                text = "\n".join(lines(view))
                if terminal:
                    print(f"{CLEAR}{text}\nseed {seed}", flush=True)
                else:
                    print(f"{text}\n", flush=True)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            sys.stderr.close()  # whoever read has had enough
