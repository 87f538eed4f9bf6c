"""`vcfwd doctor`: which data path each interface can use, and what stands in the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from forwarder.dataplane.paths import Choice, InterfacePaths


def doctor(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML).", envvar="VCFWD_CONFIG")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Tells for each interface which data path it can use, and what stands in the way of each
    better one.  Attaches to nothing and changes nothing.  Exit status 1: `vcfwd up` would refuse.

    Example: vcfwd doctor --json
    """
    from forwarder import config as configuration
    from forwarder.dataplane import paths, scheduling
    from forwarder.dataplane.steering import OBJECT_DIR, Rates, Steering
    from forwarder.errors import VcfwdError
    from forwarder.host import devices
    from forwarder.host.root import Host
    from forwarder.net import qdiscs

    try:
        settings = configuration.load(config)
        network = settings.network
        # Of a node that runs here: its own program does not stand in its way.  Loads nothing.
        prober = Steering(Path(network.bpf_pin_dir), Rates(), OBJECT_DIR).probe
        examined = [paths.examine(name, prober) for name in paths.interfaces()]
    except VcfwdError as error:
        print(f"vcfwd doctor: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    fault = ""
    try:
        names = devices.carried(settings, Host()).network.interfaces
        choice = paths.choose(network.path, names, prober)
    except VcfwdError as error:  # `vcfwd up` would refuse: then the table is needed most
        choice, fault = paths.Choice("none", str(error)), str(error)
    plane = settings.dataplane
    workers = scheduling.choose(plane.scheduler, plane.priority, plane.workers, plane.cpus)
    obstacle = qdiscs.why_not_held(network.addresses)
    if json_:
        body: dict[str, Any] = {
            "interfaces": [
                {
                    "name": item.name,
                    "driver": _known(item.name),
                    "paths": [
                        {"name": p.name, "usable": p.usable, "why": p.why} for p in item.paths
                    ],
                }
                for item in examined
            ],
            "chosen": choice.path,
            "why": choice.why,
            "kernel_pacing": obstacle or "fq",
            "scheduler": workers.name,
            "scheduler_why": workers.why,
        }
        print(json.dumps(body))
    else:
        _show(examined, choice)
        print(f"workers run: {workers.name}: {workers.why}")
        print(f"departure times on the socket path: {obstacle or 'kept by fq'}")
    if fault:
        print(f"vcfwd doctor: {fault}", file=sys.stderr)
        raise typer.Exit(1)


def _known(name: str) -> str:
    """What vcfwd knows of a driver on this kernel (host/drivers.toml); empty: no hardware."""
    from forwarder.host import drivers, facts
    from forwarder.host.root import Host

    host = Host()
    nic = facts.nic(host, name)
    if nic.kind != "physical" and nic.driver not in drivers.load().table:
        return ""
    return drivers.load().quote(nic, facts.release(host))


def _show(examined: list[InterfacePaths], choice: Choice) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("interface", "path", "usable", "why")
    for item in examined:
        for i, entry in enumerate(item.paths):
            table.add_row(
                item.name if i == 0 else "", entry.name, "yes" if entry.usable else "no", entry.why
            )
    console = Console()
    console.print(table)
    for item in examined:
        told = _known(item.name)
        if told:
            console.print(told)
    console.print(f"chosen: {choice.path}: {choice.why}")
